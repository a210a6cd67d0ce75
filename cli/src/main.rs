//! `berth`: the user's commands, and `berth server`.

mod args;
mod client;
mod commands;
mod exit;
mod home;
mod output;
mod server;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Says once what went wrong, with its causes, and chooses the exit status.
fn report(error: &anyhow::Error) -> ExitCode {
    let status = error.downcast_ref::<exit::Exit>().map_or(exit::FAILURE, |exit| exit.status);
    let text = format!("{error:#}");
    if !text.is_empty() {
        output::note(format!("berth: {text}"));
    }
    ExitCode::from(status)
}
