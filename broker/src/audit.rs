//! The audit trail: takes an event, returns once its line is written, or says that it is not.
//!
//! A thread of its own writes, so that a full disk or a reader that stalls holds up no executor
//! thread; whoever waits longer than [`PATIENCE`] for its line issues nothing.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    thread,
    time::Duration,
};

use serde::Serialize;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::config;

const QUEUE: usize = 256;
const PATIENCE: Duration = Duration::from_secs(2);

/// What is written about one exchange. It has no field for a secret.
#[derive(Serialize)]
pub(crate) struct Event<'a> {
    /// RFC 3339.
    pub(crate) time: String,
    pub(crate) event: Kind,
    /// Number of the event since the broker started at `boot`.
    pub(crate) sequence: u64,
    pub(crate) boot: &'a str,
    /// The listed Envoy that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) envoy: Option<&'a str>,
    /// Where it asked from.
    pub(crate) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<&'a str>,
    /// Of the document by which this broker decided.
    pub(crate) policy_digest: &'a str,
    /// Of the document by which the Envoy decided, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) envoy_policy_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credential_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<&'a str>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in: Option<u64>,
    /// Why nothing was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// What happened.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    CredentialIssued,
    ExchangeRefused,
}

/// An event could not be written.
#[derive(Debug, Error)]
#[error("the audit event could not be written")]
pub(crate) struct NotWritten;

/// The audit trail.
#[derive(Clone)]
pub(crate) struct Audit(mpsc::Sender<Line>);

struct Line {
    bytes: Vec<u8>,
    written: oneshot::Sender<bool>,
}

impl Audit {
    /// Opens the trail.
    ///
    /// # Errors
    /// The file can't be opened, or the thread not be started.
    pub(crate) fn open(target: &config::Audit) -> io::Result<Self> {
        match target {
            config::Audit::Stdout => Self::to(io::stdout()),
            config::Audit::File(path) => Self::to(append(path)?),
        }
    }

    fn to(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, mut lines) = mpsc::channel::<Line>(QUEUE);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                while let Some(line) = lines.blocking_recv() {
                    // Nobody waits any more: nothing was issued, and nothing shall say that it was.
                    if line.written.is_closed() {
                        continue;
                    }
                    let written = sink.write_all(&line.bytes).and_then(|()| sink.flush());
                    let _ = line.written.send(written.is_ok());
                }
            })?;
        Ok(Self(sender))
    }

    /// Writes an event; returns when it is written.
    pub(crate) async fn write(&self, event: &Event<'_>) -> Result<(), NotWritten> {
        let mut bytes = serde_json::to_vec(event).map_err(|_| NotWritten)?;
        bytes.push(b'\n');
        let (written, answer) = oneshot::channel();
        let write = async {
            self.0
                .send(Line { bytes, written })
                .await
                .map_err(|_| NotWritten)?;
            answer.await.map_err(|_| NotWritten)
        };
        match timeout(PATIENCE, write).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false) | Err(_)) | Err(_) => Err(NotWritten),
        }
    }
}

fn append(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64) -> Event<'static> {
        Event {
            time: "2026-01-01T00:00:00Z".to_owned(),
            event: Kind::ExchangeRefused,
            sequence,
            boot: "b",
            envoy: None,
            address: "127.0.0.1".to_owned(),
            subject: Some("a\"\n"),
            provider: None,
            policy: None,
            policy_digest: "d",
            envoy_policy_digest: None,
            credential_id: None,
            owner: None,
            expires_in: None,
            reason: Some("no_policy"),
        }
    }

    #[tokio::test]
    async fn an_event_is_one_line_at_the_end_of_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.jsonl");
        fs::write(&path, "earlier\n").expect("written");
        let audit = Audit::open(&config::Audit::File(path.clone())).expect("open");
        for sequence in 0..3 {
            audit.write(&event(sequence)).await.expect("written");
        }
        let text = fs::read_to_string(&path).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (4, "earlier"));
        let last: serde_json::Value = serde_json::from_str(lines[3]).expect("JSON");
        assert_eq!(last["subject"], "a\"\n");
        assert_eq!(last["sequence"], 2);
    }

    #[tokio::test]
    async fn says_so_when_a_line_is_not_written() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let audit = Audit::to(Full).expect("open");
        assert!(audit.write(&event(0)).await.is_err());
        assert!(audit.write(&event(1)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_ever() {
        struct Stalled;
        impl Write for Stalled {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    thread::park();
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let audit = Audit::to(Stalled).expect("open");
        assert!(audit.write(&event(0)).await.is_err());
    }
}
