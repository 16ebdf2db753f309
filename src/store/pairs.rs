//! Pairs of events, joined inside the commit (V8): who is open, what waits, and what that makes of their metrics.
//!
//! In: the operations that combiners carried, and the time. Out: changed rows of table `pairs` and plain parts, both
//! for the same transaction. Owns: a copy of the table in memory. Invariants: operations are applied once, when a
//! commit is prepared, and never again when it is tried again (C4); the copy is ahead of the file by exactly
//! the commit under way; opened = closed + expired + restarted + open, in what is durable.
//!
//! The rules, by event time, so that neither the order in which shards are drained nor an overtaking matters:
//!
//! - A start pairs with the earliest waiting end that is not before it. Else it opens its key. Events without a time
//!   have that of their arrival: an end that arrived first is then the end of an earlier round of its key, not of
//!   this one, or work done back to back under one key would be joined end to start for ever.
//! - A later start of an open key *restarts* it: the newer one counts, with its labels. An earlier or equal one
//!   is a duplicate and changes nothing.
//! - An end closes its key if that was opened not after it. Else it waits for `lateness`, then it is *unmatched*.
//! - A pair that took longer than its timeout is expired, also when the end comes before that was noticed.
//! - A key expires once every clock has passed start + timeout (T2), and it was known for `lateness` or the
//!   timeout, whichever is less: what a source replays from far behind is not expired before its end is read.

mod effects;
mod rows;
mod sets;

use self::effects::Effects;
use self::rows::RowChange;
use self::sets::{SetIndex, Sets};
use super::error::{Fault, corrupt};
use super::fold::Fold;
use crate::delta::pair::{PairOps, PairRole};
use crate::delta::{Edge, EncodedPart, IdMap, SeriesTable, SourceTally};
use crate::event::{DropReason, Kind, SeriesId, SliceWidth, Slot, SourceIndex, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Open pairs unless the plan says otherwise: 70 MiB at most, with their rows on the way into a commit.
pub const PAIRS_MAX: usize = 100_000;
/// Keys that one commit may expire: a hundred thousand that end at once must not delay a tick by a second.
const EXPIRE_STEP: usize = 10_000;
/// Bytes that an operation counts for in what waits (C4).
const OP_BYTES: usize = 96;

/// Ends that may wait for their start where so many pairs may be open: a share of their own, so that ends without a start
/// never keep a start out. They wait for `lateness` only.
pub fn waiting_ends_max(pairs_max: usize) -> usize {
    pairs_max.div_ceil(4)
}

/// A pair as the pipeline file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairPlan {
    /// Its name, which open keys are stored under.
    pub name: Arc<str>,
    /// Nanoseconds after its start at which a key expires.
    pub timeout: i64,
}

/// What became of starts and ends: label `outcome` of `hydrograph_pairs_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Outcome {
    Opened,
    Closed,
    Expired,
    Restarted,
    Duplicate,
    Unmatched,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Outcome::Opened => "opened",
            Outcome::Closed => "closed",
            Outcome::Expired => "expired",
            Outcome::Restarted => "restarted",
            Outcome::Duplicate => "duplicate",
            Outcome::Unmatched => "unmatched",
        }
    }
}

/// A pair that is declared, or was when something of it was stored.
struct Known {
    name: Arc<str>,
    hash: u64,
    /// 0 when it is declared no more: what is left of it expires.
    timeout: i64,
}

/// An open key.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: i64,
    /// Wall clock when it became known.
    seen: i64,
    set: SetIndex,
    pair: u16,
}

/// An end that waits for its start.
#[derive(Clone, Copy, Debug)]
struct Early {
    seen: i64,
    pair: u16,
}

/// An operation that waits for the next commit.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    time: i64,
    /// After starts of the same time.
    is_end: bool,
    key: u128,
    set: SetIndex,
    seen: i64,
    pair: u16,
    source: SourceIndex,
}

/// When something is to be looked at: (deadline, key, time of a waiting end or `i64::MIN`).
type Due = Reverse<(i64, u128, i64)>;

type KeyMap<V> = HashMap<u128, V, foldhash::fast::FixedState>;

/// See the file's head.
pub(super) struct Pairs {
    known: Vec<Known>,
    /// Place in `known` by [`PairIndex`](crate::delta::pair::PairIndex).
    by_index: Vec<u16>,
    max: usize,
    lateness: i64,
    open: KeyMap<Open>,
    early: BTreeMap<(u128, i64), Early>,
    due: BinaryHeap<Due>,
    sets: Sets,
    waiting: Vec<Waiting>,
    /// Rows that the next commit writes.
    rows: BTreeMap<rows::RowKey, RowChange>,
    effects: Effects,
    outcomes: BTreeMap<(u16, Outcome), u64>,
}

