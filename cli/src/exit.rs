//! Exit statuses, the same for every command; 2, a wrong command line, is clap's. `exec` and `shell` pass on the status of what ran; a signal is 128 plus its number.

use std::fmt;

/// It could not be done.
pub(crate) const FAILURE: u8 = 1;
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
pub(crate) const HELP: &str = "Exit statuses:\n  0  done\n  1  it could not be done\n  2  the command line is wrong\n  3  not found\n  4  not signed in, or not allowed\n  5  not in a state for this\n  6  the server cannot be reached\n  7  the workspace failed\n  exec and shell pass on the status of what ran; a signal is 128 plus its number.";

/// An error that decides the exit status.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The status.
    pub status: u8,
    message: String,
}

impl Exit {
    /// An error with this status; the message says what happened and what to do.
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Ends the process with this status and without a word: what ran inside said it all.
    pub(crate) fn silent(status: u8) -> Self {
        Self { status, message: String::new() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}
