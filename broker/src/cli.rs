//! The command line: takes arguments, gives an exit code.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::{
    check::{self, Report, Severity},
    config::Config,
    document::DocumentError,
    serve,
};

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
    /// Check a policy document, and the Envoy configuration around it.
    ///
    /// The document is read by the code that reads it in Envoy. With --envoy, the bootstrap is
    /// checked for every setting that Almoner's promises rest on: verified certificates, one
    /// jwt_authn provider a slot, hold mode, capabilities, rewrites, retries, mirrors, upstream TLS,
    /// and more. A finding is one line: path, severity, what was expected and found, what to do.
    ///
    /// Exit code: 0 no error, 1 errors, 2 could not check.
    #[command(after_long_help = CHECK_HELP)]
    Check(Check),
}

const CHECK_HELP: &str = "\
Examples:
  almoner-broker check policy.yaml
  almoner-broker check policy.yaml --envoy gateway.yaml
  almoner-broker check --envoy gateway.yaml               the document inside the Envoy configuration
  almoner-broker check --envoy gateway.yaml --format json | jq '.findings[].path'";

#[derive(clap::Args)]
struct Check {
    /// The policy document, YAML or JSON; without it the one in the Envoy configuration.
    #[arg(required_unless_present = "envoy")]
    policy: Option<PathBuf>,
    /// An Envoy bootstrap, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
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
        Command::Check(arguments) => check(&arguments),
        Command::Serve(arguments) => serve(arguments).await,
    }
}

fn check(arguments: &Check) -> ExitCode {
    let report = match check::run(arguments.policy.as_deref(), arguments.envoy.as_deref()) {
        Ok(report) => report,
        Err(error) => return failed(&error),
    };
    match write_report(&report, arguments.format) {
        Err(error) => failed(&error),
        Ok(()) if report.count(Severity::Error) > 0 => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn write_report(report: &Report, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)
        }
        Format::Text => {
            for finding in &report.findings {
                writeln!(out, "{finding}")?;
            }
            let errors = report.count(Severity::Error);
            let warnings = report.count(Severity::Warning);
            writeln!(out, "{errors} errors, {warnings} warnings")
        }
    }
}

fn failed(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("almoner-broker: {error}");
    ExitCode::from(2)
}

async fn serve(arguments: Serve) -> ExitCode {
    if arguments.example {
        print!("{}", crate::config::EXAMPLE);
        return ExitCode::SUCCESS;
    }
    match serve_until_told(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
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
