//! What came lately that is no sample: DogStatsD events and service checks, whole.
//!
//! In: parsed notices, at most so many a second from each shard. Out: newest first. Owns: the newest of each kind, in
//! memory only. Invariant: bounded in count and bytes; counting is not done here (tallies count every notice).

use crate::codec::dogstatsd::{AlertType, CheckStatus, EventItem, Priority, ServiceCheck};
use crate::event::{SourceIndex, Timestamp};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Kept of each kind: a screen of a person, twice over.
const KEPT_MAX: usize = 200;
/// Bytes kept of the text of an event, the message of a check, and all tags: half of the longest datagram.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes kept of any other field.
const FIELD_BYTES_MAX: usize = 512;
/// Kept a second from one shard: five times what is shown, and 1 ms of work.
pub(super) const PER_SECOND_MAX: u32 = 1000;

/// One event or service check; a newline that was sent as `\n` is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When it was read.
    pub arrival: Timestamp,
    /// The sender's own time, if it said one.
    pub time: Option<Timestamp>,
    /// From which source.
    pub source: SourceIndex,
    /// The title of an event, the name of a check.
    pub name: String,
    /// The text of an event, the message of a check; may be empty.
    pub text: String,
    /// May be empty.
    pub host: String,
    /// As sent, `key:value` or bare.
    pub tags: Vec<String>,
    /// What only one kind has.
    pub body: NoticeBody,
}

/// What only one kind of notice has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeBody {
    /// `_e{..}`
    Event {
        /// Events of one key belong together; may be empty.
        aggregation_key: String,
        /// What sent it; may be empty.
        source_type: String,
        /// How loud it is.
        priority: Priority,
        /// What it is about.
        alert: AlertType,
    },
    /// `_sc|..`
    Check {
        /// What the check found.
        status: CheckStatus,
    },
}

/// The newest notices of all shards.
#[derive(Default)]
pub struct RecentNotices {
    events: Mutex<VecDeque<Notice>>,
    checks: Mutex<VecDeque<Notice>>,
}

impl RecentNotices {
    /// The newest events first.
    pub fn events(&self) -> Vec<Notice> {
        newest(&self.events)
    }

    /// The newest service checks first.
    pub fn checks(&self) -> Vec<Notice> {
        newest(&self.checks)
    }

    pub(super) fn push_event(&self, arrival: Timestamp, source: SourceIndex, event: &EventItem<'_>) {
        let details = event.details();
        let body = NoticeBody::Event {
            aggregation_key: text_of(details.aggregation_key, FIELD_BYTES_MAX),
            source_type: text_of(details.source_type, FIELD_BYTES_MAX),
            priority: details.priority,
            alert: details.alert,
        };
        push(
            &self.events,
            Notice {
                arrival,
                time: details.time.map(Timestamp::from_seconds),
                source,
                name: text_of(event.title, FIELD_BYTES_MAX),
                text: text_of(event.text, TEXT_BYTES_MAX),
                host: text_of(details.host, FIELD_BYTES_MAX),
                tags: tags_of(details.tags),
                body,
            },
        );
    }

    pub(super) fn push_check(&self, arrival: Timestamp, source: SourceIndex, check: &ServiceCheck<'_>) {
        let details = check.details();
        push(
            &self.checks,
            Notice {
                arrival,
                time: details.time.map(Timestamp::from_seconds),
                source,
                name: text_of(check.name, FIELD_BYTES_MAX),
                text: text_of(details.message, TEXT_BYTES_MAX),
                host: text_of(details.host, FIELD_BYTES_MAX),
                tags: tags_of(details.tags),
                body: NoticeBody::Check { status: check.status },
            },
        );
    }
}

fn newest(kept: &Mutex<VecDeque<Notice>>) -> Vec<Notice> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

fn push(kept: &Mutex<VecDeque<Notice>>, notice: Notice) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT_MAX {
        kept.pop_front();
    }
    kept.push_back(notice);
}

/// Lossy UTF-8, cut.
fn text_of(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).replace("\\n", "\n")
}

fn tags_of(tags: &[u8]) -> Vec<String> {
    let tags = &tags[..tags.len().min(TEXT_BYTES_MAX)];
    let some = |tag: &&[u8]| !tag.is_empty();
    tags.split(|byte| *byte == b',').filter(some).map(|tag| String::from_utf8_lossy(tag).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dogstatsd::{Parsed, parse};

    fn push_line(recent: &RecentNotices, line: &[u8]) {
        match parse(line).expect("valid") {
            Parsed::Event(event) => recent.push_event(Timestamp(5), SourceIndex(1), &event),
            Parsed::Check(check) => recent.push_check(Timestamp(5), SourceIndex(1), &check),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn notices_keep_all_their_fields() {
        let recent = RecentNotices::default();
        push_line(
            &recent,
            b"_e{6,10}:deploy|of\\nit all|d:1700000000|h:web1|k:rollout|p:low|s:ci|t:error|#env:prod,now",
        );
        push_line(&recent, b"_sc|db.up|2|d:1700000001|h:db1|#role:primary|m:no answer");
        let event = Notice {
            arrival: Timestamp(5),
            time: Some(Timestamp::from_seconds(1_700_000_000)),
            source: SourceIndex(1),
            name: "deploy".into(),
            text: "of\nit all".into(),
            host: "web1".into(),
            tags: vec!["env:prod".into(), "now".into()],
            body: NoticeBody::Event {
                aggregation_key: "rollout".into(),
                source_type: "ci".into(),
                priority: Priority::Low,
                alert: AlertType::Error,
            },
        };
        assert_eq!(recent.events(), [event]);
        let check = &recent.checks()[0];
        assert_eq!((check.name.as_str(), check.text.as_str(), check.host.as_str()), ("db.up", "no answer", "db1"));
        assert_eq!(check.body, NoticeBody::Check { status: CheckStatus::Critical });
        assert_eq!(check.tags, ["role:primary"]);
    }

    #[test]
    fn the_newest_of_each_kind_stay() {
        let recent = RecentNotices::default();
        push_line(&recent, b"_e{3,0}:old|");
        for n in 0..2 * KEPT_MAX {
            push_line(&recent, format!("_sc|check{n}|0|m:{}", "x".repeat(5000)).as_bytes());
        }
        let checks = recent.checks();
        assert_eq!((checks.len(), checks[0].name.as_str()), (KEPT_MAX, "check399"));
        assert_eq!(checks[0].text.len(), TEXT_BYTES_MAX);
        assert_eq!(recent.events().len(), 1, "a flood of checks does not push events out");
    }
}
