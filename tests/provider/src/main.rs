//! Takes ports, keys and cues; gives a provider that answers as OpenAI and Anthropic do, and
//! misbehaves when told to.
//!
//! ```text
//! almoner-provider-sim --accept-key openai=KEY --accept-key anthropic=KEY
//!                      [--tls-cert PEM --tls-key PEM] [--ready-file FILE]
//! ```
//!
//! Ports are chosen by the system. The first line on stdout (and the ready file) is a JSON object:
//! `{"admin": port, "plain": port, "tls": port}`; the last only with a certificate. How an answer
//! misbehaves is said in [`behaviour`]; what the admin port offers, in [`admin`].

mod admin;
mod answer;
mod anthropic;
mod args;
mod behaviour;
mod bench;
mod journal;
mod openai;
mod serve;
mod words;

use std::error::Error;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::serve::Simulator;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("almoner-provider-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse(std::env::args().skip(1))?;
    let simulator = Arc::new(Simulator::new(args.accept_keys));

    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut ready = serde_json::json!({
        "admin": admin.local_addr()?.port(),
        "plain": plain.local_addr()?.port(),
    });
    tokio::spawn(admin::serve(admin, Arc::clone(&simulator)));
    tokio::spawn(serve::plain(plain, Arc::clone(&simulator)));
    if let Some((cert, key)) = args.tls {
        let acceptor = serve::acceptor(&cert, &key)?;
        let tls = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        if let Some(ports) = ready.as_object_mut() {
            ports.insert("tls".into(), tls.local_addr()?.port().into());
        }
        tokio::spawn(serve::tls(tls, acceptor, simulator));
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    writeln!(std::io::stdout(), "{ready}")?;
    if let Some(path) = args.ready_file {
        // Renamed into place: who waits for the file never reads half of it.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, ready.to_string())?;
        std::fs::rename(&partial, &path)?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
