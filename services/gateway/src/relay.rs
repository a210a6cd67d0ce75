//! Relays between one websocket and one supervisor connection. Each direction waits for its far end before it reads more from its near end:
//! nothing is queued here, so a slow reader slows the writer and costs no memory.

use std::time::Duration;

use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, close_code};
use axum::response::Response;
use berth_api_types::channel::{CONTROL, Control, MAX_MESSAGE_BYTES, STDERR, STDIN, STDOUT};
use berth_http::Upgraded;
use berth_http::drain::Drain;
use berth_supervisor_client::protocol::{
    Control as SupervisorControl, Event, ExitStatus, Kind, Reply, Request, SignalName, TtySize,
};
use berth_supervisor_client::{ClientError, Incoming, Receiver, Sender, SupervisorClient};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite;

use crate::access::{Access, word};
use crate::instances;
use crate::websocket::Upgrade;

/// How long a stopping workspace may still report how its programs ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long a client that was told the end may take to close the connection.
const LINGER: Duration = Duration::from_secs(5);
/// What the library takes in one message. Twice what we take, so that most that are too large are read, and their senders are told.
const MOST_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// Bytes kept for each idle socket, each direction.
const SOCKET_BUFFER: usize = 4 * 1024;

/// What is connected.
#[derive(Debug)]
pub(crate) struct Session {
    /// First frame to the supervisor.
    pub(crate) request: Request,
    /// Sent after the supervisor has agreed: the size of a client's terminal.
    pub(crate) resize: Option<TtySize>,
    /// Input from the client counts as activity of its user.
    pub(crate) marks_activity: bool,
}

impl Session {
    fn input(&self) -> Kind {
        if matches!(self.request, Request::Tunnel { .. }) { Kind::Data } else { Kind::Stdin }
    }
}

/// Answers `101` and relays in a task of its own.
pub(crate) fn upgrade(upgrade: Upgrade, access: Access, session: Session) -> Response {
    let Upgrade { websocket, drain } = upgrade;
    websocket
        .max_message_size(MOST_BYTES)
        .max_frame_size(MOST_BYTES)
        .read_buffer_size(SOCKET_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| async move {
            let _held = drain.hold();
            serve(socket, access, session, &drain).await;
        })
}

async fn serve(socket: WebSocket, access: Access, session: Session, drain: &Drain) {
    let (mut sink, mut source) = socket.split();
    let (client, input_window) = match connect(&access, &session).await {
        Ok(connected) => connected,
        Err((code, message)) => return finish(&mut sink, &failure(code, message)).await,
    };
    let last = if sink.send(control(&Control::Ready { input_window })).await.is_ok() {
        tokio::select! {
            biased;
            last = run(&mut sink, &mut source, client, &access, &session) => last,
            () = drain.begun() => Last::Away,
        }
    } else {
        Last::Gone
    };
    match last {
        Last::Word(last) => finish(&mut sink, &last).await,
        Last::Said => close(&mut sink, close_code::NORMAL).await,
        Last::TooLarge => {
            let message = format!("a message has at most {MAX_MESSAGE_BYTES} bytes: send it in parts");
            sink.send(control(&failure("message_too_large", message))).await.ok();
            close(&mut sink, close_code::SIZE).await;
        }
        Last::Away => {
            let last = failure("server_stopping", "the server stops; workspaces and their terminals go on");
            sink.send(control(&last)).await.ok();
            close(&mut sink, close_code::AWAY).await;
        }
        Last::Gone => return,
    }
    // If the socket were closed with unread input, the connection would be reset and the last message lost with it.
    tokio::time::timeout(LINGER, source.for_each(|_| std::future::ready(()))).await.ok();
}

