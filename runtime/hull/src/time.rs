//! Deadlines by the monotonic clock, and wall-clock times as RFC 3339 text.

use rustix::event::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// A moment after which waiting ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end_ns: i128,
}

fn monotonic_ns() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn monotonic() -> u64 {
    u64::try_from(monotonic_ns()).unwrap_or(0)
}

impl Deadline {
    /// That many milliseconds from now.
    pub(crate) fn after_ms(milliseconds: u32) -> Self {
        Self { end_ns: monotonic_ns() + i128::from(milliseconds) * 1_000_000 }
    }

    /// Whether it is over.
    pub(crate) fn passed(&self) -> bool {
        monotonic_ns() >= self.end_ns
    }

    /// What is left, `None` when it is over.
    pub(crate) fn left(&self) -> Option<Timespec> {
        let left = self.end_ns - monotonic_ns();
        if left <= 0 {
            return None;
        }
        Some(Timespec {
            tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(left % 1_000_000_000).unwrap_or(0),
        })
    }
}

/// Now, in UTC, as RFC 3339 with nanoseconds.
pub(crate) fn now_rfc3339() -> String {
    let now = clock_gettime(ClockId::Realtime);
    rfc3339(now.tv_sec, u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Seconds since 1970 as RFC 3339 text.
pub(crate) fn rfc3339(seconds: i64, nanoseconds: u64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days from civil, the other way round (proleptic Gregorian calendar, eras of 400 years).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_out_right() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_795_461_000, 0), "2026-11-23T19:10:00.000000000Z");
    }
}
