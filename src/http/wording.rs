//! What the front door says of lines, listeners, notices and overflows.
//!
//! In: what the pipeline knows. Out: words and fields of answers. Pure.

use super::{Accepted, LineOutcome, NoticeFields};
use crate::delta::Limit;
use crate::pipeline::{ListenerState, Overflow};
use crate::shard;

/// Lines that are taken, and of which nobody said in time what they became.
pub(super) fn unheard(lines: &[u8]) -> Vec<LineOutcome> {
    let lines = lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let outcome = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        LineOutcome::Accepted(Accepted { line, committed: Some(false), ..Accepted::default() })
    };
    lines.map(outcome).collect()
}

/// Who is to blame for a metric's overflow: its own widest label, or the metric that took all there is.
pub(super) fn culprit(overflow: &Overflow) -> String {
    let superlative = match overflow.limit {
        Limit::Series => "most values",
        Limit::KeyBytes => "longest values",
    };
    let blamed = |label: &str| match label {
        "" => String::new(),
        label => format!("label {label} has the {superlative}"),
    };
    let aside = |label: &str| if label.is_empty() { String::new() } else { format!(", {}", blamed(label)) };
    match (&overflow.greediest, overflow.limit) {
        (Some((metric, series, label)), Limit::Series) => {
            format!("; limits.series is used up: {metric} has {series} series{}", aside(label))
        }
        (Some((metric, bytes, label)), Limit::KeyBytes) => {
            let kib = bytes.div_ceil(1024);
            format!(
                "; the bytes of labels that limits.series allows are used up: {metric} has {kib} KiB{}",
                aside(label)
            )
        }
        (None, Limit::Series) if overflow.label.is_empty() => String::new(),
        (None, Limit::Series) => format!("; {}", blamed(&overflow.label)),
        (None, Limit::KeyBytes) => {
            format!("; its labels take more bytes than its series may{}", aside(&overflow.label))
        }
    }
}

/// What to paste, or which clients speak it.
pub(super) fn client_hint(listener: &ListenerState) -> String {
    match listener.kind {
        "unixstream" if listener.skipped.is_none() => "PyPI statsd, lines of text".into(),
        "unixgram" | "udp" if listener.skipped.is_none() => format!("export {}", listener.client),
        _ => listener.client.clone(),
    }
}

/// What a notice has beside what every kept input has.
pub(super) fn fields_of(notice: &shard::Notice) -> NoticeFields {
    let common = NoticeFields {
        name: notice.name.clone(),
        host: notice.host.clone(),
        tags: notice.tags.clone(),
        ..Default::default()
    };
    match &notice.body {
        shard::NoticeBody::Event { aggregation_key, source_type, priority, alert } => NoticeFields {
            kind: "event",
            alert_type: alert.as_str(),
            priority: priority.as_str(),
            aggregation_key: aggregation_key.clone(),
            source_type: source_type.clone(),
            ..common
        },
        shard::NoticeBody::Check { status } => {
            NoticeFields { kind: "service_check", status: status.as_str(), ..common }
        }
    }
}
