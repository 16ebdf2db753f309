//! The binary: hands its arguments to [`hydrograph::cli`] and its exit code to the system.

fn main() -> std::process::ExitCode {
    hydrograph::cli::main(std::env::args_os())
}
