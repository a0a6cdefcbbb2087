//! Which addresses lie on the public internet, by IANA's registries of special-purpose addresses.
//!
//! Asked for every address that a connection is about to be opened to, after all names and spellings were resolved: an
//! address has one form here, whatever was written. IPv6 is refused unless it is known to be public. Addresses that
//! carry another one inside (NAT64) are judged by that, or refused when nobody knows where they end (6to4, Teredo).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses: its first one and the length of what all of them have in common, in bits.
type Block<A> = (A, u32);

/// RFC 6890 and the registry as of 2026, without the three blocks that are globally reachable (AS112, AMT), and with
/// two that are not in it.
const SPECIAL_V4: &[Block<Ipv4Addr>] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),     // this network: Linux takes 0.0.0.0 for this machine
    (Ipv4Addr::new(10, 0, 0, 0), 8),    // private
    (Ipv4Addr::new(100, 64, 0, 0), 10), // shared by a carrier's customers; also a cloud's metadata
    (Ipv4Addr::new(127, 0, 0, 0), 8),   // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // a cloud's own services, behind a public address
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local, and the metadata of most clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12), // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),  // protocol assignments; also a cloud's metadata
    (Ipv4Addr::new(192, 0, 2, 0), 24),  // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24), // 6to4 relays, given up
    (Ipv4Addr::new(192, 168, 0, 0), 16), // private
    (Ipv4Addr::new(198, 18, 0, 0), 15), // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24), // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),   // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),   // reserved, and broadcast
];

/// All that IANA has given out for use on the internet.
const GLOBAL_UNICAST: Block<Ipv6Addr> = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// What is special within it.
const SPECIAL_V6: &[Block<Ipv6Addr>] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo among them
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];
/// IPv4 behind a translator (RFC 6052): on networks without IPv4 every name leads here.
const NAT64: Block<Ipv6Addr> = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether an address is one that anybody on the internet could reach.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let in_block = |&(first, bits): &Block<Ipv4Addr>| (address.to_bits() ^ first.to_bits()) >> (32 - bits) == 0;
    !SPECIAL_V4.iter().any(in_block)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let in_block = |&(first, bits): &Block<Ipv6Addr>| (address.to_bits() ^ first.to_bits()) >> (128 - bits) == 0;
    if in_block(&NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    in_block(&GLOBAL_UNICAST) && !SPECIAL_V6.iter().any(in_block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for text in addresses {
            let address = text.parse().expect("an address");
            assert_eq!(is_public(address), expected, "{text}");
        }
    }

    /// The first and the last address of every block that is refused.
    #[test]
    fn special_addresses_are_not_public() {
        check(&["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"], false);
        check(&["127.0.0.0", "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.169.254"], false);
        check(&["169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.192", "192.0.0.255"], false);
        check(&["192.0.2.0", "192.0.2.255", "192.88.99.0", "192.88.99.255", "192.168.0.0", "192.168.255.255"], false);
        check(&["198.18.0.0", "198.19.255.255", "198.51.100.0", "198.51.100.255", "203.0.113.0"], false);
        check(&["203.0.113.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"], false);
        check(&["100.100.100.200", "168.63.129.16"], false);
        check(
            &["::", "::1", "::7f00:1", "::808:808", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"],
            false,
        );
        check(&["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b:1::808:808", "100::1"], false);
        check(&["100:0:0:1::1", "2001::", "2001:0:7f00:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"], false);
        check(&["2001:db8::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2002:7f00:1::", "2002:808:808::1"], false);
        check(&["3fff::1", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::1", "5f00::1", "1fff::1"], false);
        check(&["fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "febf::1", "fec0::1", "ff02::1"], false);
        check(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"], false);
    }

    /// Their neighbours, and some that are known to everybody.
    #[test]
    fn all_others_are() {
        check(&["1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"], true);
        check(&["126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255"], true);
        check(&["169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0"], true);
        check(&["192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"], true);
        check(&["198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0"], true);
        check(&["223.255.255.255", "2000::", "2001:200::", "2001:4860:4860::8888", "2001:db7:ffff::"], true);
        check(&["2001:db9::", "2003::1", "2606:4700::1111", "3ffe:ffff::", "3fff:1000::"], true);
        check(&["64:ff9b::808:808"], true);
    }
}
