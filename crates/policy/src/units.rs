//! Quantities with their units. Zero is refused everywhere: nowhere may it come to mean "no limit".

use std::num::NonZeroU64;

/// Longest duration: 366 days.
pub(crate) const MAX_DURATION_MS: u64 = 366 * 86_400_000;
/// Largest size: 1 TiB.
pub(crate) const MAX_SIZE_BYTES: u64 = 1 << 40;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// A duration such as `15m`, in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Result<NonZeroU64, String> {
    quantity(text, &DURATIONS, MAX_DURATION_MS).map_err(|why| {
        format!("`{text}` is not a duration: {why}; write a number and ms, s, m, h or d, as in `15m`")
    })
}

/// A size such as `64MiB`, in bytes.
pub(crate) fn size_bytes(text: &str) -> Result<NonZeroU64, String> {
    quantity(text, &SIZES, MAX_SIZE_BYTES).map_err(|why| {
        format!("`{text}` is not a size: {why}; write a number and B, KiB, MiB or GiB, as in `64MiB`")
    })
}

fn quantity(text: &str, units: &[(&str, u64)], most: u64) -> Result<NonZeroU64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or("unreadable")?;
    let number: u64 = number.parse().map_err(|_| "it does not start with a whole number")?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or("unknown unit")?;
    let amount = number.checked_mul(*factor).filter(|&n| n <= most).ok_or("too large")?;
    NonZeroU64::new(amount).ok_or("zero is not a limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_need_a_number_and_a_unit() {
        assert_eq!(duration_ms("15m").map(NonZeroU64::get), Ok(900_000));
        assert_eq!(duration_ms("1ms").map(NonZeroU64::get), Ok(1));
        assert_eq!(size_bytes("64MiB").map(NonZeroU64::get), Ok(64 << 20));
        for bad in ["", "15", "m", "0s", "-1s", "1.5h", "1 h", "1H", "99999999999999999999d", "367d", "1é"] {
            assert!(duration_ms(bad).is_err(), "{bad}");
        }
        for bad in ["64", "64MB", "0B", "2000GiB", "64mib"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }
}
