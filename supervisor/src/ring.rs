//! A ring buffer of the last bytes of an output, addressed by their position since its beginning.

use std::collections::VecDeque;

/// A bounded memory of a byte stream.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Position after the last byte ever written.
    end: u64,
}

impl Ring {
    /// An empty one that keeps at most `capacity` bytes. Memory is taken as it fills.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity, end: 0 }
    }

    /// Adds bytes; the oldest are forgotten.
    pub(crate) fn push(&mut self, new: &[u8]) {
        self.end = self.end.saturating_add(as_u64(new.len()));
        let new = new.get(new.len().saturating_sub(self.capacity)..).unwrap_or_default();
        let overflow = (self.bytes.len() + new.len()).saturating_sub(self.capacity);
        self.bytes.drain(..overflow.min(self.bytes.len()));
        self.bytes.extend(new);
    }

    /// Position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Position of the oldest byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.end.saturating_sub(as_u64(self.bytes.len()))
    }

    /// The position `back` bytes before the end, or that of the oldest byte.
    pub(crate) fn before_end(&self, back: u64) -> u64 {
        self.end.saturating_sub(back).max(self.start())
    }

    /// Appends up to `max` bytes from `position` on to `out`; gives the position after them. `position` must not be before [`start`](Self::start).
    pub(crate) fn copy(&self, position: u64, max: usize, out: &mut Vec<u8>) -> u64 {
        let from = usize::try_from(position.saturating_sub(self.start())).unwrap_or(usize::MAX).min(self.bytes.len());
        let count = max.min(self.bytes.len() - from);
        let (head, tail) = self.bytes.as_slices();
        if from < head.len() {
            let in_head = count.min(head.len() - from);
            out.extend_from_slice(head.get(from..from + in_head).unwrap_or_default());
            out.extend_from_slice(tail.get(..count - in_head).unwrap_or_default());
        } else {
            let from = from - head.len();
            out.extend_from_slice(tail.get(from..from + count).unwrap_or_default());
        }
        position.saturating_add(as_u64(count))
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_the_tail_of_what_was_written(
            writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
            capacity in 1usize..100,
            piece in 1usize..30,
        ) {
            let mut ring = Ring::new(capacity);
            let mut all = Vec::new();
            for write in &writes {
                ring.push(write);
                all.extend_from_slice(write);
            }
            prop_assert_eq!(ring.end(), all.len() as u64);
            let mut read = Vec::new();
            let mut position = ring.start();
            while position < ring.end() {
                position = ring.copy(position, piece, &mut read);
            }
            prop_assert_eq!(read.as_slice(), &all[all.len() - all.len().min(capacity)..]);
        }
    }
}
