//! What the pipeline listens on and reads, as meant: `[http]` and `[sources.NAME]`.
//!
//! In: the tables as written. Out: [`HttpPlan`] and [`SourcePlan`]s. Invariants: `internal` stands at place 0; no
//! address is listened on twice; an address that others can reach has a token; a token never stands in a file.

use super::build::{DAY, SECOND, nanos};
use super::config::{Config, HttpTable, PipelineFile, SocketTable, SourceTable};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::plan::{
    HostPlan, HttpPlan, ListenAddress, Listener, ReaderThreads, Secret, SocketPlan, SourceKind, SourcePlan, Token,
};
use super::reader::At;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `[http]`.
pub(super) fn http(table: &HttpTable, files: &[PipelineFile], errors: &mut Diagnostics) -> HttpPlan {
    let enabled = table.enabled.as_ref().is_none_or(|at| at.value);
    let mut listen = Vec::new();
    match &table.listen {
        None => listen.push(ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9911)))),
        Some(all) => {
            for at in &all.value {
                match at.value.split_once(':') {
                    Some(("unixstream", path)) if !path.is_empty() => listen.push(ListenAddress::Unix(path.into())),
                    _ => match address(&at.value) {
                        Ok(address) => listen.push(ListenAddress::Tcp(address)),
                        Err(note) => {
                            let d = Diagnostic::new(&at.place, format!("cannot listen on \"{}\"", at.value));
                            errors.push(d.note(note).note("or \"unixstream:PATH\""));
                        }
                    },
                }
            }
            if all.value.is_empty() && enabled {
                let d = Diagnostic::new(&all.place, "http.listen is empty");
                errors.push(d.note("enabled = false in [http] switches it off"));
            }
        }
    }
    if !enabled {
        listen.clear();
    }
    let token = token(table, files, errors);
    let open = listen.iter().find(|a| matches!(a, ListenAddress::Tcp(address) if !address.ip().is_loopback()));
    if let (Some(open), None) = (open, &token) {
        let at = table.token.as_ref().map(|at| &at.place).or(table.listen.as_ref().map(|at| &at.place));
        let d = Diagnostic::new(at.unwrap_or(&table.place), format!("{open} is open to the network without a token"));
        errors.push(d.note(
            "set token_file, or token = \"${METRICS_TOKEN}\"; no token is accepted on loopback and Unix sockets only",
        ));
    }
    HttpPlan { listen, token, created: table.created.as_ref().is_some_and(|at| at.value) }
}

fn token(table: &HttpTable, files: &[PipelineFile], errors: &mut Diagnostics) -> Option<Token> {
    if let (Some(token), Some(_)) = (&table.token, &table.token_file)
        && !token.value.text.is_empty()
    {
        errors.push(Diagnostic::new(&token.place, "both token and token_file are set").note("keep one of them"));
    }
    if let Some(at) = &table.token
        && !at.value.text.is_empty()
    {
        if at.value.literal {
            let d = Diagnostic::new(&at.place, "a token does not stand in the file itself");
            errors.push(d.note("write token = \"${METRICS_TOKEN:-}\", or token_file = \"/run/secrets/metrics_token\""));
        }
        return Some(Token::Value(Secret::new(at.value.text.clone())));
    }
    let at = table.token_file.as_ref().filter(|at| !at.value.is_empty())?;
    Some(Token::File(beside(at, files)))
}

/// A path of the file, relative to the file that names it; `./x` and paths from variables are relative to the
/// working directory.
fn beside(at: &At<String>, files: &[PipelineFile]) -> PathBuf {
    let path = Path::new(&at.value);
    if at.place.variable.is_some() || at.value.starts_with("./") {
        return path.to_owned();
    }
    let file = files.iter().find(|file| file.name == at.place.source.name);
    file.map_or_else(|| path.to_owned(), |file| file.directory.join(path))
}

/// An address and port; no names but `localhost`, since a plan does no I/O.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replacen("localhost:", "127.0.0.1:", usize::from(text.starts_with("localhost:")));
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|p| p.parse::<u16>().is_ok()).unwrap_or("PORT");
        format!("write an address and a port, as in \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all addresses")
    })
}

