//! Opening, round trips, errors with words.

use super::script::{Rng, SLICE_NANOS, TIERS, commit_next, commit_of, def, fingerprint, part};
use crate::delta::CounterSum;
use crate::delta::EncodedPart;
use crate::delta::part::{PartCursor, PartWriter, Scratch};
use crate::event::{CommitId, SeriesId, Slice, Timestamp};
use crate::store::error::guard;
use crate::store::format::{SERIES_BY_HASH, Table, seal};
use crate::store::{CommitBatch, Ledger, LedgerConfig, LedgerPath, MEMORY_BYTES, StoreError, StoredKind, TotalsBlock};
use redb::ReadableTable;
use std::path::Path;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn file(path: &Path) -> LedgerConfig {
    LedgerConfig::new(LedgerPath::File(path.to_owned()), SLICE_NANOS)
}

fn batch(ledger: &Ledger) -> CommitBatch<'static> {
    CommitBatch::new(CommitId(ledger.last_commit().0 + 1), NOW, NOW)
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    assert_eq!((ledger.last_commit(), ledger.next_series(), ledger.created()), (CommitId(0), SeriesId(0), NOW));
    for _ in 0..30 {
        commit_next(5, &mut ledger, 50).expect("commits");
    }
    let (said, id) = (fingerprint(&mut ledger).expect("readable"), ledger.store_id());
    assert!(ledger.allocated_bytes() > 0);
    drop(ledger);
    assert!(!directory.path().join("a.redb.new").exists());
    let mut ledger = Ledger::open(&file(&path), Timestamp(0)).expect("opens");
    assert_eq!(fingerprint(&mut ledger).expect("readable"), said);
    assert_eq!((ledger.store_id(), ledger.created()), (id, NOW));
    ledger.verify().expect("whole");
    let wanted = def(17, 1_000_000_000);
    assert_eq!(ledger.series_by_hash(wanted.hash).expect("readable"), Some(SeriesId(17)));
    assert_eq!(ledger.series_def(SeriesId(17)).expect("readable"), Some(wanted));
    assert_eq!(ledger.series_by_hash(1).expect("readable"), None);
    assert_eq!(ledger.series_def(ledger.next_series()).expect("readable"), None);
    assert_eq!(ledger.state("tallies").expect("readable"), Some(30u64.to_le_bytes().to_vec()));
    assert_eq!(ledger.state("odd").expect("readable"), None);
    assert_eq!(ledger.positions().expect("readable").len(), 3);
    let block = ledger.totals_block(0).expect("readable").expect("is stored");
    assert_eq!((block.block, block.bytes.len()), (0, 8));
}

#[test]
fn h6_memory_says_the_same_as_a_file_and_survives_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut on_disk = Ledger::open(&file(&directory.path().join("a.redb")), NOW).expect("a new store");
    let config = LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS);
    let mut in_memory = Ledger::open(&config, NOW).expect("a new store");
    for _ in 0..20 {
        commit_next(5, &mut on_disk, 50).expect("commits");
        commit_next(5, &mut in_memory, 50).expect("commits");
    }
    in_memory.reopen().expect("reopens");
    assert_eq!(fingerprint(&mut on_disk).expect("readable"), fingerprint(&mut in_memory).expect("readable"));
    assert!(in_memory.allocated_bytes() < 4 << 20);
}

#[test]
fn h6_memory_is_bounded_and_a_full_one_is_retryable() {
    let config = LedgerConfig::new(LedgerPath::Memory(2 << 20), SLICE_NANOS);
    let mut ledger = Ledger::open(&config, NOW).expect("fits");
    let error = (0..2000).find_map(|_| commit_next(5, &mut ledger, 2000).err()).expect("it fills up");
    assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_retryable(), "{error}");
    let last = ledger.last_commit();
    ledger.reopen().expect("needs no space");
    assert!(ledger.last_commit() == last && fingerprint(&mut ledger).is_ok());
}

