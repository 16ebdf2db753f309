//! Binding the listeners of a plan, before anything else is started.
//!
//! In: the plan. Out: bound sockets by source, and what to say of each. Invariant: one that cannot be bound is an error,
//! but in the built-in default.

use super::*;

type Bound = Vec<(SourceIndex, BoundListener)>;

/// Binds every listener. In the built-in default one that cannot be bound is skipped, with its reason.
pub(super) fn bind_all(plan: &Plan, environment: &Environment) -> Result<(Bound, Vec<ListenerState>), StartError> {
    let mut bound = Vec::new();
    let mut states = Vec::new();
    let mut asked = 0;
    for (index, source) in plan.sources.iter().enumerate().filter(|(_, source)| source.enabled) {
        let SourceKind::Socket(socket) = &source.kind else { continue };
        let access = FileAccess { mode: socket.mode, group: socket.group.clone() };
        for listener in &socket.listen {
            asked += 1;
            let spec = listener_spec(listener, environment)?;
            let kind = kind_of(listener);
            let state = |address: String, client: String, skipped: Option<String>| ListenerState {
                source: source.name.clone(),
                asked: listener.to_string(),
                kind,
                address,
                client,
                skipped,
            };
            match bind(&spec, &access) {
                Ok(socket) => {
                    let address = bare_address(&socket.address(), kind);
                    states.push(state(address, socket.client_line(), None));
                    bound.push((SourceIndex(index as u16), socket));
                }
                Err(error) if plan.built_in => {
                    let address = bare_address(&spec.to_string(), kind);
                    let reason = match &error {
                        BindError::InUse { .. } => "address in use".to_owned(),
                        other => other.to_string(),
                    };
                    states.push(state(address, String::new(), Some(reason)));
                }
                Err(error) => return Err(StartError::Bind { source_name: source.name.clone(), error }),
            }
        }
    }
    if asked > 0 && bound.is_empty() {
        let reasons: Vec<String> = states
            .iter()
            .filter_map(|state| state.skipped.as_ref().map(|reason| format!("{}: {reason}", state.asked)))
            .collect();
        return Err(StartError::NoListener(reasons.join("; ")));
    }
    if bound.iter().any(|(_, listener)| matches!(listener.spec(), ListenerSpec::UnixDatagram(_))) {
        warn_of_short_datagram_queue();
    }
    Ok((bound, states))
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
