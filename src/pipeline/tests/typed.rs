//! Events, pairs, feeds, includes, widgets and tests of a pipeline file, by example.

use super::*;
use crate::pipeline::diagnostic::Severity;
use crate::rule::typed::{Class, DeriveFrom, FeedSource, FeedSpec, FieldType, GaugeOp, LabelSource, PairValue};

const EVENTS: &str = "[events.gen]\nfields = { model = \"string\", took = \"seconds\", ok = \"bool\", code = \"int?\" }\n\
    [events.open]\nfields = { id = \"string\", model = \"string\" }\n[events.close]\nfields = { id = \"string\" }\n\
    [pairs.s]\nstart = \"open\"\nend = \"close\"\nkey = \"id\"\n[sources.host]\ntype = \"host\"\n\
    [sources.gpu]\ntype = \"gpu\"\n";

/// What is said about a metric of this type with this `from`.
fn said_of(kind: &str, from: &str) -> String {
    let text = format!("{EVENTS}[metrics.m]\nhelp = \"x\"\ntype = \"{kind}\"\nfrom = {from}\n");
    load_with(&text, &[]).map_or_else(|errors| errors.to_string(), |_| String::new())
}

fn feed(kind: &str, from: &str) -> FeedSpec {
    let p = plan(&format!("{EVENTS}[metrics.m]\nhelp = \"x\"\ntype = \"{kind}\"\nfrom = {from}\n"));
    assert_eq!(p.typed.feeds.len(), 1);
    p.typed.feeds[0].clone()
}

#[test]
fn events_are_built_as_written() {
    let p = plan(EVERYTHING);
    let event = p.typed.events.iter().find(|event| event.name == "model_generation").expect("declared");
    let fields: Vec<_> = event.fields.iter().map(|f| (f.name.as_str(), f.ty, f.optional, f.path.join("/"))).collect();
    assert_eq!(
        fields,
        [
            ("model_name", FieldType::String, false, "model_name".into()),
            ("generation_time", FieldType::Milliseconds, false, "generation_time".into()),
            ("success", FieldType::Bool, false, "success".into()),
            ("prompt_length", FieldType::Int, true, "prompt_length".into()),
            ("code", FieldType::Int, true, "http/status".into()),
            ("kind", FieldType::String, true, "a.b/kind".into()),
        ]
    );
    assert_eq!(event.keep, 100);
    let derived: Vec<&str> = event.derived.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(derived, ["model", "status", "class", "origin"]);
    assert!(
        matches!(&event.derived[0].from, DeriveFrom::Field { regex: Some((_, replace)), distinct_max: Some(200), other, .. }
        if replace == "$1" && other == "rest")
    );
    assert!(
        matches!(&event.derived[2].from, DeriveFrom::Field { class: Some(Class::Http), default: Some(text), .. } if text == "none")
    );
    assert_eq!(event.derived[3].from, DeriveFrom::Const("api".into()));
    assert!(!p.typed.events.iter().any(|event| event.name == "login"), "switched off");
    assert_eq!(p.typed.pairs.len(), 1);
    assert_eq!(p.typed.pairs[0].timeout, 12 * 3600 * SECOND);
    assert!(!p.typed.count_unknown && plan("").typed.count_unknown);
}