#[test]
fn a_large_part_is_cut_into_chunks_and_read_back_whole() {
    let mut ledger = Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    let mut writer = PartWriter::new(Vec::new());
    for id in 0..400_000 {
        writer.counter(SeriesId(id), CounterSum { nanos: i128::from(id) * 1_000_000_007 + 1 });
    }
    let rows = writer.rows();
    let bytes = writer.finish();
    assert!(bytes.len() > 3 << 20);
    let log = [EncodedPart { slice: Slice(9), bytes, rows }];
    ledger.commit(&CommitBatch { log: &log, ..batch(&ledger) }).expect("commits");
    let parts = ledger.read_slice(Slice(9)).expect("readable");
    assert!(parts.len() >= 4 && parts.iter().all(|part| part.len() <= 1 << 20));
    let mut next = 0;
    for part in &parts {
        let (mut cursor, mut scratch) = (PartCursor::new(part).expect("a part"), Scratch::default());
        while let Some(row) = cursor.next(&mut scratch).expect("whole") {
            assert_eq!(row.id, SeriesId(next));
            next += 1;
        }
    }
    assert_eq!(next, 400_000);
    assert_eq!(ledger.slices().map(|s| s.log_rows).sum::<u64>(), parts.len() as u64);
}

#[test]
fn a_second_opener_is_told_that_the_file_is_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    let ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    let error = Ledger::open(&file(&path), NOW).expect_err("locked");
    assert!(matches!(error, StoreError::Locked { .. }) && !error.is_retryable());
    assert!(error.to_string().contains("a.redb is in use by another process"), "{error}");
    drop(ledger);
    Ledger::open(&file(&path), NOW).expect("free again");
}

#[test]
fn h3_another_version_is_named_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    drop(Ledger::open(&file(&path), NOW).expect("a new store"));
    let db = redb::Database::create(&path).expect("opens");
    let txn = db.begin_write().expect("begins");
    let mut sealed = Vec::new();
    seal(Table::Meta, b"format", &7u32.to_le_bytes(), &mut sealed);
    txn.open_table(Table::Meta.rows())
        .expect("is there")
        .insert(b"format".as_slice(), sealed.as_slice())
        .expect("writes");
    txn.commit().expect("commits");
    drop(db);
    let error = Ledger::open(&file(&path), NOW).expect_err("unknown");
    assert!(matches!(error, StoreError::WrongVersion { found: 7, supported: 5, .. }), "{error}");
}

#[test]
fn r2_another_slice_width_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    drop(Ledger::open(&file(&path), NOW).expect("a new store"));
    let other = LedgerConfig { slice_nanos: 5_000_000_000, ..file(&path) };
    let error = Ledger::open(&other, NOW).expect_err("another width");
    assert!(matches!(error, StoreError::SliceMismatch { stored: SLICE_NANOS, asked: 5_000_000_000, .. }), "{error}");
    Ledger::open(&file(&path), NOW).expect("the right one still opens");
}

#[test]
fn what_is_not_a_store_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = directory.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to have had a header\n".repeat(200)).expect("writes");
    let error = Ledger::open(&file(&text), NOW).expect_err("text");
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    assert!(std::fs::read_to_string(&text).expect("reads").starts_with("not a database"));

    let foreign = directory.path().join("foreign.redb");
    let db = redb::Database::create(&foreign).expect("creates");
    let txn = db.begin_write().expect("begins");
    txn.open_table(SERIES_BY_HASH).expect("creates");
    txn.commit().expect("commits");
    drop(db);
    let error = Ledger::open(&file(&foreign), NOW).expect_err("another program's");
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");

    let error = Ledger::open(&file(&directory.path().join("no/such/a.redb")), NOW).expect_err("no directory");
    assert!(matches!(error, StoreError::NoDirectory { .. }), "{error}");

    let empty = directory.path().join("empty.redb");
    std::fs::write(&empty, "").expect("writes");
    Ledger::open(&file(&empty), NOW).expect("an empty file becomes a store");
    std::fs::write(directory.path().join("b.redb.new"), "left by a crash").expect("writes");
    Ledger::open(&file(&directory.path().join("b.redb")), NOW).expect("rubbish of a crash is overwritten");
}

