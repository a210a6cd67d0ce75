//! Exit statuses, the same for every command; 2, a wrong command line, is clap's. `exec` and `shell` pass on the status of what ran; a signal is 128 plus its number.

use std::fmt;

use serde::Serialize;

use crate::args::Output;
use crate::output;

/// It could not be done.
pub(crate) const FAILURE: u8 = 1;
/// The command line is wrong, which only the command could see.
pub(crate) const USAGE: u8 = 2;
/// There is no such thing, or you may not know of it.
pub(crate) const NOT_FOUND: u8 = 3;
/// Not signed in, or not allowed.
pub(crate) const NOT_ALLOWED: u8 = 4;
/// The thing is not in a state for this (name taken, changed meanwhile, not running).
pub(crate) const CONFLICT: u8 = 5;
/// The server cannot be reached.
pub(crate) const UNREACHABLE: u8 = 6;
/// The workspace failed to start, or stopped with a failure.
pub(crate) const WORKSPACE_FAILED: u8 = 7;

/// Text of `--help`.
pub(crate) const HELP: &str = "Exit statuses:\n  0  done\n  1  it could not be done\n  2  the command line is wrong\n  3  not found\n  4  not signed in, or not allowed\n  5  not in a state for this\n  6  the server cannot be reached\n  7  the workspace failed\n  exec and shell pass on the status of what ran; a signal is 128 plus its number, 127 a program that is not there, 126 one that may not be run.\n  With --output json an error is one JSON object on standard error: {\"error\": {\"exit_status\", \"code\", \"message\"}}.";

/// An error that decides the exit status.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The status.
    pub status: u8,
    /// The server's stable code for it, if the error came from there.
    code: Option<String>,
    message: String,
}

impl Exit {
    /// An error with this status; the message says what happened and what to do.
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, code: None, message: message.into() }
    }

    /// The same with the server's stable code.
    pub(crate) fn with_code(self, code: String) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The server's stable code of an error that came from there.
    pub(crate) fn code(error: &anyhow::Error) -> Option<&str> {
        error.downcast_ref::<Self>()?.code.as_deref()
    }

    /// The same with another status.
    pub(crate) fn with_status(self, status: u8) -> Self {
        Self { status, ..self }
    }

    /// Ends the process with this status and without a message: the program that ran inside has said everything.
    pub(crate) fn silent(status: u8) -> Self {
        Self { status, code: None, message: String::new() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// Reports an error once, with its causes; returns the exit status.
pub(crate) fn report(format: Output, error: &anyhow::Error) -> u8 {
    let exit = error.downcast_ref::<Exit>();
    let status = exit.map_or(FAILURE, |exit| exit.status);
    let message = format!("{error:#}");
    if !message.is_empty() {
        say(format, status, exit.and_then(|exit| exit.code.as_deref()), &message);
    }
    status
}

/// The same for a command line that clap rejects; help and version are no errors.
pub(crate) fn report_usage(error: &clap::Error) -> u8 {
    let status = u8::try_from(error.exit_code()).unwrap_or(FAILURE);
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    if status == 0 || !wants_json(&arguments) {
        // There is nowhere to report that standard error cannot be written.
        let _ = error.print();
    } else {
        let text = error.to_string();
        say(Output::Json, status, Some("usage"), text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    }
    status
}

/// Whether a command line that could not be parsed asks for JSON.
fn wants_json(arguments: &[String]) -> bool {
    let own = arguments.split(|argument| argument == "--").next().unwrap_or_default();
    own.iter().any(|argument| matches!(argument.as_str(), "--output=json" | "-ojson" | "-o=json"))
        || own.windows(2).any(|pair| matches!(pair[0].as_str(), "--output" | "-o") && pair[1] == "json")
}

fn say(format: Output, status: u8, code: Option<&str>, message: &str) {
    #[derive(Serialize)]
    struct Error<'a> {
        exit_status: u8,
        code: Option<&'a str>,
        message: &'a str,
    }
    match format {
        Output::Text => output::note(format!("berth: {message}")),
        Output::Json => {
            let error = serde_json::json!({ "error": Error { exit_status: status, code, message } });
            output::note(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_before_the_dashes_only() {
        let asks = |line: &str| wants_json(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(asks("berth lst --output json") && asks("berth -ojson lst") && asks("berth --output=json"));
        assert!(!asks("berth exec x -- tool --output json") && !asks("berth list --output text"));
    }
}
