//! From a host to the addresses worth trying, in the order to try them.
//!
//! The platform's own resolver answers (hosts file, nsswitch). It blocks a thread, cannot be cancelled and tells no
//! time to live, so there is one [`Resolver`] for all upstreams: it asks once for everybody who waits for a name, about a
//! bounded number of names at a time, and believes an answer for seconds. What addresses may be used is not its matter.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::call::ErrorKind;
use farcall_core::time::Instant;
use tokio::sync::{Semaphore, watch};
use url::Host;

use super::classify::Failure;
use super::outgoing::Origin;
use crate::clock;

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 16;
/// Names looked up at a time. Each takes a thread until it is answered.
const LOOKUPS_MAX: usize = 16;
/// How long an answer is believed, unless connecting by it failed.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// Names remembered.
const NAMES_MAX: usize = 1_024;

/// Looks up names for everybody.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
/// Addresses, or why there are none.
type Answer = Result<Arc<[IpAddr]>, Arc<str>>;

struct Shared {
    lookup: Box<Lookup>,
    believed_for: Duration,
    lookups: Arc<Semaphore>,
    names: Mutex<HashMap<Box<str>, Name>>,
}

/// What is known of a name.
#[derive(Clone)]
enum Name {
    /// Being looked up; nothing until that is over.
    Asked(watch::Receiver<Option<Answer>>),
    Known {
        addresses: Arc<[IpAddr]>,
        until: Instant,
    },
}

impl Resolver {
    fn new(believed_for: Duration, lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let lookups = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self { shared: Arc::new(Shared { lookup: Box::new(lookup), believed_for, lookups, names: Mutex::default() }) }
    }

    /// The addresses of an origin, never none.
    pub(super) async fn resolve(&self, origin: &Origin) -> Result<Vec<SocketAddr>, Failure> {
        let name = match &origin.host {
            Host::Ipv4(address) => return Ok(vec![(IpAddr::V4(*address), origin.port).into()]),
            Host::Ipv6(address) => return Ok(vec![(IpAddr::V6(*address), origin.port).into()]),
            Host::Domain(name) => name,
        };
        match self.addresses(name).await {
            Ok(addresses) if addresses.is_empty() => {
                Err(Failure::new(ErrorKind::Dns, format!("the name {name} has no address")))
            }
            Ok(addresses) => Ok(addresses.iter().map(|&address| (address, origin.port).into()).collect()),
            Err(error) => Err(Failure::new(ErrorKind::Dns, format!("the name {name} was not found: {error}"))),
        }
    }

    /// Nobody answered at the addresses of this name: they may have changed.
    pub(super) fn forget(&self, origin: &Origin) {
        let Host::Domain(name) = &origin.host else { return };
        let mut names = self.shared.names();
        if matches!(names.get(name.as_str()), Some(Name::Known { .. })) {
            names.remove(name.as_str());
        }
    }

    async fn addresses(&self, name: &str) -> Answer {
        let known = match self.shared.known(name) {
            Some(known) => known,
            None => self.ask(name).await,
        };
        let mut asked = match known {
            Name::Known { addresses, .. } => return Ok(addresses),
            Name::Asked(asked) => asked,
        };
        match asked.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().expect("it was waited for"),
            Err(_) => Err("the lookup broke down".into()),
        }
    }

    /// Has a name looked up, unless that was begun while this waited for its turn.
    async fn ask(&self, name: &str) -> Name {
        let turn = Arc::clone(&self.shared.lookups).acquire_owned().await.expect("it is never closed");
        if let Some(known) = self.shared.known(name) {
            return known;
        }
        let (sender, asked) = watch::channel(None);
        self.shared.names().insert(name.into(), Name::Asked(asked.clone()));
        let (shared, name) = (Arc::clone(&self.shared), Box::<str>::from(name));
        // Goes on when whoever asked has given up: nothing can stop it, and others may wait for it.
        tokio::task::spawn_blocking(move || {
            let answer = (shared.lookup)(&name).map(alternate).map_err(|error| error.to_string().into());
            shared.learn(name, &answer);
            drop(turn);
            let _ = sender.send(Some(answer));
        });
        Name::Asked(asked)
    }
}

impl Shared {
    /// Nothing when somebody must ask.
    fn known(&self, name: &str) -> Option<Name> {
        let names = self.names();
        let known = names.get(name)?;
        let is_of_use = match known {
            Name::Known { until, .. } => clock::instant() < *until,
            // A lookup that broke down answers nobody any more.
            Name::Asked(asked) => asked.borrow().is_some() || asked.has_changed().is_ok(),
        };
        is_of_use.then(|| known.clone())
    }

    /// Only what was found is remembered: a name that is missing now may be there the next moment.
    fn learn(&self, name: Box<str>, answer: &Answer) {
        let now = clock::instant();
        let mut names = self.names();
        names.remove(&name);
        let Ok(addresses) = answer else { return };
        if names.len() >= NAMES_MAX {
            names.retain(|_, name| !matches!(name, Name::Known { until, .. } if *until <= now));
        }
        if names.len() < NAMES_MAX {
            names.insert(name, Name::Known { addresses: Arc::clone(addresses), until: now + self.believed_for });
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Box<str>, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(BELIEVED_FOR, |name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("names", &self.shared.names().len()).finish_non_exhaustive()
    }
}

/// The two families in turn, beginning with the one the resolver put first (RFC 8305, section 4).
fn alternate(addresses: Vec<IpAddr>) -> Arc<[IpAddr]> {
    let Some(first) = addresses.first().map(IpAddr::is_ipv4) else { return Arc::new([]) };
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4() == first);
    let mut other = other.into_iter();
    let mut ordered = Vec::new();
    for address in preferred {
        ordered.push(address);
        ordered.extend(other.next());
    }
    ordered.extend(other);
    ordered.truncate(ADDRESSES_MAX);
    ordered.into()
}

#[cfg(test)]
mod tests;
