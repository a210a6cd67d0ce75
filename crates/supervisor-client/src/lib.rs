//! Async client of a workspace's supervisor (`berth-init`), over any `AsyncRead + AsyncWrite`: a unix socket on the node, an upgraded HTTP
//! connection anywhere else. The wire is `berth-supervisor-protocol`.
//!
//! One [`SupervisorClient`] is one connection. Requests that do not stream may follow each other on it; a request that streams takes it over
//! until the end: use [`SupervisorClient::receive`], or [`SupervisorClient::split`] to read and write at the same time.
//!
//! ```no_run
//! # async fn example(stream: tokio::net::UnixStream) -> Result<(), berth_supervisor_client::ClientError> {
//! use berth_supervisor_client::{SupervisorClient, protocol::Exec};
//! let exec = Exec { argv: vec!["git".into(), "status".into()], ..Exec::default() };
//! let output = SupervisorClient::new(stream).run(exec, &[], 64 * 1024).await?;
//! assert_eq!(output.status.shell_code(), 0);
//! # Ok(()) }
//! ```

mod connection;
mod error;
mod output;
mod transfer;

pub use berth_supervisor_protocol as protocol;
pub use connection::{Incoming, Receiver, Sender, SupervisorClient};
pub use error::ClientError;
pub use output::Output;
