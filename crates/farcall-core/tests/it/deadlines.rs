//! A call that is turned away because of its deadline could not have made it, however fast everything went.
//!
//! The oracle is a second dispatcher that was told the same and takes the call without a deadline: every attempt is
//! answered at the moment of its launch, and those that were out send nothing. Where nothing is out and one lane waits,
//! the reverse holds too: who is taken on starts in time.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{CallSpec, Durability, ErrorKind, Method, Priority, Source, TenantId, UpstreamId};
use farcall_core::dispatcher::{Dispatcher, Effect, Event};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use farcall_core::retry::RetryPolicy;
use farcall_core::time::{Instant, Now, Timestamp};
use proptest::prelude::*;

/// The call that is asked about.
const ASKED: u128 = u128::MAX >> 8;

#[derive(Debug, Clone)]
struct Case {
    limits: Vec<(u32, u64)>,
    smooth: bool,
    /// Attempts made before, each so many milliseconds after the one before it, and whether it was answered.
    before: Vec<(u64, bool)>,
    /// Calls that wait: cost, deadline from now on, and tenant.
    waiting: Vec<(u32, Option<u64>, u8)>,
    cost: u32,
    deadline_ms: u64,
    delay_ms: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let limits = proptest::collection::vec((1..6u32, 1_100..20_000u64), 1..4);
    let before = proptest::collection::vec((0..3_000u64, proptest::bool::weighted(0.8)), 0..8);
    let deadline = proptest::option::of(1..60_000u64);
    let waiting = proptest::collection::vec((1..4u32, deadline, prop_oneof![9 => Just(0u8), 1 => Just(1u8)]), 0..8);
    let asked = (1..4u32, 1..90_000u64, prop_oneof![3 => Just(0u64), 1 => 1..30_000u64]);
    (limits, any::<bool>(), before, waiting, asked).prop_map(
        |(limits, smooth, before, waiting, (cost, deadline_ms, delay_ms))| Case {
            limits,
            smooth: smooth && before.len() % 2 == 0,
            before,
            waiting,
            cost,
            deadline_ms,
            delay_ms,
        },
    )
}

/// A dispatcher and its clock.
#[derive(Clone)]
struct World {
    dispatcher: Dispatcher,
    upstream: UpstreamId,
    at_us: i64,
    out: Vec<AttemptId>,
    started: Vec<(u128, i64)>,
    ended: Vec<u128>,
}

impl World {
    fn new(case: &Case) -> Self {
        let limits = case.limits.iter().map(|&(count, window_ms)| LimitSpec {
            count: NonZeroU32::new(count).expect("from one"),
            window: Duration::from_millis(window_ms),
        });
        let mut limits: Vec<LimitSpec> = limits.collect();
        limits.sort_by_key(|limit| limit.window);
        limits.dedup_by_key(|limit| limit.window);
        let policy = UpstreamPolicy {
            limits,
            smooth: case.smooth,
            retry: RetryPolicy::none(),
            concurrency: NonZeroU32::new(1_000),
            ..UpstreamPolicy::default()
        };
        let mut dispatcher = Dispatcher::new(UpstreamPolicy::default(), 3);
        let upstream = dispatcher.declare(policy);
        Self { dispatcher, upstream, at_us: 0, out: Vec::new(), started: Vec::new(), ended: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::from_micros(self.at_us), timestamp: Timestamp::from_micros(self.at_us) }
    }

    fn spec(&self, number: u128, cost: u32) -> CallSpec {
        CallSpec {
            id: CallId::from_bits(number),
            upstream: self.upstream,
            source: Source::Api,
            durability: Durability::Durable,
            method: Method::Post,
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: NonZeroU32::new(cost).expect("from one"),
            accepted_at: self.now().timestamp,
            not_before: None,
            deadline: None,
            overrides: None,
            has_file: false,
            callback: None,
            callback_of: None,
        }
    }

    fn after(&self, ms: u64) -> Instant {
        self.now().instant + Duration::from_millis(ms)
    }

    fn offer(&mut self, spec: CallSpec) {
        let now = self.now();
        self.dispatcher.handle(now, Event::Offered(Box::new(spec)));
        self.turn();
    }

