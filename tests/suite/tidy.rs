//! Reads the source tree: the rules of the house that a compiler does not know.
//!
//! In: `src/`. Out: every breach with file and line. Invariant: a rule stands here once, with its exceptions beside it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// From the world inwards and out again. A module uses only groups to the left of its own; names in one group do not see
/// each other. Names of later issues stand in their place already.
const ORDER: &[&[&str]] = &[
    &["event"],
    &["sketch"],
    &["delta"],
    &["codec", "rule"],
    &["channel"],
    &["actor"],
    &["shard", "store"],
    &["view"],
    &["query"],
    &["source", "sink", "record", "alert"],
    &["pipeline"],
    &["http"],
    &["cli"],
];

/// Uses against the order that are right: (user, used, why).
const EXCEPTIONS: &[(&str, &str, &str)] =
    &[("event", "sketch::Digits", "a word of the vocabulary, defined where its meaning is")];

/// A crate, and the only places that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("flume", &["channel.rs"]),
    ("redb", &["store/"]),
    ("axum", &["http/", "source/http"]),
    ("clap", &["cli/", "main.rs"]),
    ("anyhow", &["cli/", "main.rs"]),
    ("sysinfo", &["source/"]),
    ("toml", &["pipeline/", "cli/"]),
];

const BANNED_NAMES: &[&str] = &["utils", "util", "common", "types", "models", "manager", "helpers", "misc"];

/// Longest file, its tests apart.
const LINES_MAX: usize = 600;

struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// The lines before the file's own test module, with comments and the insides of strings blanked.
    code: Vec<String>,
    header: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The module directly under the crate root that this file belongs to; `lib`, `main` for the roots.
    fn module(&self) -> String {
        let first = self.path.components().next().expect("a path has a part").as_os_str().to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    fn is_test(&self) -> bool {
        self.path.components().any(|part| {
            let stem = part.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            stem == "tests" || stem.ends_with("_tests")
        })
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pending = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at).expect("a source folder is readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is UTF-8");
                let header = text.lines().next().unwrap_or_default().to_owned();
                let path = path.strip_prefix(&root).expect("inside the root").to_owned();
                found.push(Source { path, code: code_lines(&text), header });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty());
    found
}

/// Blanks comments, string contents and character literals, and cuts the text at the test module.
fn code_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|w| w[0].trim() == "#[cfg(test)]" && w[1].trim_start().starts_with("mod ") && w[1].ends_with('{'));
    let mut out = Vec::new();
    let mut in_string = false;
    for line in &lines[..tests.unwrap_or(lines.len())] {
        let mut code = String::new();
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if in_string => drop(chars.next()),
                '"' => {
                    in_string = !in_string;
                    code.push('"');
                }
                _ if in_string => {}
                '\'' => {
                    // A character literal ends within three characters; anything else is a lifetime.
                    let rest: String = chars.clone().take(3).collect();
                    let literal = if rest.starts_with('\\') { 3 } else { 2 };
                    if rest.chars().nth(literal - 1) == Some('\'') {
                        chars.nth(literal - 1);
                    }
                    code.push('\'');
                }
                '/' if chars.peek() == Some(&'/') => break,
                _ => code.push(c),
            }
        }
        out.push(code);
    }
    out
}

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|group| group.contains(&module))
}

/// Fails with every breach at once.
fn assert_none(rule: &str, breaches: Vec<String>) {
    let mut list = String::new();
    for breach in &breaches {
        let _ = writeln!(list, "  {breach}");
    }
    assert!(breaches.is_empty(), "{rule}:\n{list}");
}

fn every_line(mut check: impl FnMut(&Source, &str) -> Option<String>) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        for (at, line) in source.code.iter().enumerate() {
            if let Some(why) = check(source, line) {
                breaches.push(format!("src/{}:{}: {why}", source.name(), at + 1));
            }
        }
    }
    breaches
}

/// The paths a line names after `crate::`, groups opened: `crate::{a::B, c}` gives `a::B` and `c`.
fn crate_paths(line: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                paths.push(rest.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)).next().unwrap_or("").into())
            }
            Some(group) => {
                let mut depth = 0;
                for part in group.split(|c| match c {
                    '{' => {
                        depth += 1;
                        false
                    }
                    '}' => {
                        depth -= 1;
                        depth < 0
                    }
                    ',' => depth == 0,
                    _ => false,
                }) {
                    let part = part.trim();
                    if part.starts_with(|c: char| c.is_ascii_lowercase()) {
                        paths.push(part.to_owned());
                    }
                }
            }
        }
    }
    paths
}

/// `use` statements of several lines, joined.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in source.code.iter().enumerate() {
        let begins = !open && (line.trim_start().starts_with("use ") || line.trim_start().starts_with("pub use "));
        match out.last_mut() {
            Some((_, joined)) if open => joined.push_str(line.trim()),
            _ => out.push((at + 1, line.clone())),
        }
        open = (begins || open) && !line.contains(';');
    }
    out
}

