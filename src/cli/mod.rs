//! The command line: one binary, verbs that run a pipeline or talk to a running one.
//!
//! In: arguments and environment. Out: data on stdout, talk on stderr, an exit code: 0 done, 1 failed,
//! 2 wrong usage, 78 wrong configuration. Owns: the process's signals and its log.
//! Invariant: what `--help` lists works; the only folder that names clap and anyhow.
//!
//! Reading order: this file (the verbs), `wiring` (those that need the pipeline), `run`, `client`, then one file a verb.

pub mod check;
mod check_typed;
mod client;
mod demo;
mod export;
mod generate;
mod healthcheck;
pub mod init;
mod load;
mod log;
mod manual;
mod moment;
mod query;
mod run;
mod send;
mod show;
mod store;
mod signals;
mod tap;
mod test;
mod watched;
mod wiring;

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0
    Done,
    /// 1: while running, a refused line, unhealthy, nobody answers.
    Failed,
    /// 2
    Usage,
    /// 78, `EX_CONFIG` of sysexits.h.
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Configuration => 78,
        })
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "hydrograph",
    version,
    about = "Events in, quantiles out: a metrics pipeline whose every number is right and survives a crash",
    before_help = "Examples:\n  \
        hydrograph run                                            # the built-in pipeline, ready for DogStatsD clients\n  \
        hydrograph send 'checkout.latency:42|ms|#region:eu'       # one sample, and what became of it\n  \
        hydrograph init > my.toml && hydrograph check my.toml     # a pipeline of your own\n  \
        curl -s 127.0.0.1:9911/metrics",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.",
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every verb takes.
#[derive(Debug, Args)]
struct Global {
    /// Where the running instance answers: http://HOST:PORT or unixstream:PATH
    #[arg(long, global = true, env = "HYDROGRAPH_URL", default_value = client::URL_DEFAULT, value_name = "URL")]
    url: client::Target,
    /// File that holds the instance's bearer token
    #[arg(long, global = true, env = "HYDROGRAPH_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// What to log on stderr: off, error, warn, info, debug or trace; parts may differ: warn,store=debug
    #[arg(long, global = true, default_value = "warn", value_name = "LEVEL[,PART=LEVEL]")]
    log: log::Levels,
    /// How to log
    #[arg(long, global = true, value_enum, default_value_t = log::LogFormat::Text)]
    log_format: log::LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipeline files as one pipeline; without a file, the built-in default
    #[command(before_help = "Examples:\n  \
        hydrograph run\n  \
        hydrograph run checkout.toml\n  \
        HYDROGRAPH_HTTP__LISTEN=127.0.0.1:9912 hydrograph run checkout.toml --log info")]
    Run {
        /// Pipeline files
        files: Vec<PathBuf>,
        /// Reload when a file changes (SIGHUP and POST /-/reload do it at any time)
        #[arg(long)]
        watch: bool,
        /// Retire the stored series of a metric whose scale or unit is declared otherwise now; may be given again
        #[arg(long, value_name = "METRIC")]
        accept: Vec<String>,
    },
    /// Print a commented pipeline file to start from
    #[command(before_help = "Examples:\n  hydrograph init > my.toml\n  hydrograph init dinoair > my.toml")]
    Init {
        /// A shipped pipeline
        #[arg(default_value = "default")]
        name: String,
    },
    /// Validate pipeline files and print the plan
    #[command(alias = "validate", before_help = "Examples:\n  hydrograph check my.toml")]
    Check {
        /// Pipeline files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run a shipped pipeline with made-up events, in memory: something to look at
    #[command(before_help = "Examples:\n  \
        hydrograph demo                                           # all five systems\n  \
        hydrograph demo vision --seconds 60")]
    Demo(demo::Demo),
    /// Run the tests written in pipeline files, in virtual time
    #[command(before_help = "Examples:\n  hydrograph test my.toml\n  hydrograph test pipelines/*.toml --json")]
    Test(test::Test),
    /// Print the JSON Schema of pipeline files, for editors
    #[command(before_help = "Examples:\n  hydrograph schema > hydrograph.schema.json")]
    Schema,
    /// Send DogStatsD lines to a running instance and print what each became
    #[command(before_help = "Examples:\n  \
        hydrograph send 'checkout.latency:42|ms|#region:eu' 'orders:1|c'\n  \
        tail -f lines.txt | hydrograph send -")]
    Send(send::Send),
    /// Show what passes an edge of a running instance: events, samples, deltas or rejects
    #[command(before_help = "Examples:\n  \
        hydrograph tap                                            # samples of all sources but internal\n  \
        hydrograph tap app --kind events,rejects --name 'checkout.*'\n  \
        hydrograph tap --kind deltas --match '{region=\"eu\"}' --limit 20\n  \
        hydrograph tap --json --count 1000 > samples.ndjson")]
    Tap(tap::Tap),
    /// Ask a running instance in PromQL: at one time, or over a range of times
    #[command(before_help = "Examples:\n  \
        hydrograph query 'sum by (region) (rate(orders_total[5m]))'\n  \
        hydrograph query 'histogram_quantile(0.99, rate(latency_seconds[5m]))' --start -6h --step 5m\n  \
        hydrograph query orders_total --time 2026-11-20T12:00:00Z --json")]
    Query(query::Query),
    /// Write what a running instance holds in a format that others read: current values, or every point of a span
    #[command(before_help = "Examples:\n  \
        hydrograph export > metrics.prom\n  \
        hydrograph export --format csv --match '{region=\"eu\"}' --output eu.csv\n  \
        hydrograph export --format openmetrics --since 7d --output week.om")]
    Export(export::Export),
    /// Look after a store: figures, a check of all of it, compaction, a copy
    #[command(
        subcommand,
        before_help = "Examples:\n  \
        hydrograph store stats\n  \
        hydrograph store check /var/lib/hydrograph/default.redb\n  \
        hydrograph store backup --output backup.redb"
    )]
    Store(store::Store),
    /// Generate load: prepared datagrams with values patched on every send
    #[command(before_help = "Examples:\n  \
        hydrograph generate --seconds 10 --series 100_000\n  \
        hydrograph generate --to udp:127.0.0.1:8125 --events 1_000_000 --rate 50_000 --kind mixed\n  \
        hydrograph generate --packet 1                            # one line a datagram")]
    Generate(generate::Generate),
    /// Ask a running instance whether it is ready and healthy (for containers)
    #[command(
        before_help = "Examples:\n  hydrograph healthcheck\n  hydrograph healthcheck --url unixstream:/run/hydrograph/http.sock"
    )]
    Healthcheck,
    /// Print a script that completes verbs and options in a shell
    #[command(before_help = "Examples:\n  \
        hydrograph completions bash > /etc/bash_completion.d/hydrograph\n  \
        hydrograph completions fish > ~/.config/fish/completions/hydrograph.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program, or of one verb
    #[command(before_help = "Examples:\n  \
        hydrograph man | man -l -\n  \
        hydrograph man run > /usr/local/share/man/man1/hydrograph-run.1")]
    Man {
        /// A verb
        verb: Option<String>,
    },
}