/// `[sources]`, in the order of the file but for `internal`.
pub(super) fn sources(config: &Config, errors: &mut Diagnostics) -> Vec<SourcePlan> {
    let mut internal: Option<SourcePlan> = None;
    let mut sources: Vec<SourcePlan> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, table) in &config.sources {
        let valid = (1..=64).contains(&name.value.len())
            && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !valid {
            let d = Diagnostic::new(&name.place, format!("\"{}\" is not a source name", name.value));
            errors.push(d.note("a name has 1 to 64 letters, digits, \"_\" and \"-\""));
        }
        let (kind, enabled) = match table {
            SourceTable::Socket(table) => (SourceKind::Socket(socket(name, table, &mut seen, errors)), &table.enabled),
            SourceTable::Host(table) => {
                let every = nanos(&table.every, "every", 15 * SECOND, SECOND..=DAY, errors);
                let disk = table.disk.as_ref().map_or_else(|| "/".into(), |at| PathBuf::from(&at.value));
                (SourceKind::Host(HostPlan { every, disk }), &table.enabled)
            }
            SourceTable::Internal(table) => (SourceKind::Internal, &table.enabled),
        };
        let enabled = enabled.as_ref().is_none_or(|at| at.value);
        let is_internal = matches!(kind, SourceKind::Internal);
        let source = SourcePlan { name: name.value.clone(), kind, enabled };
        match (&internal, is_internal) {
            (Some(first), true) => {
                let d = Diagnostic::new(&name.place, "a second source of type internal");
                errors.push(d.note(format!("[sources.{}] is one already", first.name)));
            }
            (None, true) => internal = Some(source),
            (_, false) => sources.push(source),
        }
    }
    if sources.len() >= usize::from(u16::MAX) {
        errors.push(Diagnostic::bare(format!("{} sources; at most {}", sources.len(), u16::MAX - 1)));
    }
    let internal = internal.unwrap_or_else(|| {
        if let Some((name, _)) = config.sources.iter().find(|(name, _)| name.value == "internal") {
            let d = Diagnostic::new(&name.place, "source \"internal\" is of another type");
            errors.push(d.note("that name belongs to the pipeline's own metrics; choose another"));
        }
        SourcePlan { name: "internal".into(), kind: SourceKind::Internal, enabled: true }
    });
    sources.insert(0, internal);
    sources
}

fn socket(
    name: &At<String>,
    table: &SocketTable,
    seen: &mut Vec<(String, String)>,
    errors: &mut Diagnostics,
) -> SocketPlan {
    let enabled = table.enabled.as_ref().is_none_or(|at| at.value);
    let mut listen = Vec::new();
    for at in table.listen.iter().flat_map(|at| &at.value) {
        let listener = match listener(&at.value) {
            Ok(listener) => listener,
            Err(note) => {
                errors.push(Diagnostic::new(&at.place, format!("cannot listen on \"{}\"", at.value)).note(note));
                continue;
            }
        };
        let shown = listener.to_string();
        // Port 0 is a new port each time.
        match seen.iter().find(|(known, _)| *known == shown && !shown.ends_with(":0")) {
            Some((_, source)) if enabled => {
                let d = Diagnostic::new(&at.place, format!("\"{shown}\" is listened on twice"));
                errors.push(d.note(format!("also in [sources.{source}]")));
            }
            None if enabled => seen.push((shown, name.value.clone())),
            _ => {}
        }
        listen.push(listener);
    }
    if listen.is_empty() && table.listen.as_ref().is_none_or(|at| at.value.is_empty()) {
        let place = table.listen.as_ref().map_or(&name.place, |at| &at.place);
        let d = Diagnostic::new(place, format!("[sources.{}] listens nowhere", name.value));
        errors.push(d.note("add listen = [\"unixgram:dsd.socket\", \"udp:127.0.0.1:8125\"]"));
    }
    let mut mode = 0o722;
    if let Some(at) = &table.mode {
        match u32::from_str_radix(at.value.trim_start_matches("0o"), 8) {
            Ok(bits) if bits <= 0o777 => mode = bits,
            _ => {
                let d = Diagnostic::new(&at.place, format!("mode \"{}\" is not an octal file mode", at.value));
                errors.push(d.note("write mode = \"0722\""));
            }
        }
    }
    let threads = match table.threads.as_ref().map(|at| (at, at.value.as_str())) {
        None => ReaderThreads::Auto,
        Some((_, "fused")) => ReaderThreads::Fused,
        Some((_, "split")) => ReaderThreads::Split,
        Some((at, other)) => {
            let d = Diagnostic::new(&at.place, format!("unknown threads \"{other}\""));
            errors.push(d.nearest(other, ["fused", "split"]));
            ReaderThreads::Auto
        }
    };
    let group = table.group.as_ref().map(|at| at.value.clone()).filter(|group| !group.is_empty());
    SocketPlan { listen, mode, group, threads }
}

fn listener(text: &str) -> Result<Listener, String> {
    let forms = "unixgram:PATH, unixstream:PATH, udp:ADDRESS:PORT or tcp:ADDRESS:PORT";
    let (scheme, rest) = text.split_once(':').ok_or_else(|| format!("write {forms}"))?;
    match scheme {
        "unixgram" | "unixstream" if rest.is_empty() => Err(format!("no path after \"{scheme}:\"")),
        "unixgram" => Ok(Listener::UnixDatagram(rest.into())),
        "unixstream" => Ok(Listener::UnixStream(rest.into())),
        "udp" => address(rest).map(Listener::Udp),
        "tcp" => address(rest).map(Listener::Tcp),
        _ => Err(format!("write {forms}")),
    }
}
