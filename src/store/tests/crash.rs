//! Crashes, failing disks and flipped bits.

use super::disk::{Op, SimDisk, apply, crash_image};
use super::script::{Rng, commit_long, commit_next, fingerprint};
use crate::event::Timestamp;
use crate::store::{Ledger, StoreError};
use std::io::ErrorKind;

const SEED: u64 = 11;

/// The number of trials, times `HYDROGRAPH_TRIALS` for long runs.
fn trials(usual: u64) -> u64 {
    usual * std::env::var("HYDROGRAPH_TRIALS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

const NOW: Timestamp = Timestamp(1);

/// A new store on a disk of its own.
fn fresh() -> (SimDisk, Ledger) {
    let disk = SimDisk::default();
    let ledger = Ledger::open(&disk.config(), NOW).expect("a new store");
    (disk, ledger)
}

/// Commits the next commit of a script.
type Next = fn(u64, &mut Ledger, u64) -> Result<(), StoreError>;

/// What the ledger says after each commit of the script.
fn expected(next: Next, commits: u64) -> Vec<String> {
    let (_disk, mut ledger) = fresh();
    let mut said = vec![fingerprint(&mut ledger).expect("readable")];
    for _ in 0..commits {
        next(SEED, &mut ledger, 30).expect("a working disk");
        said.push(fingerprint(&mut ledger).expect("readable"));
    }
    said
}

/// `fingerprint` loads the `as_of` of totals, as recovery does.
fn recover(ledger: &mut Ledger) -> Result<(), StoreError> {
    ledger.all_totals(|_| Ok(()))
}

#[test]
fn c4_an_error_at_any_call_loses_nothing_and_half_commits_nothing() {
    an_error_at_any_call(commit_next, 24, 1);
}

#[test]
fn c4_an_error_at_any_call_of_paging_rolling_up_and_expiry_loses_nothing() {
    // Every one of them with `HYDROGRAPH_TRIALS`.
    an_error_at_any_call(commit_long, 150, if trials(1) > 1 { 1 } else { 41 });
}

fn an_error_at_any_call(next: Next, commits: u64, stride: usize) {
    let said = expected(next, commits);
    let (disk, mut ledger) = fresh();
    let before = disk.0.lock().expect("unpoisoned").calls;
    for _ in 0..commits {
        next(SEED, &mut ledger, 30).expect("a working disk");
    }
    let calls = disk.0.lock().expect("unpoisoned").calls;
    drop(ledger);
    assert!(calls > before + 200, "the script does work: {calls} calls");
    let (mut failed, mut landed) = (0, 0);
    for call in (before + 1..=calls).step_by(stride) {
        let (disk, mut ledger) = fresh();
        {
            let mut inner = disk.0.lock().expect("unpoisoned");
            inner.fail_at = Some(call);
            inner.fail_for = [1, 1, 3, 20][call as usize % 4];
            inner.fail_kind =
                Some([ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::FileTooLarge][call as usize % 3]);
        }
        let mut acknowledged = 0;
        while acknowledged < commits {
            match next(SEED, &mut ledger, 30) {
                Ok(()) => acknowledged += 1,
                Err(error) => {
                    failed += 1;
                    assert!(error.is_retryable(), "call {call}: {error}");
                    assert!(ledger.is_broken());
                    let again = next(SEED, &mut ledger, 30).expect_err("a broken ledger refuses");
                    assert!(matches!(again, StoreError::Broken { .. }), "{again}");
                    while let Err(error) = ledger.reopen() {
                        assert!(error.is_retryable(), "call {call}, reopening: {error}");
                    }
                    recover(&mut ledger).expect("the disk works again");
                    let last = ledger.last_commit().0;
                    assert!(
                        last == acknowledged || last == acknowledged + 1,
                        "call {call}: {last} after {acknowledged}"
                    );
                    landed += last - acknowledged;
                    acknowledged = last;
                    assert_eq!(fingerprint(&mut ledger).expect("readable"), said[last as usize], "call {call}");
                }
            }
        }
        assert_eq!(fingerprint(&mut ledger).expect("readable"), said[commits as usize], "call {call}");
    }
    assert!(failed > 50 && landed > 0, "{failed} failures, {landed} commits that landed nevertheless");
}

#[test]
fn c4_an_error_while_opening_is_retryable_and_changes_nothing() {
    let (disk, mut ledger) = fresh();
    for _ in 0..20 {
        commit_next(SEED, &mut ledger, 30).expect("a working disk");
    }
    let said = fingerprint(&mut ledger).expect("readable");
    // As a crash leaves it (not closed): opening then repairs, which is more to fail at.
    let image = disk.0.lock().expect("unpoisoned").bytes.clone();
    drop(ledger);
    let mut failed = 0;
    for call in 1.. {
        let disk = SimDisk::of(image.clone());
        disk.0.lock().expect("unpoisoned").fail_at = Some(call);
        disk.0.lock().expect("unpoisoned").fail_for = 1;
        match Ledger::open(&disk.config(), NOW).and_then(|mut ledger| fingerprint(&mut ledger)) {
            Ok(now) => assert_eq!(now, said, "call {call}"),
            Err(error) => {
                failed += 1;
                assert!(error.is_retryable(), "call {call}: {error}");
            }
        }
        let calls = std::mem::take(&mut disk.0.lock().expect("unpoisoned").calls);
        disk.0.lock().expect("unpoisoned").fail_at = None;
        let mut ledger = Ledger::open(&disk.config(), NOW).unwrap_or_else(|e| panic!("call {call}: {e}"));
        assert_eq!(fingerprint(&mut ledger).expect("readable"), said, "call {call}");
        if calls < call {
            break;
        }
    }
    assert!(failed > 20, "{failed} failures");
}

#[test]
fn c3_power_loss_at_any_moment_shows_a_whole_commit() {
    power_loss(commit_next, 40, trials(3000));
}

#[test]
fn c3_power_loss_while_paging_rolling_up_and_expiring_shows_a_whole_commit() {
    power_loss(commit_long, 150, trials(1500));
}

fn power_loss(next: Next, commits: u64, wanted: u64) {
    let said = expected(next, commits);
    let (disk, mut ledger) = fresh();
    {
        let mut inner = disk.0.lock().expect("unpoisoned");
        inner.keep_ops = true;
    }
    let mut durable = disk.0.lock().expect("unpoisoned").bytes.clone();
    // Number of changes after which each commit was acknowledged.
    let mut acknowledged = Vec::new();
    for _ in 0..commits {
        next(SEED, &mut ledger, 30).expect("a working disk");
        acknowledged.push(disk.0.lock().expect("unpoisoned").ops.len());
    }
    let ops = std::mem::take(&mut disk.0.lock().expect("unpoisoned").ops);
    drop(ledger);
    let mut rng = Rng(SEED);
    let per_op = wanted.div_ceil(ops.len() as u64);
    // Where there are more moments than images, each has its chance.
    let chance = (ops.len() as u64).div_ceil(wanted);
    let mut pending: Vec<&Op> = Vec::new();
    let (mut images, mut newest) = (0, 0);
    for (at, op) in ops.iter().enumerate() {
        let per_op = if chance == 1 || rng.below(chance) == 0 || at + 1 == ops.len() { per_op } else { 0 };
        for _ in 0..per_op {
            let image = crash_image(&durable, &pending, &mut rng);
            let sure = acknowledged.iter().filter(|ops| **ops <= at).count() as u64;
            let disk = SimDisk::of(image);
            let mut ledger = Ledger::open(&disk.config(), NOW).unwrap_or_else(|e| panic!("change {at}: {e}"));
            let last = ledger.last_commit().0;
            assert!(last == sure || last == sure + 1, "change {at}: {last} after {sure} were acknowledged");
            assert_eq!(fingerprint(&mut ledger).expect("readable"), said[last as usize], "change {at}");
            images += 1;
            newest = newest.max(last);
            if images % 16 == 0 && last < commits {
                // It goes on from there, and a clean close and a second opening change nothing.
                next(SEED, &mut ledger, 30).expect("a working disk");
                ledger.reopen().expect("opens again");
                recover(&mut ledger).expect("readable");
                assert_eq!(fingerprint(&mut ledger).expect("readable"), said[last as usize + 1], "change {at}");
            }
        }
        if let Op::Sync = op {
            pending.drain(..).for_each(|op| apply(&mut durable, op));
        } else {
            pending.push(op);
        }
    }
    println!("{images} images of the disk");
    assert!(images >= wanted / 2 && newest + 2 > commits, "{images} images, newest {newest}");
}

#[test]
fn h3_a_flipped_bit_is_an_error_or_nothing() {
    flipped_bits(commit_next, 40, trials(1000));
}

#[test]
fn h3_a_flipped_bit_of_the_history_is_an_error_or_nothing() {
    flipped_bits(commit_long, 150, trials(400));
}

fn flipped_bits(next: Next, commits: u64, wanted: u64) {
    let (disk, mut ledger) = fresh();
    for _ in 0..commits {
        next(SEED, &mut ledger, 60).expect("a working disk");
    }
    let said = fingerprint(&mut ledger).expect("readable");
    drop(ledger);
    let bytes = disk.0.lock().expect("unpoisoned").bytes.clone();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut rng = Rng(3);
    let (mut equal, mut refused) = (0, 0);
    for trial in 0..wanted {
        let at = match trial % 4 {
            0 => rng.below(bytes.len() as u64) as usize,
            1 => rng.below(4096) as usize,
            _ => used[rng.below(used.len() as u64) as usize],
        };
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << rng.below(8);
        let disk = SimDisk::of(damaged);
        let outcome = Ledger::open(&disk.config(), NOW).and_then(|mut ledger| fingerprint(&mut ledger));
        match outcome {
            Ok(now) => {
                assert_eq!(now, said, "a bit of byte {at} changed the data silently");
                equal += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(equal > 20 && refused > 50, "{equal} equal, {refused} refused");
}
