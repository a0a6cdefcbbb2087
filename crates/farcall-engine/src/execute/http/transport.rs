//! The way to one upstream, and the course of one attempt on it: an idle connection or a new one, the request, the
//! head, the body, the report.
//!
//! Nothing is decided here about what an answer or a failure means; how long to wait is the caller's business too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::ErrorKind;
use farcall_core::time::Instant;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use super::super::{Coding, HttpRequest, Milestones, Report};
use super::answer::Answer;
use super::classify::Failure;
use super::connect::{self, Terms};
use super::connection::Connection;
use super::dns::Resolver;
use super::http2;
use super::meter::Meter;
use super::outgoing::{Outgoing, Route};
use super::pool::{Found, Line, Opening, Pool};
use super::room::Room;
use super::tls::{CaError, Offer, Trust};
use crate::clock;
use crate::config::{Addresses, HeaderCaps};

/// Sends requests to one upstream over connections of its own.
///
/// Small until it is used: a thousand upstreams that are never called hold neither a socket nor a certificate.
#[derive(Debug)]
pub struct Transport {
    connect_timeout: Duration,
    http2: http2::Terms,
    resolver: Resolver,
    trust: Trust,
    pool: Pool,
}

/// What is particular to an upstream.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// The same for all upstreams, so that they share what it knows.
    pub resolver: Resolver,
    /// The same for all upstreams: what they may keep together.
    pub room: Room,
    /// From looking up the name to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// A PEM file of certificate authorities that are trusted beside the platform's.
    pub ca_file: Option<PathBuf>,
    /// Caps on the head of an answer; over them it is `too_large`.
    pub max_headers: HeaderCaps,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections kept; the oldest give way.
    pub idle_max: usize,
    /// Requests at once on one HTTP/2 connection; for more than these, or than the other side allows, another is opened.
    pub streams_max: usize,
    /// While answers are awaited on an HTTP/2 connection, the other side is asked whether it is still there when it was
    /// silent for twice this long, and given up after twice this long more.
    pub keep_alive: Duration,
}

/// Places on HTTP/2 connections that may turn out to be of no use, one after the other, before an attempt fails.
const STALE_PLACES_MAX: usize = 3;

/// Why there is no way to an upstream.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the upstream's certificate authorities cannot be used")]
    Ca(#[from] CaError),
}

/// What one attempt has come to, readable at any moment.
#[derive(Debug, Default)]
struct Progress {
    account: Account,
    answer: Option<Answer>,
}

/// What went out and came in for a request.
#[derive(Debug, Default)]
enum Account {
    /// There was no connection yet.
    #[default]
    None,
    /// That of the connection in use.
    Open(Arc<Meter>),
    /// The connection may carry somebody else's request since, whose account the meter is.
    Closed { bytes_sent: BytesSent, first_byte_at: Option<Instant> },
}

/// How an attempt ended.
enum End {
    Complete,
    Failed(Failure),
    Aborted,
}

/// What the request says about its answer.
struct Wish {
    content_type: Option<String>,
    coding: Coding,
    body_bytes_max: u64,
}

impl Transport {
    /// # Errors
    /// When the certificate authority file cannot be read or holds no certificate.
    pub fn new(settings: &TransportSettings) -> Result<Self, TransportError> {
        Ok(Self {
            connect_timeout: settings.connect_timeout,
            http2: http2::Terms {
                caps: settings.max_headers,
                streams_max: settings.streams_max.max(1),
                round: settings.keep_alive,
            },
            resolver: settings.resolver.clone(),
            trust: Trust::new(settings.ca_file.as_deref())?,
            pool: Pool::new(settings.idle_timeout, settings.idle_max, settings.room.clone()),
        })
    }

