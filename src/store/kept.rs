//! Kept events: the newest whole events of each schema with `keep`, durable with the samples they made.
//!
//! In: what combiners kept. Out: rows of table `recent`, and a copy in memory for readers. Owns: that copy.
//! Invariants: a reader sees an event only when it is durable; of each schema there are at most `keep` rows.
//!
//! ```text
//! recent  name 0x00 number:u64 big-endian → time:i64 flags:u8 source_len:u8 source text      flags: 1 = the text was cut
//! ```

use super::error::{Fault, corrupt};
use super::series::{Reader, cut_text, decode_whole};
use crate::delta::kept::{KEEP_MAX, KeptEvents};
use crate::event::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// A schema whose newest events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPlan {
    /// Its name.
    pub name: Arc<str>,
    /// How many.
    pub keep: u32,
}

/// One kept event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRow {
    /// The name of its schema.
    pub event: Arc<str>,
    /// Event time.
    pub time: Timestamp,
    /// The name of the source.
    pub source: Arc<str>,
    /// As it came, at most [`KEPT_EVENT_BYTES`](crate::delta::kept::KEPT_EVENT_BYTES).
    pub text: Arc<[u8]>,
    /// True when it was longer.
    pub is_cut: bool,
}

/// One schema's events, oldest first, with their numbers.
type List = VecDeque<(u64, KeptRow)>;

/// The durable ones, by schema; shared with readers.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptView(Arc<Mutex<BTreeMap<Arc<str>, List>>>);

impl KeptView {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, List>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest first, of one schema or of all.
    pub(super) fn newest(&self, event: Option<&str>, limit: usize) -> Vec<KeptRow> {
        let lists = self.lock();
        if let Some(event) = event {
            return lists.get(event).into_iter().flatten().rev().take(limit).map(|(_, row)| row.clone()).collect();
        }
        let mut all: Vec<&KeptRow> =
            lists.values().flat_map(|list| list.iter().rev().take(limit)).map(|(_, r)| r).collect();
        all.sort_by_key(|row| std::cmp::Reverse(row.time));
        all.into_iter().take(limit).cloned().collect()
    }
}

/// A row and what it replaces.
pub(super) type RowChanges = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a commit changes.
#[derive(Debug, Default)]
pub(super) struct KeptChange {
    pub(super) rows: RowChanges,
    added: Vec<(u64, KeptRow)>,
    /// Of these schemas only so many stay.
    keep: Vec<(Arc<str>, usize)>,
}

/// The writing end.
pub(super) struct Kept {
    plans: Vec<KeptPlan>,
    view: KeptView,
    waiting: Vec<(usize, KeptRow)>,
    waiting_bytes: usize,
    /// The number of the next event.
    next: u64,
    /// True when the plan changed and rows of before may have to go.
    must_trim: bool,
}

impl Kept {
    pub(super) fn new() -> Kept {
        let view = KeptView::default();
        Kept { plans: Vec::new(), view, waiting: Vec::new(), waiting_bytes: 0, next: 0, must_trim: false }
    }

    /// Readers have this end already: what was loaded moves there.
    pub(super) fn share(&mut self, view: &KeptView) {
        *view.lock() = std::mem::take(&mut *self.view.lock());
        self.view = view.clone();
    }

    /// Says which schemas there are. A name that had an index must keep it; what is kept no more goes.
    pub(super) fn plan(&mut self, plans: Vec<KeptPlan>) {
        self.plans = plans;
        self.must_trim = true;
    }

    /// Recovery: a row of table `recent`, in the order of keys.
    pub(super) fn load(&mut self, key: &[u8], content: &[u8]) -> Result<(), Fault> {
        let (number, row) = decode(key, content).ok_or_else(|| corrupt("a row of table recent"))?;
        self.next = self.next.max(number + 1);
        self.view.lock().entry(Arc::clone(&row.event)).or_default().push_back((number, row));
        Ok(())
    }

    /// Takes what a drained combiner kept.
    pub(super) fn take(&mut self, events: KeptEvents, source: impl Fn(u16) -> Arc<str>) {
        for (at, event) in events.into_events() {
            let at = usize::from(at.0);
            let Some(plan) = self.plans.get(at) else { continue };
            self.waiting_bytes += event.bytes.len() + 64;
            let row = KeptRow {
                event: Arc::clone(&plan.name),
                time: event.time,
                source: source(event.source.0),
                text: event.bytes.into(),
                is_cut: event.is_cut,
            };
            self.waiting.push((at, row));
        }
        self.trim_waiting();
    }

