//! Days, weeks and months of a zone, as spans of time.

use govrun_verdict::Period;
use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

/// The first microsecond of the period that holds `at`, and the first of the next one. `None` where the calendar ends,
/// or for a zone that is not compiled in.
pub(crate) fn bounds(period: Period, zone: &str, at: i64) -> Option<(i64, i64)> {
    let zone = TimeZoneDatabase::bundled().get(zone).ok()?;
    let today = zone.to_datetime(Timestamp::from_microsecond(at).ok()?).date();
    let first = match period {
        Period::Day => today,
        Period::Week => today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?,
        Period::Month => today.first_of_month(),
    };
    let next = match period {
        Period::Day => first.checked_add(1.day()),
        Period::Week => first.checked_add(7.days()),
        Period::Month => first.checked_add(1.month()),
    };
    Some((start_of(first, &zone)?, start_of(next.ok()?, &zone)?))
}

/// The first moment of a date: midnight, or where summer time skips it, what comes instead.
fn start_of(date: Date, zone: &TimeZone) -> Option<i64> {
    let start = date.at(0, 0, 0, 0).to_zoned_datetime(zone.clone()).ok()?;
    Some(start.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn periods_are_those_of_the_zone() {
        for (period, zone, moment, start, end) in [
            (Period::Day, "UTC", "2026-03-10T12:00:00Z", "2026-03-10T00:00:00Z", "2026-03-11T00:00:00Z"),
            (
                Period::Day,
                "Europe/Berlin",
                "2026-03-10T23:30:00Z",
                "2026-03-10T23:00:00Z",
                "2026-03-11T23:00:00Z",
            ),
            // 23 hours long, and 25.
            (
                Period::Day,
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                Period::Day,
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            // Midnight does not occur on this day in Beirut.
            (
                Period::Day,
                "Asia/Beirut",
                "2022-03-27T12:00:00Z",
                "2022-03-26T22:00:00Z",
                "2022-03-27T21:00:00Z",
            ),
            (Period::Week, "UTC", "2026-03-15T23:59:59Z", "2026-03-09T00:00:00Z", "2026-03-16T00:00:00Z"),
            (
                Period::Month,
                "America/New_York",
                "2026-03-01T04:59:59Z",
                "2026-02-01T05:00:00Z",
                "2026-03-01T05:00:00Z",
            ),
            (Period::Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                bounds(period, zone, at(moment)),
                Some((at(start), at(end))),
                "{period:?} {zone} {moment}"
            );
        }
        assert_eq!(bounds(Period::Day, "Middle/Earth", at("2026-03-10T12:00:00Z")), None);
    }

    #[test]
    fn every_moment_is_in_exactly_one_period() {
        for period in [Period::Day, Period::Week, Period::Month] {
            for zone in ["Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "Asia/Beirut"] {
                let mut now = at("2011-12-01T00:00:00Z");
                for _ in 0..300 {
                    let (start, end) = bounds(period, zone, now).unwrap();
                    assert!(start <= now && now < end, "{period:?} {zone} {now}");
                    assert_eq!(bounds(period, zone, start), Some((start, end)));
                    assert_eq!(bounds(period, zone, end - 1), Some((start, end)));
                    now = end;
                }
            }
        }
    }
}
