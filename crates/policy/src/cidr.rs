//! Address ranges. Families never mix: an IPv4 address inside an IPv6 form is matched by an IPv6 range only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cidr {
    V4 { net: u32, mask: u32, bits: u8 },
    V6 { net: u128, mask: u128, bits: u8 },
}

const fn mask4(bits: u8) -> u32 {
    match u32::MAX.checked_shl(32 - widen(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

const fn mask6(bits: u8) -> u128 {
    match u128::MAX.checked_shl(128 - widen(bits)) {
        Some(mask) => mask,
        None => 0,
    }
}

#[expect(clippy::as_conversions, reason = "widening, and `From` is not const")]
const fn widen(bits: u8) -> u32 {
    bits as u32
}

impl Cidr {
    pub(crate) const fn v4(net: Ipv4Addr, bits: u8) -> Self {
        Self::V4 { net: net.to_bits(), mask: mask4(bits), bits }
    }

    pub(crate) const fn v6(net: Ipv6Addr, bits: u8) -> Self {
        Self::V6 { net: net.to_bits(), mask: mask6(bits), bits }
    }

    /// Parse `address/bits`, or an address for the range of it alone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| format!("`{text}` is not an address range"))?;
        let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let given = bits.map_or(Some(most), |b| {
            let plain = !b.is_empty() && b.bytes().all(|c| c.is_ascii_digit());
            b.parse().ok().filter(|&n| plain && n <= most)
        });
        let bits = given.ok_or_else(|| format!("a prefix length is a number from 0 to {most}"))?;
        let range = match ip {
            IpAddr::V4(ip) => Self::v4(ip, bits),
            IpAddr::V6(ip) => Self::v6(ip, bits),
        };
        let first = range.first();
        if range.contains(ip) && first != ip {
            return Err(format!("`{text}` has bits beyond its prefix; the range is `{first}/{bits}`"));
        }
        Ok(range)
    }

    pub(crate) const fn contains(&self, ip: IpAddr) -> bool {
        match (*self, ip) {
            (Self::V4 { net, mask, .. }, IpAddr::V4(ip)) => ip.to_bits() & mask == net & mask,
            (Self::V6 { net, mask, .. }, IpAddr::V6(ip)) => ip.to_bits() & mask == net & mask,
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }

    fn first(&self) -> IpAddr {
        match *self {
            Self::V4 { net, mask, .. } => IpAddr::V4(Ipv4Addr::from_bits(net & mask)),
            Self::V6 { net, mask, .. } => IpAddr::V6(Ipv6Addr::from_bits(net & mask)),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::V4 { bits, .. } | Self::V6 { bits, .. }) = self;
        write!(f, "{}/{bits}", self.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has(range: &str, ip: &str) -> bool {
        Cidr::parse(range).unwrap().contains(ip.parse().unwrap())
    }

    #[test]
    fn ranges_contain_what_their_prefix_says() {
        assert!(has("10.0.0.0/8", "10.255.0.1"));
        assert!(!has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("0.0.0.0/0", "255.255.255.255"));
        assert!(has("::/0", "ffff::1"));
        assert!(has("127.0.0.1", "127.0.0.1"));
        assert!(!has("127.0.0.1", "127.0.0.2"));
        assert!(has("fd00::/8", "fdff::1"));
    }

    #[test]
    fn families_never_mix() {
        assert!(!has("0.0.0.0/0", "::ffff:10.0.0.1"));
        assert!(!has("::/0", "10.0.0.1"));
        assert!(has("::ffff:0:0/96", "::ffff:10.0.0.1"));
    }

    #[test]
    fn what_is_not_a_range_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::/129",
            "10/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "a",
            "fe80::1%1/64",
        ] {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_range_agrees_with_bitwise_comparison(net: u32, ip: u32, bits in 0u8..=32) {
            let range = Cidr::v4(Ipv4Addr::from_bits(net), bits);
            let same = (0..bits).all(|i| (net >> (31 - i)) & 1 == (ip >> (31 - i)) & 1);
            prop_assert_eq!(range.contains(IpAddr::V4(Ipv4Addr::from_bits(ip))), same);
        }
    }
}