#[test]
fn feeds_say_where_values_and_labels_come_from() {
    let labels = |feed: &FeedSpec| feed.labels.clone();
    let f = feed("counter", "{ event = \"gen\", labels = [\"ok\"], const = { a = \"b\" }, when = \"ok\" }");
    assert_eq!(f.from, FeedSource::Event { event: "gen".into(), value: None });
    assert_eq!(
        labels(&f),
        [("a".to_owned(), LabelSource::Const("b".into())), ("ok".to_owned(), LabelSource::Field("ok".into()))]
    );
    assert_eq!((f.when.as_deref(), f.op, f.scale), (Some("ok"), GaugeOp::Set, 1.0));
    let f = feed("gauge", "{ event = \"gen\", op = \"sub\", labels = { status = \"code\" } }");
    assert_eq!((f.op, labels(&f)), (GaugeOp::Sub, vec![("status".to_owned(), LabelSource::Field("code".into()))]));
    assert_eq!(feed("gauge", "{ event = \"gen\", value = \"ok\" }").kind, Kind::Gauge, "a bool sets 1 or 0");
    let f = feed("histogram", "{ pair = \"s\", value = \"duration\" }");
    assert_eq!(f.from, FeedSource::Pair { pair: "s".into(), value: PairValue::Duration });
    let f = feed("gauge", "{ source = \"gpu\", value = \"power_watts\" }");
    assert_eq!(labels(&f), [("gpu".to_owned(), LabelSource::Own)], "a card's number is always there");
    let f = feed("gauge", "{ source = \"host\", value = \"disk_percent\", labels = [\"mount\"], scale = 0.01 }");
    assert_eq!((labels(&f), f.scale), (vec![("mount".to_owned(), LabelSource::Own)], 0.01));
    let f = feed("counter", "{ statsd = \"api.*.*\", labels = { a = \"$2-$1\" } }");
    assert_eq!(labels(&f), [("a".to_owned(), LabelSource::Template("$2-$1".into()))]);
    let f = feed("gauge", "{ expr = \"sum by (a) (x)\", labels = [\"a\"] }");
    assert_eq!(f.from, FeedSource::Expr { text: "sum by (a) (x)".into() });
}

#[test]
fn feeds_of_a_metric_give_the_same_labels() {
    let two = "[{ event = \"gen\", value = \"took\", labels = [\"ok\"] }, { event = \"gen\", value = \"took\", const = { ok = \"x\" } }]";
    assert_eq!(said_of("gauge", two), "");
    let differ = two.replace("const = { ok", "const = { okk");
    let said = said_of("gauge", &differ);
    assert!(
        said.contains("this feed gives labels {okk}, not {ok}") && said.contains("as its feed in my.toml:"),
        "{said}"
    );
    let p = plan(&format!(
        "{EVENTS}[metrics.m]\ntype = \"gauge\"\nlabels = [\"ok\", \"code\"]\nfrom = {{ event = \"gen\", value = \"took\" }}\n"
    ));
    assert_eq!(p.metrics[0].labels, ["ok", "code"], "as the metric declares them");
    assert_eq!(p.typed.feeds[0].labels.len(), 2);
}

