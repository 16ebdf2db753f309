//! Rules by example: one helper turns a line's parts into `name{labels} exponent` or a reason.

use super::*;
use crate::sketch::Digits;

fn rules(change: impl FnOnce(&mut RulesConfig)) -> Rules {
    let mut config = RulesConfig::default();
    change(&mut config);
    Rules::new(config).expect("no clash")
}

fn declared(name: &str, namespace: &str, kind: Kind, labels: &[&str]) -> DeclaredMetric {
    let unit = unit_of_name(name);
    DeclaredMetric {
        name: name.into(),
        namespace: namespace.into(),
        kind,
        help: "declared".into(),
        unit,
        scale: default_scale(kind, unit),
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        expose: Expose { summary: kind == Kind::Distribution, histogram: false },
        quantiles: Arc::new([0.5]),
        digits: Digits::Two,
        window_slices: 30,
        buckets: None,
        group: Group::Main,
        idle: None,
        holds: None,
    }
}

fn split_tag(tag: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', tag) {
        Some(at) => (&tag[..at], &tag[at + 1..]),
        None => (tag, b"true"),
    }
}

fn shown(resolved: Result<Resolved, RejectReason>) -> String {
    match resolved {
        Ok(r) => {
            let labels: Vec<String> = r.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let dropped = if r.labels_dropped > 0 { format!(" -{}", r.labels_dropped) } else { String::new() };
            format!("{}{{{}}} {}{dropped}", r.metric.name, labels.join(","), r.input_exponent)
        }
        Err(reason) => reason.to_string(),
    }
}

/// `line` is `name|type|tags`; tags are comma separated.
fn check(rules: &Rules, line: &str, expected: &str) {
    let mut parts = line.split('|');
    let name = parts.next().unwrap_or_default();
    let word = parts.next().unwrap_or_default();
    let wire = [
        WireType::Count,
        WireType::Gauge,
        WireType::Timing,
        WireType::Histogram,
        WireType::Distribution,
        WireType::Set,
    ];
    let wire = wire.into_iter().find(|w| w.as_str() == word).expect("a type");
    let tags = parts.next().unwrap_or_default();
    let tags = tags.split(',').filter(|t| !t.is_empty()).map(|tag| split_tag(tag.as_bytes()));
    assert_eq!(shown(rules.resolve(SourceIndex(0), name.as_bytes(), wire, tags)), expected, "{line}");
}

#[test]
fn undeclared_names_kinds_and_exponents() {
    let r = rules(|_| {});
    check(&r, "checkout.latency|ms|region:eu", "checkout_latency_seconds{region=eu} 6");
    check(&r, "checkout.latency_ms|ms|region:eu", "checkout_latency_seconds{region=eu} 6");
    check(&r, "checkout.latency|h", "checkout_latency{} 6");
    check(&r, "took_seconds|d", "took_seconds{} 9");
    check(&r, "body_bytes|h", "body_bytes{} 0");
    check(&r, "orders|c", "orders_total{} 9");
    check(&r, "orders.total|c", "orders_total{} 9");
    check(&r, "queue|g|b:2,a:1,flag", "queue{a=1,b=2,flag=true} 6");
    check(&r, "users|s", "users{} 0");
    let help = |name: &str| r.metrics().iter().find(|m| &*m.name == name).map(|m| m.help.to_string());
    assert_eq!(help("checkout_latency_seconds").as_deref(), Some("timing received as checkout.latency"));
    assert_eq!(help("orders_total").as_deref(), Some("counter received as orders"));
}

#[test]
fn without_suffixes_names_stay() {
    let r = rules(|c| c.undeclared.suffixes = false);
    check(&r, "orders|c", "orders{} 9");
    check(&r, "checkout.latency|ms", "checkout_latency{} 6");
    check(&r, "checkout.latency|h", "checkout_latency{} 9");
}

#[test]
fn one_name_one_type() {
    let r = rules(|_| {});
    check(&r, "x|c", "x_total{} 9");
    check(&r, "x|g", "type_conflict");
    check(&r, "x_total|g", "type_conflict");
    check(&r, "x.created|g", "type_conflict");
    check(&r, "y|h", "y{} 6");
    check(&r, "y|d", "y{} 6");
    check(&r, "y.count|g", "type_conflict");
    check(&r, "y.sum|c", "type_conflict");
    check(&r, "y.bucket|g", "y_bucket{} 6");
    check(&r, "z_count|g", "z_count{} 6");
    check(&r, "z|h", "type_conflict");
}

