//! A small HTTP client for the verbs that talk to a running instance, over TCP and Unix sockets.
//!
//! In: a method, a path, a body. Out: the status and the whole body. Owns: the address and the token.
//! Invariants: every step has a timeout; whatever fails, the error names the address that was tried.

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Bytes};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::fmt::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where an instance answers unless told otherwise.
pub(super) const URL_DEFAULT: &str = "http://127.0.0.1:9911";
/// For the connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// For the answer; a `send` waits for a commit, and a store in trouble may take long.
const ANSWER_PATIENCE: Duration = Duration::from_secs(70);
/// Of an answer; what we ask for is much smaller.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An instance's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `http://HOST:PORT[/PREFIX]`: host and port as written, and the path before every route.
    Tcp {
        /// `127.0.0.1:9911`, `[::1]:9911`, `name:80`.
        authority: String,
        /// Empty, or begins with `/` and does not end so.
        prefix: String,
    },
    /// `unixstream:PATH`
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unixstream:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("unixstream: needs a path".into())
            } else {
                Ok(Target::Unix(path.into()))
            };
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!("{text:?} is neither http://HOST:PORT nor unixstream:PATH"));
        };
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c == '@') {
            return Err(format!("{text:?} has no host"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let prefix = prefix.trim_end_matches('/');
        Ok(Target::Tcp { authority, prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") } })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp { authority, prefix } => write!(f, "http://{authority}{prefix}"),
            Target::Unix(path) => write!(f, "unixstream:{}", path.display()),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Reply {
    /// The body of a 200; anything else as an error with the instance's words.
    pub(super) fn expect_ok(self) -> anyhow::Result<Bytes> {
        if self.status == 200 {
            return Ok(self.body);
        }
        let said: Option<String> = serde_json::from_slice::<serde_json::Value>(&self.body)
            .ok()
            .and_then(|value| value.get("error")?.as_str().map(super::show::foreign));
        match (self.status, said) {
            (401, _) => bail!("the instance wants its token: give --token-file or HYDROGRAPH_TOKEN_FILE"),
            (status, Some(said)) => bail!("the instance answered {status}: {said}"),
            (status, None) => bail!("the instance answered {status}; is it hydrograph?"),
        }
    }
}

/// One instance.
pub(super) struct Client {
    target: Target,
    authorization: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Reads the token; connects to nothing yet.
    pub(super) fn new(target: Target, token_file: Option<&Path>) -> anyhow::Result<Client> {
        let authorization = match token_file {
            Some(path) => {
                let token = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the token file {}", path.display()))?;
                Some(format!("Bearer {}", token.trim()))
            }
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Client { target, authorization, runtime })
    }

    /// The address that is asked.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// `GET path`
    pub(super) fn get(&self, path: &str, accept: &str) -> anyhow::Result<Reply> {
        self.ask(Method::GET, path, accept, "text/plain", Vec::new())
    }

    /// `POST path` with a form.
    pub(super) fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Reply> {
        let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        self.ask(Method::POST, path, "*/*", "application/x-www-form-urlencoded", pairs.join("&").into_bytes())
    }

    /// `POST path` with plain text.
    pub(super) fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<Reply> {
        self.ask(Method::POST, path, "*/*", "text/plain", body)
    }

    /// `POST path`, for an answer that takes as long as it takes.
    pub(super) fn post_patiently(&self, path: &str) -> anyhow::Result<Reply> {
        self.runtime.block_on(async {
            let request = self.request(Method::POST, path, "*/*", "text/plain", Vec::new())?;
            let stream = self.connect().await?;
            tokio::select! {
                reply = exchange(stream, request) => reply.with_context(|| format!("{} broke off", self.target)),
                interrupted = super::signals::stop_asked() => {
                    interrupted?;
                    bail!("interrupted")
                }
            }
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let (host, prefix) = match &self.target {
            Target::Tcp { authority, prefix } => (authority.as_str(), prefix.as_str()),
            Target::Unix(_) => ("localhost", ""),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(HOST, host)
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, content_type);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(Bytes::from(body))).context("the token cannot stand in a header")
    }

    /// `GET path`, whose answer goes on: every line of it as it comes, until `take` says that it is enough, the answer
    /// ends, somebody interrupts, or the time is over.
    pub(super) fn follow(
        &self,
        path: &str,
        limit: Option<Duration>,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<Followed> {
        self.runtime.block_on(async {
            let request = self.request(Method::GET, path, "*/*", "text/plain", Vec::new())?;
            let stream = self.connect().await?;
            let over = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                followed = follow(stream, request, &mut take) => {
                    followed.with_context(|| format!("{} broke off", self.target))
                }
                interrupted = super::signals::stop_asked() => Ok(interrupted.map(|()| Followed::Interrupted)?),
                () = over => Ok(Followed::TimeIsOver),
            }
        })
    }

    /// `GET path`, whose answer may be long: piece after piece, with the length of the whole where it is known.
    ///
    /// # Errors
    /// Nobody answers, the answer breaks off or comes too slowly, somebody interrupts, or what `take` returned.
    pub(super) fn copy(
        &self,
        path: &str,
        take: impl FnMut(Option<u64>, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Copied> {
        self.copy_by(Method::GET, path, take)
    }

    /// As [`copy`](Self::copy), by POST.
    pub(super) fn fetch(
        &self,
        path: &str,
        take: impl FnMut(Option<u64>, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Copied> {
        self.copy_by(Method::POST, path, take)
    }

    fn copy_by(
        &self,
        method: Method,
        path: &str,
        mut take: impl FnMut(Option<u64>, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Copied> {
        self.runtime.block_on(async {
            let request = self.request(method, path, "*/*", "text/plain", Vec::new())?;
            let stream = self.connect().await?;
            tokio::select! {
                copied = copy(stream, request, &mut take) => copied.with_context(|| format!("{} broke off", self.target)),
                interrupted = super::signals::stop_asked() => {
                    interrupted?;
                    bail!("interrupted")
                }
            }
        })
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Reply> {
        self.runtime.block_on(async {
            let request = self.request(method, path, accept, content_type, body)?;
            let stream = self.connect().await?;
            tokio::time::timeout(ANSWER_PATIENCE, exchange(stream, request))
                .await
                .map_err(|_| anyhow!("no answer within {} s", ANSWER_PATIENCE.as_secs()))
                .flatten()
                .with_context(|| format!("{} did not answer", self.target))
        })
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Stream>> {
        let connected = async {
            Ok::<Box<dyn Stream>, std::io::Error>(match &self.target {
                Target::Tcp { authority, .. } => Box::new(tokio::net::TcpStream::connect(authority.as_str()).await?),
                Target::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            })
        };
        let problem = match tokio::time::timeout(CONNECT_PATIENCE, connected).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECT_PATIENCE.as_secs()),
        };
        bail!(
            "nobody answers at {}: {problem}\n  start one with `hydrograph run`, or say where it is with --url or HYDROGRAPH_URL",
            self.target
        )
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One request over one connection. The connection is driven here, beside the request, so that nothing is spawned.
async fn exchange(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|problem| anyhow!("the answer broke off: {problem}"))?.to_bytes();
        anyhow::Ok(Reply { status, body })
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    let mut is_driven = true;
    loop {
        tokio::select! {
            answer = answer.as_mut() => return answer,
            // Its end alone is no error: the answer may be complete.
            _ = connection.as_mut(), if is_driven => is_driven = false,
        }
    }
}

/// A query parameter's value, percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// How copying an answer ended.
#[derive(Debug)]
pub(super) enum Copied {
    /// It was refused; what the instance said.
    Refused(Reply),
    /// All of it was handed over.
    Whole,
}

/// One request whose answer is handed over as it comes.
async fn copy(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    take: &mut impl FnMut(Option<u64>, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Copied> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let pieces = async {
        let late = |_| anyhow!("nothing came within {} s", ANSWER_PATIENCE.as_secs());
        let mut answer = tokio::time::timeout(ANSWER_PATIENCE, sender.send_request(request)).await.map_err(late)??;
        let status = answer.status().as_u16();
        if status != 200 {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|problem| anyhow!("the answer broke off: {problem}"))?.to_bytes();
            return Ok(Copied::Refused(Reply { status, body }));
        }
        let length = answer.body().size_hint().exact();
        while let Some(frame) = tokio::time::timeout(ANSWER_PATIENCE, answer.frame()).await.map_err(late)? {
            if let Ok(bytes) = frame?.into_data() {
                take(length, &bytes)?;
            }
        }
        anyhow::Ok(Copied::Whole)
    };
    let (mut pieces, mut connection) = (std::pin::pin!(pieces), std::pin::pin!(connection));
    let mut is_driven = true;
    loop {
        tokio::select! {
            copied = pieces.as_mut() => return copied,
            // Its end alone is no error: pieces may still be in the answer.
            _ = connection.as_mut(), if is_driven => is_driven = false,
        }
    }
}

/// How following an answer ended.
#[derive(Debug)]
pub(super) enum Followed {
    /// It was refused; what the instance said.
    Refused(Reply),
    /// The taker had enough.
    Taken,
    /// The answer ended, or broke off.
    Ended,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// So long and no longer.
    TimeIsOver,
}

/// One request whose answer is handed over line by line.
async fn follow(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    take: &mut impl FnMut(&[u8]) -> anyhow::Result<ControlFlow<()>>,
) -> anyhow::Result<Followed> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let lines = async {
        let sent = tokio::time::timeout(ANSWER_PATIENCE, sender.send_request(request)).await;
        let mut answer = sent.map_err(|_| anyhow!("no answer within {} s", ANSWER_PATIENCE.as_secs()))??;
        let status = answer.status().as_u16();
        if status != 200 {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|problem| anyhow!("the answer broke off: {problem}"))?.to_bytes();
            return Ok(Followed::Refused(Reply { status, body }));
        }
        let mut rest = Vec::new();
        while let Some(frame) = answer.frame().await {
            // Whoever sends has gone: what was whole has been handed over.
            let Ok(frame) = frame else { break };
            let Ok(bytes) = frame.into_data() else { continue };
            rest.extend_from_slice(&bytes);
            let mut at = 0;
            while let Some(length) = memchr::memchr(b'\n', &rest[at..]) {
                let line = &rest[at..at + length];
                at += length + 1;
                if !line.is_empty() && take(line)?.is_break() {
                    return Ok(Followed::Taken);
                }
            }
            rest.drain(..at);
            if rest.len() > ANSWER_BYTES_MAX {
                bail!("a line of the answer is longer than {ANSWER_BYTES_MAX} bytes");
            }
        }
        anyhow::Ok(Followed::Ended)
    };
    let (mut lines, mut connection) = (std::pin::pin!(lines), std::pin::pin!(connection));
    let mut is_driven = true;
    loop {
        tokio::select! {
            followed = lines.as_mut() => return followed,
            // Its end alone is no error: lines may still be in the answer.
            _ = connection.as_mut(), if is_driven => is_driven = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(expected.to_owned()));
    }

    #[test]
    fn targets_as_written() {
        check(URL_DEFAULT, "http://127.0.0.1:9911");
        check("http://localhost:1/", "http://localhost:1");
        check("http://host", "http://host:80");
        check("http://[::1]:9911/behind/proxy/", "http://[::1]:9911/behind/proxy");
        check("unixstream:/run/x.sock", "unixstream:/run/x.sock");
        check("unixstream:///run/x.sock", "unixstream:/run/x.sock");
        for wrong in ["", "127.0.0.1:9911", "https://x", "http://", "http:///x", "http://a@b", "unixstream:"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
