//! The dispatcher by hand: one situation a test, on a clock that only moves when told.

mod breaker;
mod crowded;
mod deadlines;
mod quotas;
mod redirects;

use std::num::NonZeroU32;
use std::time::Duration;

mod cancels;
mod ephemeral;
mod explain;
mod failures;
mod forget;
mod grants;
mod hedges;
mod loads;
mod pauses;
mod prune;
mod relay;
mod remaining;
mod restarts;
mod timings;

use super::*;
use crate::attempt::{AttemptKind, AttemptOutcome, AttemptResult, BytesSent};
use crate::call::{CallSpec, Durability, ErrorKind, Method, Overrides, Priority, Source, TenantId};
use crate::id::AttemptId;
use crate::policy::{CallbackPolicy, LimitSpec};
use crate::retry::{Backoff, Jitter, RetryPolicy};
use crate::time::Timestamp;

/// A dispatcher with one upstream, and everything it decided.
struct Bench {
    dispatcher: Dispatcher,
    upstream: UpstreamId,
    now_ms: i64,
    writes: Vec<Write>,
    unstored: Vec<Write>,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(policy: UpstreamPolicy) -> Self {
        let mut dispatcher = Dispatcher::new(UpstreamPolicy::default(), 7);
        let upstream = dispatcher.declare(policy);
        Self { dispatcher, upstream, now_ms: 0, writes: vec![], unstored: vec![], effects: vec![] }
    }

    fn now(&self) -> Now {
        let micros = self.now_ms * 1_000;
        Now { instant: Instant::from_micros(micros), timestamp: Timestamp::from_micros(micros) }
    }

    fn spec(&self, number: u128) -> CallSpec {
        CallSpec {
            id: CallId::from_bits(number),
            upstream: self.upstream,
            source: Source::Api,
            durability: Durability::Durable,
            method: Method::Post,
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: NonZeroU32::MIN,
            accepted_at: self.now().timestamp,
            not_before: None,
            deadline: None,
            overrides: None,
            has_file: false,
            callback: None,
            callback_of: None,
        }
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.dispatcher.handle(self.now(), event);
        self.turn()
    }

    fn offer(&mut self, spec: CallSpec) -> &mut Self {
        self.tell(Event::Offered(Box::new(spec)))
    }

    /// Moves the clock on, stopping wherever a timer wants a turn.
    fn advance(&mut self, ms: i64) -> &mut Self {
        let end = self.now_ms + ms;
        while let Some(at) = self.dispatcher.next_wakeup(self.now().instant).filter(|at| at.as_micros() <= end * 1_000)
        {
            self.now_ms = (at.as_micros() + 999) / 1_000;
            self.turn();
        }
        self.now_ms = end;
        self.turn()
    }

    fn turn(&mut self) -> &mut Self {
        while let Some(seq) = self.hand_over() {
            self.dispatcher.handle(self.now(), Event::Committed { seq });
        }
        self
    }

    /// One turn; its number when it has writes, which are not committed yet.
    fn hand_over(&mut self) -> Option<Seq> {
        let turn = self.dispatcher.turn(self.now());
        for effect in &turn.effects {
            if let &Effect::Launch { attempt, .. } = effect {
                self.dispatcher.handle(self.now(), Event::Launched { attempt });
            }
        }
        self.effects.extend(turn.effects);
        self.unstored.extend(turn.unstored);
        let seq = (!turn.writes.is_empty()).then_some(turn.seq);
        self.writes.extend(turn.writes);
        seq
    }

    fn answer(&mut self, call: u128, number: u32, status: u16) -> &mut Self {
        self.tell(Event::Finished { attempt: attempt(call, number), result: answered(status) })
    }

    fn launches(&self) -> Vec<(u128, u32)> {
        let launched = |effect: &Effect| match effect {
            Effect::Launch { attempt, .. } => Some((attempt.call.bits(), attempt.number)),
            _ => None,
        };
        self.effects.iter().filter_map(launched).collect()
    }

    fn end_of(&self, call: u128) -> Option<State> {
        self.writes.iter().find_map(|write| match write {
            Write::Settle { call: settled, progress: Some(progress), .. } if settled.bits() == call => {
                progress.state.is_end().then_some(progress.state)
            }
            _ => None,
        })
    }

    fn outcomes(&self) -> Vec<AttemptOutcome> {
        let outcome = |write: &Write| match write {
            Write::Settle { attempt, .. } => attempt.map(|end| end.outcome),
            _ => None,
        };
        self.writes.iter().filter_map(outcome).collect()
    }
}

fn attempt(call: u128, number: u32) -> AttemptId {
    AttemptId { call: CallId::from_bits(call), number }
}