#[test]
fn bad_names_and_tags_have_reasons() {
    let r = rules(|_| {});
    check(&r, "|c", "empty_name");
    check(&r, &format!("{}|g", "n".repeat(201)), "name_too_long");
    check(&r, &format!("{}|g", "n".repeat(200)), &format!("{}{{}} 6", "n".repeat(200)));
    check(&r, &format!("{}|c", "n".repeat(199)), "name_too_long");
    check(&r, "a|g|le:1", "reserved_label");
    check(&r, "a|g|quantile:1", "reserved_label");
    check(&r, "a|g|__x:1", "reserved_label");
    check(&r, "a|g|:v", "malformed");
    check(&r, "a|g|k:", "a{} 6");
    check(&r, "a|g|k:b,k:a,k:b", "a{k=a,b} 6");
    check(&r, "a|g|my-key:1,url:http://x", "a{my_key=1,url=http://x} 6");
    check(&r, "hydrograph_up|g", "type_conflict");
    check(&r, "process_open_fds|g", "type_conflict");
    check(&r, "process_cpu_seconds|g", "type_conflict");
    let tags = || std::iter::empty();
    assert_eq!(shown(r.resolve(SourceIndex(0), b"a\xff", WireType::Gauge, tags())), "invalid_utf8");
    assert_eq!(
        shown(r.resolve(SourceIndex(0), b"a", WireType::Gauge, [(&b"k"[..], &b"\xff"[..])].into_iter())),
        "invalid_utf8"
    );
    let many: Vec<String> = (0..65).map(|n| format!("k{n}:v")).collect();
    check(&r, &format!("a|g|{}", many.join(",")), "too_many_labels");
}

#[test]
fn declared_metrics_are_found_by_their_names() {
    let all = || {
        vec![
            declared("shop_orders_total", "shop", Kind::Counter, &["region"]),
            declared("shop_took_seconds", "shop", Kind::Distribution, &[]),
            declared("plain", "", Kind::Counter, &[]),
            declared("sizes_bytes", "", Kind::Distribution, &[]),
        ]
    };
    let r = rules(|c| c.declared = all());
    check(&r, "orders|c|region:eu,env:prod,bare", "shop_orders_total{region=eu} 9 -2");
    check(&r, "orders_total|c|region:eu", "shop_orders_total{region=eu} 9");
    check(&r, "shop.orders|c|region:eu", "shop_orders_total{region=eu} 9");
    check(&r, "shop.orders.total|c|region:eu", "shop_orders_total{region=eu} 9");
    check(&r, "orders|c", "label_mismatch");
    check(&r, "orders|c|region:", "label_mismatch");
    check(&r, "orders_total|g|region:eu", "type_conflict");
    check(&r, "took|ms", "shop_took_seconds{} 6");
    check(&r, "took_ms|ms", "shop_took_seconds{} 6");
    check(&r, "took_seconds|h", "shop_took_seconds{} 9");
    check(&r, "plain|c", "plain{} 9");
    check(&r, "sizes_bytes|d", "sizes_bytes{} 0");
    check(&r, "sizes_bytes|ms", "type_conflict");
    let keep = rules(|c| (c.declared, c.extra_labels) = (all(), ExtraLabels::Keep));
    check(&keep, "orders|c|region:eu,env:prod", "shop_orders_total{env=prod,region=eu} 9");
    let error = rules(|c| (c.declared, c.extra_labels) = (all(), ExtraLabels::Error));
    check(&error, "orders|c|region:eu,env:prod", "label_mismatch");
    assert_eq!(shown(r.resolve_handle("orders", WireType::Count, &[("region", "eu"), ("env", "x")])), "label_mismatch");
    assert_eq!(
        shown(r.resolve_handle("orders", WireType::Count, &[("region", "eu")])),
        "shop_orders_total{region=eu} 9"
    );
    assert_eq!(r.declared().len(), 4);
}

#[test]
fn constant_labels_stand_on_every_series() {
    let r = rules(|c| c.constant_labels = vec![("region".into(), "eu".into())]);
    check(&r, "a|g", "a{region=eu} 6");
    check(&r, "a|g|region:us", "a{region=us} 6");
    let own = r.metric(&MetricSpec::new("hydrograph_up", Kind::Gauge, "up", "internal")).expect("valid");
    let labels = r.labels_of(&own, &[("a", "b")]).expect("valid");
    assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "b"), ("region", "eu")]);
}

