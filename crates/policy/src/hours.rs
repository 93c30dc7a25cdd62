//! `time`: days and hours of a week in a named zone, and spans between two moments.
//!
//! Hours are those on a clock on the wall of the zone: where summer time skips an hour, that hour does not occur; where it
//! repeats one, both count. The zones and their history are compiled in, so that a decision can be derived again on a
//! machine with another zone database. Past the years that the database knows, its last rule goes on.

use govrun_verdict::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use toml::de::DeValue;

use crate::predicate::Truth;
use crate::toml_item::Item;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// A bit for every day, Monday lowest.
const EVERY_DAY: u8 = 0b111_1111;
const MINUTES_A_DAY: u16 = 24 * 60;

/// When a rule is about calls.
#[derive(Debug, Clone)]
pub(crate) struct Hours {
    zone: TimeZone,
    /// Any of them; empty when only `from` and `until` matter.
    windows: Vec<Window>,
    /// None of them instead.
    outside: bool,
    /// From this moment on.
    from: Option<Timestamp>,
    /// Until just before this one.
    until: Option<Timestamp>,
}

/// Hours of some days. When it ends no later than it starts it goes on past midnight, and belongs to the day it starts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// A bit for each day, Monday lowest.
    days: u8,
    /// Minute of the day at which it starts.
    start: u16,
    /// Minute of the day before which it ends.
    end: u16,
}

impl Hours {
    /// Unknown only for a time that no calendar has.
    pub(crate) fn truth(&self, now: Timestamp) -> Truth {
        let span = self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until);
        if !span {
            return Truth::False;
        }
        if self.windows.is_empty() {
            return Truth::True;
        }
        let Some((day, minute)) = self.local(now) else { return Truth::Unknown };
        let inside = self.windows.iter().any(|w| w.holds(day, minute));
        Truth::from(inside != self.outside)
    }

    /// Day of the week, Monday 0, and minute of the day.
    fn local(&self, now: Timestamp) -> Option<(u8, u16)> {
        let at = jiff::Timestamp::from_microsecond(i64::try_from(now.0).ok()?).ok()?;
        let local = self.zone.to_datetime(at);
        let minute = u16::try_from(local.hour()).ok()? * 60 + u16::try_from(local.minute()).ok()?;
        Some((day_number(local.date().weekday()), minute))
    }
}

impl Window {
    const fn holds(self, day: u8, minute: u16) -> bool {
        let yesterday = (day + 6) % 7;
        if self.start < self.end {
            return self.has(day) && self.start <= minute && minute < self.end;
        }
        (self.has(day) && self.start <= minute) || (self.has(yesterday) && minute < self.end)
    }

    const fn has(self, day: u8) -> bool {
        self.days >> day & 1 == 1
    }
}

const fn day_number(day: Weekday) -> u8 {
    match day {
        Weekday::Monday => 0,
        Weekday::Tuesday => 1,
        Weekday::Wednesday => 2,
        Weekday::Thursday => 3,
        Weekday::Friday => 4,
        Weekday::Saturday => 5,
        Weekday::Sunday => 6,
    }
}

