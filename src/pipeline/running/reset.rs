//! Resets: series that begin at 0 with a new creation time (R3).
//!
//! In: names, labels, selectors. Out: how many series were reset, once that is durable. Owns nothing. Invariants: every call
//! that returned before the reset is in what was, every one after it in what is; history is untouched; the metrics of
//! hydrograph itself are never reset, because its laws are told with them.

use super::*;
use crate::event::SeriesId;
use crate::rule::is_reserved_name;

/// Why nothing was reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// The store does not commit now. It may still happen when it does.
    #[error("the store does not commit now")]
    NotCommitted,
    /// Nothing of this name and these labels is there.
    #[error("no such series")]
    Unknown,
    /// Only metrics of hydrograph itself were meant.
    #[error("hydrograph's own metrics tell its laws and are not reset")]
    Own,
    /// This text means no series; the words say why.
    #[error("{0}")]
    Selector(String),
}

impl From<ReadError> for ResetError {
    fn from(error: ReadError) -> ResetError {
        match error {
            ReadError::NotCommitted => ResetError::NotCommitted,
            ReadError::Unknown | ReadError::OtherType | ReadError::NoRoom => ResetError::Unknown,
        }
    }
}

/// What a call means.
enum Meant<'a> {
    All,
    Series { name: &'a str, labels: &'a [(&'a str, &'a str)] },
    Matching(&'a [&'a str]),
}

type Series = Vec<(Kind, SeriesId)>;

impl Pipeline {
    /// Resets the series of a metric that have these labels, others beside them or not: without labels all of the
    /// metric. A counter, and count, sum, min, max and buckets of a distribution, begin at 0; a gauge is set to 0; all have
    /// a new creation time. What covers a window (quantiles, the members of a set) is history, and slides on. Returns how
    /// many, after the commit: survives whatever comes then.
    ///
    /// # Errors
    /// [`ResetError`].
    pub fn reset(&self, name: &str, labels: &[(&str, &str)]) -> Result<usize, ResetError> {
        self.reset_now(&Meant::Series { name, labels })
    }

    /// As [`reset`](Self::reset), without blocking the runtime.
    ///
    /// # Errors
    /// [`ResetError`].
    pub async fn reset_async(&self, name: &str, labels: &[(&str, &str)]) -> Result<usize, ResetError> {
        self.reset_soon(&Meant::Series { name, labels }).await
    }

    /// Resets every series but those of hydrograph itself, as [`reset`](Self::reset) does. None at all is no error.
    ///
    /// # Errors
    /// [`ResetError::NotCommitted`].
    pub fn reset_all(&self) -> Result<usize, ResetError> {
        self.reset_now(&Meant::All)
    }

    /// As [`reset_all`](Self::reset_all), without blocking the runtime.
    ///
    /// # Errors
    /// [`ResetError::NotCommitted`].
    pub async fn reset_all_async(&self) -> Result<usize, ResetError> {
        self.reset_soon(&Meant::All).await
    }

    /// Resets the series that any of these PromQL selectors means (`orders_total{region=~"eu|us"}`), as
    /// [`reset`](Self::reset) does.
    ///
    /// # Errors
    /// [`ResetError`].
    pub fn reset_matching(&self, selectors: &[&str]) -> Result<usize, ResetError> {
        self.reset_now(&Meant::Matching(selectors))
    }

    /// As [`reset_matching`](Self::reset_matching), without blocking the runtime.
    ///
    /// # Errors
    /// [`ResetError`].
    pub async fn reset_matching_async(&self, selectors: &[&str]) -> Result<usize, ResetError> {
        self.reset_soon(&Meant::Matching(selectors)).await
    }

    fn reset_now(&self, meant: &Meant<'_>) -> Result<usize, ResetError> {
        // What returned before this call belongs to the old life, and a series that is new has its id then.
        self.flush()?;
        let series = self.meant(meant)?;
        let count = series.len();
        let (reply, answer) = mpsc::sync_channel(1);
        self.graph.store.reset(
            series,
            Box::new(move |commit| {
                // The waiting side may have given up.
                let _ = reply.send(commit);
            }),
        );
        match answer.recv_timeout(FLUSH_WAIT) {
            Ok(Some(commit)) => Ok(self.said(count, commit)),
            _ => Err(ResetError::NotCommitted),
        }
    }

    async fn reset_soon(&self, meant: &Meant<'_>) -> Result<usize, ResetError> {
        self.flush_async().await?;
        let series = self.meant(meant)?;
        let count = series.len();
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.graph.store.reset(
            series,
            Box::new(move |commit| {
                // The waiting side may have given up.
                let _ = reply.send(commit);
            }),
        );
        let commit = answer.await.ok().flatten().ok_or(ResetError::NotCommitted)?;
        Ok(self.said(count, commit))
    }

    fn said(&self, series: usize, commit: CommitId) -> usize {
        tracing::info!(series, commit = commit.0, "reset");
        series
    }

    fn meant(&self, meant: &Meant<'_>) -> Result<Series, ResetError> {
        let view = &self.graph.view;
        let mut series = Vec::new();
        let mut has_own = false;
        let mut add = |metric: &Metric, found: &mut dyn Iterator<Item = SeriesId>| match is_reserved_name(&metric.name)
        {
            true => has_own = true,
            false => series.extend(found.map(|id| (metric.kind, id))),
        };
        match meant {
            Meant::All => {
                for metric in view.metrics() {
                    add(&metric, &mut view.series(&metric).iter().map(|(id, _)| *id));
                }
                return Ok(series);
            }
            Meant::Series { name, labels } => {
                let metric = view.metric(name).ok_or(ResetError::Unknown)?;
                let (family, _) = view.series_since(&metric, u64::MAX, 0);
                let mut is_meant = Vec::with_capacity(family.series.len());
                view.labels(metric.kind, &family.series, |found| {
                    is_meant.push(labels.iter().all(|(key, value)| found.get(key).unwrap_or("") == *value));
                });
                let found = family.series.iter().zip(is_meant).filter(|(_, is_meant)| *is_meant);
                add(&metric, &mut found.map(|((id, _), _)| *id));
            }
            Meant::Matching(selectors) => {
                for selector in *selectors {
                    let found = self.graph.worlds.matching(selector).map_err(ResetError::Selector)?;
                    for (metric, ids) in found {
                        add(&metric, &mut ids.into_iter());
                    }
                }
            }
        }
        series.sort_unstable_by_key(|(_, id)| *id);
        series.dedup();
        match (series.is_empty(), has_own) {
            (true, true) => Err(ResetError::Own),
            (true, false) => Err(ResetError::Unknown),
            (false, _) => Ok(series),
        }
    }
}