impl Pairs {
    pub(super) fn new(lateness: i64) -> Pairs {
        Pairs {
            known: Vec::new(),
            by_index: Vec::new(),
            max: PAIRS_MAX,
            lateness,
            open: KeyMap::default(),
            early: BTreeMap::new(),
            due: BinaryHeap::new(),
            sets: Sets::default(),
            waiting: Vec::new(),
            rows: BTreeMap::new(),
            effects: Effects::default(),
            outcomes: BTreeMap::new(),
        }
    }

    /// Says which pairs there are. A name that had an index must keep it; what is declared no more expires.
    pub(super) fn plan(&mut self, plans: &[PairPlan], max: usize) {
        self.max = max;
        self.known.iter_mut().for_each(|known| known.timeout = 0);
        self.by_index.clear();
        for plan in plans {
            let at = self.known(&plan.name);
            self.known[usize::from(at)].timeout = plan.timeout.max(0);
            self.by_index.push(at);
        }
        self.rebuild_due();
    }

    /// How long an end waits for its start from here on.
    pub(super) fn set_lateness(&mut self, lateness: i64) {
        if lateness != self.lateness {
            self.lateness = lateness;
            self.rebuild_due();
        }
    }

    fn known(&mut self, name: &str) -> u16 {
        let at = self.known.iter().position(|known| &*known.name == name).unwrap_or_else(|| {
            self.known.push(Known { name: name.into(), hash: xxh3_64(name.as_bytes()), timeout: 0 });
            self.known.len() - 1
        });
        u16::try_from(at).expect("a pipeline has fewer than 65,536 pairs")
    }

    /// Recovery: a row of table `pairs`.
    pub(super) fn load(&mut self, key: &[u8], content: &[u8]) -> Result<(), Fault> {
        let (key, end) = rows::key_of(key).ok_or_else(|| corrupt("a key of table pairs"))?;
        let row = rows::decode(content).ok_or_else(|| corrupt("a row of table pairs"))?;
        let pair = self.known(&row.name);
        match end {
            Some(end) => drop(self.early.insert((key, end), Early { seen: row.seen, pair })),
            None => {
                let set = self.sets.stored(&row.feeds);
                self.sets.acquire(set);
                self.effects.count_open(&self.sets, set, 1);
                self.open.insert(key, Open { start: row.start, seen: row.seen, set, pair });
            }
        }
        Ok(())
    }

    /// Series that stored pairs feed.
    pub(super) fn series(&self) -> Vec<SeriesId> {
        self.sets.series()
    }

    /// Recovery: these series are in memory, and stay there while a pair feeds them.
    pub(super) fn bind(&mut self, live: &HashMap<SeriesId, Slot>, table: &SeriesTable) {
        self.sets.bind(live, table);
        // Nothing has changed: the gauges' stored values are what they were.
        self.effects.settle(&self.sets);
    }

    /// Keys that are open.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Ends that wait for their start.
    pub(super) fn early_count(&self) -> usize {
        self.early.len()
    }

