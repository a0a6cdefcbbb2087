//! The loop: gathers what happened, takes a turn, has its writes committed, and lets the effects happen then.
//!
//! It owns the dispatcher and everything that goes with it; all others send it messages. Turns go on while commits are in
//! flight; those that wait share one fsync. It decides nothing and waits for nothing but its messages and the next
//! wake-up.

mod announce;
mod attempts;
mod batches;
mod callbacks;
mod casualty;
mod control;
mod counts;
mod damage;
mod departure;
mod documents;
mod events;
mod explain;
mod forwards;
mod hops;
mod load;
mod loading;
mod message;
mod news;
mod overview;
mod pending;
mod permits;
mod prune;
mod recover;
mod runners;
mod seen;
mod start_up;
mod stats;
mod storage;
mod submit;
mod unstored;
mod watchers;
mod webhooks;
mod writes;

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use farcall_core::dispatcher::{Dispatcher, Effect, Event, Standing};
use farcall_core::id::CallId;
use farcall_core::steady::SteadyClock;
use farcall_core::time::{Instant, Now};
use farcall_crash::{self as crash, Point};
use farcall_store::port::{CommitError, Reader};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

pub(crate) use casualty::survived;
pub(crate) use explain::{ReadLane, StoredCall};
pub(crate) use forwards::Leaving;
pub(crate) use load::next_reference;
pub(crate) use message::{Message, StandingAsk};
pub(crate) use seen::Sight;
pub(crate) use unstored::Guest;
pub(crate) use watchers::CancelAnswer;

use crate::clock;
use crate::config::{Config, Live};
use crate::execute::process::Spawner;
use crate::filing::FilingQueue;
use crate::handle::{Overview, Snapshot, StoreHealth, SubmitError};
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::reads::Reads;
use crate::result_file::Filing;
use crate::upstreams::{Making, Upstreams};
use announce::{Announcer, SpaceAnnouncer};
use attempts::Surroundings;
use callbacks::OwnCallbacks;
use control::Control;
use counts::Counts;
use damage::DamagedCalls;
use documents::Documents;
use forwards::Forwards;
use news::Told;
use pending::Pending;
use permits::Permits;
use runners::Runners;
use stats::Stats;
use storage::Storage;
use watchers::Watchers;

pub use start_up::{Options, StartError};
pub(crate) use start_up::{Started, start, start_without_files};

/// Messages gathered before a turn is taken.
const GATHER_MAX: usize = 1_024;
/// The longest sleep while something is to become due: timers stand still while the machine is suspended, and what
/// became due meanwhile must not wait for them.
const NAP_MAX: Duration = Duration::from_secs(1);
/// The longest sleep while the writer commits: for a few reports nobody wakes the loop then, and on a slow disk a call's
/// end must not be put long after its answer.
const DEAF_MAX: Duration = Duration::from_millis(5);
/// How often connections and tasks that nobody uses any more are let go; the longest sleep of all, too.
const PRUNE_EVERY: Duration = Duration::from_secs(30);