#[test]
fn feeds_that_do_not_fit_are_refused() {
    let check = |kind: &str, from: &str, expected: &[&str]| {
        let said = said_of(kind, from);
        for part in expected {
            assert!(said.contains(part), "{part:?} is not said about {from} but\n{said}");
        }
    };
    check("counter", "{ event = \"genn\" }", &["unknown event \"genn\"", "did you mean \"gen\"?", "^^^^^^"]);
    check("histogram", "{ event = \"gen\" }", &["needs a value"]);
    check("gauge", "{ event = \"gen\" }", &["op = \"add\""]);
    check("gauge", "{ event = \"gen\", value = \"tok\" }", &["has no field \"tok\"", "did you mean \"took\"?"]);
    check("gauge", "{ event = \"gen\", value = \"model\" }", &["\"model\" is of type string, not a number"]);
    check("histogram", "{ event = \"gen\", value = \"ok\" }", &["\"ok\" is of type bool", "when = "]);
    check(
        "gauge",
        "{ event = \"gen\", value = \"took\", labels = [\"took\"] }",
        &["is of type seconds, which cannot be a label"],
    );
    check("counter", "{ event = \"gen\", op = \"add\" }", &["a counter has no op"]);
    check("counter", "{ event = \"gen\", scale = 2 }", &["scale without value"]);
    check("gauge", "{ pair = \"t\", value = \"open\" }", &["unknown pair \"t\""]);
    check("counter", "{ pair = \"s\", value = \"open\" }", &["\"open\" of a pair is a gauge, not a counter"]);
    check(
        "gauge",
        "{ source = \"hosst\", value = \"load1\" }",
        &["unknown source \"hosst\"", "did you mean \"host\"?"],
    );
    check("gauge", "{ source = \"host\", value = \"load2\" }", &["has no value \"load2\"", "did you mean \"load"]);
    check("counter", "{ source = \"host\", value = \"load1\" }", &["\"load1\" is a gauge, not a counter"]);
    check(
        "gauge",
        "{ source = \"host\", value = \"load1\", labels = [\"mount\"] }",
        &["this value has no label \"mount\""],
    );
    check("gauge", "{ source = \"internal\", value = \"x\" }", &["has no values"]);
    check("gauge", "{ statsd = \"a.*\", labels = { b = \"$2\" } }", &["the pattern has no $2", "it has $1 only"]);
    check("gauge", "{ event = \"gen\", pair = \"s\" }", &["a feed has event or pair, not both"]);
    check("counter", "{ event = \"gen\", when = \"took > 1 and okk\" }", &["okk", "my.toml:18:46", " ^^^\n"]);
    check("counter", "{ statsd = \"/a(b/\" }", &["is not a pattern: unclosed group"]);
    check("counter", "{ statsd = \"/a(b)c/\", labels = { x = \"$2\" } }", &["it has $1 only"]);
    check("counter", "{ statsd = \"a\", scale = 3 }", &["is not a power of ten"]);
    check("counter", "{ expr = \"x\" }", &["an expression cannot feed a counter"]);
    check(
        "gauge",
        "{ event = \"gen\", value = \"took\", valeu = 1 }",
        &["unknown key \"valeu\" in this table", "for key \"from\" in [metrics.m]"],
    );
    check(
        "gauge",
        "[{ expr = \"x\" }, { event = \"gen\", value = \"took\" }]",
        &["an expression stands beside other feeds"],
    );
}

#[test]
fn what_depends_on_something_switched_off_is_off() {
    let text = format!(
        "{EVENTS}[metrics.a]\ntype = \"counter\"\nfrom = {{ event = \"gen\" }}\n\
         [metrics.b]\ntype = \"gauge\"\nfrom = {{ pair = \"s\", value = \"open\" }}\n\
         [metrics.c]\ntype = \"gauge\"\nfrom = {{ source = \"host\", value = \"load1\" }}\n\
         [metrics.d]\ntype = \"gauge\"\nfrom = [{{ event = \"gen\", op = \"add\" }}, {{ event = \"close\", op = \"sub\" }}]\n"
    );
    let names = |variables: &[(&str, &str)]| {
        let p = load_with(&text, variables).unwrap_or_else(|e| panic!("{e}"));
        assert!(p.typed.feeds.iter().all(|feed| feed.metric < p.metrics.len()));
        p.metrics.iter().map(|m| m.name.clone()).collect::<String>()
    };
    assert_eq!(names(&[]), "abcd");
    assert_eq!(names(&[("HYDROGRAPH_EVENTS__GEN__ENABLED", "false")]), "bcd", "one feed of d is left");
    assert_eq!(names(&[("HYDROGRAPH_EVENTS__CLOSE__ENABLED", "false")]), "acd", "the pair has no end");
    assert_eq!(names(&[("HYDROGRAPH_PAIRS__S__ENABLED", "false")]), "acd");
    assert_eq!(names(&[("HYDROGRAPH_SOURCES__HOST__ENABLED", "false")]), "abd");
    assert_eq!(names(&[("HYDROGRAPH_METRICS__D__ENABLED", "false")]), "abc");
}

