//! The command line as a whole: usage, and the verbs against a small instance.

use super::*;
use clap::CommandFactory;

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["hydrograph"], arguments].concat())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn only_the_verbs_of_this_version_are_listed() {
    let names: Vec<String> = Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    assert_eq!(
        names,
        [
            "run",
            "init",
            "check",
            "demo",
            "test",
            "schema",
            "send",
            "tap",
            "query",
            "export",
            "store",
            "generate",
            "healthcheck",
            "completions",
            "man"
        ]
    );
    for verb in ["top", "store"] {
        assert_eq!(parse(&[verb]).unwrap_err().exit_code(), 2, "{verb}");
    }
}

#[test]
fn help_begins_with_examples() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.starts_with("Examples:\n"), "{help}");
    for verb in Cli::command().get_subcommands_mut() {
        let help = verb.render_help().to_string();
        assert!(help.starts_with("Examples:\n"), "{help}");
    }
}

#[test]
fn verbs_and_global_options() {
    assert!(matches!(parse(&["validate", "a.toml"]).unwrap().command, Command::Check { files } if files.len() == 1));
    assert!(matches!(parse(&["run"]).unwrap().command, Command::Run { files, watch: false, .. } if files.is_empty()));
    assert!(matches!(parse(&["init"]).unwrap().command, Command::Init { name } if name == "default"));
    assert!(matches!(parse(&["completions", "zsh"]).unwrap().command, Command::Completions { .. }));
    assert_eq!(parse(&["completions", "cmd.exe"]).unwrap_err().exit_code(), 2);
    assert!(matches!(parse(&["man", "run"]).unwrap().command, Command::Man { verb: Some(_) }));
    assert!(parse(&["check"]).is_err());
    assert!(parse(&["send"]).is_err());
    assert!(matches!(parse(&["send", "-"]).unwrap().command, Command::Send(_)));
    assert!(matches!(parse(&["send", "x:-1|g", "--no-wait", "-"]).unwrap().command, Command::Send(_)));
    let cli =
        parse(&["healthcheck", "--url", "unixstream:/x", "--token-file", "/t", "--log", "info,store=debug"]).unwrap();
    assert_eq!(cli.global.url.to_string(), "unixstream:/x");
    assert_eq!(cli.global.token_file, Some(PathBuf::from("/t")));
    assert_eq!(parse(&["run", "--url", "ftp://x"]).unwrap_err().exit_code(), 2);
    assert_eq!(parse(&["run", "--log", "loud"]).unwrap_err().exit_code(), 2);
    assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
}

#[test]
fn whom_nobody_answers_is_told_the_address() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client::Client::new(format!("http://{address}").parse().unwrap(), None).unwrap();
    let problem = format!("{:#}", healthcheck::run(&client).unwrap_err());
    assert!(problem.contains(&format!("nobody answers at http://{address}: ")), "{problem}");
    let missing = client::Client::new("unixstream:/nowhere/x.sock".parse().unwrap(), None).unwrap();
    let problem = format!("{:#}", missing.get("/", "*/*").unwrap_err());
    assert!(problem.contains("unixstream:/nowhere/x.sock"), "{problem}");
}

#[test]
fn verbs_talk_to_an_instance_over_tcp_and_unix_sockets() {
    let served = crate::http::tests::Served::start(Some("s3cret"));
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let send = |lines: &[&str], client: &client::Client| match parse(&[&["send"], lines].concat()).unwrap().command {
        Command::Send(send) => send.run(client),
        other => panic!("{other:?}"),
    };
    for url in [format!("http://{}", served.tcp), format!("unixstream:{}", served.unix.display())] {
        let client = client::Client::new(url.parse().unwrap(), Some(&token)).unwrap();
        assert_eq!(send(&["a:1|c", "b:1|c"], &client).unwrap(), Exit::Done);
        assert_eq!(send(&["a:1|c", "broken"], &client).unwrap(), Exit::Failed);
        assert_eq!(send(&["--no-wait", "--json", "a:1|c"], &client).unwrap(), Exit::Done);
        // More than one request's worth.
        let long = format!("a:1|c|#k:{}", "x".repeat(400_000));
        assert_eq!(send(&[&long, &long, &long], &client).unwrap(), Exit::Done);
        assert_eq!(healthcheck::run(&client).unwrap(), Exit::Done);
        served.fake.is_down.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(healthcheck::run(&client).unwrap(), Exit::Failed);
        let problem = send(&["a:1|c"], &client).unwrap_err().to_string();
        assert_eq!(problem, "the instance answered 503: limits.pending reached");
        served.fake.is_down.store(false, std::sync::atomic::Ordering::SeqCst);
        let stranger = client::Client::new(url.parse().unwrap(), None).unwrap();
        assert!(send(&["a:1|c"], &stranger).unwrap_err().to_string().contains("--token-file"));
    }
}

#[test]
fn shipped_files_are_printed_and_pass_their_check() {
    let folder = tempfile::tempdir().unwrap();
    let (good, wrong) = (folder.path().join("good.toml"), folder.path().join("wrong.toml"));
    std::fs::write(&good, init::init("default").unwrap()).unwrap();
    std::fs::write(&wrong, "widow = \"5m\"\n").unwrap();
    assert_eq!(wiring::init("default").unwrap(), Exit::Done);
    assert_eq!(wiring::init("defualt").unwrap(), Exit::Usage);
    assert_eq!(wiring::check(std::slice::from_ref(&good)).unwrap(), Exit::Done);
    assert_eq!(wiring::check(&[good, wrong]).unwrap(), Exit::Configuration);
    assert_eq!(wiring::check(&[folder.path().join("missing.toml")]).unwrap(), Exit::Configuration);
}

#[test]
fn a_cause_is_said_once() {
    let refused = || std::io::Error::other("no space");
    let names_it = anyhow::Error::new(refused()).context("the store x cannot be written: no space");
    assert_eq!(super::causes(&names_it), "the store x cannot be written: no space");
    let does_not = anyhow::Error::new(refused()).context("cannot start");
    assert_eq!(super::causes(&does_not), "cannot start: no space");
}
