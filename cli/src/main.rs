//! `berth`: the user's commands, and `berth server`.

mod args;
mod client;
mod commands;
mod exit;
mod home;
mod output;
mod server;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(exit::report_usage(&error)),
    };
    let output = cli.global.output;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(exit::report(output, &error)),
    }
}
