//! `hydrograph init [NAME]`: a commented pipeline file to start from.
//!
//! In: a name. Out: the text of a shipped pipeline. Invariant: the files are those of `pipelines/`, embedded,
//! so what is printed is what `run` without a file uses.

use crate::pipeline::config::BUILT_IN;
use crate::pipeline::diagnostic::Diagnostic;

/// The shipped pipelines by name.
pub const SHIPPED: [(&str, &str); 1] = [("default", BUILT_IN)];

/// The text of a shipped pipeline.
///
/// # Errors
/// A diagnostic that names the shipped ones.
pub fn init(name: &str) -> Result<&'static str, Diagnostic> {
    let found = SHIPPED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        Diagnostic::bare(format!("no shipped pipeline \"{name}\"")).nearest(name, SHIPPED.map(|(name, _)| name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
        for entry in std::fs::read_dir(folder).expect("the folder stands") {
            let path = entry.expect("readable").path();
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned();
            assert_eq!(init(&name).expect("shipped"), std::fs::read_to_string(&path).expect("readable"));
        }
        assert!(init("defualt").is_err_and(|d| d.to_string().contains("did you mean \"default\"?")));
    }
}