    /// Sends the request once and reports once.
    ///
    /// Nothing is sent a second time: only a reused connection that turns out dead before a single byte of the request
    /// was written to it is replaced by another. Timeouts are the caller's: cancelling `abort` ends the attempt and
    /// closes its connection at once, and the report then says `aborted`, without an error. Dropping the future does
    /// the same without a report.
    ///
    /// # Example
    /// ```no_run
    /// # use farcall_engine::execute::{HttpRequest, http::{Transport, TransportSettings}};
    /// # async fn example(request: HttpRequest) -> Result<(), Box<dyn std::error::Error>> {
    /// let transport = Transport::new(&TransportSettings::default())?;
    /// let report = transport.execute(request, None, Default::default()).await;
    /// println!("{:?}, {:?}", report.result.status, report.message);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn execute(
        &self,
        mut request: HttpRequest,
        milestones: Option<Arc<dyn Milestones>>,
        abort: CancellationToken,
    ) -> Report {
        let started = clock::instant();
        let content_type = request.content_type.take();
        let wish = Wish { content_type, coding: request.coding, body_bytes_max: request.max_response };
        let mut progress = Progress::default();
        let end = tokio::select! {
            biased;
            () = abort.cancelled_owned() => End::Aborted,
            end = self.attempt(request, &wish, milestones, &mut progress) => end,
        };
        progress.report(end, &wish, started)
    }

    /// Closes connections that have been idle too long. Otherwise that waits for the next request.
    pub fn prune(&self) {
        self.pool.prune();
    }

    const fn terms(&self, allowed: Addresses, offer: Offer) -> Terms<'_> {
        Terms { resolver: &self.resolver, trust: &self.trust, offer, allowed, timeout: self.connect_timeout }
    }

    async fn attempt(
        &self,
        request: HttpRequest,
        wish: &Wish,
        milestones: Option<Arc<dyn Milestones>>,
        progress: &mut Progress,
    ) -> End {
        match self.send_once(request, wish, milestones, progress).await {
            Ok(()) => End::Complete,
            Err(failure) => End::Failed(failure),
        }
    }

    async fn send_once(
        &self,
        request: HttpRequest,
        wish: &Wish,
        milestones: Option<Arc<dyn Milestones>>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let allowed = request.addresses;
        let outgoing = Outgoing::prepare(request)?;
        let mut stale_places = 0;
        // Open connections first. The other side may have closed one meanwhile; as long as nothing was written to it,
        // nothing was sent, and the next one is tried.
        loop {
            let (line, is_new) = match self.pool.reuse(&outgoing.route, allowed) {
                Some(line) => (line, false),
                // Rare, and large: most attempts need not carry it with them.
                None => Box::pin(self.line(&outgoing.route, allowed)).await?,
            };
            stale_places += usize::from(matches!(line, Line::Http2(_)));
            let milestones = milestones.clone();
            let exchanged = match line {
                Line::Http1(connection) => self.exchange(connection, &outgoing, wish, milestones, progress).await,
                Line::Resting(resting) => {
                    let woken = Box::pin(Connection::wake(resting, self.http2.caps)).await?;
                    self.exchange(Box::new(woken), &outgoing, wish, milestones, progress).await
                }
                // On the heap, so that attempts over HTTP/1.1 do not carry it with them.
                Line::Http2(place) => {
                    Box::pin(self.exchange_among_others(place, &outgoing, wish, milestones, progress)).await
                }
            };
            let is_last = is_new || stale_places == STALE_PLACES_MAX;
            if is_last || exchanged.is_ok() || progress.account.bytes_sent() != BytesSent::No {
                return exchanged;
            }
        }
    }

    /// A connection that others have opened meanwhile, or a new one; which of the two is told beside it.
    async fn line(&self, route: &Route, allowed: Addresses) -> Result<(Line, bool), Failure> {
        match self.pool.take(route, allowed).await? {
            Found::Line(line) => Ok((line, false)),
            Found::Nothing(opening) => Ok((self.open(route, allowed, opening).await?, true)),
        }
    }

    /// A new connection, which others may use too when it is of HTTP/2.
    async fn open(&self, route: &Route, allowed: Addresses, opening: Opening<'_>) -> Result<Line, Failure> {
        let opened = async {
            let started = clock::instant();
            let stream = connect::open(route, self.terms(allowed, opening.offer)).await?;
            if !stream.speaks_http2() {
                let connection = Connection::new(stream, route.clone(), allowed, self.http2.caps).await?;
                return Ok(Line::Http1(Box::new(connection)));
            }
            let left = self.connect_timeout.saturating_sub(clock::instant().since(started));
            let home = http2::Home { freed: Arc::clone(&opening.freed), room: self.pool.room.clone() };
            let opened = http2::Connection::open(stream, route.clone(), allowed, self.http2, home);
            let opened =
                tokio::time::timeout(left, opened).await.unwrap_or_else(|_| Err(silent(self.connect_timeout)))?;
            opening.carries_many(opened).map(Line::Http2).ok_or_else(ended_at_once)
        };
        let opened = opened.await;
        match &opened {
            Ok(Line::Http1(_) | Line::Resting(_)) => opening.carries_one(),
            Ok(Line::Http2(_)) => {}
            Err(failure) => opening.failed(failure),
        }
        opened
    }

    /// One request and its answer on one connection, which is kept only when the answer was read to its end.
    async fn exchange(
        &self,
        mut connection: Box<Connection>,
        outgoing: &Outgoing,
        wish: &Wish,
        milestones: Option<Arc<dyn Milestones>>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        progress.account = Account::Open(Arc::clone(connection.meter()));
        let (head, mut body) = connection.send(outgoing, milestones).await?.into_parts();
        let switches_protocols = head.status == StatusCode::SWITCHING_PROTOCOLS;
        // Two ideas of where the body ends (RFC 9112, section 6.3): whatever follows may be another's answer.
        let is_ambiguous = head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH);
        let answer = progress.answer.insert(Answer::new(head, wish.coding, wish.body_bytes_max));
        if switches_protocols {
            return Err(Failure::new(ErrorKind::Protocol, "the answer switches protocols, which nobody asked for"));
        }
        if body.size_hint().exact().is_some_and(|announced| answer.body.refuses(announced)) {
            return Err(answer.body.too_large());
        }
        while let Some(piece) = connection.next_piece(&mut body).await {
            answer.body.push(&piece?).await?;
        }
        answer.body.finish()?;
        if connection.settle() && !is_ambiguous {
            progress.account.close();
            self.pool.put(connection);
        }
        Ok(())
    }

    /// One request and its answer on a stream of a connection that others use too.
    async fn exchange_among_others(
        &self,
        place: http2::Place,
        outgoing: &Outgoing,
        wish: &Wish,
        milestones: Option<Arc<dyn Milestones>>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let meter = Arc::<Meter>::default();
        progress.account = Account::Open(Arc::clone(&meter));
        meter.begin(outgoing.carrying(), milestones);
        let mut exchange = place.begin(outgoing, &meter)?;
        let route = &outgoing.route;
        let (head, announced) = exchange.head(|allowed| self.pool.use_http1(route, allowed)).await?;
        let answer = progress.answer.insert(Answer::new(head, wish.coding, wish.body_bytes_max));
        if announced.is_some_and(|announced| answer.body.refuses(announced)) {
            return Err(answer.body.too_large());
        }
        while let Some(piece) = exchange.next_piece().await {
            answer.body.push(&piece?).await?;
        }
        answer.body.finish()
    }
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            resolver: Resolver::default(),
            room: Room::default(),
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
            max_headers: HeaderCaps::default(),
            idle_timeout: Duration::from_secs(60),
            idle_max: 256,
            streams_max: 100,
            keep_alive: Duration::from_secs(5),
        }
    }
}