    /// Turns until nothing is left to do now; everything is durable at once.
    fn turn(&mut self) {
        loop {
            let turn = self.dispatcher.turn(self.now());
            for effect in turn.effects {
                match effect {
                    Effect::Launch { attempt, .. } => {
                        self.started.push((attempt.call.bits(), self.at_us));
                        self.out.push(attempt);
                        self.dispatcher.handle(self.now(), Event::Launched { attempt });
                    }
                    Effect::Ended { call, .. } => self.ended.push(call.bits()),
                    _ => {}
                }
            }
            if turn.writes.is_empty() {
                return;
            }
            self.dispatcher.handle(self.now(), Event::Committed { seq: turn.seq });
        }
    }

    fn finish_all(&mut self, sends: BytesSent) {
        for attempt in std::mem::take(&mut self.out) {
            let now = self.now();
            let result = AttemptResult {
                status: (sends == BytesSent::Maybe).then_some(200),
                error: (sends == BytesSent::No).then_some(ErrorKind::Connect),
                retry_after: None,
                quota: None,
                redirect: None,
                content_ok: true,
                bytes_sent: sends,
                latency: Duration::ZERO,
                size: 0,
            };
            if sends == BytesSent::Maybe {
                self.dispatcher.handle(now, Event::FirstByte { attempt, at: now.instant });
            }
            self.dispatcher.handle(now, Event::Finished { attempt, result });
        }
        self.turn();
    }

    /// As fast as anything can go, until this moment.
    fn rush(&mut self, until_us: i64) {
        loop {
            while !self.out.is_empty() {
                self.finish_all(BytesSent::Maybe);
            }
            let next = self.dispatcher.next_wakeup(self.now().instant).map(Instant::as_micros);
            let Some(next) = next.filter(|&next| next <= until_us) else { return self.at_us = until_us };
            self.at_us = self.at_us.max(next);
            self.turn();
        }
    }

    fn start_of(&self, number: u128) -> Option<i64> {
        self.started.iter().find(|(call, _)| *call == number).map(|&(_, at)| at)
    }
}

/// As the case has it, up to the moment of the question; whether nothing is out and all waits in one lane.
fn prepared(case: &Case) -> (World, bool) {
    let mut world = World::new(case);
    let (mut number, mut is_plain) = (0, case.delay_ms == 0);
    for &(after_ms, is_answered) in &case.before {
        world.at_us += i64::try_from(after_ms * 1_000).expect("small");
        world.turn();
        number += 1;
        let spec = world.spec(number, 1);
        world.offer(spec);
        if is_answered {
            world.finish_all(BytesSent::Maybe);
        }
    }
    for &(cost, deadline_ms, tenant) in &case.waiting {
        number += 1;
        let deadline = deadline_ms.map(|ms| world.after(ms));
        let spec = CallSpec { deadline, tenant: TenantId(tenant.into()), ..world.spec(number, cost) };
        is_plain &= tenant == 0;
        world.offer(spec);
    }
    is_plain &= world.out.is_empty();
    (world, is_plain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nobody_is_turned_away_who_could_have_made_it(case in cases()) {
        let (world, is_plain) = prepared(&case);
        let deadline = world.after(case.deadline_ms);
        let not_before = (case.delay_ms > 0).then(|| world.after(case.delay_ms));
        let asked = CallSpec { not_before, ..world.spec(ASKED, case.cost) };

        let mut judged = world.clone();
        judged.offer(CallSpec { deadline: Some(deadline), ..asked.clone() });
        let is_turned_away = judged.ended.contains(&ASKED);

        let mut oracle = world;
        oracle.offer(asked);
        oracle.finish_all(BytesSent::No);
        oracle.rush(deadline.as_micros());
        let start = oracle.start_of(ASKED).filter(|&at| at < deadline.as_micros());
        prop_assert!(!is_turned_away || start.is_none(), "it could have started at {start:?}");
        prop_assert!(!is_plain || is_turned_away || start.is_some(), "it is taken on and starts too late");
    }
}
