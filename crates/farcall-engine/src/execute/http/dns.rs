//! From a host to the addresses worth trying, in the order to try them.
//!
//! The platform's own resolver answers (hosts file, nsswitch), on the runtime's blocking threads. Nothing is cached.

use std::net::{IpAddr, SocketAddr};

use farcall_core::call::ErrorKind;
use url::Host;

use super::classify::Failure;
use super::outgoing::Origin;

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 16;

/// The addresses of an origin, never none.
pub(super) async fn resolve(origin: &Origin) -> Result<Vec<SocketAddr>, Failure> {
    let name = match &origin.host {
        Host::Ipv4(address) => return Ok(vec![(IpAddr::V4(*address), origin.port).into()]),
        Host::Ipv6(address) => return Ok(vec![(IpAddr::V6(*address), origin.port).into()]),
        Host::Domain(name) => name,
    };
    let found = tokio::net::lookup_host((name.as_str(), origin.port)).await;
    let addresses = match found {
        Ok(addresses) => alternate(addresses),
        Err(error) => return Err(Failure::new(ErrorKind::Dns, format!("the name {name} was not found: {error}"))),
    };
    if addresses.is_empty() {
        return Err(Failure::new(ErrorKind::Dns, format!("the name {name} has no address")));
    }
    Ok(addresses)
}

/// The two families in turn, beginning with the one the resolver put first (RFC 8305, section 4).
fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let Some(first) = addresses.peek().map(SocketAddr::is_ipv4) else { return Vec::new() };
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv4() == first);
    let mut other = other.into_iter();
    let mut ordered = Vec::new();
    for address in preferred {
        ordered.push(address);
        ordered.extend(other.next());
    }
    ordered.extend(other);
    ordered.truncate(ADDRESSES_MAX);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], expected: &[&str]) {
        let read = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 80)).collect()
        };
        assert_eq!(alternate(read(given).into_iter()), read(expected), "{given:?}");
    }

    #[test]
    fn families_take_turns_and_the_resolvers_first_choice_stays_first() {
        check(&[], &[]);
        check(&["10.0.0.1", "10.0.0.2"], &["10.0.0.1", "10.0.0.2"]);
        check(&["::1", "::2", "::3", "10.0.0.1"], &["::1", "10.0.0.1", "::2", "::3"]);
        check(&["10.0.0.1", "::1", "::2", "::3"], &["10.0.0.1", "::1", "::2", "::3"]);
    }

    #[test]
    fn a_name_with_many_addresses_is_cut() {
        let many = (0..100u8).map(|last| SocketAddr::from(([10, 0, 0, last], 80)));
        assert_eq!(alternate(many).len(), ADDRESSES_MAX);
    }
}
