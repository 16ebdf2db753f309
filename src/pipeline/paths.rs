//! Where sockets and stores stand: the runtime and the state directory.
//!
//! In: paths as written and an [`Environment`]. Out: resolved paths, directories made on demand. Owns: nothing.
//! Invariant: this is the only file that reads environment variables, and it does so once per [`Environment`],
//! so that tests give theirs; a directory under `/tmp` is used only if it is ours and closed to others.

use super::config::PipelineFile;
use super::plan::{Secret, Token};
use super::reader::At;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs::FileType;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Longest path of a Unix socket in bytes (`sun_path` has 108 with its end).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What the resolution of paths and references asks of the world.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    uid: u32,
    writable: Arc<dyn Fn(&Path) -> bool + Send + Sync>,
}

impl Environment {
    /// That of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Environment {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Environment {
            variables: std::env::vars_os().filter_map(text).collect(),
            uid: rustix::process::geteuid().as_raw(),
            writable: Arc::new(|path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()),
        }
    }

    /// A made-up one: the variables, the user, and which existing directories may be written to.
    pub fn fixed(
        variables: impl IntoIterator<Item = (String, String)>,
        uid: u32,
        writable: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> Environment {
        Environment { variables: variables.into_iter().collect(), uid, writable: Arc::new(writable) }
    }

    /// All variables.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// One variable, unless it is empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The effective user.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// An absolute path in a variable; systemd may give a list, of which the first counts.
    fn directory(&self, variable: &str) -> Option<PathBuf> {
        let first = self.variable(variable)?.split(':').next()?;
        let path = PathBuf::from(first);
        path.is_absolute().then_some(path)
    }

    /// True for a directory that can be written to, or that could be made in its parent.
    fn usable(&self, path: &Path) -> bool {
        (self.writable)(path) || (!path.exists() && path.parent().is_some_and(|parent| (self.writable)(parent)))
    }
}

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Nothing says where the state directory is.
    #[error("no state directory: set STATE_DIRECTORY, XDG_STATE_HOME or HOME, or an absolute [store] path")]
    NoStateDirectory,
    /// Too long for a socket.
    #[error(
        "socket path {path} has {bytes} bytes; at most {SOCKET_PATH_BYTES_MAX}: choose a shorter one, or set XDG_RUNTIME_DIR"
    )]
    SocketPathTooLong {
        /// The resolved path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Not ours.
    #[error("{path} belongs to another user or is open to others; remove it, or set XDG_RUNTIME_DIR")]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot make directory {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of the bearer token cannot be read.
    #[error("cannot read the token in {path}: {source}")]
    Token {
        /// `http.token_file`
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds nothing: an empty token would let everybody in.
    #[error("the token file {path} is empty")]
    EmptyToken {
        /// `http.token_file`
        path: PathBuf,
    },
}

/// A path of a pipeline file, relative to the file that names it; `./x` and paths from variables are relative to the
/// working directory.
pub(super) fn beside(at: &At<String>, files: &[PipelineFile]) -> PathBuf {
    let path = Path::new(&at.value);
    if at.place.variable.is_some() || at.value.starts_with("./") {
        return path.to_owned();
    }
    let file = files.iter().find(|file| file.name == at.place.source.name);
    file.map_or_else(|| path.to_owned(), |file| file.directory.join(path))
}

/// The bytes of a regular file. Reading anything else may never end: of a pipe that nobody writes to, of a terminal.
///
/// # Errors
/// The system's, and one that says what it is instead.
pub(super) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    check_regular(std::fs::metadata(path)?.file_type())?;
    // Between the two looks it may have become a pipe, and opening that would wait for somebody who writes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    check_regular(file.metadata()?.file_type())?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_regular(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a regular file")))
}

/// True for what the process was given open, `/dev/stdin` and what a shell writes for `<(command)`.
pub(super) fn is_given_open(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd")
}

/// A path without `.` and `a/..`, by its text alone: two spellings of one file are one.
pub(super) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// The bearer token, read from its file where it stands in one.
///
/// # Errors
/// [`PathError::Token`], [`PathError::EmptyToken`].
pub fn read_token(token: &Token) -> Result<Secret<String>, PathError> {
    let path = match token {
        Token::Value(secret) => return Ok(secret.clone()),
        Token::File(path) => path,
    };
    let text = std::fs::read_to_string(path).map_err(|source| PathError::Token { path: path.clone(), source })?;
    match text.trim() {
        "" => Err(PathError::EmptyToken { path: path.clone() }),
        text => Ok(Secret::new(text.to_owned())),
    }
}

