//! `hydrograph check FILE...`: the plan of pipeline files in words, or everything that is wrong with them.
//!
//! In: paths. Out: text for stdout. Invariant: the text depends on the files, the environment's variables and
//! nothing else (no times, no resolved paths), so that golden files hold it.

use super::check_typed;
use crate::event::{Expose, Group, Kind};
use crate::pipeline::config::{PipelineFile, ReadFile};
use crate::pipeline::diagnostic::Diagnostics;
use crate::pipeline::memory::memory_need;
use crate::pipeline::names::shown_as;
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::{Plan, ProcessMatch, SourceKind, SourcePlan, StorePath, Token};
use crate::pipeline::value::{show_duration, show_size};
use crate::rule::{DeclaredMetric, HOST_METRICS, OwnMetric, PIPELINE_METRICS, is_reserved_name, window_name};
use crate::shard::JsonOptions;
use crate::source::gpu::GPU_VALUES;
use crate::source::process::PROCESS_VALUES;
use std::fmt::Write;
use std::path::PathBuf;

/// Reads and checks files as one pipeline.
///
/// # Errors
/// Everything that is wrong with them, unreadable files included.
pub fn load(files: &[PathBuf], environment: &Environment) -> Result<Plan, Diagnostics> {
    load_from(files, environment, &PipelineFile::read_given, &PipelineFile::read)
}

/// As [`load`], with other ways to read the files and what they include.
///
/// # Errors
/// As there.
pub(super) fn load_from(
    files: &[PathBuf],
    environment: &Environment,
    read_file: ReadFile<'_>,
    read_included: ReadFile<'_>,
) -> Result<Plan, Diagnostics> {
    let mut errors = Diagnostics::new();
    let mut read = Vec::new();
    for path in files {
        match read_file(path) {
            Ok(file) => read.push(file),
            Err(diagnostic) => errors.push(diagnostic),
        }
    }
    if !errors.is_empty() {
        if let Err(more) = Plan::load_from(&read, environment, read_included)
            && !read.is_empty()
        {
            errors.append(more);
        }
        return Err(errors);
    }
    Plan::load_from(&read, environment, read_included)
}

/// The plan of files in words, and what is worth a look.
///
/// # Errors
/// As [`load`].
pub fn check(files: &[PathBuf], environment: &Environment) -> Result<(String, Diagnostics), Diagnostics> {
    load(files, environment).map(|plan| (show(&plan), plan.warnings))
}

/// A plan in words.
pub fn show(plan: &Plan) -> String {
    let mut out = String::new();
    write(&mut out, plan).expect("writing to a String cannot fail");
    out
}

fn write(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let width = plan.slice.nanos();
    let window = show_duration(width.saturating_mul(i64::from(plan.window_slices)));
    let d = show_duration;
    writeln!(out, "pipeline {}", plan.name)?;
    writeln!(
        out,
        "  time      slice {} · window {window} · lateness {} · accept_late {} · max_future {}",
        d(width),
        d(plan.lateness),
        d(plan.accept_late),
        d(plan.max_future)
    )?;
    if !plan.labels.is_empty() {
        writeln!(out, "  labels    {}", pairs(&plan.labels))?;
    }
    let path = match &plan.store.path {
        StorePath::File(path) => path.display().to_string(),
        StorePath::Memory => ":memory:".into(),
    };
    let tiers: Vec<String> =
        plan.store.tiers.iter().map(|t| format!("{} for {}", d(t.resolution), d(t.keep))).collect();
    writeln!(
        out,
        "  store     {path} · commit_every {} · retention {} · max_size {}",
        d(plan.store.commit_every),
        tiers.join(", "),
        show_size(plan.store.max_size)
    )?;
    let listen: Vec<String> = plan.http.listen.iter().map(ToString::to_string).collect();
    let token = match &plan.http.token {
        None => "no token".into(),
        Some(Token::Value(_)) => "token from the environment".into(),
        Some(Token::File(path)) => format!("token in {}", path.display()),
    };
    match listen.is_empty() {
        true => writeln!(out, "  http      off")?,
        false => {
            let resets = if plan.http.admin_token.is_some() { " · resets with an admin token" } else { "" };
            writeln!(out, "  http      {} · {token}{resets}", listen.join(", "))?;
        }
    }

    writeln!(out, "\nsources")?;
    for source in &plan.sources {
        let what = match &source.kind {
            SourceKind::Socket(socket) => {
                let listen: Vec<String> = socket.listen.iter().map(ToString::to_string).collect();
                let group = socket.group.as_ref().map(|g| format!(" · group {g}")).unwrap_or_default();
                let mapping = socket.mapping.as_ref().map(|file| format!(" · mapping {}", file.path.display()));
                let mapping = mapping.unwrap_or_default();
                format!("{} · mode {:04o}{group}{mapping}{}", listen.join(", "), socket.mode, json(&socket.json))
            }
            SourceKind::Host(host) => format!("every {} · disk {}", d(host.every), host.disk.display()),
            SourceKind::Process(process) => format!("every {} · {}", d(process.every), process_match(&process.matches)),
            SourceKind::Gpu(gpu) => {
                let library = gpu.library.as_ref().map(|path| format!(" · library {}", path.display()));
                format!("every {}{}", d(gpu.every), library.unwrap_or_default())
            }
            SourceKind::Internal => String::new(),
        };
        let off = if source.enabled { "" } else { "(off) " };
        let labels =
            if source.labels.is_empty() { String::new() } else { format!(" · labels {}", pairs(&source.labels)) };
        let line = format!("  {:<12}{:<10}{off}{what}{labels}", source.name, source.kind.as_str());
        writeln!(out, "{}", line.trim_end())?;
    }

    check_typed::events(out, plan)?;
    metrics(out, plan)?;
    undeclared(out, plan)?;
    check_typed::shown(out, plan)?;

    writeln!(out, "\nlimits")?;
    let l = &plan.limits;
    writeln!(out, "  series    {} live, {} of one metric, {} stored", l.series, l.series_per_metric, l.stored_series)?;
    writeln!(
        out,
        "  cells     {} · pairs {} · idle {} · pending {}",
        l.cells,
        l.pairs,
        d(l.idle),
        show_size(l.pending)
    )?;
    let need = memory_need(plan);
    writeln!(
        out,
        "\nmemory      at most {} MiB of limits.memory = {}",
        need.total().div_ceil(1 << 20),
        show_size(l.memory)
    )?;
    for (name, bytes, how) in &need.parts {
        writeln!(out, "  {name:<12}{:>6} MiB  {how}", bytes.div_ceil(1 << 20))?;
    }
    Ok(())
}

