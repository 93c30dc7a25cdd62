//! Which addresses are special: reachable only through a rule that names their range.
//!
//! A request to a public name may resolve to any address the name's owner likes. So the ranges of the IANA
//! special-purpose registries (RFC 6890) need an explicit `cidr`, whatever the rules say about the name; and of IPv6
//! only global unicast (2000::/3) can be public at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::Cidr;

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Cidr {
    Cidr::v4(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(s: [u16; 4], bits: u8) -> Cidr {
    let [a, b, c, d] = s;
    Cidr::v6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), bits)
}

/// Special ranges, and what they are for.
const SPECIAL: &[(Cidr, &str)] = &[
    (v4(0, 0, 0, 0, 8), "this network, unspecified (RFC 791, RFC 1122)"),
    (v4(10, 0, 0, 0, 8), "private (RFC 1918)"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT (RFC 6598)"),
    (v4(127, 0, 0, 0, 8), "loopback (RFC 1122)"),
    (v4(169, 254, 0, 0, 16), "link-local (RFC 3927), with the metadata service of clouds at 169.254.169.254"),
    (v4(168, 63, 129, 16, 32), "platform metadata of Azure"),
    (v4(172, 16, 0, 0, 12), "private (RFC 1918)"),
    (v4(192, 0, 0, 0, 24), "IETF protocol assignments (RFC 6890)"),
    (v4(192, 0, 2, 0, 24), "documentation (RFC 5737)"),
    (v4(192, 31, 196, 0, 24), "AS112 (RFC 7535)"),
    (v4(192, 52, 193, 0, 24), "automatic multicast tunneling (RFC 7450)"),
    (v4(192, 88, 99, 0, 24), "6to4 relay anycast (RFC 7526)"),
    (v4(192, 168, 0, 0, 16), "private (RFC 1918)"),
    (v4(192, 175, 48, 0, 24), "direct delegation AS112 (RFC 7534)"),
    (v4(198, 18, 0, 0, 15), "benchmarking (RFC 2544)"),
    (v4(198, 51, 100, 0, 24), "documentation (RFC 5737)"),
    (v4(203, 0, 113, 0, 24), "documentation (RFC 5737)"),
    (v4(224, 0, 0, 0, 4), "multicast (RFC 5771)"),
    (v4(240, 0, 0, 0, 4), "reserved, limited broadcast (RFC 1112, RFC 919)"),
    (
        v6([0, 0, 0, 0], 3),
        "loopback, unspecified, IPv4-mapped, IPv4-compatible, NAT64 (RFC 4291, RFC 6052, RFC 8215)",
    ),
    (
        v6([0x2001, 0, 0, 0], 23),
        "Teredo, benchmarking, ORCHID and other IETF assignments (RFC 2928, RFC 4380)",
    ),
    (v6([0x2001, 0xdb8, 0, 0], 32), "documentation (RFC 3849)"),
    (v6([0x2002, 0, 0, 0], 16), "6to4, carries an IPv4 address (RFC 3056)"),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), "direct delegation AS112 (RFC 7534)"),
    (v6([0x3fff, 0, 0, 0], 20), "documentation (RFC 9637)"),
    (v6([0x4000, 0, 0, 0], 2), "not assigned (RFC 4291)"),
    (
        v6([0x8000, 0, 0, 0], 1),
        "not assigned, unique local, link-local, site-local, multicast (RFC 4291, RFC 4193)",
    ),
];

/// The interface identifier of ISATAP (RFC 5214), which carries an IPv4 address under any prefix.
fn is_isatap(ip: Ipv6Addr) -> bool {
    let [.., a, b, _, _] = ip.segments();
    a & 0xfcff == 0 && b == 0x5efe
}

/// What makes this address special, or `None` for public unicast.
pub(crate) fn special(ip: IpAddr) -> Option<&'static str> {
    if let IpAddr::V6(v6) = ip
        && is_isatap(v6)
    {
        return Some("ISATAP, carries an IPv4 address (RFC 5214)");
    }
    SPECIAL.iter().find(|(range, _)| range.contains(ip)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_special(text: &str) -> bool {
        special(text.parse().unwrap()).is_some()
    }

    #[test]
    fn every_special_kind_is_found() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::ffff:0:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2606:4700::5efe:7f00:1",
            "2606:4700::200:5efe:7f00:1",
        ] {
            assert!(is_special(ip), "{ip} must need an explicit CIDR");
        }
    }

    #[test]
    fn public_addresses_are_not_special() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "2001:200::1",
        ] {
            assert!(!is_special(ip), "{ip} is public");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn an_address_that_std_calls_special_is_special(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            let std = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_broadcast()
                || ip.is_multicast() || ip.is_documentation() || ip.is_unspecified();
            prop_assert!(!std || special(ip.into()).is_some());
        }

        #[test]
        fn every_form_that_embeds_an_ipv4_address_is_special(bits: u32, top: u64) {
            let low = u128::from(bits);
            let forms = [
                0xffff_0000_0000 | low, low, 0x0064_ff9b_u128 << 96 | low, 0x0064_ff9b_0001_u128 << 80 | low,
                0x2002_u128 << 112 | low << 80, 0x2001_0000_u128 << 96 | low,
                u128::from(top) << 64 | 0x5efe_0000_0000 | low,
            ];
            for form in forms {
                prop_assert!(special(Ipv6Addr::from_bits(form).into()).is_some(), "{}", Ipv6Addr::from_bits(form));
            }
        }

        #[test]
        fn only_global_unicast_can_be_public(bits: u128) {
            let ip = Ipv6Addr::from_bits(bits);
            prop_assert!(special(ip.into()).is_some() || bits >> 125 == 1);
        }
    }
}
