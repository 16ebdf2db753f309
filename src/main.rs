//! The binary: hands its arguments to [`hydrograph::cli`] and its exit code to the system.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What glibc's allocator reads before `main`: huge pages for the windows' cells, which a tick of a million series hits at
/// random, and one arena, because the store frees what other threads made. A million timings: 213 ns a line instead of 244.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1");

fn main() -> ExitCode {
    let is_run = std::env::args_os().any(|argument| argument == OsStr::new("run"));
    if is_run && std::env::var_os(TUNABLES.0).is_none() {
        begin_again();
    }
    hydrograph::cli::main(std::env::args_os())
}

/// Starts this program in the same process with the tunables; returns only where that is not possible, and nothing is
/// lost then. It happens once: the variable is set the second time.
fn begin_again() {
    let mut arguments = std::env::args_os();
    if let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) {
        let _ = Command::new(program).arg0(name).args(arguments).env(TUNABLES.0, TUNABLES.1).exec();
    }
}
