//! Pipeline files by example: what becomes of them, and that nothing written in one makes a panic.

mod events;
mod kept;
mod oracle;
mod pairs;
mod reload;
mod schema;
mod typed;

use super::config::PipelineFile;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::memory::memory_need;
use super::paths::Environment;
use super::plan::*;
use crate::event::Kind;
use crate::rule::Rules;
use crate::sketch::Digits;
use std::path::{Path, PathBuf};

const SECOND: i64 = 1_000_000_000;
const EVERYTHING: &str = include_str!("../../tests/golden/everything.toml");
const INCLUDED: &str = include_str!("../../tests/golden/included.toml");

fn file(name: &str, text: &str) -> PipelineFile {
    PipelineFile { name: name.into(), text: text.into(), directory: PathBuf::from("/etc/hydrograph") }
}

/// Files that includes find.
fn library(path: &Path) -> Result<PipelineFile, Diagnostic> {
    match path.to_str() {
        Some("/etc/hydrograph/included.toml") => Ok(file("/etc/hydrograph/included.toml", INCLUDED)),
        _ => Err(Diagnostic::bare(format!("cannot read {}", path.display()))),
    }
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Plan::load_from(&[file("my.toml", text)], &Environment::fixed(variables, 1000, |_| false), &library)
}

fn plan(text: &str) -> Plan {
    load_with(text, &[]).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Each of `expected` stands in what is said about `text`, and nothing is said where it is empty.
fn check(text: &str, expected: &[&str]) {
    let said = load_with(text, &[]).map_or_else(|errors| errors.to_string(), |_| String::new());
    for part in expected {
        assert!(said.contains(part), "{part:?} is not said about\n{text}\nbut\n{said}");
    }
    assert_eq!(said.is_empty(), expected.is_empty(), "{text}\n{said}");
}

#[test]
fn an_empty_file_has_the_defaults_of_the_contract() {
    let p = plan("");
    assert_eq!(p.name, "my");
    assert_eq!((p.slice.nanos(), p.window_slices), (10 * SECOND, 30));
    assert_eq!((p.lateness, p.accept_late, p.max_future), (30 * SECOND, 3600 * SECOND, 600 * SECOND));
    assert_eq!((p.idle_source, p.hold_max), (30 * SECOND, 600 * SECOND));
    assert_eq!(*p.defaults.undeclared.quantiles, [0.5, 0.9, 0.95, 0.99]);
    assert_eq!((p.defaults.undeclared.digits, p.defaults.undeclared.suffixes), (Digits::Two, true));
    assert_eq!(p.store.path, StorePath::File("my.redb".into()));
    assert_eq!((p.store.commit_every, p.store.max_size), (SECOND, 10 << 30));
    assert_eq!(
        (p.store.tiers.len(), p.store.keep(), p.store.keep_longest()),
        (3, 86_400 * SECOND, 730 * 86_400 * SECOND)
    );
    let l = &p.limits;
    assert_eq!((l.series, l.series_per_metric, l.stored_series, l.cells), (1_000_000, 100_000, 4_000_000, 50_000_000));
    assert_eq!((l.pending, l.memory, l.idle), (256 << 20, 2 << 30, 86_400 * SECOND));
    assert_eq!(p.http.listen, [ListenAddress::Tcp(([127, 0, 0, 1], 9911).into())]);
    assert!(p.http.token.is_none() && !p.http.created && !p.built_in);
    assert_eq!(p.sources.len(), 1);
    assert!(matches!(p.sources[0].kind, SourceKind::Internal));
    assert!(memory_need(&p).total() <= l.memory);
}

#[test]
fn what_typed_events_need_is_part_of_the_computed_memory() {
    let need = |text: &str| {
        let plan = plan(text);
        let part = |name: &str| {
            memory_need(&plan).parts.iter().find(|(known, _, _)| *known == name).map_or(0, |(_, bytes, _)| *bytes)
        };
        ["pairs", "kept events", "derive", "streams", "posts"].map(part)
    };
    assert_eq!(need("")[..3], [0, 0, 0]);
    let text = "[limits]\npairs = 1000\n[events.open]\nfields = { k = \"string\" }\nkeep = 100\n\
        derive = { d = { field = \"k\", distinct_max = 100_000, other = \"o\" } }\n\
        [events.close]\nfields = { k = \"string\" }\n\
        [pairs.p]\nstart = \"open\"\nend = \"close\"\nkey = \"k\"\ntimeout = \"1h\"\n\
        [metrics.sess]\ntype = \"gauge\"\nhelp = \"h\"\nfrom = { pair = \"p\", value = \"open\" }\n\
        [sources.app]\ntype = \"socket\"\nlisten = [\"unixstream:a.sock\"]\n";
    let [pairs, kept, derive, streams, posts] = need(text);
    assert_eq!(pairs, 1000 * 720 + 250 * 480);
    assert!(kept >= 100 * 4 * 8192 && derive >= 100_000 * 128 && streams >= 16 << 20 && posts >= 64 << 20);
    let default = plan(&text.replace("pairs = 1000", ""));
    assert_eq!(default.limits.pairs, 100_000);
}

#[test]
fn the_built_in_default_is_as_promised() {
    let p = Plan::built_in(&Environment::fixed([], 1000, |_| false)).unwrap_or_else(|e| panic!("{e}"));
    assert!(p.built_in);
    assert_eq!(p.name, "default");
    let words: Vec<(&str, &str)> = p.sources.iter().map(|s| (s.name.as_str(), s.kind.as_str())).collect();
    assert_eq!(words, [("internal", "internal"), ("statsd", "socket"), ("host", "host")]);
    let SourceKind::Socket(socket) = &p.sources[1].kind else { panic!("a socket source") };
    let listen: Vec<String> = socket.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["unixgram:dsd.socket", "unixstream:dsd-stream.socket", "udp:127.0.0.1:8125"]);
    assert_eq!((socket.mode, socket.threads), (0o722, ReaderThreads::Auto));
    Rules::new(p.rules()).expect("nothing declared");
}

