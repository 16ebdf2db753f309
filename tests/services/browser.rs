//! The index page in a real browser: it renders, shows what came in, and escapes what is hostile.

use crate::harness::{Home, Pipeline};
use crate::peers;
use std::process::Command;

#[test]
fn the_index_page_in_headless_chromium() {
    let Some(chromium) = peers::find_or_skip("the_index_page_in_headless_chromium", "chromium") else { return };
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let lines = "page.hits:3|c|#region:eu\nevil:1|c|#a:<img src=x onerror=\"document.title='owned'\">\nbad.line:<script>document.title='owned'</script>|c\n";
    assert_eq!(server.post("/api/v1/lines", &[("Content-Type", "text/plain")], lines.as_bytes()).status, 200);
    let url = format!("http://{}/", pipeline.address());
    let browse = |last: &str| {
        let mut command = Command::new(&chromium);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--no-proxy-server", "--virtual-time-budget=3000", "--window-size=1100,900"]);
        command.arg(format!("--user-data-dir={}", home.path().join("chromium").display()));
        command.env("HOME", home.path().join("home")).arg(last).arg(&url);
        peers::run(&mut command, b"")
    };
    let dom = String::from_utf8(browse("--dump-dom").stdout).expect("the page is UTF-8");
    let version = env!("CARGO_PKG_VERSION");
    for word in ["hydrograph", version, "page_hits_total", "dsd.socket", "/metrics", "bad_value", "<html", "</body>"] {
        assert!(dom.contains(word), "{word:?} is not on the page:\n{dom}");
    }
    assert!(!dom.contains("<img src=\"x\"") && !dom.contains("<title>owned"), "input became markup:\n{dom}");
    assert!(dom.contains("&lt;script&gt;"), "the refused line is shown as it came:\n{dom}");

    let picture = home.path().join("index.png");
    browse(&format!("--screenshot={}", picture.display()));
    let picture = std::fs::read(picture).expect("the browser took a picture");
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5_000, "{} bytes of picture", picture.len());
    if let Some(kept) = std::env::var_os("HYDROGRAPH_SCREENSHOT") {
        std::fs::write(kept, picture).expect("the picture is kept where asked");
    }
}
