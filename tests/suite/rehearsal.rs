//! `hydrograph test` of every shipped pipeline, by the real binary.

use std::path::Path;
use std::process::Command;

#[test]
fn the_tests_of_all_shipped_pipelines_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).expect("the folder stands").map(|entry| entry.expect("readable").path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_hydrograph")).arg("test").args(&files).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("sessions survive a kill") && said.trim_end().ends_with(" 0 failed"), "{said}");
}

#[test]
fn a_failure_is_exit_code_1_and_a_wrong_file_78() {
    let folder = std::env::temp_dir().join(format!("hydrograph-rehearsal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("writable");
    let run = |name: &str, text: &str, more: &[&str]| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("writable");
        Command::new(env!("CARGO_BIN_EXE_hydrograph")).arg("test").arg(path).args(more).output().expect("it runs")
    };
    let failing = "[[tests]]\nname = \"t\"\ninput = [{ at = \"1s\", line = \"hits:2|c\" }]\nexpect = [{ at = \"10s\", expr = \"hits_total\", value = 3 }]\n";
    let output = run("failing.toml", failing, &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["FAILED  t", "failing.toml:4:", "at 10s hits_total", "expected 3", "found    2", "0 passed, 1 failed"]
    {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let output = run("failing.toml", failing, &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &report["failed"]), (Some(1), &serde_json::json!(1)));
    assert_eq!(report["files"][0]["tests"][0]["failures"][0]["found"][0]["value"], 2.0);
    let output = run("wrong.toml", "[no_such_table]\n", &[]);
    assert_eq!(output.status.code(), Some(78));
    std::fs::remove_dir_all(folder).expect("it was made above");
}