/// The state of the loop.
pub(crate) struct Run {
    config: Arc<Config>,
    live: Live,
    around: Arc<Surroundings>,
    /// What attempts have told; empty but while it is taken in.
    heard: Vec<Told>,
    dispatcher: Dispatcher,
    journal: Journal,
    /// How the store does.
    storage: Storage,
    /// What is durable has changed since the counts were told.
    is_unpublished: bool,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    snapshots: watch::Sender<Snapshot>,
    /// Whoever waits for ends is told of each, once it is durable.
    ends: broadcast::Sender<CallId>,
    /// For handles that outlive the loop.
    last_overview: Arc<OnceLock<Overview>>,
    upstreams: Upstreams,
    control: Control,
    /// How instants are stored.
    steady: SteadyClock,
    reader: Box<dyn Reader>,
    /// One reader for waiting calls, so that nobody's questions hold them up.
    load_reads: Arc<Reads>,
    /// One for what is to be pruned, which takes its time.
    prune_reads: Arc<Reads>,
    spawner: Arc<Spawner>,
    filing: Arc<Filing>,
    filing_queue: FilingQueue,
    /// Of files, where there are any.
    keeper: Option<Keeper>,
    tasks: TaskTracker,
    runners: Runners,
    rng: fastrand::Rng,
    documents: Documents,
    own_callbacks: OwnCallbacks,
    pending: Pending,
    forwards: Forwards,
    permits: Permits,
    /// Ended calls whose files are not in place yet.
    unfiled: u64,
    /// Free bytes of the store, and when that was asked.
    free_bytes: Option<(u64, Instant)>,
    space_announcer: SpaceAnnouncer,
    /// When idle connections were last closed.
    pruned_at: Instant,
    stats: Stats,
    counts: Counts,
    watchers: Watchers,
    announcer: Announcer,
    damaged: DamagedCalls,
    /// When it was asked to stop, attempts may go on until then.
    drains_until: Option<Instant>,
    store_failure: Option<CommitError>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Run {
    /// Runs until drained, or until the store contradicts what was decided.
    ///
    /// # Errors
    /// When a commit was refused, or when it was drained and something could not be stored. What was not durable was
    /// never acted on.
    pub(crate) async fn run(mut self) -> Result<(), CommitError> {
        self.take_turn();
        while !self.is_over() {
            if let Some(message) = self.next().await {
                self.receive(message);
                self.receive_pending();
            }
            self.hear();
            self.take_turn();
        }
        self.stop().await
    }

    /// The next message, or nothing when it is time for a turn without one.
    async fn next(&mut self) -> Option<Message> {
        // One that is here needs no timer, which costs more than the message.
        let here = poll_fn(|context| Poll::Ready(self.messages.poll_recv(context))).await;
        if let Poll::Ready(message) = here {
            return message;
        }
        let wakeup = self.sleep_duration();
        tokio::select! {
            message = self.messages.recv() => message,
            () = self.around.news.wait() => None,
            () = tokio::time::sleep(wakeup) => None,
        }
    }

    /// Takes in what attempts have told.
    fn hear(&mut self) {
        let mut heard = std::mem::take(&mut self.heard);
        self.around.news.hear(&mut heard);
        if !heard.is_empty() {
            let now = clock::now();
            heard.drain(..).for_each(|told| self.hear_one(now, told));
        }
        self.heard = heard;
    }

    fn hear_one(&mut self, now: Now, told: Told) {
        match told {
            Told::Sent { attempt, at } => self.dispatcher.handle(now, Event::Sent { attempt, at }),
            Told::FirstByte { attempt, at } => self.dispatcher.handle(now, Event::FirstByte { attempt, at }),
            Told::Answered { attempt, result, ruling } => self.answered(now, attempt, result, ruling),
            Told::Abandoned { call } => self.dispatcher.handle(now, Event::Abandoned { call }),
            Told::Reported { attempt, report, next, runner } => {
                self.runners.put(runner);
                self.reported(now, attempt, report, next);
            }
        }
    }

    fn receive_pending(&mut self) {
        for _ in 0..GATHER_MAX {
            let Ok(message) = self.messages.try_recv() else { return };
            self.receive(message);
        }
    }

    /// Drained: nothing is out, and all is durable, or cannot be made so. Or the store contradicts us.
    fn is_over(&mut self) -> bool {
        if self.store_failure.is_some() {
            return true;
        }
        // While nothing is known of the last commit, nobody can say what is out.
        let is_drained = self.dispatcher.is_drained() || self.storage.is_broken();
        let Some(until) = self.drains_until.filter(|_| is_drained) else { return false };
        if !self.dispatcher.is_settled() && until <= clock::instant() {
            self.store_failure = self.storage.give_up();
        }
        self.dispatcher.is_settled() || self.store_failure.is_some()
    }

    fn sleep_duration(&self) -> Duration {
        let now = clock::instant();
        let ends_at = self.drains_until.filter(|&until| until > now);
        let looks = [self.storage.next_look(), self.control.next_look(now)];
        let wakes_at = [self.dispatcher.next_wakeup(now), ends_at].into_iter().chain(looks);
        let wait = wakes_at.flatten().map(|at| at.since(now)).min();
        let wait = wait.map_or(PRUNE_EVERY, |wait| wait.min(NAP_MAX));
        if self.journal.writing().is_under_way() { wait.min(DEAF_MAX) } else { wait }
    }

    /// Closes idle connections, also those of upstreams that get no calls any more.
    fn prune(&mut self, now: Instant) {
        let is_time = now.since(self.pruned_at) >= PRUNE_EVERY;
        if is_time {
            self.pruned_at = now;
            self.upstreams.prune();
            self.watchers.sweep();
            self.runners.prune();
        }
        if is_time || self.upstreams.is_crowded() {
            let (dispatcher, reader, now) = (&mut self.dispatcher, self.reader.as_mut(), clock::now());
            let forgotten = self.upstreams.forget_idle(&mut Making { dispatcher, reader, now });
            self.stats.forget(&forgotten, self.dispatcher.command_upstream());
            self.counts.forget(&forgotten);
        }
    }

    async fn stop(mut self) -> Result<(), CommitError> {
        self.snapshots.send_modify(|snapshot| snapshot.is_draining = true);
        let is_failed = self.store_failure.is_some();
        submit::refuse_all(&mut self.messages, || {
            if is_failed { SubmitError::StoreFailed } else { SubmitError::Draining }
        });
        let overview = self.overview();
        self.forwards.clear();
        self.permits.clear();
        self.last_overview.set(overview).expect("a loop stops once");
        for running in self.pending.running.values() {
            running.abort.cancel();
        }
        self.tasks.close();
        self.around.news.close();
        let Self { journal, messages, runners, tasks, store_failure, filing_queue, keeper, .. } = self;
        drop((messages, runners));
        tasks.wait().await;
        let close = tokio::task::spawn_blocking(move || {
            filing_queue.close();
            if let Some(keeper) = keeper {
                keeper.close();
            }
            journal.close();
        });
        if let Err(error) = close.await {
            std::panic::resume_unwind(error.into_panic());
        }
        store_failure.map_or(Ok(()), Err)
    }

    fn receive(&mut self, message: Message) {
        let now = clock::now();
        match message {
            Message::Submit { submissions, viewer, reply } => self.submit(submissions, viewer, reply),
            Message::Forward(offer) => self.forward(*offer),
            Message::Permit(offer) => self.permit(*offer),
            Message::Release { upstream, id, release, reply } => {
                let _ = reply.send(self.release(&upstream, id, &release));
            }
            Message::Guest { call, reply } => drop(reply.send(self.guest(call))),
            Message::Guests { reply } => drop(reply.send(self.guests())),
            Message::Standings { asked, reply } => {
                let _ = reply.send(asked.into_iter().map(|asked| self.standing(now, asked)).collect());
            }
            Message::Cancel { call, reply } => self.cancel(now, call, reply),
            Message::Watch { call, reply } => self.watchers.watch(call, reply),
            Message::Overview { reply } => drop(reply.send(self.overview())),
            Message::Measure { reply } => drop(reply.send(self.measured(now))),
            Message::Explain { call, stored, read, reply } => {
                drop(reply.send(self.explain(call, stored.as_ref(), &read)));
            }
            Message::Upstreams { reply } => drop(reply.send(self.view_upstreams())),
            Message::Upstream { name, reply } => drop(reply.send(self.view_upstream(&name))),
            Message::SetUpstream { name, setting, reply } => self.set_upstream(&name, setting, reply),
            Message::Reload { config, reply } => drop(reply.send(self.reload_file(config))),
            Message::Drain => self.drain(),
            Message::Committed { seq } => self.committed(now, seq),
            Message::CommitFailed(failed) => self.commit_failed(*failed),
            Message::StoreBroken { error } => self.store_broken(&error),
            Message::Loaded(found) => self.loaded(found),
            Message::StaleFound { ask, stored_bytes, found } => self.stale_found(ask, stored_bytes, found),
            Message::Filed { calls } => self.filed(&calls),
        }
    }

    fn take_turn(&mut self) {
        if self.store_failure.is_some() {
            return;
        }
        let now = clock::now();
        self.prune(now.instant);
        let turn = self.dispatcher.turn(now);
        for (upstream, hedges) in self.dispatcher.take_suppressed() {
            self.counts.suppressed(upstream, hedges, &self.upstreams);
        }
        self.count_unfiled(&turn.effects);
        self.forwards.refuse(&turn.effects);
        self.take_unstored(&turn.unstored, now);
        if std::mem::take(&mut self.is_unpublished) {
            self.publish();
        }
        if !turn.writes.is_empty() {
            let writes: Vec<_> = turn.writes.iter().map(|write| self.translate(write, now)).collect();
            self.counts.hold(turn.seq, &turn.writes, &writes);
            if self.watchers.events.is_followed() {
                let both = turn.writes.iter().zip(&writes);
                let events = both.filter_map(|(decided, stored)| self.event_of(decided, stored, now)).collect();
                self.watchers.events.hold(turn.seq, events);
            } else {
                self.watchers.events.pass_over(turn.seq, writes.len());
            }
            self.journal.commit(turn.seq, writes, self.pending.running.len());
        }
        self.perform(turn.effects);
        self.forget_left();
        self.look_at_store(now.instant);
        self.answer_control(now);
    }

    /// Of calls that only the store holds from now on nothing is remembered.
    fn forget_left(&mut self) {
        for call in self.dispatcher.take_left() {
            self.documents.forget(call);
            self.own_callbacks.forget(call);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Acknowledge { call } => {
                    crash::reach(Point::Acknowledging);
                    self.show(call);
                    self.pending.acknowledge(call);
                }
                Effect::Refuse { call } => self.refuse(call),
                Effect::Launch { attempt, upstream, hop, not_after } => {
                    self.launch(attempt, (upstream, hop), not_after);
                }
                Effect::Relay { attempt } => self.forwards.relay(attempt, &self.around.news),
                Effect::Withhold { attempt } => self.forwards.withhold(attempt),
                Effect::Abort { attempt } => self.abort(attempt),
                Effect::Load => self.load(),
                Effect::FindStale => self.find_stale(),
                Effect::CancelNoted { call } => self.watchers.tell(call, CancelAnswer::Noted),
                Effect::CancelMissed { call } => self.watchers.tell(call, CancelAnswer::Missed),
                Effect::UpstreamStored { ticket } => self.upstream_stored(ticket),
                Effect::Ended { call, has_file } => self.ended(call, has_file),
                // Those who wait for an answer were told before what was decided with it.
                Effect::Refused { call, .. } => self.permits.ended(call, false),
                Effect::BreakerTurned { upstream, state } => self.breaker_turned(upstream, state),
            }
        }
        self.load_unread();
    }