/// Runs one command and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(problem) => {
            // Help and version are answers, not problems; a closed stdout is nobody's problem.
            let _ = problem.print();
            return if problem.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    log::start(&cli.global.log, cli.global.log_format);
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(problem) if is_closed_pipe(&problem) => Exit::Done.into(),
        Err(problem) => {
            eprintln!("hydrograph: {}", causes(&problem));
            Exit::Failed.into()
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Global { url, token_file, .. } = cli.global;
    let client = || client::Client::new(url, token_file.as_deref());
    match cli.command {
        Command::Run { files, watch, accept } => wiring::run(&files, watch, accept),
        Command::Init { name } => wiring::init(&name),
        Command::Check { files } => wiring::check(&files),
        Command::Demo(demo) => demo.run(),
        Command::Test(test) => test.run(),
        Command::Schema => wiring::schema(),
        Command::Send(send) => send.run(&client()?),
        Command::Tap(tap) => tap.run(&client()?),
        Command::Query(query) => query.run(&client()?),
        Command::Export(export) => export.run(&client()?),
        Command::Store(store) => store.run(client),
        Command::Generate(generate) => generate.run(client),
        Command::Healthcheck => healthcheck::run(&client()?),
        Command::Completions { shell } => manual::completions(shell, &mut std::io::stdout().lock()),
        Command::Man { verb } => manual::man(verb.as_deref(), &mut std::io::stdout().lock()),
    }
}

/// The problem and what caused it, each once: many errors name their cause themselves.
fn causes(problem: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in problem.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// True when the reader of our stdout went away (`hydrograph send ... | head -1`).
fn is_closed_pipe(problem: &anyhow::Error) -> bool {
    problem.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