#[test]
fn client_telemetry_stays_out_of_sight() {
    let r = rules(|c| c.undeclared.suffixes = false);
    check(&r, "datadog.dogstatsd.client.packets_sent|c|client:py", "hydrograph_client_packets_sent_total{client=py} 9");
    assert!(r.metrics().iter().all(|m| m.group == Group::InternalOnly));
}

/// What clients say of themselves has a bound of its own, below and beside that of names.
#[test]
fn client_telemetry_takes_no_place_of_what_people_measure() {
    let most = CLIENT_TELEMETRY_MAX + 10;
    let r = rules(|c| c.metrics_max = most);
    let resolve = |name: String| {
        r.resolve(SourceIndex(0), name.as_bytes(), WireType::Count, std::iter::empty()).map(|found| found.metric.id.0)
    };
    let flood = |n: usize| resolve(format!("datadog.dogstatsd.client.n{n}"));
    let taken = (0..1000).filter(|n| flood(*n).is_ok()).count();
    assert_eq!(taken, CLIENT_TELEMETRY_MAX);
    assert_eq!(flood(CLIENT_TELEMETRY_MAX), Err(RejectReason::TooManyMetrics));
    assert!(flood(0).is_ok(), "what is known goes on");
    let names = (0..most + 5).filter(|n| resolve(format!("name{n}")).is_ok()).count();
    assert_eq!(names, most, "the others have all of their own");
}

#[test]
fn service_checks_are_gauges() {
    let r = rules(|_| {});
    let tags = [(&b"env"[..], &b"x"[..]), (&b"check"[..], &b"forged"[..])];
    let resolved = r.resolve_service_check(SourceIndex(0), b"db.up", tags.into_iter());
    assert_eq!(shown(resolved), "service_check_status{check=db.up,env=x} 6");
    assert_eq!(shown(r.resolve_service_check(SourceIndex(0), b"", std::iter::empty())), "empty_name");
}

#[test]
fn s1_stored_metrics_come_back_and_keep_their_type() {
    let r = rules(|c| c.declared = vec![declared("d", "", Kind::Gauge, &[])]);
    let restored = r.restore("x_seconds", Kind::Distribution, Scale::NANO).expect("new");
    check(&r, "x_seconds|g", "type_conflict");
    check(&r, "x|ms", "x_seconds{} 6");
    let now = r.metrics()[restored.id.0 as usize].clone();
    assert_eq!((now.id, &*now.help), (restored.id, "timing received as x"));
    assert!(matches!(r.restore("d", Kind::Counter, Scale::NANO), Err(RestoreError::Clash { .. })));
    assert!(matches!(r.restore("d", Kind::Gauge, Scale::NANO), Err(RestoreError::Scale { stored: 9, now: 6, .. })));
    assert!(matches!(r.restore("no name", Kind::Gauge, Scale::NANO), Err(RestoreError::Name { .. })));
    let kept = r.restore("y", Kind::Gauge, Scale::ONE).expect("new");
    check(&r, "y|g", "y{} 0");
    assert_eq!(kept.scale, Scale::ONE);

    // Bounds are counted in the stored scale, not in the one that the name would give.
    let r = rules(|c| c.undeclared.expose.histogram = true);
    let scale = Scale::from_exponent(3).expect("in range");
    r.restore("x_seconds", Kind::Distribution, scale).expect("new");
    check(&r, "x|ms", "x_seconds{} 0");
    let buckets = r.metrics()[0].buckets.clone().expect("a histogram");
    assert_eq!((buckets.bounds[0], buckets.units[0]), (0.005, 5));
}

