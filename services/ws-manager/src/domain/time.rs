//! Conversions of times: chrono in this code, jiff in Kubernetes types, text in our own resources.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// RFC 3339 with milliseconds, as conditions and statuses carry it.
#[must_use]
pub fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Parses a time from a status; `None` if it is not RFC 3339.
#[must_use]
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// A time of Kubernetes metadata.
#[must_use]
pub fn of(time: &Time) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.0.as_millisecond()).unwrap_or_default()
}

/// So many seconds.
#[must_use]
pub fn seconds(count: u32) -> TimeDelta {
    TimeDelta::seconds(i64::from(count))
}

/// A duration as people say it: `45 seconds`, `30 minutes`, `1 hour 30 minutes`.
#[must_use]
pub fn words(duration: TimeDelta) -> String {
    let total = duration.num_seconds().max(0);
    let unit = |count: i64, name: &str| format!("{count} {name}{}", if count == 1 { "" } else { "s" });
    let (hours, minutes, rest) = (total / 3600, total % 3600 / 60, total % 60);
    let mut parts = Vec::new();
    if hours > 0 {
        parts.push(unit(hours, "hour"));
    }
    if minutes > 0 {
        parts.push(unit(minutes, "minute"));
    }
    if rest > 0 && hours == 0 || parts.is_empty() {
        parts.push(unit(rest, "second"));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, expected) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (90, "1 minute 30 seconds"),
            (1800, "30 minutes"),
            (3600, "1 hour"),
            (5405, "1 hour 30 minutes"),
            (129_600, "36 hours"),
        ] {
            assert_eq!(words(TimeDelta::seconds(seconds)), expected);
        }
    }

    #[test]
    fn times_survive_the_trip() {
        let time = parse("2026-11-23T10:00:00.123Z").unwrap();
        assert_eq!(text(time), "2026-11-23T10:00:00.123Z");
        assert_eq!(parse("yesterday"), None);
    }
}