#[test]
fn warnings_do_not_stop_a_pipeline() {
    let p = plan(&format!(
        "{EVENTS}[metrics.a_total]\ntype = \"gauge\"\nfrom = {{ event = \"gen\", value = \"took\", labels = [\"model\"] }}\n"
    ));
    let said = p.warnings.to_string();
    assert!(p.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    for part in [
        "warning: metric \"a_total\" has no help",
        "named like a counter",
        "distinct_max = 1000",
        "label \"model\" takes whatever",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert_eq!(p.warnings.iter().count(), 3);
    let p = plan(&format!(
        "{EVENTS}[metrics.a]\ntype = \"gauge\"\nhelp = \"x\"\nfrom = {{ event = \"gen\", value = \"took\", labels = [\"model\"] }}\n\
         [metrics.b]\ntype = \"gauge\"\nhelp = \"x\"\nfrom = {{ pair = \"s\", value = \"open\", labels = [\"id\", \"model\"] }}\n"
    ));
    let said = p.warnings.to_string();
    for part in ["3 labels take whatever text", "= event gen: model\n", "= event open: id, model\n"] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert_eq!(p.warnings.iter().count(), 1, "one, so that others are seen beside it");
}

fn includes(files: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        let (name, text) = found.ok_or_else(|| Diagnostic::bare(format!("cannot read {}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(PipelineFile { name: (*name).into(), text: (*text).into(), directory })
    };
    let first = read(Path::new(files[0].0)).expect("the first");
    Plan::load_from(&[first], &Environment::fixed([], 1000, |_| false), &read)
}

#[test]
fn an_include_brings_what_it_declares_under_its_own_namespace() {
    let sub = "namespace = \"b\"\nslice = \"1m\"\ninclude = [\"../c.toml\"]\n[http]\nlisten = \"127.0.0.1:1\"\n[sources.s]\ntype = \"socket\"\nlisten = \"udp:127.0.0.1:1\"\n\
        [events.e]\nfields = { n = \"int\" }\n[metrics.x]\ntype = \"counter\"\nfrom = { event = \"e\", value = \"n\" }\n[rules]\nfiles = \"r.yml\"\n[widgets.w]\na = \"b_x\"\n";
    let same = "[events.e]\nfields = { n = \"int\" }\n[metrics.y]\ntype = \"gauge\"\n";
    let p = includes(&[
        ("dir/a.toml", "namespace = \"a\"\ninclude = [\"sub/b.toml\", \"./dir/c.toml\"]\n[metrics.x]\ntype = \"gauge\"\n[rules]\nfiles = \"r.yml\"\n"),
        ("dir/sub/b.toml", sub),
        ("dir/c.toml", same),
    ])
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(p.metrics.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["y", "b_x", "a_x"], "each file once");
    assert_eq!((p.slice.nanos(), p.sources.len(), p.typed.events.len()), (10 * SECOND, 1, 1));
    assert_eq!(p.rules_files, [Path::new("dir/sub/r.yml"), Path::new("dir/r.yml")]);
    assert_eq!(p.widgets.len(), 1);
}

#[test]
fn includes_that_cannot_be_taken_are_shown_with_their_files() {
    let said = |files: &[(&str, &str)]| includes(files).expect_err("wrong").to_string();
    let cycle = said(&[("a.toml", "include = \"b.toml\""), ("b.toml", "include = \"a.toml\"")]);
    assert!(cycle.contains("\"a.toml\" includes itself") && cycle.contains("a.toml -> b.toml -> a.toml"), "{cycle}");
    assert!(cycle.contains("--> b.toml:1:11"), "{cycle}");
    let missing = said(&[("a.toml", "x = 1\ninclude = \"b.toml\"")]);
    assert!(missing.contains("cannot read b.toml") && missing.contains("--> a.toml:2:11"), "{missing}");
    let twice = said(&[
        ("a.toml", "include = \"b.toml\"\n[metrics.x]\ntype = \"gauge\""),
        ("b.toml", "[metrics.x]\ntype = \"gauge\""),
    ]);
    assert!(twice.contains("\"metrics.x\" is declared twice") && twice.contains("first in b.toml:1"), "{twice}");
    let event = said(&[
        ("a.toml", "include = \"b.toml\"\n[events.e]\nfields = { n = \"int\" }"),
        ("b.toml", "[events.e]\nfields = { n = \"float\" }"),
    ]);
    assert!(event.contains("declared twice, and not the same") && event.contains("field \"n\" differs"), "{event}");
    let inside = said(&[("a.toml", "include = \"b.toml\""), ("b.toml", "\n[metrcs.x]\ntype = \"gauge\"")]);
    assert!(inside.contains("unknown key \"metrcs\"") && inside.contains("--> b.toml:2:2"), "{inside}");
}

#[test]
fn widgets_panels_and_tests_are_built_as_written() {
    let p = plan(EVERYTHING);
    let overview = p.widgets.iter().find(|widget| widget.name == "overview").expect("declared");
    let paths: Vec<String> = overview.leaves.iter().map(|(path, _)| path.join("/")).collect();
    assert_eq!(paths, ["error_rate", "resources/disk", "resources/memory", "generations", "by_model", "recent"]);
    assert!(matches!(&overview.leaves[3].1, WidgetLeaf::Series { key: Some(key), .. } if key == "model"));
    assert!(matches!(&overview.leaves[4].1, WidgetLeaf::Value { key: Some(key), .. } if key == "model"));
    assert!(
        matches!(&overview.leaves[5].1, WidgetLeaf::Events { events, limit: 20 } if events == &["model_generation"])
    );
    assert_eq!(p.panels.len(), 2);
    assert_eq!(
        (p.panels[0].kind, p.panels[0].row.as_deref(), p.panels[0].exprs.len()),
        (PanelKind::Line, Some("Models"), 2)
    );
    assert_eq!(p.panels[1].thresholds[1], Threshold { above: 0.05, color: "#ff0000".into() });
    assert_eq!(p.rules_files, [Path::new("/etc/hydrograph/rules/*.yml")]);
    let test = &p.tests[0];
    assert_eq!(test.input.len(), 3);
    assert_eq!((test.input[1].at, &test.input[1].action), (SECOND, &TestAction::Kill));
    assert_eq!(test.input[2].action, TestAction::Reload("/etc/hydrograph/other.toml".into()));
    assert_eq!(test.expect[0].want, Want::Value { value: 1.0, tolerance: Some(0.01) });
    assert_eq!((test.expect[1].at, test.expect[1].want), (5 * SECOND, Want::Absent));
    assert!(test.expect[1].place.starts_with("my.toml:"));
    assert_eq!((test.input[0].source.as_deref(), test.input[1].source.as_deref()), (Some("app"), None));
    let input = |input: &str| {
        format!(
            "[[tests]]\nname = \"t\"\ninput = [{{ at = \"0s\", {input} }}]\nexpect = [{{ at = \"1s\", expr = \"1\", value = 1 }}]"
        )
    };
    check(&input("line = \"a:1|c\", source = \"ap\""), &["unknown source \"ap\" of type socket"]);
    check(&input("restart = \"kill\", source = \"internal\""), &["source belongs to a line"]);
    check("[widgets.w]\na = \"1\"\n\"a.b\" = \"2\"", &["\"a.b\" stands beside \"a\""]);
    check(
        "[events.e]\nfields = {}\n[widgets.w]\na = { events = \"e\" }",
        &["event \"e\" is not kept", "add keep = 100 in my.toml:1"],
    );
}

#[test]
fn collecting_sources_have_their_keys() {
    let p = plan(EVERYTHING);
    let kind = |name: &str| &p.sources.iter().find(|source| source.name == name).expect("declared").kind;
    let SourceKind::Process(process) = kind("worker") else { panic!("a process") };
    assert_eq!(process.matches, ProcessMatch::PidFile("/etc/hydrograph/worker.pid".into()));
    assert_eq!(process.every, 5 * SECOND);
    let SourceKind::Gpu(gpu) = kind("cards") else { panic!("a gpu") };
    assert_eq!(gpu.library.as_deref(), Some(Path::new("/opt/libnvidia-ml.so")));
    let SourceKind::Socket(app) = kind("app") else { panic!("a socket") };
    assert_eq!((app.json.event_key.as_str(), app.json.time_key.as_str()), ("message", "at"));
    assert!(app.json.refuses_extra);
    let SourceKind::Socket(topic) = kind("topic") else { panic!("a socket") };
    assert_eq!(topic.json.event.as_deref(), Some("session_start"));
    assert_eq!(p.sources[1].labels, [("team".to_owned(), "web".to_owned())]);
    check("[sources.p]\ntype = \"process\"", &["says not which process"]);
    check(
        "[sources.p]\ntype = \"process\"\nmatch = { pid = \"x\" }",
        &["unknown key \"pid\"", "did you mean \"pid_file\"?"],
    );
    check(
        "[sources.a]\ntype = \"socket\"\nlisten = \"unixgram:x\"\nevent = \"oder\"\n[events.order]\nfields = {}",
        &["unknown event \"oder\"", "did you mean \"order\"?"],
    );
    check("[sources.process]\ntype = \"gpu\"", &["source \"process\" is there already"]);
    check("[sources.p]\ntype = \"kafka\"", &["unknown source type \"kafka\"", "no Kafka topics yet"]);
}

#[test]
fn tables_within_tables_take_references_and_overrides() {
    let text = "[events.e]\nfields = { n = \"${TYPE}\" }\nkeep = \"${KEEP:-7}\"\n[metrics.m]\ntype = \"counter\"\nfrom = { event = \"${EVENT}\", scale = \"${SCALE}\", value = \"n\" }\n\
        [widgets.w]\na = \"${EXPR}\"\nb = \"1\"\n";
    let variables = [
        ("TYPE", "int?"),
        ("EVENT", "e"),
        ("SCALE", "0.5"),
        ("EXPR", "up"),
        ("HYDROGRAPH_EVENTS__E__FIELDS", "n=int,text=string"),
        ("HYDROGRAPH_METRICS__M__HELP", "from outside"),
        ("HYDROGRAPH_WIDGETS__W__B", "2"),
    ];
    let p = load_with(text, &variables).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((p.typed.events[0].keep, p.typed.events[0].fields.len()), (7, 2));
    assert_eq!((p.typed.feeds[0].scale, p.metrics[0].help.as_str()), (0.5, "from outside"));
    let exprs: Vec<&WidgetLeaf> = p.widgets[0].leaves.iter().map(|(_, leaf)| leaf).collect();
    assert_eq!(
        exprs,
        [&WidgetLeaf::Value { expr: "up".into(), key: None }, &WidgetLeaf::Value { expr: "2".into(), key: None }]
    );
}

#[test]
fn expressions_are_checked_where_they_stand() {
    let head = "[metrics.a_total]\ntype = \"counter\"\nhelp = \"x\"\nlabels = [\"x\"]\n";
    let said = |rest: &str| {
        load_with(&format!("{head}{rest}"), &[]).map_or_else(|e| e.to_string(), |p| p.warnings.to_string())
    };
    let check = |rest: &str, expected: &[&str]| {
        let said = said(rest);
        for part in expected {
            assert!(said.contains(part), "{part:?} is not said about {rest} but\n{said}");
        }
        assert_eq!(said.is_empty(), expected.is_empty(), "{rest}\n{said}");
    };
    let record = |name: &str, expr: &str| {
        format!("[metrics.{name}]\ntype = \"gauge\"\nhelp = \"x\"\nfrom = {{ expr = '{expr}' }}\n")
    };
    check(&record("r", "sum(rate(a_total[5m]))"), &[]);
    check("[widgets.w]\nv = \"sum(rate(a_total[5m])\"", &["error: ", "--> my.toml:6:"]);
    check("[widgets.w]\nv = \"1 + nope(a_total)\"", &["there is no function `nope`", "    ^^^^\n"]);
    check("[widgets.w]\nv = \"a_total[5m]\"", &["gives a range, not a value"]);
    check(
        "[[panels]]\ntitle = \"x\"\nexpr = \"sum(a_totall)\"",
        &["warning: nothing declares \"a_totall\"", "did you mean \"a_total\"?", "           ^^^^^^^^\n"],
    );
    check(
        "[widgets.w]\nv = { series = \"sum by (x) (a_total)\", key = \"xx\" }",
        &["warning: the expression's series have no label \"xx\""],
    );
    check("[[tests]]\nname = \"t\"\nexpect = [{ at = \"1s\", expr = \"sum(\", value = 1 }]", &["error: "]);
    // Q4: a recorded expression reads what is recorded before it only.
    check(&(record("r", "sum(a_total)") + &record("s", "r * 2")), &[]);
    check(
        &(record("s", "r * 2") + &record("r", "sum(a_total)")),
        &["error: \"r\" is recorded after", "move it up from my.toml:9"],
    );
    check(&record("r", "r + 1"), &["\"r\" reads itself"]);
    check(
        &format!("[metrics.off]\ntype = \"gauge\"\nhelp = \"x\"\nenabled = false\n{}", record("r", "sum(off)")),
        &["warning: \"off\" is switched off"],
    );
}

#[test]
fn times_do_not_feed_bytes_nor_bytes_times() {
    let metric = |name: &str, value: &str| {
        let head = "[events.e]\nfields = { s = \"seconds\", b = \"bytes\" }\n";
        format!("{head}[metrics.{name}]\ntype = \"histogram\"\nfrom = {{ event = \"e\", value = \"{value}\" }}")
    };
    check(&metric("q_bytes", "s"), &["\"s\" is in seconds, the metric in bytes", "unit = "]);
    check(&metric("q_seconds", "b"), &["\"b\" is in bytes, the metric in seconds"]);
    assert_eq!(plan(&metric("q_bytes", "b")).metrics.len(), 1);
    assert_eq!(plan(&metric("q", "s")).metrics.len(), 1);
}

#[test]
fn a_recorded_metric_has_the_labels_that_its_expression_gives() {
    let head = "[metrics.h]\ntype = \"histogram\"\nlabels = [\"model\", \"zone\"]\n[metrics.r]\ntype = \"gauge\"\n";
    let labels = |rest: &str| {
        let p = plan(&format!("{head}{rest}"));
        assert_eq!(p.typed.feeds[0].labels.len(), p.metrics[1].labels.len());
        p.metrics[1].labels.join(",")
    };
    assert_eq!(labels("from = { expr = 'histogram_quantile(0.9, sum by (le, model) (rate(h_bucket[5m])))' }"), "model");
    assert_eq!(labels("from = { expr = 'rate(h_count[5m])' }"), "model,zone");
    assert_eq!(labels("from = { expr = 'sum(h_count) or vector(0)' }"), "");
    assert_eq!(labels("from = { expr = 'foo', labels = [\"a\"] }"), "a");
    assert_eq!(labels("from = { expr = 'foo' }"), "");
    let said = load_with(&format!("{head}from = {{ expr = 'sum by (zone) (h_count)', labels = [\"model\"] }}"), &[]);
    assert!(said.expect_err("differ").to_string().contains("the expression gives labels {zone}, not {model}"));
}

#[test]
fn mapping_files_are_read_with_the_file_that_names_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mapping.yml");
    let text = format!("[sources.a]\ntype = \"socket\"\nlisten = [\"udp:127.0.0.1:0\"]\nmapping_file = {path:?}");
    check(&text, &["cannot read ", "mapping.yml"]);
    std::fs::write(&path, "mappings:\n- match: a.*\n  name: 0x\n").expect("written");
    check(&text, &["mapping 1 (\"a.*\"): \"0x\" is not a metric name", "as statsd_exporter reads it"]);
    std::fs::write(&path, "mappings:\n- match: a.*\n  name: x\n  lables: {}\n").expect("written");
    let p = plan(&text);
    let SourceKind::Socket(socket) = &p.sources[1].kind else { panic!("a socket") };
    assert_eq!(socket.mapping.as_ref().map(|file| file.mapping.len()), Some(1));
    assert_eq!(p.rules().mappings.by_source.len(), 2);
}
