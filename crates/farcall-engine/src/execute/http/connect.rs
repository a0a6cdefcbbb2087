//! From an origin to an open connection: name, address, TCP, the proxy, TLS, all within one timeout.
//!
//! Addresses are tried a quarter of a second apart, or at once when the one before has failed, and the first that
//! answers wins (RFC 8305). Nothing of a request is sent here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use farcall_core::call::ErrorKind;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::address;
use super::classify::Failure;
use super::dns::Resolver;
use super::outgoing::{Origin, Route};
use super::tls::{self, Offer, Trust};
use super::tunnel;
use super::wire::Stream;
use crate::config::Addresses;

/// The wait before the next address is tried beside those before it.
const STAGGER: Duration = Duration::from_millis(250);

/// Where connecting stands, for the message when its time is up.
#[derive(Clone, Copy)]
enum Phase {
    Resolve,
    Connect,
    Secure,
}

/// What a connection is opened by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) resolver: &'a Resolver,
    pub(super) trust: &'a Trust,
    /// What is offered to speak.
    pub(super) offer: Offer,
    /// Where it may lead.
    pub(super) allowed: Addresses,
    /// From the name to the end of the handshake.
    pub(super) timeout: Duration,
}

/// Opens a stream to the origin, through the proxy if there is one.
///
/// # Errors
/// `dns`, `blocked_address`, `connect` or `tls`; when the time is up it is `connect`, whatever took so long.
pub(super) async fn open(route: &Route, terms: Terms<'_>) -> Result<Stream, Failure> {
    let next = next(route);
    let mut phase = Phase::Resolve;
    let opened = tokio::time::timeout(terms.timeout, open_in_time(route, &next, terms, &mut phase)).await;
    let opened = opened.unwrap_or_else(|_| Err(timed_out(&next, phase, terms.timeout)));
    if matches!((&opened, phase), (Err(_), Phase::Connect)) {
        terms.resolver.forget(&next);
    }
    opened
}

async fn open_in_time(route: &Route, next: &Origin, terms: Terms<'_>, phase: &mut Phase) -> Result<Stream, Failure> {
    let origin = &route.origin;
    // What is checked is what is connected to: no name is looked up between the two.
    if route.proxy.is_some() && terms.allowed == Addresses::Public {
        return Err(unseen(origin));
    }
    let addresses = terms.resolver.resolve(next).await?;
    check(next, &addresses, terms.allowed)?;
    let config = if origin.secure { Some(terms.trust.config(terms.offer).await?) } else { None };
    *phase = Phase::Connect;
    let tcp = race(addresses)
        .await
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|error| Failure::new(ErrorKind::Connect, format!("no connection to {next}: {error}")))?;
    *phase = Phase::Secure;
    let tcp = match &route.proxy {
        Some(proxy) if origin.secure => tunnel::open(proxy, origin, tcp).await?,
        Some(_) | None => tcp,
    };
    match config {
        Some(config) => Ok(Stream::Tls(Box::new(tls::handshake(config, origin, tcp).await?))),
        None => Ok(Stream::Plain(tcp)),
    }
}

/// What is connected to: the origin, or the proxy.
fn next(route: &Route) -> Origin {
    match &route.proxy {
        Some(proxy) => Origin { secure: false, host: proxy.host.clone(), port: proxy.port },
        None => route.origin.clone(),
    }
}

/// A proxy looks the name up by itself, and nobody here learns what it found.
fn unseen(origin: &Origin) -> Failure {
    let message = format!("where a proxy finds {} cannot be checked, and this call may go nowhere inside", origin.host);
    Failure::new(ErrorKind::BlockedAddress, message)
}

/// One address that is not public condemns all of them: a name that has both kinds is a mistake, or an attack.
fn check(origin: &Origin, addresses: &[SocketAddr], allowed: Addresses) -> Result<(), Failure> {
    let is_allowed = |address: &SocketAddr| match allowed {
        Addresses::Any => true,
        Addresses::Public => address::is_public(address.ip()),
    };
    if addresses.iter().all(is_allowed) {
        return Ok(());
    }
    // Without the address: who asks need not learn what names mean in here.
    let message = format!(
        "{} does not lie on the public internet, and this call may go nowhere else; `addresses` in the configuration says \
         which may",
        origin.host
    );
    Err(Failure::new(ErrorKind::BlockedAddress, message))
}

/// The first connection that comes about; else the first error.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let [only] = addresses[..] {
        return TcpStream::connect(only).await;
    }
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => continue,
        };
        match ended.map(|joined| joined.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))) {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => drop(first_error.get_or_insert(error)),
            None => return Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
        }
    }
}

fn timed_out(origin: &Origin, phase: Phase, timeout: Duration) -> Failure {
    let slow = match phase {
        Phase::Resolve => "its name was not resolved",
        Phase::Connect => "no address answered",
        Phase::Secure => "the handshake (proxy and TLS) did not end",
    };
    Failure::new(ErrorKind::Connect, format!("no connection to {origin}: {slow} within {} ms", timeout.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address of this machine where nobody listens, and one where somebody does.
    async fn dead_and_alive() -> (SocketAddr, tokio::net::TcpListener) {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let dead = gone.local_addr().expect("a bound socket has an address");
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        drop(gone);
        (dead, alive)
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_to_the_next() {
        let (dead, alive) = dead_and_alive().await;
        let address = alive.local_addr().expect("a bound socket has an address");
        let tcp = race(vec![dead, address]).await.expect("the second address answers");
        assert_eq!(tcp.peer_addr().expect("a connected socket has a peer"), address);
    }

    /// An address whose queue of connections is full, so that it answers nothing at all.
    async fn silent() -> (SocketAddr, tokio::net::TcpListener, TcpStream) {
        let socket = tokio::net::TcpSocket::new_v4().expect("sockets can be made");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback can be bound");
        let listener = socket.listen(0).expect("a bound socket can listen");
        let address = listener.local_addr().expect("a bound socket has an address");
        let filler = TcpStream::connect(address).await.expect("the queue has one place");
        (address, listener, filler)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_next() {
        let (silent, _listener, _filler) = silent().await;
        let (_, alive) = dead_and_alive().await;
        let address = alive.local_addr().expect("a bound socket has an address");
        let raced = tokio::time::timeout(STAGGER * 20, race(vec![silent, address])).await;
        let tcp = raced.expect("not held up").expect("the second address answers");
        assert_eq!(tcp.peer_addr().expect("a connected socket has a peer"), address);
    }

    #[tokio::test]
    async fn waiting_for_an_address_is_bounded_and_the_message_says_so() {
        let (silent, _listener, _filler) = silent().await;
        let origin = Origin { secure: false, host: url::Host::Ipv4([127, 0, 0, 1].into()), port: silent.port() };
        let route = Route { origin, proxy: None };
        let (resolver, trust, timeout) = (Resolver::default(), Trust::default(), Duration::from_millis(20));
        let terms = Terms { resolver: &resolver, trust: &trust, offer: Offer::Both, allowed: Addresses::Any, timeout };
        let opened = open(&route, terms).await;
        let failure = opened.expect_err("nobody answers");
        assert_eq!(failure.kind, ErrorKind::Connect);
        assert!(failure.message.ends_with("no address answered within 20 ms"), "{}", failure.message);
    }

    #[tokio::test]
    async fn when_all_refuse_the_error_is_that_of_the_first() {
        let (dead, _alive) = dead_and_alive().await;
        let error = race(vec![dead, dead]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
