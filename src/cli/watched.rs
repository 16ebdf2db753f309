//! The files that a running pipeline was read from, for `run --watch`.
//!
//! In: the files of the command line. Out: plans, and a stamp that changes when one of the files that the last plan was read
//! from does. Owns: their paths. Invariant: after a reload that failed, what it read is looked at besides what the running
//! plan was read from, since the fault is in one of those.

use super::check;
use crate::pipeline::config::PipelineFile;
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::{Plan, SourceKind, Token};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The files given, those they include, mapping files and files of tokens.
#[derive(Default)]
pub(super) struct ReadFiles {
    /// False before the first plan was read.
    state: Mutex<(bool, BTreeSet<PathBuf>)>,
}

impl ReadFiles {
    /// Reads the plan, and remembers what it was read from. What was given open (`/dev/stdin`) can be read once only.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub(super) fn load(&self, files: &[PathBuf], environment: &Environment) -> Result<Plan, Diagnostics> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = RefCell::new(BTreeSet::new());
        let read = |path: &Path, is_given: bool| {
            seen.borrow_mut().insert(path.to_owned());
            if is_given { PipelineFile::read_given(path) } else { PipelineFile::read(path) }
        };
        let is_first = !std::mem::replace(&mut state.0, true);
        let plan = match files.is_empty() {
            true => Plan::built_in(environment),
            false => check::load_from(files, environment, &|path| read(path, is_first), &|path| read(path, false)),
        };
        let mut seen = seen.into_inner();
        match &plan {
            Ok(plan) => {
                let mappings = plan.sources.iter().filter_map(|source| match &source.kind {
                    SourceKind::Socket(socket) => socket.mapping.as_ref().map(|mapping| mapping.path.clone()),
                    _ => None,
                });
                seen.extend(mappings);
                seen.extend([&plan.http.token, &plan.http.admin_token].into_iter().filter_map(|token| match token {
                    Some(Token::File(path)) => Some(path.clone()),
                    Some(Token::Value(_)) | None => None,
                }));
                state.1 = seen;
            }
            Err(_) => state.1.append(&mut seen),
        }
        plan
    }

    /// Of when each of them was written, which file that is and how long.
    pub(super) fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in &self.state.lock().unwrap_or_else(PoisonError::into_inner).1 {
            let found = std::fs::metadata(path).ok();
            let of = |m: std::fs::Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len());
            (path, found.map(of)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_every_file_that_the_plan_was_read_from_is_watched_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(&path, text).expect("writable");
            path
        };
        let main = "include = [\"sub/more.conf\"]\n[sources.a]\ntype = \"socket\"\nlisten = [\"udp:127.0.0.1:1\"]\nmapping_file = \"maps/m.mapping\"\n\
                    [http]\ntoken_file = \"token\"\n";
        let metric = |name: &str| format!("[metrics.{name}]\ntype = \"counter\"\nhelp = \"x\"\n");
        let path = write("shop.conf", main);
        write("sub/more.conf", &format!("include = [\"deep/last.conf\"]\n{}", metric("a")));
        write("sub/deep/last.conf", &metric("b"));
        write("maps/m.mapping", "mappings: []\n");
        write("token", "one");
        write("other.toml", "");
        let (files, environment) = (ReadFiles::default(), Environment::fixed([], 1000, |_| false));
        let load = || files.load(std::slice::from_ref(&path), &environment).map(|plan| plan.metrics.len());
        assert_eq!(load().unwrap_or_else(|errors| panic!("{errors}")), 2);
        let changes = |name: &str, text: &str| {
            let before = files.stamp();
            write(name, text);
            before != files.stamp()
        };
        for (name, text) in [
            ("sub/deep/last.conf", metric("bbb")),
            ("sub/more.conf", format!("include = [\"deep/last.conf\"]\n{}", metric("aaa"))),
            ("maps/m.mapping", "mappings: []\n\n".into()),
            ("token", "three".into()),
            ("shop.conf", format!("{main}\n")),
        ] {
            assert!(changes(name, &text), "{name}");
        }
        assert!(!changes("other.toml", "x"), "nothing was read from it");
        // A file that a refused change brought in is looked at too: the fault is in it.
        write("shop.conf", &main.replace("include = [", "include = [\"new/wrong.conf\", "));
        write("new/wrong.conf", "nonsense = 1");
        load().expect_err("nonsense");
        assert!(changes("new/wrong.conf", &metric("c")));
        assert!(changes("maps/m.mapping", "mappings: []\n"), "what the running plan was read from still is");
        assert_eq!(load().unwrap_or_else(|errors| panic!("{errors}")), 3);
        std::fs::remove_file(folder.path().join("new/wrong.conf")).expect("there");
        let gone = files.stamp();
        write("new/wrong.conf", &metric("c"));
        assert_ne!(gone, files.stamp());
    }
}