fn process_match(matches: &ProcessMatch) -> String {
    match matches {
        ProcessMatch::PidFile(path) => format!("process of {}", path.display()),
        ProcessMatch::Command(text) => format!("process with {text:?} in its command line"),
        ProcessMatch::Unit(unit) => format!("unit {unit}"),
    }
}

/// What is not as usual.
fn json(plan: &JsonOptions) -> String {
    let usual = JsonOptions::default();
    let mut out = String::new();
    if let Some(event) = &plan.event {
        out.push_str(&format!(" · every object is {event}"));
    }
    if plan.event_key != usual.event_key {
        out.push_str(&format!(" · event in {:?}", plan.event_key));
    }
    if plan.time_key != usual.time_key {
        out.push_str(&format!(" · time in {:?}", plan.time_key));
    }
    if plan.refuses_extra {
        out.push_str(" · extra fields refused");
    }
    out
}

/// One exposed family.
struct Row {
    name: String,
    kind: String,
    labels: String,
    source: String,
    limit: u32,
}

fn metrics(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let names = |wanted: fn(&SourceKind) -> bool| {
        let found = plan.sources.iter().filter(|s| s.enabled && wanted(&s.kind)).map(|s| s.name.as_str());
        found.collect::<Vec<_>>().join(", ")
    };
    let sockets = names(|kind| matches!(kind, SourceKind::Socket(_)));
    let mut declared = Vec::new();
    for (index, metric) in plan.metrics.iter().enumerate() {
        let fed = check_typed::feeds_of(plan, index);
        let source = match (fed.is_empty(), sockets.is_empty()) {
            (false, _) => fed,
            (true, true) => "handles".into(),
            (true, false) => format!("{sockets}, handles"),
        };
        rows(metric, plan, &source, &mut declared);
    }
    let title = if declared.is_empty() { "metrics (none declared)" } else { "metrics" };
    table(out, title, &declared)?;
    // A collecting source that any metric names exposes only what is named.
    let free = |source: &&SourcePlan| {
        source.enabled && matches!(source.kind, SourceKind::Host(_)) && !check_typed::is_named(plan, &source.name)
    };
    let hosts: Vec<&str> = plan.sources.iter().filter(free).map(|source| source.name.as_str()).collect();
    let hosts = hosts.join(", ");
    let own = |source: &str, list: &[OwnMetric], group: &str| -> Vec<Row> {
        let free = list.iter().filter(|own| !plan.metrics.iter().any(|m| stands_for(m, own.name)));
        free.map(|own| {
            let kind = if own.kind == Kind::Distribution { "summary" } else { own.kind.as_str() };
            let limit = if own.labels.is_empty() { 1 } else { plan.limits.series_per_metric };
            Row {
                name: own.name.into(),
                kind: format!("{kind}, group {group}"),
                labels: own.labels.join(", "),
                source: source.into(),
                limit,
            }
        })
        .collect()
    };
    if !hosts.is_empty() {
        table(out, "metrics of the host", &own(&hosts, &HOST_METRICS, "host"))?;
    }
    let unnamed = plan.sources.iter().filter(|source| source.enabled && !check_typed::is_named(plan, &source.name));
    for source in unnamed {
        let (keys, labels): (Vec<&str>, &str) = match &source.kind {
            SourceKind::Process(_) => (PROCESS_VALUES.iter().map(|value| value.key).collect(), ""),
            SourceKind::Gpu(_) => (GPU_VALUES.iter().map(|value| value.key).collect(), "gpu"),
            SourceKind::Socket(_) | SourceKind::Host(_) | SourceKind::Internal => continue,
        };
        let row = |key: &str| Row {
            name: format!("{}_{key}", shown_as(source)),
            kind: format!("gauge, group {}", source.kind.as_str()),
            labels: labels.into(),
            source: source.name.clone(),
            limit: if labels.is_empty() { 1 } else { plan.limits.series_per_metric },
        };
        let rows: Vec<Row> = keys.into_iter().map(row).filter(|row| !is_reserved_name(&row.name)).collect();
        table(out, &format!("metrics of source {}", source.name), &rows)?;
    }
    if plan.sources[0].enabled {
        table(out, "metrics of the pipeline itself", &own(&plan.sources[0].name, &PIPELINE_METRICS, "internal"))?;
    }
    Ok(())
}