fn answered(status: u16) -> AttemptResult {
    AttemptResult {
        status: Some(status),
        error: None,
        retry_after: None,
        quota: None,
        redirect: None,
        content_ok: true,
        bytes_sent: BytesSent::Maybe,
        latency: Duration::from_millis(1),
        size: 0,
    }
}

fn constant_retry(max: u32) -> RetryPolicy {
    let backoff = Backoff::Constant(Duration::from_secs(2));
    RetryPolicy { max, backoff, jitter: Jitter::None, ..RetryPolicy::durable() }
}

#[test]
fn accepting_and_starting_share_a_turn_and_the_launch_rests_on_it() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(bench.spec(1))));
    let turn = bench.dispatcher.turn(bench.now());
    assert!(matches!(turn.writes[..], [Write::Insert { .. }, Write::Start { .. }]), "{:?}", turn.writes);
    assert!(turn.effects.is_empty());
    bench.dispatcher.handle(bench.now(), Event::Committed { seq: turn.seq });
    let turn = bench.dispatcher.turn(bench.now());
    assert!(matches!(turn.effects[..], [Effect::Acknowledge { .. }, Effect::Launch { .. }]), "{:?}", turn.effects);
}

#[test]
fn a_failed_call_is_tried_again_after_its_wait() {
    let mut bench = Bench::new(UpstreamPolicy { retry: constant_retry(3), ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.offer(spec).answer(1, 1, 500).advance(1_999);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.advance(1);
    assert_eq!(bench.launches(), [(1, 1), (1, 2)]);
    bench.answer(1, 2, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
    assert_eq!(bench.dispatcher.census().calls(State::Succeeded), 1);
}

#[test]
fn retry_after_closes_the_upstream_for_everyone() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let (first, second) = (bench.spec(1), bench.spec(2));
    let throttled = AttemptResult { retry_after: Some(Duration::from_secs(9)), ..answered(429) };
    bench.offer(first).tell(Event::Finished { attempt: attempt(1, 1), result: throttled }).offer(second);
    assert_eq!(bench.dispatcher.standing(CallId::from_bits(2)).and_then(|s| s.wait_reason), Some(WaitReason::Cooldown));
    bench.advance(8_999);
    assert_eq!(bench.launches(), [(1, 1)]);
    bench.advance(1);
    assert_eq!(bench.launches().len(), 3);
}

#[test]
fn a_blocked_upstream_never_holds_up_another() {
    let one = NonZeroU32::MIN;
    let mut bench = Bench::new(UpstreamPolicy { concurrency: Some(one), ..UpstreamPolicy::default() });
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    for number in 1..=50 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let spec = CallSpec { upstream: other, ..bench.spec(99) };
    bench.offer(spec);
    assert_eq!(bench.launches(), [(1, 1), (99, 1)]);
}

#[test]
fn a_limit_admits_no_more_than_its_slots() {
    let limits = vec![LimitSpec { count: NonZeroU32::new(3).expect("not zero"), window: Duration::from_secs(1) }];
    let mut bench = Bench::new(UpstreamPolicy { limits, ..UpstreamPolicy::default() });
    for number in 1..=5 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    assert_eq!(bench.launches().len(), 3);
    for number in 1..=3 {
        bench.answer(number, 1, 200);
    }
    bench.advance(1_000);
    assert_eq!(bench.launches().len(), 3, "slots without a first byte cool from the end and the jitter");
    bench.advance(102);
    assert_eq!(bench.launches().len(), 5);
}

#[test]
fn the_first_of_several_attempts_to_succeed_wins_and_the_others_are_cut_off() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec);
    bench.dispatcher.start(bench.now(), CallId::from_bits(1), 1);
    bench.dispatcher.start(bench.now(), CallId::from_bits(1), 1);
    bench.turn().answer(1, 1, 500);
    assert_eq!(bench.end_of(1), None, "two are still out");
    bench.answer(1, 3, 200);
    assert_eq!(bench.end_of(1), Some(State::Succeeded));
    assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(1, 2) }));
    bench.tell(Event::Aborted { attempt: attempt(1, 2), wrote: BytesSent::Maybe });
    assert_eq!(bench.outcomes(), [AttemptOutcome::Retryable, AttemptOutcome::Success, AttemptOutcome::Cancelled]);
    assert_eq!(bench.dispatcher.standing(CallId::from_bits(1)), None);
}

#[test]
fn a_timed_out_post_ends_unknown_and_a_get_is_tried_again() {
    let mut bench = Bench::new(UpstreamPolicy { retry: constant_retry(1), ..UpstreamPolicy::default() });
    let (post, get) = (bench.spec(1), CallSpec { method: Method::Get, ..bench.spec(2) });
    bench.offer(post).offer(get).advance(30_000);
    for number in [1, 2] {
        assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(number, 1) }));
        bench.tell(Event::Aborted { attempt: attempt(number, 1), wrote: BytesSent::Maybe });
    }
    assert_eq!(bench.end_of(1), Some(State::Unknown));
    assert_eq!(bench.end_of(2), None);
    bench.advance(2_000);
    assert!(bench.launches().contains(&(2, 2)));
}

