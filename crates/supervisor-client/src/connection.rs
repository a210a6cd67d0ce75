//! One connection: requests, replies, and the frames of a request that streams.

use berth_supervisor_protocol::{
    Activity, Control, Event, Frame, FrameError, FrameReader, GitStatus, Hello, Kind, ListeningPort, MAX_PAYLOAD_LEN,
    Reply, Request, TerminalInfo, UnitSpec, UnitStatus, encode_frame, encode_json,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::ClientError;

/// Bytes read from the stream at once.
const READ_LEN: usize = 16 * 1024;

/// A frame that came after the reply, understood.
#[derive(Debug)]
pub enum Incoming {
    /// A JSON event.
    Event(Event),
    /// Bytes; the kind is never [`Kind::Json`].
    Bytes(Kind, Vec<u8>),
}

impl Incoming {
    fn from_frame(frame: Frame) -> Result<Self, FrameError> {
        match frame.kind {
            Kind::Json => frame.json().map(Self::Event),
            kind => Ok(Self::Bytes(kind, frame.payload)),
        }
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct Receiver<R> {
    stream: R,
    reader: FrameReader,
    // Allocated while a frame is awaited, given back when idle: a gateway holds thousands of these.
    input: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// The next frame of a streaming request; `None` if the other side has hung up between two frames. Cancel safe: a frame that has begun to
    /// arrive is kept for the next call.
    pub async fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        match self.frame().await? {
            Some(frame) => Ok(Some(Incoming::from_frame(frame)?)),
            None => Ok(None),
        }
    }

    async fn frame(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Ok(Some(frame));
            }
            self.input.resize(READ_LEN, 0);
            let count = match self.stream.read(&mut self.input).await {
                Ok(count) => count,
                Err(error) => match error.into() {
                    ClientError::Closed => 0,
                    error => return Err(error),
                },
            };
            if count == 0 {
                return if self.reader.is_partial() { Err(ClientError::Closed) } else { Ok(None) };
            }
            self.reader.push(self.input.get(..count).unwrap_or_default());
        }
    }
}

/// The half that writes. Each call writes its frames whole and flushes.
#[derive(Debug)]
pub struct Sender<W> {
    stream: W,
    out: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    /// Sends a control message.
    pub async fn control(&mut self, control: &Control) -> Result<(), ClientError> {
        self.json(control).await
    }

    /// Sends bytes, in as many frames as it takes; empty bytes are one empty frame (end of file).
    pub async fn bytes(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), ClientError> {
        self.out.clear();
        if bytes.is_empty() {
            encode_frame(kind, &[], &mut self.out)?;
        }
        for piece in bytes.chunks(MAX_PAYLOAD_LEN) {
            encode_frame(kind, piece, &mut self.out)?;
        }
        self.flush().await
    }

    /// Ends the writing direction of the stream.
    pub async fn shutdown(&mut self) -> Result<(), ClientError> {
        Ok(self.stream.shutdown().await?)
    }

    async fn json<T: serde::Serialize>(&mut self, value: &T) -> Result<(), ClientError> {
        self.out.clear();
        encode_json(value, &mut self.out)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        if self.out.capacity() > READ_LEN {
            self.out = Vec::new();
        }
        Ok(())
    }
}

/// A connection to `berth-init`.
#[derive(Debug)]
pub struct SupervisorClient<S> {
    pub(crate) receiver: Receiver<ReadHalf<S>>,
    pub(crate) sender: Sender<WriteHalf<S>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SupervisorClient<S> {
    /// Wraps a connected stream.
    pub fn new(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            receiver: Receiver { stream: read, reader: FrameReader::new(), input: Vec::new() },
            sender: Sender { stream: write, out: Vec::new() },
        }
    }

    /// Reader and writer apart, for use by two tasks.
    pub fn split(self) -> (Sender<WriteHalf<S>>, Receiver<ReadHalf<S>>) {
        (self.sender, self.receiver)
    }

    /// Sends a request and waits for its reply; [`Reply::Error`] comes as [`ClientError::Refused`], and ends the
    /// connection. Not cancel safe.
    pub async fn request(&mut self, request: &Request) -> Result<Reply, ClientError> {
        // A supervisor that refuses at once may hang up before it has read everything: its answer counts more than our broken pipe.
        let sent = self.sender.json(request).await;
        let frame = match (self.receiver.frame().await, sent) {
            (Ok(Some(frame)), _) => frame,
            (_, Err(error @ ClientError::Io(_))) => return Err(error),
            (Ok(None), _) => return Err(ClientError::Closed),
            (Err(error), _) => return Err(error),
        };
        match frame.json()? {
            Reply::Error { code, message } => Err(ClientError::Refused { code, message }),
            reply => Ok(reply),
        }
    }

