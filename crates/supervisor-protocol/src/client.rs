//! Blocking client over any `Read + Write`. Async callers use [`encode_json`], [`encode_frame`] and [`FrameReader`] directly.

use std::io::{self, Read, Write};

use crate::{
    Control, ErrorCode, Event, Frame, FrameError, FrameReader, Kind, MAX_PAYLOAD_LEN, Reply, Request, encode_frame,
    encode_json,
};

/// Something went wrong between here and `berth-init`.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Reading or writing failed.
    #[error("the connection to the workspace's supervisor failed")]
    Io(#[from] io::Error),
    /// The other side does not keep to the protocol.
    #[error("the workspace's supervisor sent something that is not understood")]
    Frame(#[from] FrameError),
    /// The other side hung up early.
    #[error("the workspace's supervisor hung up: the workspace has stopped or is stopping")]
    Closed,
    /// The answer is not one to this request.
    #[error("the workspace's supervisor answered something else than was asked")]
    Unexpected,
    /// The request was refused or failed.
    #[error("{message}")]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// A frame of a streaming request, understood.
#[derive(Debug)]
pub enum Incoming {
    /// A JSON event.
    Event(Event),
    /// Bytes; the kind is never [`Kind::Json`].
    Bytes(Kind, Vec<u8>),
}

impl Incoming {
    /// Understands a frame that came after the reply.
    pub fn from_frame(frame: Frame) -> Result<Self, FrameError> {
        match frame.kind {
            Kind::Json => frame.json().map(Self::Event),
            kind => Ok(Self::Bytes(kind, frame.payload)),
        }
    }
}

/// A connection to `berth-init`.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    reader: FrameReader,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    /// Wraps a connected stream.
    pub fn new(stream: S) -> Self {
        Self { stream, reader: FrameReader::new(), out: Vec::new(), input: vec![0; 16 * 1024] }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Sends a request and waits for its reply; [`Reply::Error`] comes as [`ClientError::Refused`].
    pub fn request(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send_json(request)?;
        let frame = self.next_frame()?.ok_or(ClientError::Closed)?;
        match frame.json()? {
            Reply::Error { code, message } => Err(ClientError::Refused { code, message }),
            reply => Ok(reply),
        }
    }

    /// The next frame of a streaming request; `None` if the other side has hung up.
    pub fn receive(&mut self) -> Result<Option<Incoming>, ClientError> {
        match self.next_frame()? {
            Some(frame) => Ok(Some(Incoming::from_frame(frame)?)),
            None => Ok(None),
        }
    }

    /// Sends a control message.
    pub fn control(&mut self, control: &Control) -> Result<(), ClientError> {
        self.send_json(control)
    }

    /// Sends bytes, in as many frames as it takes; empty bytes are one empty frame (end of file).
    pub fn bytes(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), ClientError> {
        self.out.clear();
        if bytes.is_empty() {
            encode_frame(kind, &[], &mut self.out)?;
        }
        for piece in bytes.chunks(MAX_PAYLOAD_LEN) {
            encode_frame(kind, piece, &mut self.out)?;
        }
        self.stream.write_all(&self.out)?;
        Ok(())
    }

    fn send_json<T: serde::Serialize>(&mut self, value: &T) -> Result<(), ClientError> {
        self.out.clear();
        encode_json(value, &mut self.out)?;
        self.stream.write_all(&self.out)?;
        Ok(())
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.reader.next_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read(&mut self.input) {
                Ok(0) if self.reader.is_partial() => return Err(ClientError::Closed),
                Ok(0) => return Ok(None),
                Ok(count) => self.reader.push(self.input.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
