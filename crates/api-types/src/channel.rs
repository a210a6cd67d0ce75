//! The websockets of exec, terminals and port-forward: binary messages whose first byte is the channel.

use serde::{Deserialize, Serialize};

/// Client to server: standard input, or bytes for the port. Empty: end of file.
pub const STDIN: u8 = 0;
/// Server to client: standard output, a terminal's output, or bytes of the port. Empty: end of file.
pub const STDOUT: u8 = 1;
/// Server to client: standard error.
pub const STDERR: u8 = 2;
/// Both ways: [`Control`] as JSON.
pub const CONTROL: u8 = 3;
/// Largest message, channel byte included.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A message on channel [`CONTROL`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control {
    /// Server: the program runs, or the port is connected.
    Ready {
        /// Bytes of standard input that may be on their way at once, until [`Control::Window`] tells of more. Who keeps to it is heard at
        /// once when they send a signal or hang up, also where the program does not read. Absent: as much as the connection takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input_window: Option<u32>,
    },
    /// Server: the program has taken this much of its input, so much more may be sent.
    Window {
        /// Added to what may be on its way.
        bytes: u32,
    },
    /// Client: the terminal has this size now.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Client: send this signal to the program.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Server, last: the program ended.
    Exit {
        /// Exit status; `None` if a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// Server, last: it could not be done, or the connection must end.
    Error {
        /// Stable, for programs.
        code: String,
        /// For people.
        message: String,
    },
}
