//! `almoner-broker`: takes the command line, gives it to the library.

use std::process::ExitCode;

use almoner_broker::cli;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::Arguments::parse()).await
}
