//! Credits of an interval, to the millionth, without floating point.
//!
//! The credits between two moments of an interval are the difference of two rounded sums from its start. Rounding each part by itself
//! would make the parts of an interval differ from the whole; this way any split adds up, to the last digit.

use chrono::{DateTime, SubsecRound as _, Utc};
use rust_decimal::{Decimal, RoundingStrategy};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;
/// Decimal places that are kept.
const SCALE: u32 = 6;

/// A moment in whole milliseconds: what is stored, and what is counted.
pub(crate) fn to_millis(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(3)
}

/// Credits of the first `ms` milliseconds; `None` on overflow.
pub(crate) fn credits(per_hour: Decimal, ms: i64) -> Option<Decimal> {
    // The multiplication is exact; only the division is rounded, once.
    let sum = per_hour.checked_mul(Decimal::from(ms.max(0)))?.checked_div(Decimal::from(HOUR_MS))?;
    Some(sum.round_dp_with_strategy(SCALE, RoundingStrategy::MidpointAwayFromZero))
}

/// Part of an interval that lies in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    /// From the interval's start to `from`.
    pub(crate) before_ms: i64,
    /// From `from` to `to`.
    pub(crate) duration_ms: i64,
}

/// Half-open interval and window, `[start, end)`; `None` if they do not overlap.
pub(crate) fn clip(
    started_at: DateTime<Utc>,
    stopped_at: Option<DateTime<Utc>>,
    window_from: Option<DateTime<Utc>>,
    window_to: Option<DateTime<Utc>>,
    as_of: DateTime<Utc>,
) -> Option<Counted> {
    let end = stopped_at.unwrap_or(as_of);
    let from = window_from.map_or(started_at, |from| from.max(started_at));
    let to = window_to.map_or(end, |to| to.min(end));
    if to < from || (to == from && window_from.is_some_and(|from| from > started_at)) {
        return None;
    }
    Some(Counted {
        from,
        to,
        before_ms: (from - started_at).num_milliseconds(),
        duration_ms: (to - from).num_milliseconds(),
    })
}

impl Counted {
    /// Credits of this part.
    pub(crate) fn credits(&self, per_hour: Decimal) -> Option<Decimal> {
        credits(per_hour, self.before_ms.checked_add(self.duration_ms)?)?
            .checked_sub(credits(per_hour, self.before_ms)?)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
    }

    #[test]
    fn an_hour_costs_the_price_and_a_millisecond_its_share() {
        let price: Decimal = "2.5".parse().unwrap();
        assert_eq!(credits(price, HOUR_MS), Some(price));
        assert_eq!(credits(price, 1), Some("0.000001".parse().unwrap()));
        assert_eq!(credits(price, 0), Some(Decimal::ZERO));
        assert_eq!(
            credits("0.0018".parse().unwrap(), 1),
            Some("0.000000".parse().unwrap()),
            "half a millionth and less"
        );
        assert_eq!(credits("1.8".parse().unwrap(), 1), Some("0.000001".parse().unwrap()), "half is rounded up");
    }

    #[test]
    fn windows_are_half_open() {
        let clipped =
            |from, to| clip(at(100), Some(at(200)), Some(at(from)), Some(at(to)), at(500)).map(|c| c.duration_ms);
        assert_eq!(clipped(0, 1000), Some(100));
        assert_eq!(clipped(150, 1000), Some(50));
        assert_eq!(clipped(0, 150), Some(50));
        assert_eq!(clipped(0, 100), Some(0));
        assert_eq!(clipped(200, 1000), None);
        assert_eq!(clipped(0, 99), None);
        let open = clip(at(100), None, None, None, at(500)).unwrap();
        assert_eq!((open.duration_ms, open.to), (400, at(500)));
    }

    proptest! {
        #[test]
        fn the_parts_of_an_interval_add_up_to_the_whole(
            price_micros in 0_i64..1_000_000_000, length in 0_i64..400_000_000_000, cuts in prop::collection::vec(0_i64..400_000_000_000, 0..20),
        ) {
            let price = Decimal::new(price_micros, 6);
            let whole = clip(at(0), Some(at(length)), None, None, at(0)).unwrap();
            let mut edges: Vec<i64> = cuts.into_iter().filter(|cut| *cut < length).chain([0, length]).collect();
            edges.sort_unstable();
            edges.dedup();
            let parts: Vec<Counted> = edges
                .windows(2)
                .filter_map(|pair| clip(at(0), Some(at(length)), Some(at(pair[0])), Some(at(pair[1])), at(0)))
                .collect();
            let credits: Decimal = parts.iter().map(|part| part.credits(price).unwrap()).sum();
            let duration: i64 = parts.iter().map(|part| part.duration_ms).sum();
            prop_assert_eq!(credits, whole.credits(price).unwrap());
            prop_assert_eq!(duration, length);
            // Neighbours touch and do not overlap.
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
            }
            prop_assert!(parts.iter().all(|part| part.credits(price).unwrap() >= Decimal::ZERO));
        }

        #[test]
        fn a_window_never_counts_more_than_there_is(start in 0_i64..1000, length in 0_i64..1000, from in 0_i64..2000, span in 0_i64..2000) {
            let counted = clip(at(start), Some(at(start + length)), Some(at(from)), Some(at(from + span)), at(0));
            if let Some(counted) = counted {
                prop_assert!(counted.from >= at(start) && counted.to <= at(start + length));
                prop_assert!(counted.from >= at(from) && counted.to <= at(from + span));
                prop_assert!(counted.duration_ms >= 0);
            }
        }

        #[test]
        fn stored_moments_lose_less_than_a_millisecond(nanos in 0_i64..10_000_000_000) {
            let moment = at(0) + TimeDelta::nanoseconds(nanos);
            let stored = to_millis(moment);
            prop_assert!(stored <= moment && moment - stored < TimeDelta::milliseconds(1));
        }
    }
}