#[test]
fn everything_can_be_said() {
    let p = plan(EVERYTHING);
    assert_eq!((p.window_slices, p.slice.nanos()), (12, 5 * SECOND));
    assert_eq!(p.labels, [("cell".into(), "a".into()), ("region".to_owned(), "eu".to_owned())]);
    assert_eq!(p.limits.series_per_metric, 5000);
    assert!(matches!(&p.http.token, Some(Token::File(path)) if path == Path::new("/etc/hydrograph/token")));
    let names: Vec<&str> = p.metrics.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        names[..8],
        [
            "vision_frames_total",
            "shop_orders_total",
            "shop_queue_depth",
            "shop_took_seconds",
            "body",
            "shop_users",
            "shop_hit_ratio",
            "shop_host_load1"
        ]
    );
    let took = &p.metrics[3];
    assert_eq!((took.kind, took.digits, took.window_slices), (Kind::Distribution, Digits::One, 6));
    assert_eq!(took.idle, Some(3600 * SECOND));
    assert_eq!(p.metrics[2].idle, None, "series without labels never expire");
    assert_eq!(
        p.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["self", "app", "machine", "topic", "worker", "shell", "unit", "cards", "old"]
    );
    let rules = Rules::new(p.rules()).expect("checked");
    assert_eq!(rules.declared().len(), names.len());
}

