//! The local terminal: in raw mode while a remote program uses it, and restored whatever happens.

use std::convert::Infallible;
use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use berth_api_types::channel::{CONTROL, Control, STDERR, STDIN, STDOUT};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use super::window::Window;
use crate::client::WebSocket;
use crate::exit::{self, Exit};
use crate::output;

/// How a remote program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit status as a shell counts it: 128 plus the signal's number when one ended it.
    pub status: u8,
}

/// Restores the terminal when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).context("the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // If this fails, there is nobody left to tell.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Reads a line that nobody is to see: without echo where standard input is a terminal, after a prompt.
pub(crate) fn secret(prompt: &str) -> anyhow::Result<String> {
    let quiet = if std::io::stdin().is_terminal() {
        let before = tcgetattr(std::io::stdin()).context("the terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet).context("the terminal")?;
        output::note(prompt);
        Some(Raw(before))
    } else {
        None
    };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("standard input")?;
    drop(quiet);
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Size of our terminal, rows and columns; 24 by 80 without one.
pub(crate) fn size() -> (u16, u16) {
    tcgetwinsize(std::io::stdout())
        .or_else(|_| tcgetwinsize(std::io::stdin()))
        .map_or((24, 80), |size| if size.ws_row == 0 { (24, 80) } else { (size.ws_row, size.ws_col) })
}

/// Connects our standard streams with a remote program until it ends. With `tty` our terminal is put into raw mode, and its size is passed
/// on.
pub(crate) async fn relay(socket: WebSocket, tty: bool) -> anyhow::Result<Ended> {
    let raw = if tty && std::io::stdin().is_terminal() { Some(Raw::enter()?) } else { None };
    let ended = pump(socket, tty).await;
    drop(raw);
    ended
}

/// Both directions at once: a program that waits for us to read must not have to wait until we have written.
async fn pump(socket: WebSocket, tty: bool) -> anyhow::Result<Ended> {
    let (sink, source) = socket.split();
    let window = Window::closed();
    tokio::select! {
        ended = receive(source, &window) => ended,
        failed = send(sink, tty, &window) => failed.map(|never| match never {}),
    }
}

/// The program's output, until its end. `window` grows as the program reads its input.
async fn receive(mut source: SplitStream<WebSocket>, window: &Window) -> anyhow::Result<Ended> {
    loop {
        let Some(received) = source.next().await else {
            bail!(Exit::new(exit::UNREACHABLE, "the connection to the workspace broke off"));
        };
        let bytes = match received {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Close(_)) => bail!(Exit::new(exit::UNREACHABLE, "the connection to the workspace was closed")),
            Ok(_) => continue,
            Err(error) => {
                bail!(Exit::new(exit::UNREACHABLE, format!("the connection to the workspace broke off: {error}")))
            }
        };
        let Some((channel, payload)) = bytes.split_first() else { continue };
        match *channel {
            // Nobody reads what it writes (`| head`): it ends as it would here, by SIGPIPE. That we leave is what tells it.
            STDOUT if !output::write_to_reader(payload)? => bail!(Exit::silent(141)),
            STDERR if !write_stderr(payload) => bail!(Exit::silent(141)),
            STDOUT | STDERR => {}
            CONTROL => match serde_json::from_slice(payload) {
                Ok(Control::Exit { code, signal }) => return Ok(Ended { status: status(code, signal) }),
                Ok(Control::Error { code, message }) => bail!(Exit::new(refused(&code), message).with_code(code)),
                Ok(Control::Ready { input_window }) => window.open(input_window),
                Ok(Control::Window { bytes }) => window.widen(usize::try_from(bytes)?),
                // From a newer server.
                Ok(Control::Resize { .. } | Control::Signal { .. }) | Err(_) => {}
            },
            _ => {}
        }
    }
}

/// Our input for the program: standard input as far as `window` has a permit for each byte, signals, the size of our terminal.
async fn send(mut sink: SplitSink<WebSocket, Message>, tty: bool, window: &Window) -> anyhow::Result<Infallible> {
    let mut input = read_stdin();
    let mut input_open = true;
    let mut waiting = Vec::new();
    let mut resized = signal(SignalKind::window_change())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let outgoing = tokio::select! {
            chunk = input.recv(), if input_open && waiting.is_empty() => {
                waiting = chunk.unwrap_or_default();
                input_open = !waiting.is_empty();
                if input_open {
                    continue;
                }
                message(STDIN, &[])
            }
            room = window.room(waiting.len()), if !waiting.is_empty() => {
                let rest = waiting.split_off(room);
                message(STDIN, &std::mem::replace(&mut waiting, rest))
            }
            _ = resized.recv(), if tty => {
                let (rows, cols) = size();
                control(&Control::Resize { rows, cols })?
            }
            _ = interrupt.recv() => control(&Control::Signal { signal: 2 })?,
            _ = terminate.recv() => control(&Control::Signal { signal: 15 })?,
        };
        let status = tokio::select! {
            sent = sink.send(outgoing) => match sent {
                Ok(()) => continue,
                // The other side may have said why it stopped reading: that is read before the connection's error is reported.
                Err(_) => return std::future::pending().await,
            },
            // The connection accepts nothing, and a signal cannot overtake what is queued: closing it is what tells the program.
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
        };
        return Err(Exit::silent(status).into());
    }
}

fn refused(code: &str) -> u8 {
    match code {
        "not_found" => exit::NOT_FOUND,
        "permission_denied" => exit::NOT_ALLOWED,
        "server_stopping" => exit::UNREACHABLE,
        _ => exit::FAILURE,
    }
}

fn status(code: Option<i32>, signal: Option<i32>) -> u8 {
    let number = signal.map_or_else(|| code.unwrap_or(1), |signal| signal.saturating_add(128));
    u8::try_from(number & 0xff).unwrap_or(exit::FAILURE)
}

/// Whether there is still a reader. There is nowhere to report another error.
fn write_stderr(bytes: &[u8]) -> bool {
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    let written = stderr.write_all(bytes).and_then(|()| stderr.flush());
    !written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Reads standard input on a thread of its own, because reading a terminal cannot be cancelled.
fn read_stdin() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    std::thread::spawn(move || {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            match std::io::stdin().read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

/// A message of a channel.
pub(crate) fn message(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = Vec::with_capacity(payload.len() + 1);
    bytes.push(channel);
    bytes.extend_from_slice(payload);
    Message::Binary(bytes.into())
}

fn control(control: &Control) -> anyhow::Result<Message> {
    Ok(message(CONTROL, &serde_json::to_vec(control)?))
}
