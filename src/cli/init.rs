//! `hydrograph init [NAME]`: a commented pipeline file to start from.
//!
//! In: a name. Out: the text of a shipped pipeline, or the plan that is made of it. Invariant: the files are those of
//! `pipelines/`, embedded, so what is printed is what `run` without a file and `demo` use.

use crate::pipeline::config::{BUILT_IN, PipelineFile};
use crate::pipeline::diagnostic::{Diagnostic, Diagnostics};
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::Plan;
use std::path::Path;

macro_rules! shipped {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../pipelines/", $name, ".toml"))),)*]
    };
}

/// The shipped pipelines by name.
pub const SHIPPED: [(&str, &str); 9] = {
    let [dinoair, dreamos, vision, llm, digital_actors, full, statsd, host] =
        shipped!("dinoair", "dreamos", "vision", "llm", "digital_actors", "full", "statsd", "host");
    [("default", BUILT_IN), dinoair, dreamos, vision, llm, digital_actors, full, statsd, host]
};

/// The rule files that they name, by path.
const RULES: [(&str, &str); 3] = [
    ("rules/dinoair.yml", include_str!("../../pipelines/rules/dinoair.yml")),
    ("rules/dreamos.yml", include_str!("../../pipelines/rules/dreamos.yml")),
    ("rules/vision.yml", include_str!("../../pipelines/rules/vision.yml")),
];

/// The text of a shipped pipeline, or of a rule file that one names.
///
/// # Errors
/// A diagnostic that names the shipped ones.
pub fn init(name: &str) -> Result<&'static str, Diagnostic> {
    let found = SHIPPED.iter().chain(&RULES).find(|(known, _)| *known == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        Diagnostic::bare(format!("no shipped pipeline \"{name}\"")).nearest(name, SHIPPED.map(|(name, _)| name))
    })
}

/// The plan of a shipped pipeline; what it includes is shipped too.
///
/// # Errors
/// As [`Plan::load`].
pub(super) fn plan(name: &str, environment: &Environment) -> Result<Plan, Diagnostics> {
    let file = |name: &str| {
        init(name).map(|text| PipelineFile {
            name: format!("{name}.toml"),
            text: text.to_owned(),
            directory: Path::new("").to_owned(),
        })
    };
    let included = |path: &Path| file(&path.with_extension("").to_string_lossy());
    let file = file(name).map_err(|diagnostic| {
        let mut errors = Diagnostics::new();
        errors.push(diagnostic);
        errors
    })?;
    Plan::load_from(&[file], environment, &included)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let mut count = 0;
        for (folder, end) in [(folder.clone(), "toml"), (folder.join("rules"), "yml")] {
            for entry in std::fs::read_dir(folder).expect("the folder stands") {
                let path = entry.expect("readable").path();
                if path.extension().is_none_or(|found| found != end) {
                    continue;
                }
                let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
                let name = if end == "yml" { format!("rules/{stem}.yml") } else { stem.to_owned() };
                assert_eq!(init(&name).expect("shipped"), std::fs::read_to_string(&path).expect("readable"));
                count += 1;
            }
        }
        assert_eq!(count, SHIPPED.len() + RULES.len());
        assert!(init("defualt").is_err_and(|d| d.to_string().contains("did you mean \"default\"?")));
    }

    #[test]
    fn every_shipped_pipeline_has_a_plan_without_any_file() {
        let environment = Environment::fixed([], 1000, |_| false);
        for (name, _) in SHIPPED {
            let plan = plan(name, &environment).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(plan.name, name);
        }
    }
}
