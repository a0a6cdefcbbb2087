//! Making attempts: each is a task that loads what it needs, sends once and reports once.
//!
//! Cutting an attempt off closes its connection, or ends its program; the report says whether anything was sent.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{ErrorKind, UpstreamId};
use farcall_core::dispatcher::Event;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::{Instant, Now};
use farcall_crash::{self as crash, Point};
use farcall_store::record::{CallRecord, RequestRecord};
use tokio_util::sync::CancellationToken;

use super::departure::Departure;
use super::documents::Kept;
use super::loading::Unread;
use super::news::{News, Told};
use super::pending::Running;
use super::runners::{Job, Runner};
use super::{Run, casualty};
use crate::callback::{self, stored::Stored};
use crate::clock;
use crate::config::{Config, Upstream};
use crate::document::{Routing, UpstreamRef};
use crate::execute::http::Transport;
use crate::execute::process::{Command, Spawner};
use crate::execute::{HttpRequest, Milestones, Report};
use crate::forward::Request;
use crate::reads::Reads;
use crate::redirect::{Asked, Next};
use crate::request;
use crate::result_file::Filing;
use crate::trace::TraceContext;
use crate::upstreams::{Known, Serves};

/// An attempt that is to be made.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: AttemptId,
    pub(super) around: Arc<Surroundings>,
    abort: CancellationToken,
    departure: Arc<Departure>,
}

/// What all attempts work with.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) directory: PathBuf,
    pub(super) filing: Arc<Filing>,
    pub(super) config: Arc<Config>,
    pub(super) reads: Arc<Reads>,
    pub(super) news: Arc<News>,
}

/// Where an attempt goes.
#[derive(Debug)]
pub(super) enum Target {
    /// Without its document, it reads that itself.
    Http {
        kept: Option<Arc<Kept>>,
        way: Way,
    },
    /// Of a call that somebody waits for.
    Forward {
        request: Arc<Request>,
        way: Way,
    },
    /// To where redirects have led the call.
    Hop {
        home: Way,
        there: Way,
    },
    Webhook {
        way: Way,
    },
    Command {
        spawner: Arc<Spawner>,
    },
}

/// The way to an upstream.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) reference: Arc<UpstreamRef>,
    pub(super) settings: Arc<Upstream>,
    pub(super) transport: Arc<Transport>,
    wants_milestones: bool,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) report: Report,
    /// What the answer asks for, when that may be followed.
    pub(super) next: Option<Next>,
}

/// A request, and the trace it belongs to.
type Prepared = (HttpRequest, Option<Arc<TraceContext>>);

/// Passes an attempt's milestones on to the loop.
struct Teller {
    id: AttemptId,
    news: Arc<News>,
}

impl Run {
    /// Makes an attempt of a call of this upstream, or where redirects have led it.
    pub(super) fn launch(
        &mut self,
        id: AttemptId,
        (upstream, hop): (UpstreamId, Option<UpstreamId>),
        not_after: Option<Instant>,
    ) {
        let now = clock::now();
        let is_late = not_after.is_some_and(|at| at <= now.instant);
        if is_late {
            self.dispatcher.handle(now, Event::Aborted { attempt: id, wrote: BytesSent::No });
            return;
        }
        self.dispatcher.handle(now, Event::Launched { attempt: id });
        let runner = self.runners.take(&self.tasks);
        let (abort, departure) = (runner.abort().clone(), Arc::clone(runner.departure()));
        let running = Running { abort: abort.clone(), departure: Arc::clone(&departure) };
        self.pending.running.insert(id, running);
        let attempt = Attempt { id, around: Arc::clone(&self.around), abort, departure };
        match self.target(id.call, upstream, hop) {
            Target::Http { kept: None, way } => self.pending.unread.push(Unread { attempt, way, runner }),
            target => Job { attempt, target, runner }.begin(),
        }
    }

    fn target(&self, call: CallId, upstream: UpstreamId, hop: Option<UpstreamId>) -> Target {
        let Some(known) = self.upstreams.get(upstream) else {
            return Target::Command { spawner: Arc::clone(&self.spawner) };
        };
        let way = Way::to(known);
        if let Some(request) = self.forwards.request(call) {
            return Target::Forward { request, way };
        }
        match hop.map(|hop| self.upstreams.get(hop).expect("a redirect leads to an upstream that is known")) {
            Some(there) => Target::Hop { home: way, there: Way::to(there) },
            None if known.serves == Serves::Webhooks => Target::Webhook { way },
            None => Target::Http { kept: self.documents.get(call), way },
        }
    }

