//! `[http]` as meant.
//!
//! In: the table as written. Out: [`HttpPlan`]. Invariants: an address that others can reach has a token; a token never
//! stands in a file.

use super::config::PipelineFile;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::paths::beside;
use super::plan::{HttpPlan, ListenAddress, Secret, Token};
use super::reader::At;
use super::tables::HttpTable;
use super::written::SecretText;

use std::net::SocketAddr;

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
    let token = secret(("token", &table.token), &table.token_file, "METRICS_TOKEN", files, errors);
    let admin = ("admin_token", &table.admin_token);
    let admin_token = secret(admin, &table.admin_token_file, "ADMIN_TOKEN", files, errors);
    let open = listen.iter().find(|a| matches!(a, ListenAddress::Tcp(address) if !address.ip().is_loopback()));
    if let (Some(open), None) = (open, &token) {
        let at = table.token.as_ref().map(|at| &at.place).or(table.listen.as_ref().map(|at| &at.place));
        let d = Diagnostic::new(at.unwrap_or(&table.place), format!("{open} is open to the network without a token"));
        errors.push(d.note(
            "set token_file, or token = \"${METRICS_TOKEN}\"; no token is accepted on loopback and Unix sockets only",
        ));
    }
    HttpPlan { listen, token, admin_token, created: table.created.as_ref().is_some_and(|at| at.value) }
}

/// A token that stands in the environment or in a file of its own.
fn secret(
    (key, value): (&str, &Option<At<SecretText>>),
    file: &Option<At<String>>,
    variable: &str,
    files: &[PipelineFile],
    errors: &mut Diagnostics,
) -> Option<Token> {
    if let (Some(token), Some(_)) = (value, file)
        && !token.value.text.is_empty()
    {
        let d = Diagnostic::new(&token.place, format!("both {key} and {key}_file are set"));
        errors.push(d.note("keep one of them"));
    }
    if let Some(at) = value
        && !at.value.text.is_empty()
    {
        if at.value.literal {
            let d = Diagnostic::new(&at.place, "a token does not stand in the file itself");
            let path = variable.to_lowercase();
            errors
                .push(d.note(format!("write {key} = \"${{{variable}:-}}\", or {key}_file = \"/run/secrets/{path}\"")));
        }
        return Some(Token::Value(Secret::new(at.value.text.clone())));
    }
    let at = file.as_ref().filter(|at| !at.value.is_empty())?;
    Some(Token::File(beside(at, files)))
}

/// An address and port; no names but `localhost`, since a plan does no I/O.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replacen("localhost:", "127.0.0.1:", usize::from(text.starts_with("localhost:")));
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|p| p.parse::<u16>().is_ok()).unwrap_or("PORT");
        format!("write an address and a port, as in \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all addresses")
    })
}
