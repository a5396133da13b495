//! `almoner-broker check` as a program: exit codes, formats, and the configurations that ship.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

#[cfg(test)] // so that clippy knows it as a test's
mod program {
    use super::*;

    pub(crate) fn check(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_almoner-broker"));
        command.arg("check").args(arguments).output().expect("ran")
    }

    pub(crate) fn shipped() -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
        let entries = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").path());
        entries
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "yaml")
            })
            .collect()
    }

    pub(crate) fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }
}

use program::{check, shipped, text};

#[test]
fn every_shipped_envoy_configuration_passes() {
    let files = shipped();
    assert!(!files.is_empty());
    for file in files {
        let output = check(&["--envoy", file.to_str().expect("a path")]);
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{}\n{out}", file.display());
        let whole = fs::read_to_string(&file)
            .expect("text")
            .contains("\nstatic_resources:");
        // Of patches it is said that they are not everything.
        let last = if whole {
            "0 errors, 0 warnings\n"
        } else {
            "0 errors, 1 warnings\n"
        };
        assert!(out.ends_with(last), "{}\n{out}", file.display());
    }
}

#[test]
fn a_finding_is_a_line_and_exit_code_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("gateway.yaml");
    let gateway = shipped()
        .into_iter()
        .find(|path| path.ends_with("gateway.yaml"));
    let broken = fs::read_to_string(gateway.expect("a file"))
        .expect("text")
        .replace("normalize_path: true", "");
    fs::write(&path, broken).expect("written");
    let path = path.to_str().expect("a path");

    let output = check(&["--envoy", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout)
            .contains("normalize_path: error[normal-path]: expected `true`, found none")
    );

    let output = check(&["--envoy", path, "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["findings"][0]["check"], "normal-path");
    assert_eq!(report["findings"][0]["severity"], "error");
}

#[test]
fn what_can_not_be_checked_is_exit_code_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("missing.yaml");
    let output = check(&[missing.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("missing.yaml"));
    let no_policy = dir.path().join("envoy.yaml");
    fs::write(&no_policy, "static_resources: {}").expect("written");
    let output = check(&["--envoy", no_policy.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(check(&[]).status.code(), Some(2));
}

#[test]
fn a_policy_in_yaml_is_read_by_the_core() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("policy.yaml");
    fs::write(
        &path,
        "identity: {sources: []}\nproviders: {}\nbroker: {cluster: b}\npolicies: []\n",
    )
    .expect("written");
    let output = check(&[path.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(
        out.starts_with("policy: error[policy]: ") && out.contains("identity.sources"),
        "{out}"
    );
}
