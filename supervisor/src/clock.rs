//! Wall clock and monotonic time. The host's programs take a clock as a parameter; this one has no crate to share it with and no logic that
//! depends on the date, so one function is enough.

use rustix::time::{ClockId, clock_gettime};

/// Unix time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(millis)
}
