//! The process's signals, without unsafe code: tokio's handlers, waited for on the main thread.
//!
//! In: SIGTERM, SIGINT, SIGHUP. Out: [`Signal`]. Invariants: from [`Signals::install`] on, a write past the
//! file-size limit (SIGXFSZ) or into a closed pipe (SIGPIPE, which Rust ignores from the start) is an error of
//! that call and never the end of the process; during the drain a second signal ends it at once.

use crate::actor::{self, Failures};
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// SIGXFSZ on Linux, every architecture Rust supports but MIPS.
const SIGXFSZ: i32 = 25;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Drain and end.
    Stop,
    /// Read the files again.
    Reload,
}

/// The streams of signals, with the runtime that moves them.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
}

impl Signals {
    /// Takes over the signals; before this they have their usual effect.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn install() -> io::Result<Signals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        // A handler that does nothing instead of "ignore", which std offers no safe call for: the write then fails
        // with EFBIG. It stays for the life of the process, whatever happens to the stream.
        drop(signal(SignalKind::from_raw(SIGXFSZ))?);
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Signals { runtime, terminate, interrupt, hang_up })
    }

    /// The next signal within `patience`.
    pub(super) fn wait(&mut self, patience: Duration) -> Option<Signal> {
        let Signals { runtime, terminate, interrupt, hang_up } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => Some(Signal::Stop),
                _ = interrupt.recv() => Some(Signal::Stop),
                _ = hang_up.recv() => Some(Signal::Reload),
                () = tokio::time::sleep(patience) => None,
            }
        })
    }

    /// From now on, on a thread of its own: the next request to stop ends the process without further ado.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(super) fn exit_on_next(mut self) -> io::Result<()> {
        actor::spawn("signals", &Failures::new(), move || {
            while self.wait(Duration::from_secs(3600)) != Some(Signal::Stop) {}
            std::process::exit(1);
        })?;
        Ok(())
    }
}

/// Waits on the current runtime until somebody wants the command to end: SIGINT or SIGTERM.
///
/// # Errors
/// When the system refuses a handler.
pub(super) async fn stop_asked() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Raw, getpid, kill_process};

    #[test]
    fn signals_are_told_apart_and_a_full_file_ends_nothing() {
        let mut signals = Signals::install().unwrap();
        assert_eq!(signals.wait(Duration::from_millis(1)), None);
        for (raw, expected) in [(Raw::HUP, Signal::Reload), (Raw::TERM, Signal::Stop), (Raw::INT, Signal::Stop)] {
            // Without its handler this would end the tests.
            kill_process(getpid(), Raw::XFSZ).unwrap();
            kill_process(getpid(), raw).unwrap();
            assert_eq!(signals.wait(Duration::from_secs(10)), Some(expected));
        }
    }
}
