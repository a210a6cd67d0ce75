//! Rate limits: the generic cell rate algorithm (ITU-T I.371), one number per key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use berth_http::Problem;
use berth_ids::UserId;
use chrono::{DateTime, TimeDelta, Utc};

/// More keys than this, and those that no longer limit anything are dropped.
const SWEEP_AT: usize = 50_000;

/// Who is limited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Requests of a user.
    User(UserId),
    /// Requests with wrong credentials from one address.
    Failures(String),
    /// Logins from an address.
    LoginAddress(String),
    /// Logins to an account.
    LoginAccount(String),
}

/// How much is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Time that one request costs in the long run.
    pub(crate) every: TimeDelta,
    /// This many at once.
    pub(crate) burst: u32,
}

impl Rate {
    pub(crate) fn per_second(count: u32, burst: u32) -> Self {
        Self { every: TimeDelta::microseconds(1_000_000 / i64::from(count.max(1))), burst: burst.max(1) }
    }

    pub(crate) fn per_minute(count: u32) -> Self {
        Self { every: TimeDelta::microseconds(60_000_000 / i64::from(count.max(1))), burst: count.max(1) }
    }
}

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    limit: u32,
    remaining: u32,
    reset_seconds: u64,
}

impl Allowance {
    /// The headers by which clients pace themselves.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.extend(self.headers());
    }

    fn headers(self) -> [(HeaderName, HeaderValue); 3] {
        [
            (HeaderName::from_static("ratelimit-limit"), HeaderValue::from(self.limit)),
            (HeaderName::from_static("ratelimit-remaining"), HeaderValue::from(self.remaining)),
            (HeaderName::from_static("ratelimit-reset"), HeaderValue::from(self.reset_seconds)),
        ]
    }
}

/// All the limits.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<Key, DateTime<Utc>>>);

fn whole_seconds(span: TimeDelta) -> u64 {
    u64::try_from(span.num_milliseconds().max(0)).unwrap_or(0).div_ceil(1000)
}

impl Limits {
    /// Takes one request from the allowance.
    ///
    /// # Errors
    /// 429, with the time to wait.
    pub(crate) fn take(&self, key: Key, rate: Rate, now: DateTime<Utc>) -> Result<Allowance, Problem> {
        let mut arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= SWEEP_AT {
            arrivals.retain(|_, arrival| *arrival > now);
        }
        let burst = i32::try_from(rate.burst).unwrap_or(i32::MAX);
        // The theoretical arrival time: when the whole burst would be available again.
        let arrival = arrivals.get(&key).copied().unwrap_or(now).max(now);
        let next = arrival + rate.every;
        let ahead = next - now;
        let most = rate.every * burst;
        if ahead > most {
            let wait = whole_seconds(ahead - most).max(1);
            let used_up =
                Allowance { limit: rate.burst, remaining: 0, reset_seconds: whole_seconds(ahead - rate.every) };
            let problem = Problem::too_many_requests(wait);
            return Err(used_up
                .headers()
                .into_iter()
                .fold(problem, |problem, (name, value)| problem.with_header(name, value)));
        }
        arrivals.insert(key, next);
        let every = rate.every.num_microseconds().unwrap_or(1).max(1);
        let used = ahead.num_microseconds().unwrap_or(i64::MAX) / every;
        let remaining = u32::try_from(i64::from(burst) - used).unwrap_or(0);
        Ok(Allowance { limit: rate.burst, remaining, reset_seconds: whole_seconds(ahead) })
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let limits = Limits::default();
        let key = || Key::Failures("192.0.2.1".into());
        let rate = Rate::per_second(10, 5);
        let mut now = DateTime::UNIX_EPOCH;
        for left in (0..5).rev() {
            let allowance = limits.take(key(), rate, now).unwrap();
            assert_eq!(allowance.remaining, left);
        }
        let refused = limits.take(key(), rate, now).unwrap_err().into_response();
        assert_eq!(refused.status(), 429);
        assert!(refused.headers()["ratelimit-remaining"] == "0" && refused.headers()["retry-after"] == "1");
        limits.take(Key::Failures("192.0.2.2".into()), rate, now).unwrap();
        now += TimeDelta::milliseconds(100);
        limits.take(key(), rate, now).unwrap();
        limits.take(key(), rate, now).unwrap_err();
        now += TimeDelta::seconds(10);
        assert_eq!(limits.take(key(), rate, now).unwrap().remaining, 4);
    }
}