#[test]
fn a_timeout_counts_from_the_launch_and_not_from_the_decision() {
    let mut bench = Bench::new(UpstreamPolicy { timeout: Duration::from_secs(1), ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let seq = bench.hand_over().expect("an insert and a start");
    // The commit takes three seconds.
    bench.advance(3_000);
    assert_eq!(bench.effects, []);
    bench.tell(Event::Committed { seq }).advance(999);
    assert_eq!((bench.launches(), bench.effects.len()), (vec![(1, 1)], 2), "acknowledged and launched");
    bench.advance(1);
    assert_eq!(bench.effects.last(), Some(&Effect::Abort { attempt: attempt(1, 1) }));
}

#[test]
fn a_deadline_ends_waiting_calls_and_cuts_off_running_ones() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: Some(NonZeroU32::MIN), ..UpstreamPolicy::default() });
    let deadline = Some(Instant::from_micros(5_000_000));
    let (running, waiting) = (CallSpec { deadline, ..bench.spec(1) }, CallSpec { deadline, ..bench.spec(2) });
    bench.offer(running).offer(waiting).advance(5_000);
    assert_eq!(bench.end_of(2), Some(State::Expired));
    bench.tell(Event::Aborted { attempt: attempt(1, 1), wrote: BytesSent::Maybe });
    assert_eq!(bench.end_of(1), Some(State::Expired));
    assert_eq!(bench.launches(), [(1, 1)]);
}

#[test]
fn an_attempt_whose_deadline_passes_on_the_way_to_the_disk_expires_unsent() {
    let mut bench = Bench::new(UpstreamPolicy { retry: RetryPolicy::none(), ..UpstreamPolicy::default() });
    let deadline = Some(Instant::from_micros(5_000));
    let spec = CallSpec { deadline, ..bench.spec(1) };
    bench.dispatcher.handle(bench.now(), Event::Offered(Box::new(spec)));
    let seq = bench.hand_over().expect("an insert and a start");
    // The commit took 7 ms; no turn was taken meanwhile, so nothing has cut the attempt off.
    bench.now_ms = 7;
    bench.tell(Event::Committed { seq });
    assert_eq!(bench.end_of(1), Some(State::Expired));
    assert_eq!(bench.outcomes(), [AttemptOutcome::Cancelled]);
    assert_eq!(bench.launches(), []);
}

#[test]
fn a_callback_waits_until_its_parent_is_filed() {
    let callbacks = CallbackPolicy { on_success: Some(UpstreamId(0)), on_fail: None };
    let mut bench = Bench::new(UpstreamPolicy { callbacks, ..UpstreamPolicy::default() });
    let webhooks = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), bench.upstream);
    let spec = CallSpec { has_file: true, callback: Some(webhooks), ..bench.spec(1) };
    bench.offer(spec).answer(1, 1, 200).advance(60_000);
    assert_eq!(bench.launches().len(), 1);
    bench.tell(Event::Filed { call: CallId::from_bits(1) });
    assert_eq!(bench.launches().len(), 3);
    let inserted = |write: &Write| match write {
        Write::Insert { callback, .. } => callback.map(|of| (of.parent_end, of.asked_by, of.upstream)),
        _ => None,
    };
    let (configured, own) = ((AskedBy::Policy, UpstreamId(0)), (AskedBy::Call, webhooks));
    let expected = [configured, own].map(|(asked_by, upstream)| (State::Succeeded, asked_by, upstream));
    assert_eq!(bench.writes.iter().filter_map(inserted).collect::<Vec<_>>(), expected);
}

#[test]
fn a_callback_calls_nobody_back() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let callbacks = CallbackPolicy { on_success: Some(bench.upstream), on_fail: Some(bench.upstream) };
    bench.dispatcher.set_callbacks(bench.upstream, callbacks);
    let spec = bench.spec(1);
    bench.offer(spec).answer(1, 1, 404);
    let [_, (callback, 1)] = bench.launches()[..] else { panic!("one callback: {:?}", bench.launches()) };
    bench.answer(callback, 1, 200);
    assert_eq!(bench.launches().len(), 2);
}

#[test]
fn draining_starts_nothing_and_hands_back_what_sent_nothing() {
    let mut bench = Bench::new(UpstreamPolicy { concurrency: NonZeroU32::new(2), ..UpstreamPolicy::default() });
    for number in 1..=3 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let until = bench.now().instant + Duration::from_secs(30);
    bench.tell(Event::Drain { until }).answer(1, 1, 200);
    assert_eq!(bench.launches().len(), 2, "a free place is not used any more");
    bench.advance(30_000).tell(Event::Aborted { attempt: attempt(2, 1), wrote: BytesSent::No });
    assert_eq!(bench.end_of(2), None);
    assert!(bench.dispatcher.is_drained());
    assert_eq!(bench.dispatcher.census().calls(State::Retrying), 1);
}

