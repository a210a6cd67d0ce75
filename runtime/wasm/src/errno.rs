//! System errors for which wasmtime's WASI has no name.
//!
//! WASI can tell a program that a file system is read-only, that a rename would leave its mount, or that a quota is used up. wasmtime-wasi
//! reports all of these as an I/O error, as if the disk were broken, and drops the number, but not before it has written a debug event about
//! it. So that event is intercepted.

use std::cell::Cell;
use std::fmt::Debug;

use rustix::io::Errno;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber, set_global_default};
use tracing::{Event, Level, Metadata};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

thread_local! {
    /// Of the last event. Programs have one thread, on which file system calls are made.
    static LAST: Cell<Option<Errno>> = const { Cell::new(None) };
}

/// Listens from now on.
pub(crate) fn listen() {
    // Only fails when somebody listens already.
    let _ = set_global_default(Listener);
}

/// Forgets what was heard.
pub(crate) fn forget() {
    LAST.set(None);
}

/// What the program is to be told instead of an I/O error, if there was another one since [`forget`].
pub(crate) fn name() -> Option<ErrorCode> {
    Some(match LAST.take()? {
        Errno::AGAIN => ErrorCode::WouldBlock,
        Errno::DEADLK => ErrorCode::Deadlock,
        Errno::DQUOT => ErrorCode::Quota,
        Errno::MSGSIZE => ErrorCode::MessageSize,
        Errno::NODEV => ErrorCode::NoDevice,
        Errno::NOLCK => ErrorCode::NoLock,
        Errno::NOTTY => ErrorCode::NoTty,
        Errno::NXIO => ErrorCode::NoSuchDevice,
        Errno::ROFS => ErrorCode::ReadOnly,
        Errno::TXTBSY => ErrorCode::TextFileBusy,
        Errno::XDEV => ErrorCode::CrossDevice,
        _ => return None,
    })
}

struct Listener;

fn concerns(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && *metadata.level() == Level::DEBUG && metadata.target().starts_with("wasmtime_wasi::")
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The spans that wasmtime opens at every call then cost nothing.
        if concerns(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        concerns(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message;

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message"
            && let Some(errno) = number(&format!("{value:?}"))
        {
            LAST.set(Some(errno));
        }
    }
}

/// The number in the text of a [`std::io::Error`].
fn number(message: &str) -> Option<Errno> {
    let number = message.rsplit_once("(os error ")?.1.strip_suffix(')')?;
    Some(Errno::from_raw_os_error(number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_is_in_its_text() {
        for errno in [Errno::ROFS, Errno::XDEV, Errno::DQUOT] {
            let error = std::io::Error::from(errno);
            assert_eq!(number(&format!("unknown raw os error: {error}")), Some(errno));
        }
        assert_eq!(number("unknown raw os error: (os error )"), None);
        assert_eq!(number("dropping error"), None);
    }

    #[test]
    fn an_error_is_told_once() {
        LAST.set(Some(Errno::ROFS));
        assert_eq!(name(), Some(ErrorCode::ReadOnly));
        assert_eq!(name(), None);
        LAST.set(Some(Errno::XDEV));
        forget();
        assert_eq!(name(), None);
    }
}
