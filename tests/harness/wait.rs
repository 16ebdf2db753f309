//! Waiting for conditions, and the two ways a test may end early: a deadline that passed, and a peer that is not there.
//!
//! In: a condition. Out: its value, or a panic that says what was waited for. Owns: the only clock reads and the only
//! sleep of the tests. Invariant: a skip is written where the test command counts it, and is a failure in CI.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Long enough for an unoptimised build on a busy machine; nothing waits this long unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The monotonic clock: black-box tests run in real time.
#[expect(clippy::disallowed_methods, reason = "the product takes time as an argument; a test of its process cannot")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in seconds since the epoch: what a client writes into an event.
#[expect(clippy::disallowed_methods, reason = "the product takes time as an argument; a client cannot")]
pub(crate) fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Polls until the condition answers, or panics after [`PATIENCE`] with the words given.
pub(crate) fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, condition).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Polls until the condition answers or the time is over.
pub(crate) fn within<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + patience;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets load run for a while: the instant at which it ends is the point of the test, not a guess at readiness.
pub(crate) fn load_for(duration: Duration) {
    std::thread::sleep(duration);
}

/// Counts a skip, loudly. In CI every peer must be there, so a skip is a failure.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} would be skipped in CI: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(path) = std::env::var_os("HYDROGRAPH_SKIPS") {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the list of skips opens");
        writeln!(file, "{test}: {reason}").expect("the list of skips is writable");
    }
}

/// A whole number from the environment, for the long forms of a test.
pub(crate) fn knob(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")),
        Err(_) => default,
    }
}

/// A small deterministic generator of numbers (xorshift64*), so that a failure can be repeated from its seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number in `[0, bound)`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}
