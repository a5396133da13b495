//! The program as a process: starts it, waits for what it writes, waits for its end.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;

pub(crate) fn broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_almoner-broker"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a broker that must not start.
pub(crate) fn refused(config: &Path) -> String {
    let output = broker(&["serve", "--config", config.to_str().expect("a path")])
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) async fn until_written(path: &Path) -> Value {
    let written = async {
        loop {
            if let Ok(text) = fs::read_to_string(path) {
                return serde_json::from_str(&text).expect("JSON");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .expect("a ready file")
}

pub(crate) async fn until_ended(child: Child) -> Output {
    tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .expect("joined")
        .expect("ended")
}