#[test]
fn a_copy_and_a_compacted_file_say_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let (path, backup) = (directory.path().join("a.redb"), directory.path().join("backup.redb"));
    let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    for _ in 0..60 {
        commit_next(5, &mut ledger, 200).expect("commits");
    }
    let said = fingerprint(&mut ledger).expect("readable");
    ledger.copy_to(&backup).expect("copies");
    let error = ledger.copy_to(&backup).expect_err("never over a file");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let mut copy = Ledger::open(&file(&backup), NOW).expect("a whole store");
    assert_eq!((fingerprint(&mut copy).expect("readable"), copy.store_id()), (said.clone(), ledger.store_id()));
    copy.verify().expect("whole");
    let before = ledger.allocated_bytes();
    assert!(ledger.compact().expect("compacts") && ledger.allocated_bytes() <= before);
    assert_eq!(fingerprint(&mut ledger).expect("readable"), said);
    commit_next(5, &mut ledger, 10).expect("goes on");
    for path in [path, backup] {
        assert_eq!(std::fs::metadata(path).expect("is there").permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn c4_a_file_that_went_away_or_was_replaced_is_not_a_new_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, aside) = (directory.path().join("a.redb"), directory.path().join("aside.redb"));
    let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    commit_next(5, &mut ledger, 10).expect("commits");
    std::fs::rename(&path, &aside).expect("renames");
    let error = ledger.reopen().expect_err("gone");
    assert!(matches!(error, StoreError::Io { .. }) && ledger.is_broken(), "{error}");
    drop(Ledger::open(&file(&path), NOW).expect("another store in its place"));
    let error = ledger.reopen().expect_err("another");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    std::fs::rename(&aside, &path).expect("renames");
    ledger.reopen().expect("its own file again");
    assert_eq!(ledger.last_commit(), CommitId(1));
}

#[test]
fn a_file_that_is_deleted_or_replaced_while_open_is_noticed_and_its_contents_are_saved() {
    for replace in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, rescued) = (directory.path().join("a.redb"), directory.path().join("a.redb.rescued"));
        let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
        for _ in 0..9 {
            commit_next(5, &mut ledger, 10).expect("commits");
        }
        ledger.check_place().expect("it is there");
        std::fs::remove_file(&path).expect("deletes");
        if replace {
            std::fs::write(&path, "something else").expect("writes");
        }
        let said = fingerprint(&mut ledger).expect("readable");
        let error = ledger.check_place().expect_err("it is gone");
        assert!(matches!(&error, StoreError::Displaced { .. }) && !error.is_retryable());
        assert!(error.to_string().contains("everything up to commit 9 was saved to"), "{error}");
        let mut saved = Ledger::open(&file(&rescued), NOW).expect("a whole store");
        assert_eq!(fingerprint(&mut saved).expect("readable"), said);
        let again = ledger.check_place().expect_err("still gone").to_string();
        assert!(again.contains("could not be saved"), "never over a file: {again}");
        assert_eq!(path.exists(), replace, "what others put there is left alone");
    }
    let memory = Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    memory.check_place().expect("memory stays");
}

#[test]
fn h3_a_store_that_was_cut_off_is_corrupt_not_an_io_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    for _ in 0..30 {
        commit_next(5, &mut ledger, 100).expect("commits");
    }
    drop(ledger);
    let whole = std::fs::read(&path).expect("reads");
    for len in [9, 50, 100, 319, 320, 512, 4095, 4096, 5000, 8192, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(&path, &whole[..len]).expect("writes");
        let opened = Ledger::open(&file(&path), NOW).and_then(|mut ledger| fingerprint(&mut ledger));
        let error = opened.expect_err("cut off");
        assert!(matches!(&error, StoreError::Corrupt { .. }), "{len} bytes: {error}");
        assert_eq!(std::fs::metadata(&path).expect("is there").len(), len as u64, "{len}: it is left as it is");
    }
}

#[test]
fn a_file_of_format_1_becomes_one_of_this_and_keeps_everything() {
    older(1);
}

#[test]
fn a_file_of_format_2_becomes_one_of_this_and_keeps_everything() {
    older(2);
}

#[test]
fn a_file_of_format_3_becomes_one_of_this_and_keeps_everything() {
    older(3);
}