/// Read `time = { in = "Mon-Fri 08:00-18:00", zone = "Europe/Berlin" }`.
pub(crate) fn read(item: &Item<'_>) -> Option<Hours> {
    let table = item.table("`time`")?;
    table.only(&["in", "not_in", "zone", "from", "until"]);
    let (inside, outside) = (table.get("in"), table.get("not_in"));
    if let (Some(_), Some(item)) = (&inside, &outside) {
        item.fail("`time` has `in` or `not_in`, not both: combine two with `all`");
    }
    let (from, until) = (table.get("from").and_then(moment), table.get("until").and_then(moment));
    if let (Some(from), Some(until), Some(item)) = (from, until, table.get("until"))
        && until <= from
    {
        item.fail("`until` is not after `from`, so this would never hold");
    }
    let hours = inside.or(outside);
    let zone = match (&hours, table.get("zone")) {
        (Some(_), Some(item)) => zone(&item)?,
        (Some(_), None) => {
            item.fail_with(
                "hours are those of a place",
                "add its `zone`, such as `\"Europe/Berlin\"` or `\"UTC\"`",
            );
            return None;
        }
        (None, Some(item)) => {
            item.fail("`zone` says where the hours of `in` and `not_in` are, and there are none");
            return None;
        }
        (None, None) => TimeZone::UTC,
    };
    if table.is_empty() {
        item.fail_with(
            "an empty `time` would hold at any time",
            "such as `{ in = \"Mon-Fri 08:00-18:00\", zone = \"UTC\" }`",
        );
    }
    let texts = hours.and_then(|item| item.texts()).unwrap_or_default();
    let windows = texts.iter().filter_map(|(item, text)| item.checked(window(text))).collect();
    Some(Hours { zone, windows, outside: outside.is_some(), from, until })
}

fn zone(item: &Item<'_>) -> Option<TimeZone> {
    let name = item.text()?;
    let found = TimeZoneDatabase::bundled().get(name);
    item.checked(found.map_err(|_| {
        format!(
            "`{name}` is no zone of the IANA database, such as `Europe/Berlin`, `America/New_York` or `UTC`"
        )
    }))
}

fn moment(item: Item<'_>) -> Option<Timestamp> {
    let at = match item.value() {
        DeValue::Datetime(at) => at.to_string().parse::<jiff::Timestamp>().ok(),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    let at = at.and_then(|at| u64::try_from(at.as_microsecond()).ok()).map(Timestamp);
    if at.is_none() {
        item.fail("a moment with its offset is needed here, such as `2026-01-31T18:00:00Z`, from 1970 on");
    }
    at
}

fn window(text: &str) -> Result<Window, String> {
    let wrong = || {
        format!(
            "`{text}` is not a window of the week, such as `Mon-Fri 08:00-18:00`, `Sat,Sun` or `22:00-06:00`"
        )
    };
    let mut parts = text.split(' ');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(wrong());
    }
    let (days, hours) = match second {
        Some(hours) => (days(first).ok_or_else(wrong)?, Some(hours)),
        None if first.starts_with(|c: char| c.is_ascii_digit()) => (EVERY_DAY, Some(first)),
        None => (days(first).ok_or_else(wrong)?, None),
    };
    let Some(hours) = hours else { return Ok(Window { days, start: 0, end: MINUTES_A_DAY }) };
    let (start, end) = hours.split_once('-').ok_or_else(wrong)?;
    let (start, end) = (clock(start).ok_or_else(wrong)?, clock(end).ok_or_else(wrong)?);
    if start == end || start == MINUTES_A_DAY {
        return Err(format!("`{text}` starts where it ends: leave the hours out for whole days"));
    }
    Ok(Window { days, start, end })
}

/// `Mon-Fri`, `Sat,Sun`, `Sat-Mon`.
fn days(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|day| *day == name).and_then(|n| u8::try_from(n).ok());
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        days |= 1 << day;
        while day != last {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Some(days)
}

