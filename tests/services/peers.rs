//! Where the peers are, and how a peer's program is run to its end.
//!
//! In: the folder of the test tools and the search path. Out: commands, or a counted skip.

use crate::harness::wait;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The folder into which the test command puts packages.
pub(crate) fn tools() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools");
    std::env::var_os("HYDROGRAPH_TEST_TOOLS").map_or_else(default, PathBuf::from)
}

/// A file beside the tests.
pub(crate) fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/clients").join(name)
}

/// The program of this name: among the test tools first, then on the search path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let own = ["venv/bin", "debian/usr/bin"].map(|folder| tools().join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name)).find(|p| p.is_file())
}

/// The program, or a counted skip of the test.
pub(crate) fn find_or_skip(test: &str, name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        wait::skip(test, &format!("{name} is not installed"));
    }
    found
}

/// The Python with the stock clients, or a counted skip of the test.
pub(crate) fn python_or_skip(test: &str) -> Option<PathBuf> {
    let python = tools().join("venv/bin/python");
    if !python.exists() {
        wait::skip(test, "the Python packages are not installed under target/test-tools");
        return None;
    }
    Some(python)
}

/// Runs a program with this input to its end, and demands success.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let output = std::thread::scope(|scope| {
        // The child may answer before it has read everything, so both ends move at once.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("the child ends")
    });
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