#[test]
fn a_file_that_the_program_of_format_4_wrote_becomes_one_of_this_and_keeps_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    std::fs::write(&path, include_bytes!("../../../tests/fixtures/store-format-4.redb")).expect("written");
    // The same script, in this format.
    let mut same = Ledger::open(&file(&directory.path().join("b.redb")), NOW).expect("a new store");
    for _ in 0..24 {
        commit_next(5, &mut same, 20).expect("commits");
    }
    for _ in 0..2 {
        let mut ledger = Ledger::open(&file(&path), NOW).expect("opens");
        assert_eq!((ledger.last_commit(), ledger.created()), (CommitId(24), NOW));
        assert_eq!(ledger.sums().expect("readable"), same.sums().expect("readable"));
        assert_eq!(fingerprint(&mut ledger).expect("readable"), fingerprint(&mut same).expect("readable"));
        ledger.verify().expect("whole");
    }
    // It goes on, and gets tiers.
    let mut ledger = Ledger::open(&file(&path), NOW).expect("opens");
    let tiers = ledger.tier_change(&TIERS).expect("there are none yet");
    ledger.commit(&CommitBatch { tiers: Some(&tiers), ..batch(&ledger) }).expect("commits");
    let (from, spans) = (ledger.history.tiers[&1].from, ledger.history.spans.len());
    assert!(from == 0 && spans == 0 && ledger.tier_change(&TIERS).is_none());
    ledger.reopen().expect("opens");
    assert_eq!(ledger.history.tiers.len(), 3);
    ledger.verify().expect("whole");
}

fn older(version: u32) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.redb");
    let mut ledger = Ledger::open(&file(&path), NOW).expect("a new store");
    for _ in 0..20 {
        commit_next(5, &mut ledger, 50).expect("commits");
    }
    let said = fingerprint(&mut ledger).expect("readable");
    drop(ledger);
    // As the older program left it: its own version, and before format 2 neither new tables nor their manifests.
    let db = redb::Database::create(&path).expect("opens");
    let txn = db.begin_write().expect("begins");
    let mut missing = vec![Table::TierSpans, Table::Tiers];
    if version == 1 {
        missing.extend([Table::Pairs, Table::Recent]);
    }
    assert!(txn.delete_table(Table::Pages.rows()).expect("deletes"));
    for table in &missing {
        assert!(txn.delete_table(table.rows()).expect("deletes"));
    }
    {
        let mut meta = txn.open_table(Table::Meta.rows()).expect("is there");
        let row = meta.get(b"store".as_slice()).expect("reads").expect("is there").value()[8..].to_vec();
        let mut sealed = Vec::new();
        let row = &row[..row.len() - 24 * missing.len()];
        for (key, content) in [(b"store".as_slice(), row), (b"format", &version.to_le_bytes())] {
            seal(Table::Meta, key, content, &mut sealed);
            meta.insert(key, sealed.as_slice()).expect("writes");
        }
    }
    txn.commit().expect("commits");
    drop(db);
    for _ in 0..2 {
        let mut ledger = Ledger::open(&file(&path), NOW).expect("opens");
        assert_eq!(fingerprint(&mut ledger).expect("readable"), said);
        ledger.verify().expect("whole");
    }
    let mut ledger = Ledger::open(&file(&path), NOW).expect("opens");
    let rows = [(b"k".to_vec(), Some(b"v".to_vec()))];
    ledger.commit(&CommitBatch { pairs: &rows, recent: &rows, ..batch(&ledger) }).expect("commits");
    ledger.verify().expect("whole");
}

#[test]
fn a_directory_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; the kernel's answer is checked where tests run as a user.
        let error = StoreError::from_io("/x", std::io::ErrorKind::ReadOnlyFilesystem.into());
        assert!(matches!(error, StoreError::Denied { .. }));
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o500)).expect("chmod");
    let error = Ledger::open(&file(&directory.path().join("a.redb")), NOW).expect_err("read-only");
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
}

#[test]
fn h3_a_panic_below_is_corruption_not_the_end() {
    let result: Result<(), StoreError> = guard("/x/a.redb", || panic!("index out of bounds"));
    let error = result.expect_err("caught");
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what.contains("index out of bounds")), "{error}");
    assert!(!error.is_retryable() && error.to_string().contains("ledger.rs:"), "it says where: {error}");
}

#[test]
fn h3_a_caught_panic_prints_nothing_and_others_still_do() {
    // In a process of its own: the hook and standard error belong to all tests.
    if std::env::var_os("HYDROGRAPH_PANICS").is_some() {
        let result: Result<(), StoreError> = guard("/x/a.redb", || panic!("inside, to be kept quiet"));
        assert!(result.is_err());
        let is_heard = std::thread::scope(|scope| scope.spawn(|| panic!("outside, to be heard")).join().is_err());
        assert!(is_heard);
        return;
    }
    let this = std::env::current_exe().expect("this test");
    let name = "store::tests::ledger::h3_a_caught_panic_prints_nothing_and_others_still_do";
    let run = std::process::Command::new(this)
        .args(["--exact", name, "--nocapture"])
        .env("HYDROGRAPH_PANICS", "1")
        .output()
        .expect("starts");
    let heard = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success() && heard.contains("outside, to be heard") && !heard.contains("inside"), "{heard}");
}