    /// The next frame of a streaming request. See [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        self.receiver.receive().await
    }

    /// Sends a control message.
    pub async fn control(&mut self, control: &Control) -> Result<(), ClientError> {
        self.sender.control(control).await
    }

    /// Sends bytes. See [`Sender::bytes`].
    pub async fn bytes(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), ClientError> {
        self.sender.bytes(kind, bytes).await
    }

    /// Who is there: when this is answered, the workspace is ready.
    pub async fn hello(&mut self) -> Result<Hello, ClientError> {
        match self.request(&Request::Hello).await? {
            Reply::Hello(hello) => Ok(hello),
            other => Err(unexpected("hello", &other)),
        }
    }

    /// All terminals, oldest first.
    pub async fn terminals(&mut self) -> Result<Vec<TerminalInfo>, ClientError> {
        match self.request(&Request::TerminalList).await? {
            Reply::Terminals { terminals } => Ok(terminals),
            other => Err(unexpected("terminal_list", &other)),
        }
    }

    /// The listening TCP ports now.
    pub async fn ports(&mut self) -> Result<Vec<ListeningPort>, ClientError> {
        match self.request(&Request::PortsList).await? {
            Reply::Ports { ports } => Ok(ports),
            other => Err(unexpected("ports_list", &other)),
        }
    }

    /// Begins a task or service.
    pub async fn start_unit(&mut self, spec: UnitSpec) -> Result<UnitStatus, ClientError> {
        match self.request(&Request::UnitStart(spec)).await? {
            Reply::Unit(unit) => Ok(unit),
            other => Err(unexpected("unit_start", &other)),
        }
    }

    /// Asks a task or service to stop; [`Request::UnitWatch`] tells when it has.
    pub async fn stop_unit(&mut self, id: &str) -> Result<UnitStatus, ClientError> {
        match self.request(&Request::UnitStop { id: id.to_owned() }).await? {
            Reply::Unit(unit) => Ok(unit),
            other => Err(unexpected("unit_stop", &other)),
        }
    }

    /// All units, by id.
    pub async fn units(&mut self) -> Result<Vec<UnitStatus>, ClientError> {
        match self.request(&Request::UnitList).await? {
            Reply::Units { units } => Ok(units),
            other => Err(unexpected("unit_list", &other)),
        }
    }

    /// When the user last did something. Untrusted: for the inactivity timeout only.
    pub async fn activity(&mut self) -> Result<Activity, ClientError> {
        match self.request(&Request::Activity).await? {
            Reply::Activity(activity) => Ok(activity),
            other => Err(unexpected("activity", &other)),
        }
    }

    /// State of the checkout at `path`.
    pub async fn git_status(&mut self, path: &str) -> Result<GitStatus, ClientError> {
        match self.request(&Request::GitStatus { path: path.to_owned() }).await? {
            Reply::GitStatus(status) => Ok(status),
            other => Err(unexpected("git_status", &other)),
        }
    }

    /// Ends the workspace; the connection ends with it.
    pub async fn end_workspace(&mut self, grace_ms: u64) -> Result<(), ClientError> {
        match self.request(&Request::Shutdown { grace_ms }).await? {
            Reply::Done => Ok(()),
            other => Err(unexpected("shutdown", &other)),
        }
    }
}

pub(crate) fn unexpected(asked: &'static str, got: &Reply) -> ClientError {
    let got = match got {
        Reply::Hello(_) => "hello",
        Reply::Started { .. } => "started",
        Reply::Terminal(_) => "terminal",
        Reply::Terminals { .. } => "terminals",
        Reply::Connected { .. } => "connected",
        Reply::Ports { .. } => "ports",
        Reply::File(_) => "file",
        Reply::Ready => "ready",
        Reply::Unit(_) => "unit",
        Reply::Units { .. } => "units",
        Reply::Activity(_) => "activity",
        Reply::GitStatus(_) => "git_status",
        Reply::Done => "done",
        Reply::Error { .. } => "error",
    };
    ClientError::Unexpected { asked, got }
}
