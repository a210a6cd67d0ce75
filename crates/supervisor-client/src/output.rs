//! Running a command to its end and keeping what it wrote.

use berth_supervisor_protocol::{Event, Exec, ExitStatus, Kind, Reply, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::unexpected;
use crate::{ClientError, Incoming, SupervisorClient};

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, cut to the caller's bound (the beginning is kept).
    pub stdout: Vec<u8>,
    /// Standard error, cut to the caller's bound (the end is kept: errors come last).
    pub stderr: Vec<u8>,
    /// Something was cut.
    pub truncated: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SupervisorClient<S> {
    /// Runs a command to its end. `stdin` is given to it, then its end of file; output beyond `max_bytes` a stream is read and dropped.
    /// Dropping the future hangs up, and so ends the command, unless [`Exec::keep_on_disconnect`] is set.
    pub async fn run(self, exec: Exec, stdin: &[u8], max_bytes: usize) -> Result<Output, ClientError> {
        self.run_with(exec, stdin, max_bytes, |_, _| {}).await
    }

    /// As [`SupervisorClient::run`], and shows each piece of output as it comes (progress of a clone, for example).
    pub async fn run_with(
        mut self,
        mut exec: Exec,
        stdin: &[u8],
        max_bytes: usize,
        mut on_output: impl FnMut(Kind, &[u8]),
    ) -> Result<Output, ClientError> {
        exec.stdin = !stdin.is_empty();
        let feed = exec.stdin;
        match self.request(&Request::Exec(exec)).await? {
            Reply::Started { .. } => {}
            other => return Err(unexpected("exec", &other)),
        }
        let (mut sender, mut receiver) = self.split();
        let feeding = async {
            if feed {
                // A command that does not read its input is not an error.
                for piece in stdin.chunks(64 * 1024) {
                    sender.bytes(Kind::Stdin, piece).await.ok();
                }
                sender.bytes(Kind::Stdin, &[]).await.ok();
            }
            sender
        };
        let reading = async {
            let mut output =
                Output { status: ExitStatus::Code(0), stdout: Vec::new(), stderr: Vec::new(), truncated: false };
            loop {
                match receiver.receive().await?.ok_or(ClientError::Closed)? {
                    Incoming::Bytes(kind @ Kind::Stdout, bytes) => {
                        on_output(kind, &bytes);
                        let room = max_bytes.saturating_sub(output.stdout.len());
                        output.truncated |= bytes.len() > room;
                        output.stdout.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
                    }
                    Incoming::Bytes(kind @ Kind::Stderr, bytes) => {
                        on_output(kind, &bytes);
                        output.stderr.extend_from_slice(&bytes);
                        let excess = output.stderr.len().saturating_sub(max_bytes);
                        output.truncated |= excess > 0;
                        output.stderr.drain(..excess);
                    }
                    Incoming::Event(Event::Exited(status)) => {
                        output.status = status;
                        return Ok(output);
                    }
                    Incoming::Event(Event::Failed { code, message }) => {
                        return Err(ClientError::Refused { code, message });
                    }
                    Incoming::Event(_) | Incoming::Bytes(..) => {}
                }
            }
        };
        let mut feeding = std::pin::pin!(feeding);
        let mut reading = std::pin::pin!(reading);
        // The command may end while input is still being sent: its end decides. The sender is kept until then, because dropping it hangs up.
        tokio::select! {
            output = &mut reading => output,
            _sender = &mut feeding => reading.await,
        }
    }
}
