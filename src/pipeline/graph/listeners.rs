//! The listeners of a running pipeline: bound before anything else starts, and matched by content at a reload (R1).
//!
//! In: plans. Out: bound sockets in reactors, and what to say of each. Owns: which socket stands in which reactor.
//! Invariants: one that cannot be bound is an error, but in the built-in default; what stands in both plans keeps its socket
//! and its connections, also under another source; a [`Change`] that is dropped has changed nothing.

use super::*;
use crate::source::orders::{Order, ReactorHandle};

/// One listener of a plan.
#[derive(Clone)]
struct Held {
    source: SourceIndex,
    asked: Listener,
    access: FileAccess,
    state: ListenerState,
    /// The socket and the reactors that poll it; `None` when it was skipped.
    socket: Option<(BoundListener, Vec<usize>)>,
}

/// All listeners, in the order of the plan.
pub(in crate::pipeline) struct Listeners {
    held: Vec<Held>,
    reactors: Vec<ReactorHandle>,
    /// Every reactor polls every socket; else one of them does.
    is_shared: bool,
    environment: Environment,
}

impl Listeners {
    /// Binds every listener. In the built-in default one that cannot be bound is skipped, with its reason.
    pub(super) fn bind(plan: &Plan, roster: &Roster, environment: &Environment) -> Result<Listeners, StartError> {
        let mut listeners =
            Listeners { held: Vec::new(), reactors: Vec::new(), is_shared: false, environment: environment.clone() };
        let change = listeners.prepare(plan, roster)?;
        let reasons: Vec<String> = change
            .next
            .iter()
            .filter_map(|held| held.state.skipped.as_ref().map(|reason| format!("{}: {reason}", held.state.asked)))
            .collect();
        if !change.next.is_empty() && reasons.len() == change.next.len() {
            return Err(StartError::NoListener(reasons.join("; ")));
        }
        listeners.held = change.take();
        Ok(listeners)
    }

    /// The sockets by the reactor that is to poll them; `is_shared`: each stands in every one.
    pub(super) fn deal(&mut self, reactors: usize, is_shared: bool) -> Vec<Vec<(SourceIndex, BoundListener)>> {
        self.is_shared = is_shared;
        let mut dealt = vec![Vec::new(); reactors];
        let sockets = self.held.iter_mut().filter_map(|held| held.socket.as_mut().map(|socket| (held.source, socket)));
        for (at, (source, (listener, places))) in sockets.enumerate() {
            *places = if is_shared { (0..reactors).collect() } else { vec![at % reactors] };
            places.iter().for_each(|place| dealt[*place].push((source, listener.clone())));
        }
        dealt
    }

    /// How the reactors are told of changes, in the order of [`deal`](Self::deal).
    pub(super) fn reach(&mut self, reactors: Vec<ReactorHandle>) {
        self.reactors = reactors;
    }

    /// Lets go of the sockets, so that they end with their reactors; what is to be said of each stays.
    pub(super) fn release(&mut self) {
        self.held.iter_mut().for_each(|held| held.socket = None);
    }

    /// What is to be said of each.
    pub(in crate::pipeline) fn states(&self) -> Vec<ListenerState> {
        self.held.iter().map(|held| held.state.clone()).collect()
    }

    /// Binds what another plan adds and gives files to whom it says. Nothing is read from new sockets, and nothing leaves,
    /// before [`follow`](Self::follow).
    ///
    /// # Errors
    /// [`StartError`]; everything is as it was then.
    pub(in crate::pipeline) fn prepare(&self, plan: &Plan, roster: &Roster) -> Result<Change, StartError> {
        let mut change = Change::default();
        let wanted: Vec<(&SourcePlan, &SocketPlan, SourceIndex, &Listener)> = plan
            .sources
            .iter()
            .filter(|source| source.enabled)
            .filter_map(|source| match &source.kind {
                SourceKind::Socket(socket) => Some((source, socket, roster.index(&source.name)?)),
                _ => None,
            })
            .flat_map(|(source, socket, index)| socket.listen.iter().map(move |asked| (source, socket, index, asked)))
            .collect();
        // By source and content first, so that a socket goes to another source only where its own lets go of it.
        let mut free: Vec<Option<&Held>> = self.held.iter().map(|held| held.socket.is_some().then_some(held)).collect();
        let mut matched: Vec<Option<&Held>> = vec![None; wanted.len()];
        for is_moved in [false, true] {
            for ((_, _, index, asked), place) in wanted.iter().zip(&mut matched).filter(|(_, place)| place.is_none()) {
                let fits = |held: &Held| held.asked == **asked && (is_moved || held.source == *index);
                *place = free.iter_mut().find(|held| held.is_some_and(fits)).and_then(Option::take);
            }
        }
        change.leaving = free.into_iter().flatten().cloned().collect();
        for ((source, socket, index, asked), known) in wanted.into_iter().zip(matched) {
            let access = FileAccess { mode: socket.mode, group: socket.group.clone() };
            let held = match known {
                Some(known) => change.keep(known, source, index, access)?,
                None => self.bind_one(source, index, asked, access, plan.built_in)?,
            };
            change.next.push(held);
        }
        let is_datagram = |held: &Held| held.socket.is_some() && matches!(held.asked, Listener::UnixDatagram(_));
        if change.next.iter().any(is_datagram) {
            warn_of_short_datagram_queue();
        }
        Ok(change)
    }

