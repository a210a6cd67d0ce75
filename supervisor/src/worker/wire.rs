//! The connection, blocking: frames out, and the stdin frames of the host as one byte stream in.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use berth_supervisor_protocol::{FrameReader, Kind, encode_frame, encode_json};
use serde::Serialize;

/// Bytes per frame of streamed content.
const PIECE: usize = 64 * 1024;

/// A blocking connection to the host.
pub(super) struct Wire {
    stream: UnixStream,
    reader: FrameReader,
    /// Content of the stdin frame that is being read.
    content: Vec<u8>,
    taken: usize,
    ended: bool,
    out: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, reader: FrameReader::new(), content: Vec::new(), taken: 0, ended: false, out: Vec::new() }
    }

    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.out.clear();
        encode_json(value, &mut self.out).map_err(io::Error::other)?;
        self.stream.write_all(&self.out)
    }

    fn frame(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        self.out.clear();
        encode_frame(kind, bytes, &mut self.out).map_err(io::Error::other)?;
        self.stream.write_all(&self.out)
    }

    /// Ends the content that goes to the host.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.frame(Kind::Stdout, &[])
    }

    fn next_content(&mut self) -> io::Result<()> {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            if let Some(frame) = self.reader.next_frame().map_err(io::Error::other)? {
                if frame.kind == Kind::Stdin {
                    self.ended = frame.payload.is_empty();
                    self.content = frame.payload;
                    self.taken = 0;
                    return Ok(());
                }
                continue;
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.reader.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }
}

/// What the host sends; ends at the empty stdin frame. A connection that ends earlier is an error: the content is not whole.
impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.content.len() && !self.ended {
            self.next_content()?;
        }
        let mut rest = self.content.get(self.taken..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

/// Content for the host.
impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        if !piece.is_empty() {
            // An empty frame would mean the end.
            self.frame(Kind::Stdout, piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