/// Whether a declaration takes the place of an own metric, by its name or under its namespace.
fn stands_for(metric: &DeclaredMetric, own: &str) -> bool {
    metric.name == own || metric.name.strip_prefix(&format!("{}_", metric.namespace)) == Some(own)
}

fn rows(metric: &DeclaredMetric, plan: &Plan, source: &str, out: &mut Vec<Row>) {
    let group = match &metric.group {
        Group::Named(group) => format!(", group {group}"),
        Group::Main | Group::InternalOnly => String::new(),
    };
    let limit = if metric.labels.is_empty() { 1 } else { plan.limits.series_per_metric };
    let mut row = |name: String, kind: String| {
        let labels = metric.labels.join(", ");
        out.push(Row { name, kind: format!("{kind}{group}"), labels, source: source.to_owned(), limit });
    };
    let quantiles: Vec<String> = metric.quantiles.iter().map(ToString::to_string).collect();
    let window = show_duration(plan.slice.nanos().saturating_mul(i64::from(metric.window_slices)));
    let summary = format!("summary {} over {window}", quantiles.join(" "));
    let buckets = metric.buckets.as_ref().map_or(0, |b| b.bounds.len());
    match (metric.kind, metric.expose) {
        (Kind::Counter, _) => row(metric.name.clone(), "counter".into()),
        (Kind::Gauge, _) => row(metric.name.clone(), "gauge".into()),
        (Kind::Set, _) => row(metric.name.clone(), "set (gauge)".into()),
        (Kind::Distribution, Expose { summary: true, histogram: false }) => row(metric.name.clone(), summary),
        (Kind::Distribution, Expose { summary: false, .. }) => {
            row(metric.name.clone(), format!("histogram {buckets} buckets"));
        }
        (Kind::Distribution, Expose { summary: true, histogram: true }) => {
            row(metric.name.clone(), format!("histogram {buckets} buckets"));
            row(window_name(&metric.name, metric.unit), summary);
        }
    }
}

fn table(out: &mut String, title: &str, rows: &[Row]) -> std::fmt::Result {
    writeln!(out, "\n{title}")?;
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (name, kind) = (width(|r| r.name.chars().count()), width(|r| r.kind.chars().count()));
    let (labels, source) = (width(|r| r.labels.chars().count() + 2), width(|r| r.source.chars().count()));
    for r in rows {
        let shown = format!("{{{}}}", r.labels);
        let limit = if r.limit == 1 { "1 series".into() } else { format!("at most {} series", r.limit) };
        writeln!(out, "  {:<name$}  {:<kind$}  {shown:<labels$}  {:<source$}  {limit}", r.name, r.kind, r.source)?;
    }
    Ok(())
}