/// The connection, and how much unread input the program may have.
async fn connect(
    access: &Access,
    session: &Session,
) -> Result<(SupervisorClient<Upgraded>, Option<u32>), (String, String)> {
    let mut client =
        access.supervisor().await.map_err(|problem| (problem.code().to_owned(), problem.detail().to_owned()))?;
    let agreed = async {
        let reply = client.request(&session.request).await?;
        if let Some(size) = session.resize {
            client.control(&SupervisorControl::Resize(size)).await?;
        }
        Ok::<_, ClientError>(reply)
    };
    match agreed.await {
        Ok(Reply::Started { input_window, .. } | Reply::Connected { input_window }) => Ok((client, input_window)),
        Ok(Reply::Terminal(_)) => Ok((client, None)),
        Ok(_) => Err((
            "unexpected".to_owned(),
            "the workspace's supervisor answered something else than was asked".to_owned(),
        )),
        Err(error) => Err(told(&error)),
    }
}

fn told(error: &ClientError) -> (String, String) {
    match error {
        ClientError::Refused { code, message } => (word(*code).to_owned(), message.clone()),
        ClientError::Closed => ("workspace_stopped".to_owned(), "the workspace stopped, or is stopping".to_owned()),
        error => {
            tracing::debug!(error = error as &dyn std::error::Error, "a supervisor connection failed");
            ("unavailable".to_owned(), "the connection to the workspace's supervisor failed".to_owned())
        }
    }
}

/// How a relay ends.
enum Last {
    /// With this for the client.
    Word(Control),
    /// Both sides of a port's connection have finished: there is nothing to add.
    Said,
    /// The client sent more in a message than there may be.
    TooLarge,
    /// The server stops.
    Away,
    /// The client has gone.
    Gone,
}

/// Relays until one end is done.
async fn run(
    sink: &mut SplitSink<WebSocket, Message>,
    source: &mut SplitStream<WebSocket>,
    client: SupervisorClient<Upgraded>,
    access: &Access,
    session: &Session,
) -> Last {
    let (mut to_workspace, from_workspace) = client.split();
    let stopped = async {
        let reason = instances::stopping(access.news.clone()).await;
        // Until nothing runs any more, the supervisor's own report of the end is better, if it comes soon.
        tokio::time::timeout(LAST_WORDS, instances::stopped(access.news.clone())).await.ok();
        stopped_because(&reason)
    };
    tokio::select! {
        biased;
        last = outward(sink, from_workspace, access) => last,
        last = inward(&mut to_workspace, source, access, session) => last,
        last = stopped => Last::Word(last),
        () = access.revoked() => Last::Word(failure("forbidden", "the right to this workspace was taken away")),
    }
}

async fn outward(
    sink: &mut SplitSink<WebSocket, Message>,
    mut from: Receiver<ReadHalf<Upgraded>>,
    access: &Access,
) -> Last {
    let mut pings = tokio::time::interval_at(Instant::now() + access.ping(), access.ping());
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The port's side of a connection has ended.
    let mut said = false;
    loop {
        let incoming = tokio::select! {
            incoming = from.receive() => incoming,
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return Last::Gone;
                }
                continue;
            }
        };
        let message = match incoming {
            Ok(Some(Incoming::Bytes(Kind::Data, bytes))) => {
                said |= bytes.is_empty();
                binary(STDOUT, &bytes)
            }
            Ok(Some(Incoming::Bytes(Kind::Stderr, bytes))) => binary(STDERR, &bytes),
            Ok(Some(Incoming::Bytes(_, bytes))) => binary(STDOUT, &bytes),
            Ok(Some(Incoming::Event(Event::Exited(status)))) => return Last::Word(exit(status)),
            Ok(Some(Incoming::Event(Event::Failed { code, message }))) => {
                return Last::Word(failure(word(code), message));
            }
            Ok(Some(Incoming::Event(Event::Resized(TtySize { rows, cols })))) => {
                control(&Control::Resize { rows, cols })
            }
            Ok(Some(Incoming::Event(Event::Window { bytes }))) => control(&Control::Window { bytes }),
            // Skipped output is obvious to the reader; the other events were not requested.
            Ok(Some(Incoming::Event(_))) => continue,
            Ok(None) | Err(ClientError::Closed) if said => return Last::Said,
            Ok(None) | Err(ClientError::Closed) => {
                let known = access.news.borrow().clone();
                return Last::Word(stopped_because(&known.map(|known| known.reason).unwrap_or_default()));
            }
            Err(error) => {
                let (code, message) = told(&error);
                return Last::Word(failure(code, message));
            }
        };
        if sink.send(message).await.is_err() {
            return Last::Gone;
        }
    }
}

