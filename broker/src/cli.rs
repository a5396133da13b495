//! The command line: takes arguments, gives an exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::{config::Config, document::DocumentError, serve};

/// Lets workloads call LLM APIs without holding a key: gives listed Envoys short-lived leases.
#[derive(Parser)]
#[command(name = "almoner-broker", version, about, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker.
    ///
    /// It listens on two addresses. The token endpoint (`POST /token`, RFC 8693, TLS) answers only
    /// Envoys that the configuration lists, known by the SPIFFE ID of their certificates, and only
    /// for the subjects that each may speak for. The admin address has /metrics, /healthz and
    /// /readyz.
    ///
    /// Audit events, one JSON object a line, go to standard output or to a file; the log goes to
    /// standard error. SIGTERM and SIGINT let running exchanges finish.
    #[command(after_long_help = SERVE_HELP)]
    Serve(Serve),
}

const SERVE_HELP: &str = "\
To begin:
  1. almoner-broker serve --example > broker.yaml   every field, commented
  2. write credentials.yaml (mode 0600): `openai: {key: env:OPENAI_API_KEY, kind: bearer, expires: 2027-06-30}`
  3. almoner-broker check policy.yaml
  4. almoner-broker serve --config broker.yaml --policy policy.yaml";

#[derive(clap::Args)]
struct Serve {
    /// The broker's configuration, YAML or JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "example")]
    config: Option<PathBuf>,
    /// The policy document, YAML or JSON; instead of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where to write the bound addresses as JSON, once the broker listens.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print a commented configuration, and end.
    #[arg(long)]
    example: bool,
}

/// Runs what the arguments ask for. Exit codes: 0 as asked, 1 findings, 2 could not be done.
pub async fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Serve(arguments) => serve(arguments).await,
    }
}

async fn serve(arguments: Serve) -> ExitCode {
    if arguments.example {
        print!("{}", crate::config::EXAMPLE);
        return ExitCode::SUCCESS;
    }
    match serve_until_told(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("almoner-broker: {error}");
            ExitCode::from(2)
        }
    }
}

/// Why the broker did not run.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] DocumentError),
    #[error(transparent)]
    Start(#[from] serve::StartError),
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
}

async fn serve_until_told(arguments: Serve) -> Result<(), ServeError> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let mut config = Config::read(&arguments.config.unwrap_or_default())?;
    config.policy = arguments.policy.or(config.policy);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = serve::start(config).await?;
    if let Some(path) = &arguments.ready_file {
        running.bound().write(path)?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    running.stop().await;
    Ok(())
}