    /// When something may expire.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((deadline, _, _))| Timestamp(*deadline))
    }

    /// Bytes that wait for a commit.
    pub(super) fn waiting_bytes(&self) -> usize {
        (self.waiting.len() + self.rows.len()) * OP_BYTES
    }

    /// True when nothing waits for a commit.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.rows.is_empty() && self.outcomes.is_empty()
    }

    /// Takes the operations of a drained combiner; every slot of theirs has an id. Without room they are
    /// dropped, and count as samples that their source emitted and the store dropped.
    pub(super) fn take(
        &mut self,
        ops: PairOps,
        ids: &IdMap,
        table: &SeriesTable,
        seen: Timestamp,
        has_room: bool,
        tallies: &mut Vec<SourceTally>,
    ) {
        if !has_room {
            ops.ops.iter().for_each(|op| refuse(tallies, op.source, DropReason::Pending));
            return;
        }
        let sets: Vec<SetIndex> = ops.sets.iter().map(|feeds| self.sets.intern(feeds, ids, table)).collect();
        for op in &ops.ops {
            let Some(pair) = self.by_index.get(usize::from(op.pair.0)).copied() else {
                debug_assert!(false, "pair {} is not in the plan", op.pair.0);
                refuse(tallies, op.source, DropReason::PairLimit);
                continue;
            };
            let mut text = [0; 24];
            text[..8].copy_from_slice(&self.known[usize::from(pair)].hash.to_le_bytes());
            text[8..].copy_from_slice(&op.key.to_le_bytes());
            let set = op.set.map_or(sets::NONE, |set| sets[set as usize]);
            self.sets.acquire(set);
            self.waiting.push(Waiting {
                time: op.time.0,
                is_end: op.set.is_none(),
                key: xxh3_128(&text),
                set,
                seen: seen.0,
                pair,
                source: op.source,
            });
        }
        // What no operation holds was interned for one that was refused.
        sets.into_iter().for_each(|set| self.sets.note(set));
        self.sets.sweep(table);
    }

    /// Applies what waits, then expires what is due at `clock`. Afterwards [`parts`](Self::parts) and the rows hold it.
    pub(super) fn join(
        &mut self,
        clock: Timestamp,
        width: SliceWidth,
        table: &SeriesTable,
        tallies: &mut Vec<SourceTally>,
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_by_key(|op| (op.time, op.is_end, op.key));
        for op in &waiting {
            let is_taken = if op.is_end { self.close(op, width) } else { self.open(op, width) };
            if !is_taken {
                refuse(tallies, op.source, DropReason::PairLimit);
            }
            self.sets.let_go(op.set);
        }
        waiting.clear();
        self.waiting = waiting;
        self.expire(clock);
        self.sets.sweep(table);
        if self.due.len() > 2 * (self.open.len() + self.early.len()) + 1024 {
            self.rebuild_due();
        }
    }

    /// Everything that joining made, as parts of the slices they belong to, counted in the tally of `internal`.
    pub(super) fn parts(
        &mut self,
        now: Timestamp,
        width: SliceWidth,
        fold: &dyn Fold,
        table: &SeriesTable,
        tally: &mut SourceTally,
    ) -> Vec<EncodedPart> {
        self.effects.parts(now, width, fold, table, tally)
    }

    /// Takes the changed rows, by key; `None` deletes.
    pub(super) fn take_rows(&mut self) -> Vec<(rows::RowKey, Option<Vec<u8>>)> {
        std::mem::take(&mut self.rows).into_iter().map(|(key, change)| (key, change.content)).collect()
    }

    /// What became of starts and ends since the last call, with the pair's name.
    pub(super) fn take_outcomes(&mut self) -> Vec<(Arc<str>, Outcome, u64)> {
        let outcomes = std::mem::take(&mut self.outcomes);
        let name = |pair: u16| Arc::clone(&self.known[usize::from(pair)].name);
        outcomes.into_iter().map(|((pair, outcome), count)| (name(pair), outcome, count)).collect()
    }

    /// Gives outcomes back that could not be counted.
    pub(super) fn return_outcomes(&mut self, outcomes: Vec<(Arc<str>, Outcome, u64)>) {
        for (name, outcome, count) in outcomes {
            let pair = self.known(&name);
            *self.outcomes.entry((pair, outcome)).or_default() += count;
        }
    }

    fn count(&mut self, pair: u16, outcome: Outcome) {
        *self.outcomes.entry((pair, outcome)).or_default() += 1;
    }

    fn timeout(&self, pair: u16) -> i64 {
        self.known[usize::from(pair)].timeout
    }

    /// A start; false when there is no room for it.
    fn open(&mut self, op: &Waiting, width: SliceWidth) -> bool {
        let next = self.early.range((op.key, op.time)..=(op.key, i64::MAX)).next();
        if let Some(end) = next.map(|((_, end), _)| *end) {
            self.remove_early(op.key, end);
            self.count(op.pair, Outcome::Opened);
            self.end(op.pair, op.set, op.time, end, width);
            return true;
        }
        match self.open.get(&op.key).copied() {
            Some(open) if op.time <= open.start => {
                self.count(op.pair, Outcome::Duplicate);
                return true;
            }
            Some(open) => {
                self.count(op.pair, Outcome::Restarted);
                self.effects.count_open(&self.sets, open.set, -1);
                self.sets.let_go(open.set);
            }
            None if self.open.len() >= self.max => return false,
            None => {}
        }
        self.count(op.pair, Outcome::Opened);
        self.sets.acquire(op.set);
        self.effects.count_open(&self.sets, op.set, 1);
        let open = Open { start: op.time, seen: op.seen, set: op.set, pair: op.pair };
        self.due.push(Reverse((self.deadline(&open), op.key, i64::MIN)));
        let row =
            rows::encode(&self.known[usize::from(op.pair)].name, op.time, op.seen, &self.sets.stored_feeds(op.set));
        let is_fresh = self.open.insert(op.key, open).is_none();
        self.put_row(rows::open_key(op.key), row, is_fresh);
        true
    }

    /// An end; false when there is no room for it.
    fn close(&mut self, op: &Waiting, width: SliceWidth) -> bool {
        if let Some(open) = self.open.get(&op.key).copied().filter(|open| open.start <= op.time) {
            self.remove_open(op.key, &open);
            self.end(open.pair, open.set, open.start, op.time, width);
            self.sets.let_go(open.set);
            return true;
        }
        if self.early.contains_key(&(op.key, op.time)) {
            self.count(op.pair, Outcome::Duplicate);
            return true;
        }
        if self.early.len() >= waiting_ends_max(self.max) {
            return false;
        }
        let early = Early { seen: op.seen, pair: op.pair };
        self.early.insert((op.key, op.time), early);
        self.due.push(Reverse((self.waits_until(&early), op.key, op.time)));
        let row = rows::encode(&self.known[usize::from(op.pair)].name, op.time, op.seen, &[]);
        self.put_row(rows::early_key(op.key, op.time), row, true);
        true
    }

    /// Both ends are known.
    fn end(&mut self, pair: u16, set: SetIndex, start: i64, end: i64, width: SliceWidth) {
        let took = end.saturating_sub(start);
        if took > self.timeout(pair) {
            self.count(pair, Outcome::Expired);
            self.effects.add_expired(&self.sets, set);
        } else {
            self.count(pair, Outcome::Closed);
            self.effects.add_duration(&self.sets, set, width.slice_of(Timestamp(end)), took);
        }
    }

    fn expire(&mut self, clock: Timestamp) {
        for _ in 0..EXPIRE_STEP {
            let Some(Reverse((deadline, key, end))) = self.due.peek().copied() else { break };
            if deadline > clock.0 {
                break;
            }
            self.due.pop();
            if end != i64::MIN {
                // The same end may have met its start and have come again since.
                let early = self.early.get(&(key, end)).copied();
                if let Some(early) = early.filter(|early| self.waits_until(early) == deadline) {
                    self.remove_early(key, end);
                    self.count(early.pair, Outcome::Unmatched);
                }
                continue;
            }
            // What was restarted or whose timeout was changed is due at another time.
            let Some(open) = self.open.get(&key).copied().filter(|open| self.deadline(open) == deadline) else {
                continue;
            };
            self.remove_open(key, &open);
            self.count(open.pair, Outcome::Expired);
            self.effects.add_expired(&self.sets, open.set);
            self.sets.let_go(open.set);
        }
    }

    fn deadline(&self, open: &Open) -> i64 {
        let timeout = self.timeout(open.pair);
        open.start.saturating_add(timeout).max(open.seen.saturating_add(timeout.min(self.lateness)))
    }

    fn waits_until(&self, early: &Early) -> i64 {
        early.seen.saturating_add(self.lateness)
    }

    fn rebuild_due(&mut self) {
        let open = self.open.iter().map(|(key, open)| Reverse((self.deadline(open), *key, i64::MIN)));
        let early = self.early.iter().map(|((key, end), early)| Reverse((self.waits_until(early), *key, *end)));
        self.due = open.chain(early).collect();
    }

    fn remove_open(&mut self, key: u128, open: &Open) {
        self.open.remove(&key);
        self.effects.count_open(&self.sets, open.set, -1);
        self.delete_row(rows::open_key(key));
    }

    fn remove_early(&mut self, key: u128, end: i64) {
        self.early.remove(&(key, end));
        self.delete_row(rows::early_key(key, end));
    }

    fn put_row(&mut self, key: rows::RowKey, content: Vec<u8>, is_fresh: bool) {
        let change = self.rows.entry(key).or_insert(RowChange { is_fresh, content: None });
        change.content = Some(content);
    }

    fn delete_row(&mut self, key: rows::RowKey) {
        match self.rows.get_mut(&key) {
            // It came and went between two commits: the file never knew it.
            Some(change) if change.is_fresh => drop(self.rows.remove(&key)),
            Some(change) => change.content = None,
            None => drop(self.rows.insert(key, RowChange { is_fresh: false, content: None })),
        }
    }
}

/// An operation that could not be kept counts as a sample that its source emitted and the store dropped (C6).
fn refuse(tallies: &mut Vec<SourceTally>, source: SourceIndex, reason: DropReason) {
    let at = usize::from(source.0);
    if tallies.len() <= at {
        tallies.resize_with(at + 1, SourceTally::default);
    }
    tallies[at].samples[Kind::Gauge as usize] += 1;
    tallies[at].drop_samples(Edge::Store, reason, 1);
}