    /// Of what waits only the newest of each schema can stay, however long the disk does not work.
    fn trim_waiting(&mut self) {
        let mut counts: Vec<usize> = vec![0; self.plans.len()];
        self.waiting.iter().for_each(|(at, _)| counts[*at] += 1);
        if counts.iter().zip(&self.plans).all(|(count, plan)| *count <= limit(plan)) {
            return;
        }
        self.waiting.sort_by_key(|(_, row)| row.time);
        let plans = &self.plans;
        self.waiting.retain(|(at, _)| {
            counts[*at] -= 1;
            counts[*at] < limit(&plans[*at])
        });
        self.waiting_bytes = self.waiting.iter().map(|(_, row)| row.text.len() + 64).sum();
    }

    /// Bytes that wait for a commit.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// True when the next commit has nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.must_trim
    }

    /// Moves what waits into a change, oldest first; [`landed`](Self::landed) takes it back when it is durable.
    pub(super) fn change(&mut self) -> KeptChange {
        let mut change = KeptChange::default();
        let mut waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        waiting.sort_by_key(|(_, row)| row.time);
        let mut touched: Vec<bool> = vec![self.must_trim; self.plans.len()];
        for (at, row) in waiting {
            touched[at] = true;
            change.rows.insert(key(&row.event, self.next), Some(encode(&row)));
            change.added.push((self.next, row));
            self.next += 1;
        }
        for (plan, _) in self.plans.iter().zip(touched).filter(|(_, is_touched)| *is_touched) {
            change.keep.push((Arc::clone(&plan.name), limit(plan)));
        }
        let lists = self.view.lock();
        if self.must_trim {
            let is_planned = |name: &Arc<str>| self.plans.iter().any(|plan| plan.name == *name);
            change.keep.extend(lists.keys().filter(|name| !is_planned(name)).map(|name| (Arc::clone(name), 0)));
            self.must_trim = false;
        }
        for (name, keep) in &change.keep {
            let held = lists.get(name).into_iter().flatten();
            let added = change.added.iter().filter(|(_, row)| row.event == *name);
            let numbers: Vec<u64> = held.chain(added).map(|(number, _)| *number).collect();
            for number in &numbers[..numbers.len().saturating_sub(*keep)] {
                change.rows.insert(key(name, *number), None);
            }
        }
        change
    }

    /// A change is durable: readers see it.
    pub(super) fn landed(&self, change: KeptChange) {
        let mut lists = self.view.lock();
        for (number, row) in change.added {
            lists.entry(Arc::clone(&row.event)).or_default().push_back((number, row));
        }
        for (name, keep) in change.keep {
            let Some(list) = lists.get_mut(&name) else { continue };
            list.drain(..list.len().saturating_sub(keep));
            if list.is_empty() {
                lists.remove(&name);
            }
        }
    }
}

fn limit(plan: &KeptPlan) -> usize {
    plan.keep.min(KEEP_MAX) as usize
}

fn key(name: &str, number: u64) -> Vec<u8> {
    [name.as_bytes(), &[0], &number.to_be_bytes()].concat()
}

fn encode(row: &KeptRow) -> Vec<u8> {
    let source = cut_text(&row.source, 255);
    let mut out = Vec::with_capacity(10 + source.len() + row.text.len());
    out.extend_from_slice(&row.time.0.to_le_bytes());
    out.extend_from_slice(&[u8::from(row.is_cut), source.len() as u8]);
    out.extend_from_slice(source.as_bytes());
    out.extend_from_slice(&row.text);
    out
}

fn decode(key: &[u8], content: &[u8]) -> Option<(u64, KeptRow)> {
    let (name, number) = key.split_last_chunk()?;
    let (zero, name) = name.split_last()?;
    let event: Arc<str> = std::str::from_utf8(name).ok().filter(|_| *zero == 0)?.into();
    let head = content.get(..10)?;
    let read = |reader: &mut Reader<'_>| Some((reader.i64()?, reader.u8()?, reader.u8()?));
    let (time, flags, len) = decode_whole(head, read)?;
    let (source, text) = content[10..].split_at_checked(usize::from(len))?;
    let source = std::str::from_utf8(source).ok()?.into();
    let row = KeptRow { event, time: Timestamp(time), source, text: text.into(), is_cut: flags & 1 == 1 };
    Some((u64::from_be_bytes(*number), row))
}
