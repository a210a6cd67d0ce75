//! Frames: `u32` little-endian length of what follows, one byte of [`Kind`], the payload.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest value of the length field: kind byte plus payload.
pub const MAX_FRAME_LEN: usize = 1024 * 1024;
/// Largest payload of one frame.
pub const MAX_PAYLOAD_LEN: usize = MAX_FRAME_LEN - 1;
/// Bytes of the length field.
pub const HEADER_LEN: usize = 4;

/// What the payload of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A JSON value: request, reply, event or control.
    Json,
    /// Bytes for the standard input of a process or terminal, or the content of a file. Empty: end of file.
    Stdin,
    /// Bytes of the standard output, of a terminal, or of a file. Empty: end of file.
    Stdout,
    /// Bytes of the standard error.
    Stderr,
    /// Bytes of a tunnelled port. Empty: this direction is closed.
    Data,
}

impl Kind {
    /// The byte on the wire.
    pub const fn as_byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Stdin => 1,
            Self::Stdout => 2,
            Self::Stderr => 3,
            Self::Data => 4,
        }
    }

    /// The kind of a byte from the wire.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Json),
            1 => Some(Self::Stdin),
            2 => Some(Self::Stdout),
            3 => Some(Self::Stderr),
            4 => Some(Self::Data),
            _ => None,
        }
    }
}

/// One frame, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The payload, at most [`MAX_PAYLOAD_LEN`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Reads the payload as the JSON of `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        if self.kind != Kind::Json {
            return Err(FrameError::NotJson(self.kind));
        }
        serde_json::from_slice(&self.payload).map_err(FrameError::Json)
    }
}

/// A frame that cannot be written or understood. After any of these from a reader the connection is useless.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is zero: there is not even a kind byte.
    #[error("a frame of length zero was received: the peer does not speak this protocol")]
    Empty,
    /// The length field is over the limit.
    #[error("a frame of {0} bytes was received or asked for, the limit is {MAX_FRAME_LEN}")]
    TooLong(usize),
    /// The kind byte is unknown.
    #[error("a frame of the unknown kind {0} was received: the peer speaks another version of this protocol")]
    UnknownKind(u8),
    /// A JSON frame was wanted.
    #[error("a JSON frame was expected, a frame of kind {0:?} was received")]
    NotJson(Kind),
    /// The JSON cannot be read or written as the wanted type.
    #[error("the JSON of a frame does not have the expected shape")]
    Json(#[source] serde_json::Error),
}

/// Appends one frame to `out`. Fails, and leaves `out` as it was, when `payload` is over [`MAX_PAYLOAD_LEN`]: callers split byte streams.
pub fn encode_frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let len = payload.len().saturating_add(1);
    let Some(field) = u32::try_from(len).ok().filter(|_| len <= MAX_FRAME_LEN) else {
        return Err(FrameError::TooLong(len));
    };
    out.reserve(HEADER_LEN + len);
    out.extend_from_slice(&field.to_le_bytes());
    out.push(kind.as_byte());
    out.extend_from_slice(payload);
    Ok(())
}

/// Appends `value` as one JSON frame to `out`.
pub fn encode_json<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let json = serde_json::to_vec(value).map_err(FrameError::Json)?;
    encode_frame(Kind::Json, &json, out)
}

/// Cuts a byte stream into frames. Holds at most one incomplete frame plus what the last [`push`](Self::push) brought.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// A reader with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 64 * 1024 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` if more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = frame_len(*header)?;
        let Some(body) = rest.get(..len) else {
            return match rest.first() {
                Some(&byte) if Kind::from_byte(byte).is_none() => Err(FrameError::UnknownKind(byte)),
                _ => Ok(None),
            };
        };
        let frame = split_body(body)?;
        self.start += HEADER_LEN + len;
        if self.start == self.buffer.len() {
            // A burst must not keep a megabyte resident for the life of an idle connection.
            if self.buffer.capacity() > 64 * 1024 {
                self.buffer = Vec::new();
            } else {
                self.buffer.clear();
            }
            self.start = 0;
        }
        Ok(Some(frame))
    }

    /// How many more bytes complete the frame at hand (first its length field), or zero when a frame or an error is ready.
    /// Reading exactly this much never takes bytes of what follows the frame, so the stream can be handed to another reader.
    pub fn missing(&self) -> usize {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        match pending.split_first_chunk::<HEADER_LEN>() {
            None => HEADER_LEN - pending.len(),
            Some((header, rest)) => frame_len(*header).map_or(0, |len| len.saturating_sub(rest.len())),
        }
    }

    /// Whether bytes of an incomplete frame are held: a stream that ends now was cut.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }
}