/// A directory and who may enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute.
    pub path: PathBuf,
    /// True for the one under `/tmp`: mode 0700, and refused if it is somebody else's.
    pub private: bool,
}

impl Directory {
    /// Makes it, with its parents, unless it stands.
    ///
    /// # Errors
    /// [`PathError::Create`], [`PathError::NotOurs`].
    pub fn create(&self, environment: &Environment) -> Result<(), PathError> {
        let failed = |source| PathError::Create { path: self.path.clone(), source };
        let mode = if self.private { 0o700 } else { 0o755 };
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(&self.path).map_err(failed)?;
        if self.private {
            // Whoever made it first in a directory open to all could read and replace our sockets.
            let found = std::fs::symlink_metadata(&self.path).map_err(failed)?;
            if !found.is_dir() || found.uid() != environment.uid || found.mode() & 0o077 != 0 {
                return Err(PathError::NotOurs { path: self.path.clone() });
            }
        }
        Ok(())
    }
}

/// `$RUNTIME_DIRECTORY`, else `/run/hydrograph` if writable, else `$XDG_RUNTIME_DIR/hydrograph`, else
/// `/tmp/hydrograph-UID`.
pub fn runtime_directory(environment: &Environment) -> Directory {
    let open = |path| Directory { path, private: false };
    if let Some(path) = environment.directory("RUNTIME_DIRECTORY") {
        return open(path);
    }
    let system = Path::new("/run/hydrograph");
    if environment.usable(system) {
        return open(system.to_owned());
    }
    match environment.directory("XDG_RUNTIME_DIR") {
        Some(path) => open(path.join("hydrograph")),
        None => Directory { path: format!("/tmp/hydrograph-{}", environment.uid).into(), private: true },
    }
}

/// `$STATE_DIRECTORY`, else `/var/lib/hydrograph` if writable, else `$XDG_STATE_HOME/hydrograph`, else
/// `~/.local/state/hydrograph`.
///
/// # Errors
/// [`PathError::NoStateDirectory`].
pub fn state_directory(environment: &Environment) -> Result<Directory, PathError> {
    let system = Path::new("/var/lib/hydrograph");
    let path = environment
        .directory("STATE_DIRECTORY")
        .or_else(|| environment.usable(system).then(|| system.to_owned()))
        .or_else(|| environment.directory("XDG_STATE_HOME").map(|path| path.join("hydrograph")))
        .or_else(|| environment.directory("HOME").map(|path| path.join(".local/state/hydrograph")))
        .ok_or(PathError::NoStateDirectory)?;
    Ok(Directory { path, private: false })
}

/// Where a path as written stands: absolute and `./x` as they are, else in a directory.
fn place<E>(
    written: &Path,
    directory: impl FnOnce() -> Result<Directory, E>,
) -> Result<(PathBuf, Option<Directory>), E> {
    if written.is_absolute() || written.starts_with(".") {
        return Ok((written.to_owned(), None));
    }
    let directory = directory()?;
    Ok((directory.path.join(written), Some(directory)))
}

/// A socket's path, and the runtime directory where it stands in it.
///
/// # Errors
/// [`PathError::SocketPathTooLong`].
pub fn socket_path(written: &Path, environment: &Environment) -> Result<(PathBuf, Option<Directory>), PathError> {
    let (path, directory) = place(written, || Ok::<_, PathError>(runtime_directory(environment)))?;
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        return Err(PathError::SocketPathTooLong { path, bytes });
    }
    Ok((path, directory))
}