    pub(super) fn abort(&mut self, id: AttemptId) {
        // One that has reported meanwhile needs no cutting off.
        if let Some(running) = self.pending.running.get(&id) {
            running.abort.cancel();
        }
    }

    pub(super) fn reported(&mut self, now: Now, id: AttemptId, report: Box<Report>, next: Option<Next>) {
        self.pending.running.remove(&id);
        if let Some(upstream) = self.dispatcher.upstream_of(id.call) {
            self.stats.note_attempt(upstream, report.result.latency);
        }
        if let Some(at) = report.first_byte_at {
            self.dispatcher.handle(now, Event::FirstByte { attempt: id, at });
        }
        let event = if report.aborted {
            Event::Aborted { attempt: id, wrote: report.result.bytes_sent }
        } else {
            let redirect = next.and_then(|next| self.redirect(now, id, next));
            Event::Finished { attempt: id, result: AttemptResult { redirect, ..report.result } }
        };
        self.pending.reports.insert(id, report);
        self.dispatcher.handle(now, event);
    }
}

impl Attempt {
    pub(super) async fn run(self, target: Target, runner: Runner) {
        let made = pin!(async {
            let made = self.make(target).await;
            crash::reach(Point::AttemptEnded);
            made
        });
        let Made { report, next } = casualty::made(made).await;
        self.around.news.tell(Told::Reported { attempt: self.id, report: Box::new(report), next, runner });
    }

    async fn make(&self, target: Target) -> Made {
        crash::reach(Point::AttemptBegun);
        match target {
            Target::Http { kept, way } => match self.prepare(kept, &way).await {
                Ok((request, trace)) => {
                    let asked = way.follows().then(|| Asked::first(&request));
                    let report = self.send(request, &way).await;
                    Made::new(Report { trace, ..report }, asked)
                }
                Err(report) => (*report).into(),
            },
            Target::Forward { request, way } => self.forward(&request, &way).await.into(),
            // Rarer, and on the heap, so that a runner is not as large as they are.
            Target::Hop { home, there } => Box::pin(self.hop(&home, &there)).await,
            Target::Webhook { way } => Box::pin(self.tell(&way)).await.into(),
            Target::Command { spawner } => Box::pin(self.call_back(&spawner)).await.into(),
        }
    }

    async fn tell(&self, way: &Way) -> Report {
        match self.prepare_webhook(&way.settings).await {
            Ok(request) => self.send(request, way).await,
            Err(report) => *report,
        }
    }

    pub(super) async fn send(&self, request: HttpRequest, way: &Way) -> Report {
        way.transport.execute(request, Some(self.milestones(way)), self.abort.clone()).await
    }

    fn milestones(&self, way: &Way) -> Arc<dyn Milestones> {
        match way.wants_milestones {
            true => Arc::new(Teller { id: self.id, news: Arc::clone(&self.around.news) }),
            false => Arc::<Departure>::clone(&self.departure),
        }
    }

    async fn prepare(&self, kept: Option<Arc<Kept>>, way: &Way) -> Result<Prepared, Box<Report>> {
        let kept = match kept {
            Some(kept) => kept,
            None => Arc::new(Box::pin(self.load()).await?),
        };
        // The configuration may be another one since: no call carries an upstream's secrets where that no longer leads.
        if kept.document.upstream != *way.reference {
            let message = "by the present configuration its URL belongs to another upstream than the call";
            return Err(Box::new(unsent(ErrorKind::Invalid, message.to_owned())));
        }
        request::build(self.id, &kept.document, kept.via, &way.settings, &self.around.directory)
            .map(|request| (request, kept.document.trace.clone()))
            .map_err(|error| Box::new(unsent(ErrorKind::Secret, error.to_string())))
    }

    /// The document as it was stored, read under the present configuration.
    async fn load(&self) -> Result<Kept, Box<Report>> {
        let (_, stored) = self.stored().await?;
        self.understood(&stored)
    }