fn frame_len(header: [u8; HEADER_LEN]) -> Result<usize, FrameError> {
    match usize::try_from(u32::from_le_bytes(header)) {
        Ok(0) => Err(FrameError::Empty),
        Ok(len) if len <= MAX_FRAME_LEN => Ok(len),
        Ok(len) => Err(FrameError::TooLong(len)),
        Err(_) => Err(FrameError::TooLong(usize::MAX)),
    }
}

fn split_body(body: &[u8]) -> Result<Frame, FrameError> {
    let (&kind, payload) = body.split_first().ok_or(FrameError::Empty)?;
    let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
    Ok(Frame { kind, payload: payload.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = Kind> {
        (0u8..5).prop_map(|byte| Kind::from_byte(byte).unwrap())
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec((kind(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            cut in 1usize..97,
        ) {
            let mut wire = Vec::new();
            for (kind, payload) in &frames {
                encode_frame(*kind, payload, &mut wire).unwrap();
            }
            let mut reader = FrameReader::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                reader.push(piece);
                while let Some(frame) = reader.next_frame().unwrap() {
                    seen.push((frame.kind, frame.payload));
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!reader.is_partial());
        }

        #[test]
        fn noise_never_panics_and_is_bounded(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut reader = FrameReader::new();
            reader.push(&noise);
            while let Ok(Some(frame)) = reader.next_frame() {
                prop_assert!(frame.payload.len() <= MAX_PAYLOAD_LEN);
                let _ = frame.json::<crate::Request>();
            }
        }

        #[test]
        fn reading_what_is_missing_never_takes_the_next_frame(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            tail in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut wire = Vec::new();
            encode_frame(Kind::Json, &payload, &mut wire).unwrap();
            wire.extend_from_slice(&tail);
            let mut reader = FrameReader::new();
            let mut rest = wire.as_slice();
            let frame = loop {
                if let Some(frame) = reader.next_frame().unwrap() {
                    break frame;
                }
                let (head, after) = rest.split_at(reader.missing());
                reader.push(head);
                rest = after;
            };
            prop_assert_eq!(frame.payload, payload);
            prop_assert_eq!(rest, tail.as_slice());
        }
    }

    #[test]
    fn limits_are_held_on_both_sides() {
        let mut out = Vec::new();
        assert!(matches!(
            encode_frame(Kind::Data, &vec![0; MAX_PAYLOAD_LEN + 1], &mut out),
            Err(FrameError::TooLong(_))
        ));
        assert!(out.is_empty());
        encode_frame(Kind::Data, &vec![0; MAX_PAYLOAD_LEN], &mut out).unwrap();
        let mut reader = FrameReader::new();
        reader.push(&out);
        assert_eq!(reader.next_frame().unwrap().unwrap().payload.len(), MAX_PAYLOAD_LEN);

        let mut reader = FrameReader::new();
        reader.push(&u32::try_from(MAX_FRAME_LEN + 1).unwrap().to_le_bytes());
        assert!(matches!(reader.next_frame(), Err(FrameError::TooLong(_))));
        let mut reader = FrameReader::new();
        reader.push(&[0, 0, 0, 0]);
        assert!(matches!(reader.next_frame(), Err(FrameError::Empty)));
    }

    #[test]
    fn an_unknown_kind_is_refused_before_its_payload_arrives() {
        let mut reader = FrameReader::new();
        reader.push(&[255, 255, 0, 0, 9]);
        assert!(matches!(reader.next_frame(), Err(FrameError::UnknownKind(9))));
    }
}
