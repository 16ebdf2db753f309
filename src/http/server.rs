//! The thread that serves a pipeline.
//!
//! In: a pipeline and bound listeners. Out: a [`Server`]. Owns: the runtime of the front door. Invariant: a server that is
//! dropped has let its answers under way finish.

use super::adapter::Front;
use super::doors::{Doors, Following};
use super::serve::serve_changing;
use super::{Backend, Listener, Tokens};
use crate::actor::{Failures, Thread, spawn};
use crate::pipeline::Pipeline;
use crate::pipeline::paths::Environment;
use std::sync::Arc;

/// The thread that serves a pipeline over HTTP.
pub struct Server {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<Thread>,
    /// What it serves.
    pub front: Arc<Front>,
}

impl Server {
    /// Serves a pipeline on these listeners, which are those of its plan in their order, until it is dropped or stopped. It
    /// follows the plan through every reload; new addresses stand in the directories of `environment`.
    ///
    /// # Errors
    /// When the runtime or its thread cannot be made.
    pub fn start(
        pipeline: Pipeline,
        listeners: Vec<Listener>,
        tokens: impl Into<Tokens>,
        environment: Environment,
    ) -> std::io::Result<Server> {
        let urls = listeners.iter().map(Listener::url).collect::<Result<Vec<_>, _>>()?;
        let doors = Arc::new(Doors::new(&pipeline.plan(), &urls, tokens.into(), environment));
        pipeline.follow_with(Arc::new(Following(Arc::clone(&doors))));
        let (gate, changes) = (Arc::clone(&doors.gate), Arc::clone(&doors.changes));
        let front = Arc::new(Front::new(pipeline, doors));
        let backend: Arc<dyn Backend> = Arc::clone(&front) as Arc<dyn Backend>;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_keep_alive(std::time::Duration::from_secs(5))
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = spawn("http", &Failures::new(), move || {
            let shutdown = async move {
                // The sender was used or dropped: both mean stop.
                let _ = stopped.await;
            };
            if let Err(error) = runtime.block_on(serve_changing(listeners, backend, gate, &changes, shutdown)) {
                tracing::error!(%error, "the front door closed");
            }
        })?;
        Ok(Server { stop: Some(stop), thread: Some(thread), front })
    }

    /// Lets answers under way finish and ends the thread.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