fn undeclared(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let rules = &plan.defaults.undeclared;
    let quantiles: Vec<String> = rules.quantiles.iter().map(ToString::to_string).collect();
    writeln!(out, "\nmetrics that nothing declares")?;
    let suffixes = if rules.suffixes { "get _total" } else { "keep their names" };
    writeln!(out, "  counters      {suffixes}")?;
    let suffixes = if rules.suffixes { ", get _seconds" } else { "" };
    writeln!(out, "  timings       in seconds{suffixes}, as below")?;
    let mut forms = Vec::new();
    if rules.expose.summary {
        forms.push(format!("summary {}", quantiles.join(" ")));
    }
    if rules.expose.histogram {
        forms.push("histogram with the preset of the unit".into());
    }
    writeln!(out, "  distributions {}, ±{} %", forms.join(" and "), bound(rules.digits))?;
    writeln!(
        out,
        "  names         at most {}, each at most {} series",
        plan.rules().metrics_max,
        plan.limits.series_per_metric
    )
}

fn bound(digits: crate::sketch::Digits) -> &'static str {
    match digits {
        crate::sketch::Digits::One => "10",
        crate::sketch::Digits::Two => "1",
        crate::sketch::Digits::Three => "0.1",
    }
}

fn pairs(labels: &[(String, String)]) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Compares with `tests/golden/NAME`; `HYDROGRAPH_BLESS=1` writes it instead.
    fn golden(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("HYDROGRAPH_BLESS").is_some_and(|v| v == "1") {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            std::fs::write(&path, text).expect("writable");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "differs from {}; HYDROGRAPH_BLESS=1 accepts it", path.display());
    }

    fn quiet() -> Environment {
        Environment::fixed([], 1000, |_| false)
    }

    #[test]
    fn golden_plans_of_all_shipped_pipelines() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
        let here = format!("{}/", folder.display());
        for entry in std::fs::read_dir(folder).expect("the folder stands") {
            let path = entry.expect("readable").path();
            let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned();
            if path.extension().is_none_or(|end| end != "toml") {
                continue;
            }
            let (text, warnings) = check(&[path], &quiet()).unwrap_or_else(|errors| panic!("{errors}"));
            golden(&format!("check-{name}.txt"), &text.replace(&here, ""));
            if !warnings.is_empty() {
                golden(&format!("check-{name}-warnings.txt"), &warnings.to_string().replace(&here, ""));
            }
        }
    }

    #[test]
    fn golden_plan_with_everything() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let file = PipelineFile::read(&folder.join("everything.toml")).expect("stands");
        let file = PipelineFile { directory: "/etc/hydrograph".into(), ..file };
        let read = |path: &Path| PipelineFile::read(&folder.join(path.file_name().expect("a file")));
        let plan = Plan::load_from(&[file], &quiet(), &read).unwrap_or_else(|errors| panic!("{errors}"));
        golden("check-everything.txt", &show(&plan));
        let folder = format!("{}/", folder.display());
        golden("check-everything-warnings.txt", &plan.warnings.to_string().replace(&folder, ""));
    }

    #[test]
    fn golden_diagnostics() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let file = PipelineFile::read(&folder.join("wrong.toml")).expect("stands");
        let file = PipelineFile { name: "wrong.toml".into(), directory: PathBuf::new(), ..file };
        let errors = Plan::load(&[file], &quiet()).expect_err("wrong on purpose");
        golden("check-wrong.txt", &errors.to_string());
    }

    /// What the README shows is what this program does: both of its files pass, alone and as one, with the tests in them,
    /// and `check` prints the lines it shows.
    #[test]
    fn the_files_of_the_readme_pass_and_print_what_it_shows() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(path).expect("readable");
        let files: Vec<&str> =
            readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().expect("first")).collect();
        assert_eq!(files.len(), 2);
        let plan = |text: &str| {
            let file = PipelineFile { name: "shop.toml".into(), text: text.into(), directory: PathBuf::new() };
            Plan::load(&[file], &quiet()).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
        };
        let shown = show(&plan(files[0]));
        let printed = readme.split("prints the plan (shortened here):\n\n```text\n").nth(1).expect("there");
        for line in printed.split("```").next().expect("first").lines().filter(|line| *line != "…") {
            assert!(shown.lines().any(|known| known.trim_end() == line), "{line:?} is not in\n{shown}");
        }
        plan(files[1]);
        let whole = plan(&files.concat());
        let read = |_: &Path| -> Result<Plan, Diagnostics> { unreachable!("no test reloads") };
        let reports = crate::pipeline::rehearsal::rehearse(&whole, &read);
        assert!(!reports.is_empty() && reports.iter().all(|report| report.is_ok()), "{reports:#?}");
    }

    #[test]
    fn unreadable_files_are_named() {
        let errors = check(&["/no/such.toml".into()], &quiet()).expect_err("not there");
        assert!(errors.to_string().starts_with("error: cannot read /no/such.toml: "), "{errors}");
        assert!(check(&[], &quiet()).is_err());
    }
}
