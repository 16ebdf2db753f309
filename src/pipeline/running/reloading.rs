//! Another plan takes over a running pipeline.
//!
//! In: plans, or the files that it was started from. Out: what changed, or why nothing did. Owns nothing: the order of the
//! parts stands in [`super::super::reload`].

use super::*;

impl Pipeline {
    /// Takes another plan over while everything runs on: sockets stay open, handles keep their series, no sample is lost
    /// or counted twice. What is the same in both plans is not touched.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self, plan: Plan) -> Result<ReloadReport, ReloadError> {
        self.reload_accepting(plan, &[])
    }

    /// As [`reload`](Self::reload). Of the metrics in `accept` scale and unit may be others than before: the series that
    /// they had are retired, which means that they stay in the file and are not shown any more (R2).
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload_accepting(&self, plan: Plan, accept: &[String]) -> Result<ReloadReport, ReloadError> {
        self.graph.reload(plan, accept, &self.scrape)
    }

    /// As [`reload`](Self::reload), without blocking the runtime.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn reload_async(&self, plan: Plan) -> Result<ReloadReport, ReloadError> {
        let pipeline = self.clone();
        off_runtime("reload", move || pipeline.reload(plan)).await.unwrap_or(Err(ReloadError::Stopped))
    }

    /// Reads the files again that it was started from, and takes them over.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload_files(&self) -> Result<ReloadReport, ReloadError> {
        self.reload_files_accepting(&[])
    }

    /// As [`reload_files`](Self::reload_files) and [`reload_accepting`](Self::reload_accepting).
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload_files_accepting(&self, accept: &[String]) -> Result<ReloadReport, ReloadError> {
        let load = self.graph.loader.get().ok_or(ReloadError::NoFiles)?;
        self.reload_accepting(load().map_err(ReloadError::Configuration)?, accept)
    }

    /// Says how [`reload_files`](Self::reload_files) comes to a plan; the first call counts.
    pub fn reload_from(&self, loader: Loader) {
        // Whoever comes second meets a loader that is as good.
        let _ = self.graph.loader.set(loader);
    }

    /// Something beside the pipeline follows its plan through every reload; the first call counts.
    pub fn follow_with(&self, follower: Arc<dyn Follower>) {
        // Whoever comes second is not followed.
        let _ = self.graph.follower.set(follower);
    }
}
