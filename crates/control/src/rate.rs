//! A rate with a burst, exactly: the generic cell rate algorithm on whole numbers.
//!
//! With `limit` admissions per `window` and a `burst`, the state of a key is the one time at which everything admitted so
//! far would have been spread out at the rate (the theoretical arrival time). It is kept in microseconds and parts of one:
//! `limit` parts are a microsecond, so that nothing is ever rounded.
//!
//! In any span of `t` microseconds at most `burst + t × limit ÷ window` calls are admitted, rounded down.

/// A rate: `limit` admissions per `window_us`, and `burst` of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    limit: i128,
    window_us: i128,
    burst: i128,
}

/// The theoretical arrival time: microseconds, and parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spread {
    pub(crate) us: i64,
    pub(crate) part: i64,
}

impl Rate {
    pub(crate) fn new(limit: i64, window_us: i64, burst: u64) -> Self {
        Self { limit: i128::from(limit.max(1)), window_us: i128::from(window_us), burst: i128::from(burst) }
    }

    /// When one more is admitted; `None` when it is at `at`.
    pub(crate) fn free_at(self, spread: Spread, at: i64) -> Option<i64> {
        let room = (self.burst - 1) * self.window_us;
        let earliest = (self.parts(spread) - room).div_euclid(self.limit)
            + i128::from((self.parts(spread) - room).rem_euclid(self.limit) != 0);
        (earliest > i128::from(at)).then(|| i64::try_from(earliest).unwrap_or(i64::MAX))
    }

    /// The state after one more at `at`.
    pub(crate) fn admit(self, spread: Spread, at: i64) -> Spread {
        self.spread(self.parts(spread).max(i128::from(at) * self.limit) + self.window_us)
    }

    /// The state without one of those admitted. Never earlier than the state without it ever was.
    pub(crate) fn refund(self, spread: Spread) -> Spread {
        self.spread((self.parts(spread) - self.window_us).max(0))
    }

    /// How much of the burst is in use.
    pub(crate) fn used(self, spread: Spread, at: i64) -> u64 {
        let ahead = self.parts(spread) - i128::from(at) * self.limit;
        let used = ahead.div_euclid(self.window_us) + i128::from(ahead.rem_euclid(self.window_us) != 0);
        u64::try_from(used.max(0)).unwrap_or(u64::MAX)
    }

    /// Microseconds after its last admission from which on a key says nothing any more.
    pub(crate) fn memory_us(self) -> i64 {
        i64::try_from(self.burst * self.window_us / self.limit + 1).unwrap_or(i64::MAX)
    }

    /// A part that is too large was written under another limit.
    fn parts(self, spread: Spread) -> i128 {
        i128::from(spread.us) * self.limit + i128::from(spread.part).clamp(0, self.limit - 1)
    }

    fn spread(self, parts: i128) -> Spread {
        Spread {
            us: i64::try_from(parts.div_euclid(self.limit)).unwrap_or(i64::MAX),
            part: i64::try_from(parts.rem_euclid(self.limit)).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In no span are there more than the burst and what the rate adds in it.
    fn never_over(rate: Rate, admitted: &[i64]) {
        for (first, start) in admitted.iter().enumerate() {
            for (last, end) in admitted.iter().enumerate().skip(first) {
                let count = i128::try_from(last - first + 1).unwrap();
                let most = rate.burst + i128::from(end - start) * rate.limit / rate.window_us;
                assert!(count <= most, "{count} in {} µs under {rate:?}", end - start);
            }
        }
    }

    #[test]
    fn a_burst_then_exactly_the_rate() {
        // Three a second, two at once: at 0, 0, then every third of a second.
        let rate = Rate::new(3, 1_000_000, 2);
        let mut spread = Spread::default();
        let mut at = 0;
        let mut seen = Vec::new();
        for _ in 0..8 {
            if let Some(free) = rate.free_at(spread, at) {
                assert!(rate.free_at(spread, free - 1).is_some(), "not one microsecond earlier");
                assert_eq!(rate.free_at(spread, free), None);
                at = free;
            }
            spread = rate.admit(spread, at);
            seen.push(at);
        }
        assert_eq!(seen, [0, 0, 333_334, 666_667, 1_000_000, 1_333_334, 1_666_667, 2_000_000]);
    }

    #[test]
    fn a_refund_gives_back_one_and_never_more() {
        let rate = Rate::new(1, 1_000, 2);
        let one = rate.admit(Spread::default(), 5_000);
        assert_eq!(rate.used(one, 5_000), 1);
        assert_eq!(rate.used(rate.refund(one), 5_000), 0);
        assert_eq!(rate.refund(Spread::default()), Spread::default());
    }

    /// Random schedules: `GOVRUN_BUDGET_CASES` of them, 60 calls each.
    #[expect(clippy::disallowed_methods, reason = "the length of the test run")]
    fn config() -> ProptestConfig {
        let long = std::env::var("GOVRUN_BUDGET_CASES").ok().and_then(|cases| cases.parse().ok());
        ProptestConfig { cases: long.unwrap_or(500), ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_span_admits_more_than_burst_and_rate(
            limit in 1i64..50, window in 1i64..5_000, burst in 1u64..20,
            steps in proptest::collection::vec(0i64..400, 60),
        ) {
            let rate = Rate::new(limit, window, burst);
            let (mut spread, mut at) = (Spread::default(), 1_000_000);
            let mut admitted = Vec::new();
            for step in steps {
                at += step * step / 100;
                match rate.free_at(spread, at) {
                    None => {
                        prop_assert!(rate.used(spread, at) < burst);
                        spread = rate.admit(spread, at);
                        admitted.push(at);
                    }
                    Some(free) => {
                        prop_assert!(rate.free_at(spread, free - 1).is_some());
                        prop_assert_eq!(rate.free_at(spread, free), None);
                        prop_assert_eq!(rate.used(spread, at), burst);
                    }
                }
            }
            never_over(rate, &admitted);
        }
    }
}