#[test]
fn modules_use_only_what_stands_to_their_left() {
    let mut breaches = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let module = source.module();
        let Some(own) = rank(&module) else { continue };
        for (line, text) in statements(source) {
            for path in crate_paths(&text) {
                let used = path.split("::").next().unwrap_or_default();
                let fine = used == module
                    || rank(used).is_none_or(|r| r < own)
                    || EXCEPTIONS.iter().any(|(user, what, _)| *user == module && path.starts_with(what));
                if !fine {
                    breaches.push(format!("src/{}:{line}: {module} uses {path}", source.name()));
                }
            }
        }
    }
    assert_none("a module uses only what stands to its left", breaches);
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let strangers = sources()
        .iter()
        .map(Source::module)
        .filter(|m| !["lib", "main"].contains(&&m[..]) && rank(m).is_none())
        .collect();
    assert_none("a module of the crate stands in the order", strangers);
}

#[test]
fn crates_stay_behind_their_fences() {
    let breaches = every_line(|source, line| {
        FENCES.iter().find_map(|(name, places)| {
            let named = line.match_indices(name).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let after = &line[at + name.len()..];
                !before.is_some_and(|c| c.is_alphanumeric() || "_.:".contains(c))
                    && (after.starts_with("::") || after.starts_with("!("))
            });
            let allowed = places.iter().any(|p| source.name().starts_with(p));
            (named && !allowed).then(|| format!("{name} belongs to {places:?}"))
        })
    });
    assert_none("crates stay behind their fences", breaches);
}

#[test]
fn only_actor_spawns_and_only_bounded_channels_exist() {
    let spawns = ["thread::spawn", "tokio::spawn", "thread::Builder", "spawn_blocking", "spawn_local", "thread::scope"];
    let breaches = every_line(|source, line| {
        if source.name() != "actor.rs" && spawns.iter().any(|s| line.contains(s)) {
            return Some("threads and tasks are spawned in actor.rs only".to_owned());
        }
        let unbounded =
            ["unbounded()", "unbounded_channel", "unbounded::<", "mpsc::channel"].iter().any(|q| line.contains(q));
        unbounded.then(|| "every queue has a bound".to_owned())
    });
    assert_none("spawning and queues", breaches);
}

#[test]
fn only_the_clock_reads_the_clock() {
    let breaches = every_line(|source, line| {
        // The processor time of the process is no clock, but a figure like its memory.
        let calls = line.contains("clock_gettime") && !line.contains("ClockId::ProcessCPUTime");
        let reads = line.contains("SystemTime::now") || line.contains("Instant::now") || calls;
        (reads && source.name() != "event/clock.rs").then(|| "time is an argument".to_owned())
    });
    assert_none("the clock", breaches);
}

#[test]
fn every_file_says_what_it_is_and_stays_short() {
    let mut breaches = Vec::new();
    for source in sources() {
        if !source.header.starts_with("//!") || source.header.len() < 12 {
            breaches.push(format!("src/{} does not begin with //! and its purpose", source.name()));
        }
        if !source.is_test() && source.code.len() > LINES_MAX {
            let lines = source.code.len();
            breaches.push(format!("src/{} has {lines} lines before its tests, at most {LINES_MAX}", source.name()));
        }
        for part in source.path.components() {
            let stem = part.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
            if BANNED_NAMES.contains(&&stem[..]) {
                breaches.push(format!("src/{}: {stem} says nothing", source.name()));
            }
        }
    }
    assert_none("files", breaches);
}

#[test]
fn nothing_is_left_unfinished_or_muted() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "[allow("];
    // A lint may be silenced where the line says why.
    let excused = |line: &str| line.contains("[allow(") && line.contains("reason = ");
    let breaches = every_line(|_, line| {
        words.iter().find(|w| line.contains(**w) && !excused(line)).map(|w| format!("{w} is left over"))
    });
    assert_none("nothing is left unfinished or muted", breaches);
}

/// The README's second command is what CI runs, to the letter.
#[test]
fn ci_runs_the_test_command_of_the_readme() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    let ci = read(".ci/run");
    let command = ci.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    let readme = read("README.md");
    let block: Vec<&str> = readme.split("```sh\n").nth(1).unwrap_or_default().lines().take(2).collect();
    let second = block.get(1).map(|l| l.split('#').next().unwrap_or_default().trim());
    assert_eq!(second, Some(command), "the second of the README's two commands is not what CI runs");
}

#[test]
fn the_reader_of_the_tree_reads_it_right() {
    assert_eq!(crate_paths("use crate::{event::{A, B}, sketch, delta::C};"), ["event::{A, B}", "sketch", "delta::C"]);
    assert_eq!(crate_paths("let x = crate::view::Fold::new(other_crate::y);"), ["view::Fold::new"]);
    let code = code_lines(
        "let a = \"crate::http // no\"; // crate::cli\nlet b = '\"'; let c: &'a str;\n#[cfg(test)]\nmod tests {\n",
    );
    assert_eq!(code, ["let a = \"\"; ", "let b = '; let c: &'a str;"]);
}