#[test]
fn h1_log_rows_stay_until_all_totals_have_seen_them() {
    let mut ledger = Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    let mut rng = Rng(1);
    let new_series: Vec<_> = (0..2000).map(|id| def(id, NOW.0)).collect();
    let log = [part(&mut rng, 1, 2000, 100)];
    ledger.commit(&CommitBatch { new_series: &new_series, log: &log, ..batch(&ledger) }).expect("commits");
    assert_eq!((ledger.totals_through(), ledger.stalest_totals(9)), (CommitId(0), vec![0, 1]));
    assert_eq!(ledger.segment_candidate(Slice(5)), None);
    assert!(ledger.expire_step(Slice(5), 9).expect("readable").is_none(), "totals still need the rows");
    let totals = |block, as_of| TotalsBlock { block, as_of: CommitId(as_of), bytes: vec![1] };
    ledger.commit(&CommitBatch { totals: &[totals(0, 2)], ..batch(&ledger) }).expect("commits");
    assert_eq!((ledger.totals_through(), ledger.stalest_totals(1)), (CommitId(0), vec![1]));
    ledger.commit(&CommitBatch { totals: &[totals(1, 2)], ..batch(&ledger) }).expect("commits");
    assert_eq!(ledger.segment_candidate(Slice(5)), Some(Slice(1)));
    assert_eq!(ledger.segment_candidate(Slice(1)), None, "the open slice is not folded");
    ledger.reopen().expect("opens");
    let mut fresh = Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    fresh.commit(&CommitBatch { new_series: &new_series, log: &log, ..batch(&fresh) }).expect("commits");
    ledger.fold_slice(Slice(1), 7).expect("folds");
    let mut kinds = Vec::new();
    ledger
        .replay(Slice(0), |part| {
            kinds.push((part.kind, part.through));
            Ok(())
        })
        .expect("readable");
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == (StoredKind::Segment, CommitId(1))), "{kinds:?}");
    assert_eq!(ledger.sums().expect("readable"), fresh.sums().expect("readable"));
    // A late row lies beside the segment until the next job.
    let late = [part(&mut rng, 1, 2000, 10)];
    ledger.commit(&CommitBatch { log: &late, ..batch(&ledger) }).expect("commits");
    assert_eq!(ledger.segment_candidate(Slice(5)), None);
    let state = ledger.slices().next().expect("one slice");
    assert!(state.has_segment && state.log_rows == 1);
    let now = ledger.last_commit().0 + 1;
    ledger.commit(&CommitBatch { totals: &[totals(0, now), totals(1, now)], ..batch(&ledger) }).expect("commits");
    assert_eq!(ledger.segment_candidate(Slice(5)), Some(Slice(1)));
    let before = ledger.sums().expect("readable");
    ledger.fold_slice(Slice(1), 1000).expect("folds");
    let state = ledger.slices().next().expect("one slice");
    assert!(state.has_segment && state.log_rows == 0);
    assert_eq!(ledger.sums().expect("readable"), before);
    ledger.verify().expect("whole");
}

#[test]
#[should_panic(expected = "numbered without gaps")]
fn a_commit_out_of_order_is_bad_code() {
    let mut ledger = Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    let _ = ledger.commit(&CommitBatch::new(CommitId(2), NOW, NOW));
}

#[test]
fn t4_the_same_script_gives_the_same_store() {
    let open = || Ledger::open(&LedgerConfig::new(LedgerPath::Memory(MEMORY_BYTES), SLICE_NANOS), NOW).expect("new");
    let (mut a, mut b) = (open(), open());
    for n in 0..15 {
        commit_next(8, &mut a, 40).expect("commits");
        commit_next(8, &mut b, 40).expect("commits");
        if n == 7 {
            b.reopen().expect("opens");
            b.all_totals(|_| Ok(())).expect("readable");
        }
    }
    assert_eq!(fingerprint(&mut a).expect("readable"), fingerprint(&mut b).expect("readable"));
    assert_eq!(commit_of(8, 16, &a, 40).log, commit_of(8, 16, &b, 40).log);
}