#[test]
fn an_attempt_that_was_out_at_the_crash_is_unknown_and_costs_no_retry() {
    for (method, end) in [(Method::Post, Some(State::Unknown)), (Method::Put, None)] {
        let mut bench = Bench::new(UpstreamPolicy { retry: RetryPolicy::none(), ..UpstreamPolicy::default() });
        let mut calls = [0; State::ALL.len()];
        calls[State::Running as usize] = 1;
        bench.dispatcher.restore_census(Census::new(1, 0, calls));
        let recovered = Recovered {
            hop: None,
            spec: CallSpec { method, ..bench.spec(1) },
            state: State::Running,
            tries: Tries::default(),
            attempts: 1,
            ready_at: None,
            is_cancel_requested: false,
            open: vec![OpenAttempt { number: 1, kind: AttemptKind::First }],
        };
        bench.dispatcher.restore(bench.now(), recovered);
        bench.turn();
        assert_eq!(bench.end_of(1), end);
        assert_eq!(bench.outcomes(), [AttemptOutcome::Unknown]);
        assert_eq!(bench.launches(), if end.is_none() { vec![(1, 2)] } else { vec![] });
        assert_eq!(bench.dispatcher.census().sum(), 1);
    }
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.offer(spec).answer(1, 1, 200);
    let before = bench.writes.len();
    bench.answer(1, 1, 500).answer(1, 2, 200).answer(77, 1, 200);
    bench.tell(Event::FirstByte { attempt: attempt(1, 1), at: Instant::from_micros(1) });
    assert_eq!(bench.writes.len(), before);
}

#[test]
fn a_calls_own_timeout_is_the_one_that_counts() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let overrides = Overrides { timeout: Some(Duration::from_secs(1)), ..Overrides::default() };
    let spec = CallSpec { overrides: Some(Box::new(overrides)), ..bench.spec(1) };
    bench.offer(spec).advance(1_000);
    assert!(bench.effects.contains(&Effect::Abort { attempt: attempt(1, 1) }));
}

#[test]
fn an_error_of_the_last_attempt_is_the_calls() {
    let mut bench = Bench::new(UpstreamPolicy { retry: constant_retry(0), ..UpstreamPolicy::default() });
    let spec = bench.spec(1);
    bench.offer(spec);
    let refused =
        AttemptResult { status: None, error: Some(ErrorKind::Connect), bytes_sent: BytesSent::No, ..answered(0) };
    bench.tell(Event::Finished { attempt: attempt(1, 1), result: refused });
    let Some(Write::Settle { progress: Some(progress), .. }) = bench.writes.last() else {
        panic!("the call was settled: {:?}", bench.writes)
    };
    assert_eq!((progress.state, progress.error), (State::Failed, Some(ErrorKind::Connect)));
}

#[test]
fn an_attempt_that_was_refused_is_repeated_and_counts_as_an_arrival() {
    for (bytes_sent, launches) in [(BytesSent::No, 2), (BytesSent::Refused, 1)] {
        let limits = vec![LimitSpec { count: NonZeroU32::MIN, window: Duration::from_secs(3_600) }];
        let mut bench = Bench::new(UpstreamPolicy { limits, retry: constant_retry(1), ..UpstreamPolicy::default() });
        for number in 1..=2 {
            let spec = bench.spec(number);
            bench.offer(spec);
        }
        let result = AttemptResult { status: None, error: Some(ErrorKind::Reset), bytes_sent, ..answered(0) };
        bench.tell(Event::Finished { attempt: attempt(1, 1), result });
        assert_eq!((bench.end_of(1), bench.launches().len()), (None, launches), "{bytes_sent:?}");
    }
}

#[test]
fn a_withdrawn_upstream_is_why_its_calls_wait_however_long_their_own_wait_is() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let later = Instant::from_micros(3_600_000_000);
    bench.dispatcher.withdraw(bench.upstream);
    let (scheduled, queued) = (CallSpec { not_before: Some(later), ..bench.spec(1) }, bench.spec(2));
    bench.offer(scheduled).offer(queued);
    for call in [1, 2] {
        let standing = bench.dispatcher.standing(CallId::from_bits(call)).expect("it waits");
        assert_eq!((standing.wait_reason, standing.next_at), (Some(WaitReason::Paused), None), "call {call}");
    }
    let reasons = bench.dispatcher.waiters(bench.now()).by_reason;
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), [(WaitReason::Paused, 2)]);
    bench.dispatcher.reinstate(bench.upstream);
    assert_eq!(bench.turn().launches(), [(2, 1)]);
}
