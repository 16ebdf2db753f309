//! Threads with a name and an end: the only file that spawns.
//!
//! In: a closure that runs until its input is closed. Out: a [`Thread`] to join. Invariant: a panic in an
//! actor is never swallowed: it is logged, [`Failures`] remembers the first, and whoever supervises stops
//! the pipeline (one for all: a pipeline without one of its actors would show wrong numbers).

use std::sync::{Arc, Mutex, PoisonError};

/// Remembers the first actor that panicked.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Option<String>>>);

impl Failures {
    /// None yet.
    pub fn new() -> Failures {
        Failures::default()
    }

    /// The first failure, as `name: message`.
    pub fn first(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }
}

/// A running actor.
pub struct Thread {
    name: String,
    handle: std::thread::JoinHandle<()>,
}

impl Thread {
    /// Waits until it ended.
    pub fn join(self) {
        // The closure catches panics itself, so a join error can only be one in the log call.
        if self.handle.join().is_err() {
            tracing::error!(actor = self.name, "actor ended by a panic");
        }
    }

    /// True once it ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Spawns an actor on a thread of its own.
///
/// # Errors
/// When the system refuses another thread.
pub fn spawn(name: &str, failures: &Failures, body: impl FnOnce() + Send + 'static) -> std::io::Result<Thread> {
    let failures = failures.clone();
    let actor = name.to_owned();
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied())
                .unwrap_or("panic");
            tracing::error!(actor, panic = text, "actor panicked");
            failures.note(format!("{actor}: {text}"));
        }
    })?;
    Ok(Thread { name: name.to_owned(), handle })
}

/// Tasks of one runtime that end before it does: the connections of a server.
#[derive(Default)]
pub struct Tasks(tokio::task::JoinSet<()>);

impl Tasks {
    /// None yet.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Runs `task` on the current runtime; forgets those that ended.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(task);
    }

    /// Waits at most so long for all of them, then cancels the rest.
    pub async fn finish(mut self, patience: std::time::Duration) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, all).await;
        self.0.shutdown().await;
    }
}

/// Runs work that blocks (rendering, waiting for a commit) off the runtime's thread.
///
/// # Errors
/// When the work panicked or the runtime is shutting down.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}
