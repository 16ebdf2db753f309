//! DogStatsD events and service checks.
//!
//! In: one line that begins with `_e{` or `_sc|`. Out: [`EventItem`] and [`ServiceCheck`]: what must be there, with the
//! optional fields behind `details()`, so that a parsed line stays small. Invariant: a bad optional field
//! is counted, it does not refuse the item, as in the Datadog Agent.

use super::RejectReason;
use super::general::{Fields, is_origin, read_seconds};

/// `_e{<title bytes>,<text bytes>}:title|text|fields`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventItem<'a> {
    /// Not empty. As sent: a newline stands in it as the two characters `\n`.
    pub title: &'a [u8],
    /// As sent, escaped like the title; may be empty.
    pub text: &'a [u8],
    fields: Option<&'a [u8]>,
}

/// The optional fields of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EventDetails<'a> {
    /// `d:` seconds since the epoch, above zero.
    pub time: Option<i64>,
    /// `h:`; empty if none.
    pub host: &'a [u8],
    /// `k:`; empty if none.
    pub aggregation_key: &'a [u8],
    /// `p:`
    pub priority: Priority,
    /// `s:`; empty if none.
    pub source_type: &'a [u8],
    /// `t:`
    pub alert: AlertType,
    /// What stood after `#`; empty if nothing did.
    pub tags: &'a [u8],
    /// How many fields were ignored because they are unknown or unreadable.
    pub unknown_fields: u8,
}

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// `normal`, also when nothing was said.
    #[default]
    Normal,
    /// `low`
    Low,
}

impl Priority {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AlertType {
    /// `info`, also when nothing was said.
    #[default]
    Info,
    /// `success`
    Success,
    /// `warning`
    Warning,
    /// `error`
    Error,
}

impl AlertType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertType::Info => "info",
            AlertType::Success => "success",
            AlertType::Warning => "warning",
            AlertType::Error => "error",
        }
    }
}

/// `_sc|name|status|fields`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceCheck<'a> {
    /// Not empty.
    pub name: &'a [u8],
    /// What the check found.
    pub status: CheckStatus,
    fields: Option<&'a [u8]>,
}

/// The optional fields of a service check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CheckDetails<'a> {
    /// `d:` seconds since the epoch, above zero.
    pub time: Option<i64>,
    /// `h:`; empty if none.
    pub host: &'a [u8],
    /// What stood after `#`; empty if nothing did.
    pub tags: &'a [u8],
    /// `m:`, as sent: a newline stands in it as the two characters `\n`; empty if none.
    pub message: &'a [u8],
    /// How many fields were ignored because they are unknown or unreadable.
    pub unknown_fields: u8,
}

/// The four states of a check; the code is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CheckStatus {
    /// 0
    Ok = 0,
    /// 1
    Warning = 1,
    /// 2
    Critical = 2,
    /// 3
    Unknown = 3,
}

impl CheckStatus {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckStatus::Ok => "ok",
            CheckStatus::Warning => "warning",
            CheckStatus::Critical => "critical",
            CheckStatus::Unknown => "unknown",
        }
    }
}

impl<'a> EventItem<'a> {
    /// Reads the optional fields.
    pub fn details(&self) -> EventDetails<'a> {
        let mut details = EventDetails::default();
        for field in Fields(self.fields) {
            match field {
                [b'h', b':', host @ ..] => details.host = host,
                [b'k', b':', key @ ..] => details.aggregation_key = key,
                [b's', b':', source @ ..] => details.source_type = source,
                [b'#', tags @ ..] => details.tags = tags,
                b"p:normal" => details.priority = Priority::Normal,
                b"p:low" => details.priority = Priority::Low,
                b"t:info" => details.alert = AlertType::Info,
                b"t:success" => details.alert = AlertType::Success,
                b"t:warning" => details.alert = AlertType::Warning,
                b"t:error" => details.alert = AlertType::Error,
                [b'd', b':', seconds @ ..] if read_seconds(seconds).is_some() => details.time = read_seconds(seconds),
                _ if is_origin(field) => {}
                _ => details.unknown_fields = details.unknown_fields.saturating_add(1),
            }
        }
        details
    }
}

impl<'a> ServiceCheck<'a> {
    /// Reads the optional fields.
    pub fn details(&self) -> CheckDetails<'a> {
        let mut details = CheckDetails::default();
        for field in Fields(self.fields) {
            match field {
                [b'h', b':', host @ ..] => details.host = host,
                [b'm', b':', message @ ..] => details.message = message,
                [b'#', tags @ ..] => details.tags = tags,
                [b'd', b':', seconds @ ..] if read_seconds(seconds).is_some() => details.time = read_seconds(seconds),
                _ if is_origin(field) => {}
                _ => details.unknown_fields = details.unknown_fields.saturating_add(1),
            }
        }
        details
    }
}

/// Reads `_e{..}`; the lengths are bytes and count what was sent, `\n` as two.
pub(super) fn event(line: &[u8]) -> Result<EventItem<'_>, RejectReason> {
    read_event(line).ok_or(RejectReason::BadEvent)
}

fn read_event(line: &[u8]) -> Option<EventItem<'_>> {
    let rest = line.strip_prefix(b"_e{")?;
    let close = memchr::memchr(b'}', rest)?;
    let (lengths, rest) = (&rest[..close], rest[close + 1..].strip_prefix(b":")?);
    let comma = memchr::memchr(b',', lengths)?;
    let (title_bytes, text_bytes) = (length(&lengths[..comma])?, length(&lengths[comma + 1..])?);
    let (title, rest) = rest.split_at_checked(title_bytes)?;
    let (text, rest) = rest.strip_prefix(b"|")?.split_at_checked(text_bytes)?;
    let fields = if rest.is_empty() { None } else { Some(rest.strip_prefix(b"|")?) };
    (!title.is_empty()).then_some(EventItem { title, text, fields })
}

/// A byte count: digits only.
fn length(text: &[u8]) -> Option<usize> {
    match text {
        b"0" => Some(0),
        _ => usize::try_from(read_seconds(text)?).ok(),
    }
}

/// Reads `_sc|name|status`.
pub(super) fn check(line: &[u8]) -> Result<ServiceCheck<'_>, RejectReason> {
    read_check(line).ok_or(RejectReason::BadEvent)
}

fn read_check(line: &[u8]) -> Option<ServiceCheck<'_>> {
    let mut fields = Fields(Some(line.strip_prefix(b"_sc|")?));
    let name = fields.next().filter(|name| !name.is_empty())?;
    let status = match fields.next()? {
        b"0" => CheckStatus::Ok,
        b"1" => CheckStatus::Warning,
        b"2" => CheckStatus::Critical,
        b"3" => CheckStatus::Unknown,
        _ => return None,
    };
    Some(ServiceCheck { name, status, fields: fields.0 })
}
