//! Who opens a connection, and who waits for one that somebody else is opening.
//!
//! A connection that is being opened may carry many requests. As long as nobody knows whether it will, or when it is
//! known to, further attempts wait for it instead of opening one each. What fails for the one that opens fails for all
//! that waited for it: nobody waits longer than the time for one connection.

use std::sync::Arc;

use tokio::sync::Notify;

use super::classify::Failure;
use super::outgoing::Route;
use super::tls::Offer;
use crate::config::Addresses;

/// Ways remembered; the oldest that nobody waits on is forgotten.
const WAYS_MAX: usize = 64;

/// All ways that were taken.
#[derive(Debug, Default)]
pub(super) struct Ways(Vec<Way>);

/// A route, and where its connections may lead.
#[derive(Debug)]
pub(super) struct Way {
    route: Route,
    allowed: Addresses,
    pub(super) speaks: Option<Speaks>,
    openings: usize,
    pub(super) waiting: usize,
    pub(super) failures: u64,
    pub(super) failure: Option<Failure>,
    pub(super) news: Arc<Notify>,
}

/// What the other side was last found to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    /// It asked for that although it offered more.
    OnlyHttp1,
    /// So many requests at once on one connection.
    Http2 {
        capacity: usize,
    },
}

/// What whoever finds no connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Open,
    Wait,
}

impl Ways {
    /// The way of this route, made when it is new.
    pub(super) fn get(&mut self, route: &Route, allowed: Addresses) -> &mut Way {
        let place = self.0.iter().position(|way| way.allowed == allowed && way.route == *route);
        let place = place.unwrap_or_else(|| {
            let unused = self.0.iter().position(|way| way.openings == 0 && way.waiting == 0);
            if let Some(unused) = unused.filter(|_| self.0.len() >= WAYS_MAX) {
                self.0.remove(unused);
            }
            self.0.push(Way::new(route.clone(), allowed));
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

impl Way {
    fn new(route: Route, allowed: Addresses) -> Self {
        // Without TLS nobody is asked (RFC 9113, section 3.3, has no other way than to know).
        let speaks = (!route.origin.secure).then_some(Speaks::Http1);
        Self { route, allowed, speaks, openings: 0, waiting: 0, failures: 0, failure: None, news: Arc::default() }
    }

    /// Open or wait? Who opens says how that ended, with [`Self::opened`] or [`Self::failed`].
    pub(super) fn turn(&mut self) -> Turn {
        let room = match self.speaks {
            Some(Speaks::Http1 | Speaks::OnlyHttp1) => 0,
            Some(Speaks::Http2 { capacity }) => self.openings.saturating_mul(capacity.saturating_sub(1)),
            None if self.openings == 0 => 0,
            None => usize::MAX,
        };
        if self.waiting < room {
            return Turn::Wait;
        }
        self.openings += 1;
        Turn::Open
    }

    pub(super) fn offer(&self) -> Offer {
        match self.speaks {
            Some(Speaks::OnlyHttp1) => Offer::Http1,
            Some(Speaks::Http1 | Speaks::Http2 { .. }) | None => Offer::Both,
        }
    }

    /// Whoever was opening is done, or has been given up.
    pub(super) fn closed(&mut self) {
        self.openings -= 1;
        self.news.notify_waiters();
    }

    pub(super) fn opened(&mut self, speaks: Speaks) {
        if self.speaks != Some(Speaks::OnlyHttp1) {
            self.speaks = Some(speaks);
        }
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.failures += 1;
        self.failure = Some(failure.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::Turn::{Open, Wait};
    use super::*;
    use crate::execute::http::outgoing::Origin;

    fn route(port: u16) -> Route {
        let origin = Origin { secure: true, host: url::Host::Domain("a.test".to_owned()), port };
        Route { origin, proxy: None }
    }

    /// The turns of so many attempts that come one after the other, those that wait waiting on.
    fn turns(speaks: Option<Speaks>, attempts: usize) -> Vec<Turn> {
        let mut ways = Ways::default();
        let way = ways.get(&route(1), Addresses::Any);
        way.speaks = speaks;
        let turn = |_| {
            let turn = way.turn();
            way.waiting += usize::from(turn == Wait);
            turn
        };
        (0..attempts).map(turn).collect()
    }

    #[test]
    fn one_finds_out_what_is_spoken_there() {
        assert_eq!(turns(None, 4), [Open, Wait, Wait, Wait]);
    }

    #[test]
    fn connections_that_carry_one_request_are_opened_by_everybody() {
        assert_eq!(turns(Some(Speaks::Http1), 3), [Open; 3]);
        assert_eq!(turns(Some(Speaks::OnlyHttp1), 3), [Open; 3]);
        assert_eq!(turns(Some(Speaks::Http2 { capacity: 1 }), 3), [Open; 3]);
    }

    #[test]
    fn as_many_are_opened_as_those_who_wait_need() {
        assert_eq!(turns(Some(Speaks::Http2 { capacity: 3 }), 7), [Open, Wait, Wait, Open, Wait, Wait, Open]);
    }

    #[test]
    fn ways_differ_by_where_they_may_lead_and_are_not_remembered_without_end() {
        let mut ways = Ways::default();
        ways.get(&route(1), Addresses::Any).opened(Speaks::Http1);
        assert_eq!(ways.get(&route(1), Addresses::Public).speaks, None);
        assert_eq!(ways.get(&route(1), Addresses::Any).speaks, Some(Speaks::Http1));
        for port in 0..1_000 {
            ways.get(&route(port), Addresses::Any);
        }
        assert_eq!(ways.0.len(), WAYS_MAX);
    }

    #[test]
    fn who_asked_for_http1_is_not_offered_more() {
        let mut ways = Ways::default();
        let way = ways.get(&route(1), Addresses::Any);
        assert_eq!(way.offer(), Offer::Both);
        way.opened(Speaks::OnlyHttp1);
        way.opened(Speaks::Http2 { capacity: 9 });
        assert_eq!(way.offer(), Offer::Http1);
    }
}