    fn ended(&mut self, call: CallId, has_file: bool) {
        self.documents.forget(call);
        self.own_callbacks.forget(call);
        self.watchers.ended(call);
        // Mostly nobody waits.
        let _ = self.ends.send(call);
        if has_file {
            self.filing_queue.push(call);
        }
    }

    /// Before the counts are published: a call that has ended and one whose files are in place must not look alike.
    fn count_unfiled(&mut self, effects: &[Effect]) {
        let ended = effects.iter().filter(|effect| matches!(effect, Effect::Ended { has_file: true, .. }));
        self.unfiled += u64::try_from(ended.count()).unwrap_or(u64::MAX);
    }

    fn filed(&mut self, calls: &[CallId]) {
        let now = clock::now();
        for &call in calls {
            self.unfiled = self.unfiled.saturating_sub(1);
            self.dispatcher.handle(now, Event::Filed { call });
        }
    }

    /// Why a call waits, as far as the running engine knows.
    fn standing(&self, now: Now, asked: StandingAsk) -> Option<Standing> {
        self.dispatcher.standing(asked.call).or_else(|| {
            let ((upstream, serves), state, ready_at) = asked.place?;
            let id = self.upstreams.find(&upstream, serves)?;
            Some(self.dispatcher.stored_standing(now, id, state, self.steady.instant(ready_at)))
        })
    }