#[test]
fn errors_show_the_place_and_the_way_out() {
    check(
        "name = \"x\"\n\nwidow = \"5m\"\n",
        &[
            "error: unknown key \"widow\" in [top level]\n  --> my.toml:3:1\n   |\n 3 | widow = \"5m\"\n   | ^^^^^\n   = did you mean \"window\"?\n",
        ],
    );
    check("slice = 10", &["expected a duration like \"10s\", found an integer", "my.toml:1:9"]);
    check("slice = \"999ms\"", &["out of range", "slice is 1s to 1d"]);
    check("window = \"15s\"", &["not a multiple of slice", "the next multiple is \"20s\""]);
    check("window = \"2d\"", &["too long"]);
    check("slice = \"1m\"\nwindow = \"5m\"", &[]);
    check("a = ", &["my.toml:1:"]);
    check("name = \"x\"\nname = \"y\"", &["duplicate key", "my.toml:2:1"]);
    check("[sources.a]\ntype = \"socket\"", &["listens nowhere"]);
    check("[sources.a]\nlisten = []", &["[sources.a] has no type"]);
    check("[sources.internal]\ntype = \"host\"", &["is of another type"]);
    check("[sources]\na = 1", &["\"a\" is a table"]);
    check("store = 1", &["\"store\" is a table"]);
    check("[limits]\nmemory = \"1GiB\"", &["may need", "above limits.memory = 1GiB", "series: "]);
    check("[limits]\nseries = 10\nstored_series = 5", &["below limits.series"]);
    check("[http]\nlisten = \"0.0.0.0:80\"", &["without a token"]);
    check("[http]\nlisten = [\"[::]:80\"]\nenabled = false", &[]);
    check("[store]\nretention = \"24h\"", &[]);
    check("[store]\nretention = \"1s\"", &["keep = \"1s\" is too short"]);
    check("[store]\nretention = []", &["retention is empty"]);
    check("[store]\nretention = [{ resolution = \"1m\", keep = \"1d\" }]", &["resolution of the slice"]);
    check("[metrics.a]\ntype = \"counter\"\nfrom = {}", &["a feed of nothing"]);
    check("[sinks.a]\ntype = \"influx\"", &["unknown key \"sinks\"", "has not got it yet"]);
    check("[rules]\nfiles = []", &[]);
    check("[metrics.a_total]\ntype = \"counter\"\n[metrics.a]\ntype = \"gauge\"", &["\"a\" clashes with \"a_total\""]);
    check("[metrics.a]\ntype = \"summary\"\n[metrics.a_sum]\ntype = \"gauge\"", &["clashes"]);
    check("[metrics.a]\ntype = \"summary\"\n[metrics.a_bucket]\ntype = \"gauge\"", &[]);
}

