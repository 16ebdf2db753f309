//! Looking after a store, as a user of the command line does: `store stats`, `check`, `compact`, `backup`.

use crate::harness::{Home, Launch, Pipeline};
use std::path::Path;

const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain")];

const LINES: &[u8] = b"shop.orders:3|c|#region:eu\nshop.orders:4|c|#region:us\nshop.depth:1.5|g|#region:eu\n\
                       shop.took:40|ms|#region:eu\nshop.took:1:2:3|ms|@0.5|#region:eu\nshop.users:a|s\n";

#[test]
fn c5_a_store_is_checked_and_copied_while_it_runs_and_afterwards() {
    let home = Home::new();
    let file = home.store("t.redb");
    let mut pipeline = Pipeline::new();
    pipeline.top = "name = \"t\"\nslice = \"1s\"\nwindow = \"2s\"\nlateness = \"1s\"\n".to_owned();
    let server = pipeline.start(&home);
    let send = || assert_eq!(server.post("/api/v1/lines", TEXT, LINES).status, 200);
    send();
    let url = format!("http://{}", server.address);
    let ask = |arguments: &[&str]| Launch::new(&home).args(["--url", &url, "store"]).args(arguments).finish();
    let opened = |arguments: &[&str]| Launch::new(&home).arg("store").args(arguments).finish();
    let path = |path: &Path| path.to_str().expect("text").to_owned();

    // Until a slice has become a segment, so that both places are read.
    crate::harness::wait::until("a segment", || {
        send();
        let stats: serde_json::Value = serde_json::from_str(&ask(&["stats", "--json"]).stdout).expect("JSON");
        let tables = stats["tables"].as_array().expect("a list").clone();
        tables.iter().any(|table| table["table"] == "segments" && table["rows"].as_u64() > Some(0)).then_some(())
    });
    let stats = ask(&["stats"]);
    assert!(stats.stdout.starts_with(&path(&file)) && stats.stdout.contains("\nresolution "), "{}", stats.said());
    let check = ask(&["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", check.said());
    assert!(check.stdout.ends_with("totals are base + history\n"), "{}", check.said());
    // A file that is served is not opened beside it.
    let served = opened(&["check", &path(&file)]);
    assert_eq!(served.status.code(), Some(1), "{}", served.said());
    assert!(served.stderr.contains("is in use by a running instance"), "{}", served.said());
    let copy = home.path().join("copy.redb");
    let backup = ask(&["backup", "--output", &path(&copy)]);
    assert_eq!(backup.status.code(), Some(0), "{}", backup.said());
    drop(server);

    let again = home.path().join("again.redb");
    let backup = opened(&["backup", &path(&file), "--output", &path(&again)]);
    assert_eq!(backup.status.code(), Some(0), "{}", backup.said());
    for file in [&file, &copy, &again] {
        let check = opened(&["check", &path(file), "--json"]);
        let found: serde_json::Value = serde_json::from_str(&check.stdout).expect("JSON");
        assert_eq!((check.status.code(), &found["differing"]), (Some(0), &0.into()), "{}", check.said());
        assert!(found["series"].as_u64() >= Some(5) && found["rows"].as_u64() > Some(5), "{found}");
        let compact = opened(&["compact", &path(file)]);
        assert_eq!(compact.status.code(), Some(0), "{}", compact.said());
        assert_eq!(opened(&["check", &path(file)]).status.code(), Some(0));
    }

    // A damaged copy is found out, and left as it is.
    let mut bytes = std::fs::read(&copy).expect("there");
    let at = bytes.windows(11).position(|bytes| bytes == b"shop_orders").expect("a name in the file");
    bytes[at] ^= 1;
    std::fs::write(&copy, &bytes).expect("written");
    let check = opened(&["check", &path(&copy)]);
    assert_eq!(check.status.code(), Some(1), "{}", check.said());
    assert!(check.stderr.contains("corrupt"), "{}", check.said());
    for (arguments, words) in [
        (vec!["check".to_owned(), path(&home.path().join("none.redb"))], "none.redb"),
        (vec!["backup".to_owned(), path(&file), "--output".to_owned(), path(&again)], "there already"),
        (vec!["stats".to_owned()], "give the file of a stopped instance"),
    ] {
        let done = Launch::new(&home).args(["--url", &url, "store"]).args(&arguments).finish();
        assert_eq!(done.status.code(), Some(1), "{}", done.said());
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.said());
    }
    assert!(!home.path().join("none.redb").exists(), "nothing was made");
}