    pub(super) async fn stored(&self) -> Result<(CallRecord, RequestRecord), Box<Report>> {
        let failed = |message: String| Box::new(unsent(ErrorKind::Internal, message));
        match self.around.reads.call_and_request(self.id.call).await {
            Ok(Some(stored)) => Ok(stored),
            Ok(None) => Err(failed("the stored document is gone".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    pub(super) fn understood(&self, stored: &RequestRecord) -> Result<Kept, Box<Report>> {
        Kept::read(stored, &Routing::from(self.around.config.as_ref()))
            .map_err(|rejection| Box::new(unsent(ErrorKind::Invalid, rejection.to_string())))
    }

    async fn call_back(&self, spawner: &Spawner) -> Report {
        let started = clock::instant();
        match self.command().await {
            Ok(command) => {
                crash::reach(Point::CallbackLaunched);
                let process = spawner.run(command, self.abort.clone()).await;
                crash::reach(Point::CallbackEnded);
                crate::execute::process::outcome::report(&process, clock::instant().since(started))
            }
            Err(message) => unsent(ErrorKind::Internal, message),
        }
    }

    async fn command(&self) -> Result<crate::execute::process::Command, String> {
        let stored = self.around.reads.call_and_request(self.id.call).await.map_err(|error| error.to_string())?;
        let (record, request) = stored.ok_or("the callback is gone")?;
        let parent = record.callback_of.ok_or("the callback has no call it is for")?;
        let outcome = self.around.reads.outcome(parent).await.map_err(|error| error.to_string())?;
        let (parent, _) = outcome.ok_or("the call it is for is gone")?;
        let Some(Stored::Command { words }) = Stored::from_bytes(&request.document) else {
            return Err("the callback's document is none".to_owned());
        };
        let response = parent.file.as_ref().and_then(|file| self.around.filing.response_of(&file.name, parent.id));
        let withheld = self.around.config.secret_variables.clone();
        Ok(Command { withheld, ..callback::command(&words, &parent, response, &self.around.directory) })
    }
}

impl Way {
    fn to(known: &Known) -> Self {
        Self {
            reference: Arc::clone(&known.reference),
            settings: Arc::clone(&known.settings),
            transport: Arc::clone(&known.transport),
            wants_milestones: !known.settings.policy.limits.is_empty(),
        }
    }

    /// The limits of this one, and the connections of another.
    pub(super) fn through(&self, transport: &Arc<Transport>) -> Self {
        let (reference, settings) = (Arc::clone(&self.reference), Arc::clone(&self.settings));
        Self { reference, settings, transport: Arc::clone(transport), ..*self }
    }

    /// Whether its calls may follow redirects.
    fn follows(&self) -> bool {
        self.settings.policy.redirects > 0
    }
}

impl Made {
    /// What this request came to.
    pub(super) fn new(report: Report, asked: Option<Asked>) -> Self {
        let answer = report.response.as_ref().filter(|_| report.result.error.is_none() && !report.aborted);
        let next = asked.zip(answer).and_then(|(asked, answer)| asked.next(answer));
        Self { report, next }
    }
}

impl From<Report> for Made {
    fn from(report: Report) -> Self {
        Self { report, next: None }
    }
}

impl Milestones for Teller {
    fn sent(&self, at: Instant) {
        self.news.tell(Told::Sent { attempt: self.id, at });
    }

    fn first_byte(&self, at: Instant) {
        self.news.tell(Told::FirstByte { attempt: self.id, at });
    }
}

/// An attempt that came to nothing before anything was sent.
pub(super) fn unsent(kind: ErrorKind, message: String) -> Report {
    failed(kind, BytesSent::No, message)
}

/// An attempt without an answer.
pub(super) fn failed(kind: ErrorKind, bytes_sent: BytesSent, message: String) -> Report {
    Report {
        result: AttemptResult {
            status: None,
            error: Some(kind),
            retry_after: None,
            redirect: None,
            content_ok: false,
            bytes_sent,
            latency: std::time::Duration::ZERO,
            size: 0,
        },
        aborted: false,
        first_byte_at: None,
        message: Some(message),
        response: None,
        trace: None,
    }
}