/// A store's path, and the state directory where it stands in it.
///
/// # Errors
/// [`PathError::NoStateDirectory`].
pub fn store_path(written: &Path, environment: &Environment) -> Result<(PathBuf, Option<Directory>), PathError> {
    place(written, || state_directory(environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)], writable: &'static [&'static str]) -> Environment {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Environment::fixed(variables, 1000, move |path| writable.iter().any(|w| Path::new(w) == path))
    }

    fn check(variables: &[(&str, &str)], writable: &'static [&'static str], socket: &str, store: Result<&str, ()>) {
        let environment = environment(variables, writable);
        let shown = |path: Result<(PathBuf, Option<Directory>), PathError>| {
            path.map(|(path, _)| path.display().to_string()).map_err(|_| ())
        };
        assert_eq!(shown(socket_path(Path::new("s.sock"), &environment)), Ok(socket.to_owned()));
        assert_eq!(shown(store_path(Path::new("x.redb"), &environment)), store.map(str::to_owned));
    }

    #[test]
    fn directories_in_their_order() {
        check(&[], &[], "/tmp/hydrograph-1000/s.sock", Err(()));
        check(&[("HOME", "/h")], &[], "/tmp/hydrograph-1000/s.sock", Ok("/h/.local/state/hydrograph/x.redb"));
        check(
            &[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("XDG_STATE_HOME", "/s")],
            &[],
            "/r/hydrograph/s.sock",
            Ok("/s/hydrograph/x.redb"),
        );
        check(
            &[("XDG_RUNTIME_DIR", "/r"), ("XDG_STATE_HOME", "/s")],
            &["/run/hydrograph", "/var/lib/hydrograph"],
            "/run/hydrograph/s.sock",
            Ok("/var/lib/hydrograph/x.redb"),
        );
        check(
            &[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("STATE_DIRECTORY", "/var/lib/a")],
            &["/run", "/var/lib"],
            "/run/a/s.sock",
            Ok("/var/lib/a/x.redb"),
        );
        check(&[("XDG_RUNTIME_DIR", "relative"), ("HOME", "")], &[], "/tmp/hydrograph-1000/s.sock", Err(()));
    }

    #[test]
    fn absolute_and_working_directory_paths_stay() {
        let environment = environment(&[], &[]);
        for path in ["/a/b.sock", "./b.sock"] {
            let (resolved, directory) = socket_path(Path::new(path), &environment).expect("short");
            assert_eq!((resolved.as_path(), directory), (Path::new(path), None));
        }
        let long = format!("/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert!(matches!(socket_path(Path::new(&long), &environment), Err(PathError::SocketPathTooLong { .. })));
    }

    #[test]
    fn tokens_are_trimmed_and_never_empty() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("token");
        assert!(matches!(read_token(&Token::File(path.clone())), Err(PathError::Token { .. })));
        std::fs::write(&path, " \n").expect("writable");
        assert!(matches!(read_token(&Token::File(path.clone())), Err(PathError::EmptyToken { .. })));
        std::fs::write(&path, "s3cret\n").expect("writable");
        assert_eq!(read_token(&Token::File(path)).expect("read").reveal(), "s3cret");
        assert_eq!(read_token(&Token::Value(Secret::new("x".into()))).expect("there").reveal(), "x");
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe, file, link) =
            (folder.path().join("p.toml"), folder.path().join("f.toml"), folder.path().join("l.toml"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from(0o600)).expect("a pipe");
        std::fs::write(&file, "window = \"1m\"").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(read_regular(&link).expect("a regular file behind it"), b"window = \"1m\"");
        let problem = |path: &Path| read_regular(path).expect_err("refused").to_string();
        assert_eq!(problem(&pipe), "it is a pipe, not a regular file");
        assert_eq!(problem(Path::new("/dev/zero")), "it is a device, not a regular file");
        assert_eq!(problem(folder.path()), "it is a directory, not a regular file");
        // Wherever a pipeline names it.
        let environment = Environment::fixed([], 1000, |_| false);
        let said = |text: &str| {
            let file = PipelineFile { name: "x.toml".into(), text: text.into(), directory: folder.path().into() };
            crate::pipeline::plan::Plan::load(&[file], &environment).expect_err("refused").to_string()
        };
        assert!(PipelineFile::read_given(&pipe).expect_err("refused").to_string().contains("it is a pipe"));
        assert!(said("include = [\"p.toml\"]").contains("it is a pipe"));
        let socket = "[sources.a]\ntype = \"socket\"\nlisten = [\"udp:127.0.0.1:1\"]\nmapping_file = \"p.toml\"";
        assert!(said(socket).contains("it is a pipe"), "{}", said(socket));
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a directory");
        let uid = rustix::process::geteuid().as_raw();
        let environment = Environment::fixed([], uid, |_| false);
        let directory = Directory { path: root.path().join("h"), private: true };
        directory.create(&environment).expect("made");
        let mode = std::fs::metadata(&directory.path).expect("stands").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        directory.create(&environment).expect("again");
        std::fs::set_permissions(&directory.path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        assert!(matches!(directory.create(&environment), Err(PathError::NotOurs { .. })));
        let link = Directory { path: root.path().join("link"), private: true };
        std::os::unix::fs::symlink(root.path(), &link.path).expect("ours");
        assert!(matches!(link.create(&environment), Err(PathError::NotOurs { .. })));
    }
}