#[test]
fn a_mapping_names_the_lines_of_its_source_only() {
    use super::mapping::Mapping;
    use crate::event::SourceIndex;
    let text = r#"
mappings:
- { match: api.*.latency, name: api_latency, observer_type: histogram, buckets: [0.1, 1], labels: { endpoint: $1, env: rule }, ttl: 1m }
- { match: aged.*, name: aged, summary_options: { max_age: 95s, quantiles: [{ quantile: 0.7, error: 0.01 }] }, honor_labels: true, labels: { env: rule } }
- { match: declared.*, name: d, labels: { k: $1 } }
- { match: gone.*, action: drop, name: gone }
- { match: scaled.*, name: scaled, scale: 0.001 }
"#;
    let mapping = Arc::new(Mapping::parse(text).expect("valid"));
    let r = rules(|c| {
        c.declared = vec![declared("d", "", Kind::Gauge, &["k"])];
        c.mappings.by_source = vec![None, Some(mapping)];
        c.mappings.slice = 10_000_000_000;
    });
    let resolve = |source: u16, name: &str, wire: WireType, tags: &'static [(&'static [u8], &'static [u8])]| {
        r.resolve_from(SourceIndex(source), name.as_bytes(), wire, tags.iter().copied())
    };
    let tags: &[(&[u8], &[u8])] = &[(b"env", b"tag"), (b"zone", b"a")];
    let latency = resolve(1, "api.users.latency", WireType::Timing, tags);
    let metric = latency.as_ref().expect("mapped").metric.clone();
    assert_eq!(shown(latency), "api_latency{endpoint=users,env=rule,zone=a} 6");
    assert_eq!(metric.expose, Expose { summary: false, histogram: true });
    assert_eq!(metric.buckets.as_ref().map(|b| b.units.to_vec()), Some(vec![100_000_000, 1_000_000_000]));
    assert_eq!(metric.idle, Some(60_000_000_000));
    assert_eq!(shown(resolve(0, "api.users.latency", WireType::Timing, &[])), "api_users_latency_seconds{} 6");

    let aged = resolve(1, "aged.x", WireType::Timing, tags);
    let metric = aged.as_ref().expect("mapped").metric.clone();
    assert_eq!(shown(aged), "aged{env=tag,zone=a} 6");
    assert_eq!((metric.window_slices, &*metric.quantiles), (10, &[0.7][..]));

    assert_eq!(shown(resolve(1, "declared.x", WireType::Gauge, tags)), "d{k=x} 6 -2");
    assert_eq!(shown(resolve(1, "declared.x", WireType::Count, &[])), "type_conflict");
    assert_eq!(shown(resolve(1, "gone.x", WireType::Count, &[])), "dropped_by_mapping");
    assert_eq!(resolve(1, "scaled.x", WireType::Gauge, &[]).map(|r| r.shift), Ok(-3));
    assert_eq!(shown(resolve(1, "unmapped.x", WireType::Count, &[])), "unmapped_x_total{} 9");
}

#[test]
fn own_metrics_take_a_declaration_if_there_is_one() {
    let r = rules(|c| c.declared = vec![declared("app_host_load1", "app", Kind::Gauge, &[])]);
    let load = r.metric(&MetricSpec::new("host_load1", Kind::Gauge, "load", "host")).expect("valid");
    assert_eq!(&*load.name, "app_host_load1");
    let spec = MetricSpec::new("hydrograph_commit_duration_seconds", Kind::Distribution, "commit", "internal");
    let commit = r.metric(&spec).expect("valid");
    assert_eq!((commit.unit, commit.scale, commit.idle), (Unit::Seconds, Scale::NANO, None));
    assert!(Arc::ptr_eq(&commit, &r.metric(&spec).expect("same")));
    let wrong = MetricSpec { kind: Kind::Gauge, ..spec };
    assert_eq!(r.metric(&wrong).err(), Some(RejectReason::TypeConflict));
}

#[test]
fn a_flood_of_names_is_refused_and_named() {
    let r = rules(|c| c.metrics_max = 3);
    for name in ["up", "req_1", "req_2"] {
        assert_eq!(r.names_full(), None);
        check(&r, &format!("{name}|g"), &format!("{name}{{}} 6"));
    }
    check(&r, "m3|g", "too_many_metrics");
    check(&r, "req_2|g|a:b", "req_2{a=b} 6");
    assert_eq!(r.names_full(), Some(NamesFull { names: 3, prefix: "req_".into(), with_prefix: 2 }));
    assert!(r.metric(&MetricSpec::new("hydrograph_up", Kind::Gauge, "up", "internal")).is_ok());
}

#[test]
fn a_declared_clash_is_named() {
    let declared = vec![declared("x_total", "", Kind::Counter, &[]), declared("x", "", Kind::Gauge, &[])];
    assert_eq!(Rules::new(RulesConfig { declared, ..RulesConfig::default() }).err().as_deref(), Some("x"));
}