/// `08:00`, up to `24:00`.
fn clock(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let sound = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        sound.then(|| digits.parse::<u16>().ok())?
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let sound = (hour < 24 && minute < 60) || (hour == 24 && minute == 0);
    sound.then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str, zone: &str) -> Hours {
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        Hours { zone, windows: vec![window(text).unwrap()], outside: false, from: None, until: None }
    }

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp(u64::try_from(at.as_microsecond()).unwrap())
    }

    fn check(window: &str, zone: &str, yes: &[&str], no: &[&str]) {
        let hours = hours(window, zone);
        for moment in yes {
            assert_eq!(hours.truth(at(moment)), Truth::True, "{window} {zone} {moment}");
        }
        for moment in no {
            assert_eq!(hours.truth(at(moment)), Truth::False, "{window} {zone} {moment}");
        }
    }

    #[test]
    fn office_hours_are_those_of_the_zone_in_summer_and_in_winter() {
        check(
            "Mon-Fri 08:00-18:00",
            "Europe/Berlin",
            // 2026-01-05 and 2026-07-06 are Mondays: UTC+1 and UTC+2.
            &[
                "2026-01-05T07:00:00Z",
                "2026-01-05T16:59:59.999999Z",
                "2026-07-06T06:00:00Z",
                "2026-07-10T15:59:59Z",
            ],
            &[
                "2026-01-05T06:59:59.999999Z",
                "2026-01-05T17:00:00Z",
                "2026-07-06T16:00:00Z",
                "2026-07-11T10:00:00Z",
            ],
        );
    }

    #[test]
    fn a_window_past_midnight_belongs_to_the_day_it_starts_on() {
        check(
            "Fri 22:00-06:00",
            "UTC",
            &["2026-01-09T22:00:00Z", "2026-01-10T05:59:59Z"],
            &["2026-01-09T21:59:59Z", "2026-01-09T03:00:00Z", "2026-01-10T06:00:00Z", "2026-01-10T22:30:00Z"],
        );
        check("Sun 23:00-01:00", "UTC", &["2026-01-12T00:30:00Z"], &["2026-01-11T00:30:00Z"]);
    }

    #[test]
    fn an_hour_that_summer_time_skips_does_not_occur_and_one_it_repeats_counts_twice() {
        // 2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
        check("02:00-03:00", "Europe/Berlin", &[], &["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"]);
        check(
            "02:00-03:00",
            "Europe/Berlin",
            &["2026-10-25T00:00:00Z", "2026-10-25T00:59:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:00Z"],
            &["2026-10-24T23:59:00Z", "2026-10-25T02:00:00Z"],
        );
    }

    #[test]
    fn days_wrap_around_the_week() {
        check("Sat-Mon", "UTC", &["2026-01-10T00:00:00Z", "2026-01-12T23:59:59Z"], &["2026-01-13T00:00:00Z"]);
        check("Tue,Thu", "UTC", &["2026-01-06T12:00:00Z"], &["2026-01-07T12:00:00Z"]);
        check("00:00-24:00", "UTC", &["2026-01-06T00:00:00Z", "2026-01-06T23:59:59Z"], &[]);
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in [
            "",
            "Mon-",
            "Mo",
            "mon",
            "Mon 8:00-18:00",
            "08:00",
            "08:00-25:00",
            "08:00-08:00",
            "24:00-06:00",
            "Mon Tue",
            "Mon  08:00-09:00",
            "08:60-09:00",
            "24:01-01:00",
            "Mon-Fri 08:00-18:00 x",
            "+8:00-09:00",
        ] {
            assert!(window(bad).is_err(), "{bad:?}");
        }
    }

    /// Every minute of a week, by the definition: some window that began at most a day ago still lasts.
    #[test]
    fn every_minute_of_a_week_agrees_with_the_definition() {
        for text in [
            "Mon-Fri 08:00-18:00",
            "Sat 22:00-06:00",
            "Sun 12:00-11:59",
            "Wed",
            "00:01-00:00",
            "Sun,Tue 23:59-24:00",
        ] {
            let w = window(text).unwrap();
            let length = if w.start < w.end { w.end - w.start } else { MINUTES_A_DAY - w.start + w.end };
            for minute in 0..7 * MINUTES_A_DAY {
                let begun = (0..length).any(|ago| {
                    let began = (minute + 7 * MINUTES_A_DAY - ago) % (7 * MINUTES_A_DAY);
                    began % MINUTES_A_DAY == w.start && w.has(u8::try_from(began / MINUTES_A_DAY).unwrap())
                });
                let day = u8::try_from(minute / MINUTES_A_DAY).unwrap();
                assert_eq!(w.holds(day, minute % MINUTES_A_DAY), begun, "{text} {minute}");
            }
        }
    }
}
