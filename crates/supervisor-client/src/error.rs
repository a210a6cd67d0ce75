//! What can go wrong between here and `berth-init`.

use berth_supervisor_protocol::{ErrorCode, FrameError};

/// Something went wrong between here and `berth-init`.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Reading or writing failed.
    #[error("the connection to the workspace's supervisor failed")]
    Io(#[source] std::io::Error),
    /// What was to be sent could not be read.
    #[error("what was to be sent into the workspace could not be read")]
    Source(#[source] std::io::Error),
    /// The other side does not follow the protocol.
    #[error("the workspace's supervisor sent something that is not understood")]
    Frame(#[from] FrameError),
    /// The other side hung up early.
    #[error("the workspace's supervisor hung up: the workspace has stopped or is stopping")]
    Closed,
    /// The answer is not one to this request.
    #[error("the workspace's supervisor answered `{got}` to `{asked}`")]
    Unexpected {
        /// What was asked.
        asked: &'static str,
        /// What came back, its kind only.
        got: &'static str,
    },
    /// The request was refused or failed.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

impl From<std::io::Error> for ClientError {
    /// A stream that breaks off is the other side's hanging up: a workspace stops in the middle of whatever is asked of it.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl ClientError {
    /// The supervisor's code, if it was the supervisor that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