    /// Whoever wants it is told what came of it once that is durable.
    fn cancel(&mut self, now: Now, call: CallId, reply: oneshot::Sender<CancelAnswer>) {
        if self.drains_until.is_some() {
            let _ = reply.send(CancelAnswer::Stopping);
        } else if self.watchers.ask(call, reply) {
            self.dispatcher.handle(now, Event::Cancel { call });
        }
    }

    fn drain(&mut self) {
        if self.drains_until.is_none() {
            let now = clock::now();
            let until = now.instant + self.config.server.drain_timeout;
            self.drains_until = Some(until);
            self.dispatcher.handle(now, Event::Drain { until });
            self.publish();
        }
    }

    fn publish(&self) {
        let is_short = self.storage.health == StoreHealth::Ok && self.space_announcer.is_full();
        self.snapshots.send_replace(Snapshot {
            census: self.dispatcher.durable_census(),
            in_flight: self.dispatcher.in_flight(),
            is_draining: self.drains_until.is_some(),
            drains_until: self.drains_until,
            unwell_since: self.storage.unwell_since().or(self.space_announcer.full_since()),
            store: if is_short { StoreHealth::Full } else { self.storage.health },
            store_error: self.storage.error.clone().filter(|_| self.storage.health != StoreHealth::Ok),
            unfiled: self.unfiled,
            attempts: self.stats.attempts(),
            damaged: self.damaged.live(),
        });
    }
}
