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

use super::super::{HttpRequest, Milestones, Report};
use super::answer::Answer;
use super::classify::Failure;
use super::connect::{self, Terms};
use super::connection::Connection;
use super::dns::Resolver;
use super::meter::Meter;
use super::outgoing::Outgoing;
use super::pool::{Kept, Pool, Room};
use super::tls::{CaError, Trust};
use crate::clock;
use crate::config::{Addresses, HeaderCaps};

/// Sends requests to one upstream over connections of its own.
///
/// Small until it is used: a thousand upstreams that are never called hold neither a socket nor a certificate.
#[derive(Debug)]
pub struct Transport {
    connect_timeout: Duration,
    max_headers: HeaderCaps,
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
}

/// Why there is no way to an upstream.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the upstream's certificate authorities cannot be used")]
    Ca(#[from] CaError),
}

/// What one attempt has come to, readable at any moment.
#[derive(Debug, Default)]
struct Progress {
    /// The account of the connection in use.
    meter: Option<Arc<Meter>>,
    answer: Option<Answer>,
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
    body_bytes_max: u64,
}

impl Transport {
    /// # Errors
    /// When the certificate authority file cannot be read or holds no certificate.
    pub fn new(settings: &TransportSettings) -> Result<Self, TransportError> {
        Ok(Self {
            connect_timeout: settings.connect_timeout,
            max_headers: settings.max_headers,
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
        request: HttpRequest,
        milestones: Option<Arc<dyn Milestones>>,
        abort: CancellationToken,
    ) -> Report {
        let started = clock::now().instant;
        let wish = Wish { content_type: request.content_type.clone(), body_bytes_max: request.max_response };
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

    const fn terms(&self, allowed: Addresses) -> Terms<'_> {
        Terms { resolver: &self.resolver, trust: &self.trust, allowed, timeout: self.connect_timeout }
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
        // Idle connections first. The other side may have closed one meanwhile; as long as nothing was written to it,
        // nothing was sent, and the next one is tried.
        while let Some(kept) = self.pool.take(&outgoing.route, allowed) {
            let connection = match kept {
                Kept::Prompt(connection) => *connection,
                Kept::Resting(resting) => Connection::wake(resting, self.max_headers).await?,
            };
            let exchanged = self.exchange(connection, &outgoing, wish, milestones.clone(), progress).await;
            if exchanged.is_ok() || progress.bytes_sent() == BytesSent::Maybe {
                return exchanged;
            }
        }
        let terms = self.terms(allowed);
        // Rare, and large: most attempts need not carry it with them.
        let stream = Box::pin(connect::open(&outgoing.route, terms)).await?;
        let connection = Connection::new(stream, outgoing.route.clone(), allowed, self.max_headers).await?;
        self.exchange(connection, &outgoing, wish, milestones, progress).await
    }

    /// One request and its answer on one connection, which is kept only when the answer was read to its end.
    async fn exchange(
        &self,
        mut connection: Connection,
        outgoing: &Outgoing,
        wish: &Wish,
        milestones: Option<Arc<dyn Milestones>>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        progress.meter = Some(Arc::clone(connection.meter()));
        let (head, mut body) = connection.send(outgoing, milestones).await?.into_parts();
        let switches_protocols = head.status == StatusCode::SWITCHING_PROTOCOLS;
        // Two ideas of where the body ends (RFC 9112, section 6.3): whatever follows may be another's answer.
        let is_ambiguous = head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH);
        let answer = progress.answer.insert(Answer::new(head, wish.body_bytes_max));
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
            self.pool.put(connection);
        }
        Ok(())
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
        }
    }
}

impl Progress {
    fn bytes_sent(&self) -> BytesSent {
        self.meter.as_ref().map_or(BytesSent::No, |meter| meter.bytes_sent())
    }

    fn report(self, end: End, wish: &Wish, started: Instant) -> Report {
        let now = clock::now();
        let bytes_sent = self.bytes_sent();
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
            result: AttemptResult { status, error, retry_after, content_ok, bytes_sent, latency, size },
            aborted,
            first_byte_at: self.meter.and_then(|meter| meter.first_byte_at()),
            message,
            response,
        }
    }
}

/// Why an answer with a good status is none. What the upstream sent instead stands in the answer's headers.
fn of_another_type(wanted: &str) -> String {
    format!("the upstream's answer is not of the type {wanted}")
}
