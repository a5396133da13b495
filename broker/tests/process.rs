//! The program itself: what it says where, what it refuses to start with, and how it ends.

#[cfg(test)] // so that clippy knows it as a test's
mod support;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::{Value, json};
use support::{
    issuer::Issuer,
    pki::Authority,
    process::{broker, refused, until_ended, until_written},
    read_plain, write_files,
};

#[tokio::test]
async fn says_where_it_listens_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let issuer = Issuer::start(&authority).await;
    let config = write_files(dir.path(), &authority, &issuer, |_| {});
    let ready = dir.path().join("ready.json");
    let child = broker(&["serve", "--config"])
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready)
        .spawn()
        .expect("started");
    let bound = until_written(&ready).await;
    let admin = bound["admin"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an address");
    assert_eq!(read_plain(admin, "/readyz").await.0, 200);

    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.expect("ran").success());
    let output = until_ended(child).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "standard output is the audit's"
    );
    let log = String::from_utf8_lossy(&output.stderr);
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(line["timestamp"].is_string());
    }
    assert!(
        log.contains("the provider has no credential") && log.contains("keyless"),
        "{log}"
    );
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test]
async fn does_not_start_with_what_is_not_right() {
    let authority = Authority::new();
    let issuer = Issuer::start(&authority).await;
    let dir = tempfile::tempdir().expect("a directory");
    let write = |change: fn(&mut Value)| write_files(dir.path(), &authority, &issuer, change);

    let config = write(|config| config["limit"] = json!({}));
    assert!(refused(&config).contains("limit: unknown field `limit`, expected one of"));

    let config = write(|config| config["envoys"][0]["speaks_for"] = json!(["**"]));
    assert!(refused(&config).contains("envoys[0].speaks_for: expected"));

    let config = write(|_| {});
    for name in ["credentials.yaml", "openai.key", "broker-key.pem"] {
        let path = dir.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode set");
        let message = refused(&config);
        assert!(
            message.contains(name) && message.contains("found mode 0644"),
            "{message}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode set");
    }

    fs::write(dir.path().join("policy.yaml"), "policies: []").expect("written");
    assert!(refused(&config).contains("policy.yaml: "));
    fs::remove_file(dir.path().join("policy.yaml")).expect("removed");
    assert!(refused(&config).contains("policy.yaml"));
}