    fn bind_one(
        &self,
        source: &SourcePlan,
        index: SourceIndex,
        asked: &Listener,
        access: FileAccess,
        may_skip: bool,
    ) -> Result<Held, StartError> {
        let spec = listener_spec(asked, &self.environment)?;
        let kind = kind_of(asked);
        let state = |address: &str, client: String, skipped: Option<String>| ListenerState {
            source: source.name.clone(),
            asked: asked.to_string(),
            kind,
            address: bare_address(address, kind),
            client,
            skipped,
        };
        let (state, socket) = match bind(&spec, &access) {
            Ok(socket) => (state(&socket.address(), socket.client_line(), None), Some((socket, Vec::new()))),
            Err(error) if may_skip => {
                let reason = match &error {
                    BindError::InUse { .. } => "address in use".to_owned(),
                    other => other.to_string(),
                };
                (state(&spec.to_string(), String::new(), Some(reason)), None)
            }
            Err(error) => return Err(StartError::Bind { source_name: source.name.clone(), error }),
        };
        Ok(Held { source: index, asked: asked.clone(), access, state, socket })
    }

    /// Carries a change out. Each of what is answered says when one reactor has read what leaves to its end, and reads
    /// what stays for the source that it is of now.
    pub(in crate::pipeline) fn follow(&mut self, change: Change) -> Vec<mpsc::Receiver<()>> {
        let mut orders: Vec<Vec<Order>> = vec![Vec::new(); self.reactors.len()];
        for held in &change.leaving {
            if let Some((listener, places)) = &held.socket {
                // New clients find no file from here on.
                listener.unlink();
                places.iter().for_each(|place| orders[*place].push(Order::Close(listener.clone())));
            }
        }
        let was: HashMap<usize, SourceIndex> =
            self.held.iter().filter_map(|held| Some((held.socket.as_ref()?.0.number(), held.source))).collect();
        let mut next = change.take();
        let mut load = vec![0usize; self.reactors.len()];
        let places = next.iter().filter_map(|held| held.socket.as_ref()).flat_map(|(_, places)| places);
        places.for_each(|place| load[*place] += 1);
        for held in &mut next {
            let Some((listener, places)) = &mut held.socket else { continue };
            if places.is_empty() {
                let least = (0..load.len()).min_by_key(|place| load[*place]).unwrap_or(0);
                *places = if self.is_shared { (0..load.len()).collect() } else { vec![least] };
                places.iter().for_each(|place| load[*place] += 1);
                places.iter().for_each(|place| orders[*place].push(Order::Open(held.source, listener.clone())));
            } else if was.get(&listener.number()) != Some(&held.source) {
                places.iter().for_each(|place| orders[*place].push(Order::Assign(held.source, listener.clone())));
            }
        }
        self.held = next;
        let told = self.reactors.iter().zip(orders).filter(|(_, orders)| !orders.is_empty());
        told.map(|(reactor, orders)| {
            let (done, left) = mpsc::sync_channel(1);
            reactor.tell(
                orders,
                Box::new(move || {
                    // Whoever waits may have given up.
                    let _ = done.send(());
                }),
            );
            left
        })
        .collect()
    }
}

/// The listeners of another plan, bound and not yet polled.
#[derive(Default)]
pub(in crate::pipeline) struct Change {
    next: Vec<Held>,
    leaving: Vec<Held>,
    /// Files whose access was changed, with what it was.
    given: Vec<(BoundListener, FileAccess)>,
}

impl Change {
    /// True when a socket goes, and with it what it received last.
    pub(in crate::pipeline) fn takes_away(&self) -> bool {
        !self.leaving.is_empty()
    }

    fn keep(
        &mut self,
        known: &Held,
        source: &SourcePlan,
        index: SourceIndex,
        access: FileAccess,
    ) -> Result<Held, StartError> {
        if let Some((listener, _)) = known.socket.as_ref().filter(|_| known.access != access) {
            self.given.push((listener.clone(), known.access.clone()));
            let given = listener.set_access(&access);
            given.map_err(|error| StartError::Bind { source_name: source.name.clone(), error })?;
        }
        let state = ListenerState { source: source.name.clone(), ..known.state.clone() };
        Ok(Held { source: index, access, state, ..known.clone() })
    }

    fn take(mut self) -> Vec<Held> {
        self.given.clear();
        std::mem::take(&mut self.next)
    }
}

impl Drop for Change {
    /// Files that were given to others go back; sockets that were bound go with their files by themselves.
    fn drop(&mut self) {
        for (listener, access) in self.given.drain(..) {
            if let Err(error) = listener.set_access(&access) {
                tracing::warn!(address = listener.address(), %error, "a socket file keeps the mode of a refused reload");
            }
        }
    }
}

fn listener_spec(listener: &Listener, environment: &Environment) -> Result<ListenerSpec, StartError> {
    let resolve = |path| -> Result<PathBuf, StartError> {
        let (path, directory) = paths::socket_path(path, environment)?;
        if let Some(directory) = directory {
            directory.create(environment)?;
        }
        Ok(path)
    };
    Ok(match listener {
        Listener::UnixDatagram(path) => ListenerSpec::UnixDatagram(resolve(path)?),
        Listener::UnixStream(path) => ListenerSpec::UnixStream(resolve(path)?),
        Listener::Udp(address) => ListenerSpec::Udp(*address),
        Listener::Tcp(address) => ListenerSpec::Tcp(*address),
    })
}

fn kind_of(listener: &Listener) -> &'static str {
    match listener {
        Listener::UnixDatagram(_) => "unixgram",
        Listener::UnixStream(_) => "unixstream",
        Listener::Udp(_) => "udp",
        Listener::Tcp(_) => "tcp",
    }
}

fn bare_address(printed: &str, kind: &str) -> String {
    printed.strip_prefix(kind).map_or(printed, |rest| rest.trim_start_matches([' ', ':'])).to_owned()
}
