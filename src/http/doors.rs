//! The doors of the front through the reloads of its pipeline: addresses come and go, the tokens are others.
//!
//! In: plans. Out: bound listeners for the server, and the tokens for its guard. Owns: which address is served now.
//! Invariants: what both plans name goes on with its connections; new addresses are bound and the tokens are read before
//! anything changes; a request under way when its address goes is answered.

use super::{Listener, Token, Tokens};
use crate::pipeline::paths::{Environment, PathError, read_token, socket_path};
use crate::pipeline::plan::{ListenAddress, Plan, Token as PlannedToken};
use crate::pipeline::{Follower, Prepared};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::Notify;

/// Mode of the server's Unix socket: the owner and the group.
const SOCKET_MODE: u32 = 0o660;

/// Why HTTP cannot be served as a plan says.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A path cannot be used, or the token's file cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An address cannot be bound.
    #[error("cannot serve http on {address}: {source} (another address: http.listen, or HYDROGRAPH_HTTP__LISTEN)")]
    Bind {
        /// As the plan says it.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What was read is no token.
    #[error(transparent)]
    Token(#[from] super::TokenError),
}

/// Binds an address of a plan.
///
/// # Errors
/// [`DoorError`].
pub fn bind(address: &ListenAddress, environment: &Environment) -> Result<Listener, DoorError> {
    let bound = match address {
        ListenAddress::Tcp(tcp) => Listener::bind_tcp(&tcp.to_string()),
        ListenAddress::Unix(written) => {
            let (path, directory) = socket_path(written, environment)?;
            if let Some(directory) = directory {
                directory.create(environment)?;
            }
            Listener::bind_unix(&path, SOCKET_MODE)
        }
    };
    bound.map_err(|source| DoorError::Bind { address: address.to_string(), source })
}

/// The tokens of a plan, read.
///
/// # Errors
/// [`DoorError`].
pub fn tokens_of(plan: &Plan) -> Result<Tokens, DoorError> {
    let read = |token: &Option<PlannedToken>| -> Result<Option<Token>, DoorError> {
        let Some(token) = token else { return Ok(None) };
        Ok(Some(Token::new(read_token(token)?.reveal())?))
    };
    Ok(Tokens { reader: read(&plan.http.token)?, admin: read(&plan.http.admin_token)? })
}

/// The tokens that the guard asks for now.
#[derive(Debug, Default)]
pub(super) struct Gate(RwLock<Arc<Tokens>>);

impl Gate {
    pub(super) fn new(tokens: Tokens) -> Gate {
        Gate(RwLock::new(Arc::new(tokens)))
    }

    pub(super) fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, tokens: Tokens) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }
}

/// What the server is told while it runs.
pub(super) enum Change {
    /// Serves this too.
    Open(Listener),
    /// Accepts no more on the listener of this URL, and lets its answers under way finish.
    Close(String),
}

/// Changes that the server has not looked at.
#[derive(Default)]
pub(super) struct Changes {
    queued: Mutex<Vec<Change>>,
    news: Notify,
}

impl Changes {
    fn tell(&self, change: Change) {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.news.notify_one();
    }

    /// Waits for changes; a call that is dropped loses none.
    pub(super) async fn next(&self) -> Vec<Change> {
        loop {
            let queued = std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner));
            if !queued.is_empty() {
                return queued;
            }
            self.news.notified().await;
        }
    }
}

/// The addresses that are served, and the tokens.
pub(super) struct Doors {
    pub(super) gate: Arc<Gate>,
    pub(super) changes: Arc<Changes>,
    /// As a plan says them, with their URLs.
    open: Mutex<Vec<(ListenAddress, String)>>,
    environment: Environment,
}

impl Doors {
    /// Doors that are open already, in the order of the plan.
    pub(super) fn new(plan: &Plan, urls: &[String], tokens: Tokens, environment: Environment) -> Doors {
        let open = plan.http.listen.iter().cloned().zip(urls.iter().cloned()).collect();
        let (gate, changes) = (Arc::new(Gate::new(tokens)), Arc::default());
        Doors { gate, changes, open: Mutex::new(open), environment }
    }

    /// Where the server is found.
    pub(super) fn urls(&self) -> Vec<String> {
        self.open().iter().map(|(_, url)| url.clone()).collect()
    }

    fn open(&self) -> MutexGuard<'_, Vec<(ListenAddress, String)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The doors of another plan: as they will stand, those that are new, and the URLs of those that go.
    fn compare(&self, plan: &Plan) -> Result<Compared, DoorError> {
        let mut free: Vec<Option<(ListenAddress, String)>> = self.open().iter().cloned().map(Some).collect();
        let mut compared = Compared::default();
        for address in &plan.http.listen {
            let same = |door: &&mut Option<(ListenAddress, String)>| door.as_ref().is_some_and(|(of, _)| of == address);
            if let Some(kept) = free.iter_mut().find(same).and_then(Option::take) {
                compared.next.push(kept);
                continue;
            }
            let listener = bind(address, &self.environment)?;
            let url = listener.url().map_err(|source| DoorError::Bind { address: address.to_string(), source });
            compared.fresh.push(listener);
            compared.next.push((address.clone(), url?));
        }
        compared.gone = free.into_iter().flatten().map(|(_, url)| url).collect();
        Ok(compared)
    }
}

/// The doors of two plans.
#[derive(Default)]
struct Compared {
    next: Vec<(ListenAddress, String)>,
    fresh: Vec<Listener>,
    gone: Vec<String>,
}

impl Drop for Compared {
    /// A listener that nobody serves leaves no file.
    fn drop(&mut self) {
        let files: Vec<&PathBuf> = self.fresh.iter().filter_map(Listener::file).collect();
        for file in files {
            // Gone already is as good.
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Doors {
    fn prepare_doors(self: &Arc<Self>, plan: &Plan) -> Result<Prepared, DoorError> {
        let tokens = tokens_of(plan)?;
        let mut compared = self.compare(plan)?;
        let mut changed = Vec::new();
        if !compared.fresh.is_empty() || !compared.gone.is_empty() {
            changed.push("http.listen");
        }
        let was = self.gate.tokens();
        for (key, is, was) in
            [("http.token", &tokens.reader, &was.reader), ("http.admin_token", &tokens.admin, &was.admin)]
        {
            let is_same = match (is, was) {
                (None, None) => true,
                (Some(is), Some(was)) => is.is_same(was),
                _ => false,
            };
            if !is_same {
                changed.push(key);
            }
        }
        let doors = Arc::clone(self);
        let apply = Box::new(move || {
            doors.gate.set(tokens);
            for listener in compared.fresh.drain(..) {
                doors.changes.tell(Change::Open(listener));
            }
            for url in compared.gone.drain(..) {
                doors.changes.tell(Change::Close(url));
            }
            *doors.open() = std::mem::take(&mut compared.next);
        });
        Ok(Prepared { changed, apply })
    }
}

/// What the pipeline asks at a reload.
pub(super) struct Following(pub(super) Arc<Doors>);

impl Follower for Following {
    fn prepare(&self, _: &Plan, is: &Plan) -> Result<Prepared, String> {
        self.0.prepare_doors(is).map_err(|error| error.to_string())
    }
}