impl Account {
    fn bytes_sent(&self) -> BytesSent {
        match self {
            Self::None => BytesSent::No,
            Self::Open(meter) => meter.bytes_sent(),
            Self::Closed { bytes_sent, .. } => *bytes_sent,
        }
    }

    fn first_byte_at(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Open(meter) => meter.first_byte_at(),
            Self::Closed { first_byte_at, .. } => *first_byte_at,
        }
    }

    /// The connection is about to be let go.
    fn close(&mut self) {
        *self = Self::Closed { bytes_sent: self.bytes_sent(), first_byte_at: self.first_byte_at() };
    }
}

impl Progress {
    fn report(self, end: End, wish: &Wish, started: Instant) -> Report {
        let now = clock::now();
        let bytes_sent = self.account.bytes_sent();
        let status = self.answer.as_ref().map(Answer::status);
        let retry_after = self.answer.as_ref().and_then(|answer| answer.retry_after(now.timestamp));
        let content_ok = match &self.answer {
            Some(answer) => answer.is_of_type(wish.content_type.as_deref()),
            None => wish.content_type.is_none(),
        };
        let response = self.answer.map(Answer::into_record);
        let aborted = matches!(end, End::Aborted);
        let (error, message) = match end {
            End::Failed(failure) => (Some(failure.kind), Some(failure.message)),
            End::Complete => (None, wish.content_type.as_deref().filter(|_| !content_ok).map(of_another_type)),
            End::Aborted => (None, None),
        };
        let size = response.as_ref().map_or(0, |response| response.body.len() as u64);
        let latency = now.instant.since(started);
        Report {
            result: AttemptResult { status, error, retry_after, redirect: None, content_ok, bytes_sent, latency, size },
            aborted,
            first_byte_at: self.account.first_byte_at(),
            message,
            response,
            trace: None,
        }
    }
}

fn silent(timeout: Duration) -> Failure {
    let message = format!("the other side did not tell its HTTP/2 settings within {} ms", timeout.as_millis());
    Failure::new(ErrorKind::Connect, message)
}

fn ended_at_once() -> Failure {
    Failure::new(ErrorKind::Connect, "the new HTTP/2 connection takes no requests")
}

/// Why an answer with a good status is none. What the upstream sent instead stands in the answer's headers.
fn of_another_type(wanted: &str) -> String {
    format!("the upstream's answer is not of the type {wanted}")
}

#[cfg(test)]
mod tests;
