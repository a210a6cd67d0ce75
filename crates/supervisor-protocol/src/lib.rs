//! What the host and a workspace's PID 1 (`berth-init`) say to each other.
//!
//! The protocol runs over one unix stream connection per use. Everything in this crate is free of I/O: bytes in, values
//! out, so that blocking and async callers share it. [`client`] adds thin blocking helpers over any `Read + Write`.
//!
//! # A connection
//!
//! 1. The host sends one JSON frame: a [`Request`].
//! 2. `berth-init` answers with one JSON frame: a [`Reply`]. [`Reply::Error`] ends the use, nothing else follows.
//! 3. For requests that stream (see the table) frames follow both ways: bytes with their [`Kind`], JSON frames from the
//!    host are [`Control`], JSON frames from `berth-init` are [`Event`].
//! 4. A request that does not stream leaves the connection open for the next request. Two kinds end it: those that are refused, and those about
//!    files ([`Request::Stat`] and [`Request::GitStatus`] among them), which a process of the asking user answers in PID 1's place.
//! 5. A connection has ended when the host closes it, or its sending half: there is no half-close but the empty frames below.
//!
//! | request | reply | then, to the host | then, from the host |
//! |---|---|---|---|
//! | [`Request::Exec`] | `started` | stdout, stderr, `window`, `exited` | stdin (empty = end of file), `resize`, `signal` |
//! | [`Request::TerminalOpen`] with `attach`, [`Request::TerminalAttach`] | `terminal` | stdout, `lagged`, `resized`, `exited` | stdin, `resize`, `signal` |
//! | [`Request::Tunnel`] | `connected` | data (empty = end) | data (empty = end) |
//! | [`Request::PortsWatch`] | `ports` | `ports` | |
//! | [`Request::ReadFile`] | `file` | stdout (empty = end) or `failed` | |
//! | [`Request::WriteFile`], [`Request::CopyIn`] | `ready` | `done` or `failed` | stdin (empty = end) |
//! | [`Request::CopyOut`] | `ready` | stdout (empty = end), then `done` or `failed` | |
//! | [`Request::UnitWatch`] | `units` | `unit` | |
//! | [`Request::UnitLogs`] | `ready` | stdout, `done` | |
//! | [`Request::CredentialsServe`] | `ready` | `credential_request` | `credential_reply`, `credential_deny` |
//! | [`Request::ActivityWatch`] | `activity` | `activity` | |
//!
//! Each side takes the other for a stranger: frames have a maximum length, unknown kinds end the connection, unknown JSON
//! fields are ignored (so that an older workspace and a newer host understand each other), and nothing that `berth-init`
//! says counts for billing or rights.

pub mod client;
mod event;
mod frame;
mod request;
mod secret;
mod unit;

pub use event::{
    Activity, BootInfo, CredentialRequest, ErrorCode, Event, ExitStatus, FileInfo, FileType, GitStatus, Hello,
    ListeningPort, Reply, TerminalInfo, TerminalState,
};
pub use frame::{
    Frame, FrameError, FrameReader, HEADER_LEN, Kind, MAX_FRAME_LEN, MAX_PAYLOAD_LEN, encode_frame, encode_json,
};
pub use request::{Control, CopyIn, CopyOut, Exec, Request, SignalName, TerminalOpen, TtySize, WriteFile};
pub use secret::Secret;
pub use unit::{UnitKind, UnitSpec, UnitState, UnitStatus, is_unit_id};

/// Version of this protocol, as [`Hello`] carries it. Grows when a change would confuse the other side; added fields and
/// added requests are announced by [`Hello::features`] instead.
pub const PROTOCOL_VERSION: u32 = 1;