async fn inward(
    to: &mut Sender<WriteHalf<Upgraded>>,
    source: &mut SplitStream<WebSocket>,
    access: &Access,
    session: &Session,
) -> Last {
    loop {
        // A pong answers each ping; three missing ones mean that the client is gone without a word.
        let message = match tokio::time::timeout(access.ping() * 3, source.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) if is_too_large(&error) => return Last::TooLarge,
            Ok(Some(Err(_)) | None) | Err(_) => return Last::Gone,
        };
        let bytes = match message {
            Message::Binary(bytes) if bytes.len() > MAX_MESSAGE_BYTES => return Last::TooLarge,
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return Last::Gone,
            Message::Text(_) => {
                return Last::Word(failure("bad_message", "messages are binary, their first byte the channel"));
            }
        };
        let sent = match bytes.split_first() {
            Some((&STDIN, input)) => {
                if session.marks_activity && !input.is_empty() {
                    access.mark();
                }
                to.bytes(session.input(), input).await
            }
            Some((&CONTROL, json)) => match serde_json::from_slice(json) {
                Ok(Control::Resize { rows, cols }) => {
                    to.control(&SupervisorControl::Resize(TtySize { rows, cols })).await
                }
                Ok(Control::Signal { signal }) => match signal_name(signal) {
                    Some(signal) => to.control(&SupervisorControl::Signal { signal }).await,
                    None => return Last::Word(failure("bad_message", format!("signal {signal} cannot be sent"))),
                },
                Ok(Control::Ready { .. } | Control::Window { .. } | Control::Exit { .. } | Control::Error { .. })
                | Err(_) => {
                    return Last::Word(failure("bad_message", "a control message is `resize` or `signal`"));
                }
            },
            _ => {
                return Last::Word(failure(
                    "bad_message",
                    "the first byte of a message is channel 0 (input) or 3 (control)",
                ));
            }
        };
        if let Err(error) = sent {
            // The program has closed its input, or the connection is ending: its last message comes the other way.
            tracing::trace!(error = &error as &dyn std::error::Error, "input could not be delivered");
            return std::future::pending().await;
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(tungstenite::Error::Capacity(_)))
}

async fn finish(sink: &mut SplitSink<WebSocket, Message>, last: &Control) {
    if sink.send(control(last)).await.is_ok() {
        close(sink, close_code::NORMAL).await;
    }
}

/// A client that does not wait for the end does not miss it.
async fn close(sink: &mut SplitSink<WebSocket, Message>, code: CloseCode) {
    let close = CloseFrame { code, reason: "".into() };
    sink.send(Message::Close(Some(close))).await.ok();
}

fn stopped_because(reason: &str) -> Control {
    let message =
        if reason.is_empty() { "the workspace stopped".to_owned() } else { format!("the workspace stopped: {reason}") };
    failure("workspace_stopped", message)
}

fn exit(status: ExitStatus) -> Control {
    match status {
        ExitStatus::Code(code) => Control::Exit { code: Some(code), signal: None },
        ExitStatus::Signal(signal) => Control::Exit { code: None, signal: Some(signal) },
    }
}

fn failure(code: impl Into<String>, message: impl Into<String>) -> Control {
    Control::Error { code: code.into(), message: message.into() }
}

fn control(control: &Control) -> Message {
    // These values always serialise; an empty message would be ignored by the client.
    binary(CONTROL, &serde_json::to_vec(control).unwrap_or_default())
}

fn binary(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(payload.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(payload);
    Message::Binary(bytes.freeze())
}

/// Numbers as on Linux, x86-64 and arm64.
const fn signal_name(number: i32) -> Option<SignalName> {
    Some(match number {
        1 => SignalName::Hup,
        2 => SignalName::Int,
        3 => SignalName::Quit,
        9 => SignalName::Kill,
        10 => SignalName::Usr1,
        12 => SignalName::Usr2,
        15 => SignalName::Term,
        18 => SignalName::Cont,
        20 => SignalName::Tstp,
        28 => SignalName::Winch,
        _ => return None,
    })
}