#[test]
fn several_files_are_one_pipeline() {
    let environment = Environment::fixed([], 1000, |_| false);
    let a = "name = \"both\"\nnamespace = \"a\"\n[metrics.x]\ntype = \"gauge\"\n[store]\npath = \":memory:\"\n";
    let b = "namespace = \"b\"\n[metrics.x]\ntype = \"gauge\"\n[sources.host]\ntype = \"host\"\n";
    let both = Plan::load(&[file("a.toml", a), file("b.toml", b)], &environment).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(both.metrics.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a_x", "b_x"]);
    assert_eq!((both.store.path, both.store.max_size, both.store.tiers.len()), (StorePath::Memory, 256 << 20, 1));
    let twice = Plan::load(&[file("a.toml", a), file("b.toml", a)], &environment).expect_err("twice");
    let said = twice.to_string();
    for part in [
        "\"name\" is declared twice",
        "\"store\" is declared twice",
        "\"metrics.x\"",
        "first in a.toml:1",
        "--> b.toml:3:10",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
}

#[test]
fn variables_override_and_fill_in() {
    let text = "labels = { region = \"${REGION}\" }\n[sources.my-app]\ntype = \"socket\"\nlisten = \"udp:127.0.0.1:1\"\n[http]\ntoken = \"${TOKEN:-}\"\n";
    let variables = [
        ("REGION", "us"),
        ("TOKEN", "s3cret"),
        ("HYDROGRAPH_HTTP__LISTEN", "0.0.0.0:1, unixstream:x"),
        ("HYDROGRAPH_SOURCES__MY_APP__LISTEN", "udp:127.0.0.1:2,tcp:127.0.0.1:3"),
        ("HYDROGRAPH_LIMITS__SERIES", "1000"),
        ("HYDROGRAPH_HTTP__CREATED", "true"),
        ("HYDROGRAPH_WINDOW", "1m"),
        ("HYDROGRAPH_URL", "not a key of the file"),
    ];
    let p = load_with(text, &variables).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(p.labels, [("region".to_owned(), "us".to_owned())]);
    assert_eq!((p.http.listen.len(), p.http.created, p.limits.series, p.window_slices), (2, true, 1000, 6));
    assert!(matches!(&p.http.token, Some(Token::Value(secret)) if secret.reveal() == "s3cret"));
    assert!(!format!("{p:?}").contains("s3cret"));
    let SourceKind::Socket(socket) = &p.sources[1].kind else { panic!("a socket source") };
    assert_eq!(socket.listen.len(), 2);

    let said = load_with(text, &[]).expect_err("REGION is not set").to_string();
    assert!(said.contains("environment variable REGION is not set"), "{said}");
    let said = load_with("", &[("HYDROGRAPH_HTTP__LISTN", "x")]).expect_err("misspelt").to_string();
    assert!(said.contains("HYDROGRAPH_HTTP__LISTN names no key"), "{said}");
    let labels = [("REGION", "us"), ("HYDROGRAPH_LABELS__REGION", "eu"), ("HYDROGRAPH_LABELS__RACK", "7")];
    let own = [("HYDROGRAPH_SOURCES__MY_APP__LABELS__TIER", "a=b")];
    let p = load_with(text, &[&labels[..], &own].concat()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(p.labels, [("rack", "7"), ("region", "eu")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(p.sources[1].labels, [("tier".to_owned(), "a=b".to_owned())]);
    let both = [("HYDROGRAPH_LABELS", "a=b"), ("HYDROGRAPH_LABELS__REGION", "eu")];
    let said = load_with("", &both).expect_err("one of both is not looked at").to_string();
    assert!(said.contains("HYDROGRAPH_LABELS__REGION names no key"), "{said}");
    let known = [("HYDROGRAPH_URL", "x"), ("HYDROGRAPH_TEST_TOOLS", "x"), ("HYDROGRAPH_PORT_8125_UDP", "x")];
    assert!(load_with("", &known).unwrap_or_else(|e| panic!("{e}")).warnings.is_empty());
    let warned = load_with("", &[("HYDROGRAPH_WINDO", "15s")]).unwrap_or_else(|e| panic!("{e}")).warnings.to_string();
    assert!(warned.contains("warning: environment variable HYDROGRAPH_WINDO names no key"), "{warned}");
    assert!(warned.contains("did you mean \"window\"?"), "{warned}");
    let said = load_with("", &[("HYDROGRAPH_SLICE", "x")]).expect_err("no duration").to_string();
    assert!(said.contains("--> environment variable HYDROGRAPH_SLICE"), "{said}");
}

#[test]
fn secrets_are_never_printed() {
    for text in [
        "[http]\ntoken = \"s3cret\"",
        "[http]\ntoken = \"s3cret",
        "http = { token = \"s3cret\", listen = 5 }",
        "[http]\ntoken = [\"s3cret\"]",
    ] {
        let said = load_with(text, &[]).expect_err("wrong").to_string();
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// xorshift64*: enough to mutate text, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }
}

fn mutate(text: &str, dice: &mut Dice) -> String {
    const PIECES: [&str; 24] = [
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "-1",
        "0",
        "9223372036854775807",
        "1e400",
        "nan",
        "inf",
        "\"\"",
        "${",
        "${X:-}",
        "\"10s\"",
        "true",
        "1979-05-27",
        "'''",
        "\\u0000",
        "ß",
        "a.b.c = 1\n",
        "[[x]]\n",
    ];
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(5) {
            0 => bytes.splice(at..at, PIECES[dice.below(PIECES.len())].bytes()).for_each(drop),
            1 => drop(bytes.drain(at..(at + dice.below(12)).min(bytes.len()))),
            2 if at < bytes.len() => bytes[at] = (32 + dice.below(95)) as u8,
            3 => {
                // One line takes the place of another.
                let lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                let (from, to) = (dice.below(lines.len()), dice.below(lines.len()));
                let mut lines = lines;
                lines[to] = lines[from].clone();
                bytes = lines.join(&b'\n');
            }
            _ => {
                let end = (at + dice.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, copy).for_each(drop);
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn ten_thousand_mutations_are_a_plan_or_a_diagnostic() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).expect("the folder stands");
    let texts = files.filter_map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).ok());
    let mut texts: Vec<String> = texts.collect();
    texts.extend([EVERYTHING, INCLUDED, EVERYTHING, INCLUDED].map(str::to_owned));
    let shipped: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (mut good, mut bad) = (0, 0);
    for round in 0..10_000 {
        let text = mutate(shipped[round % shipped.len()], &mut dice);
        match load_with(&text, &[]) {
            Ok(plan) => {
                assert!(Rules::new(plan.rules()).is_ok(), "{text}");
                assert!(!crate::pipeline::value::show_duration(plan.lateness).is_empty());
                good += 1;
            }
            Err(errors) => {
                assert!(errors.to_string().starts_with("error: "), "{text}");
                bad += 1;
            }
        }
    }
    assert!(good > 100 && bad > 100, "{good} plans, {bad} diagnostics: the mutations test one side only");
}
