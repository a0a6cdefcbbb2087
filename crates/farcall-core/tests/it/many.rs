//! However many calls wait, and for however many upstreams: what is in memory is bounded, and nothing that was let go
//! of stays with whoever keeps more of it.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::call::{CallSpec, Durability, Method, Priority, Source, TenantId, UpstreamId};
use farcall_core::dispatcher::{Dispatcher, Event, Memory, Seq};
use farcall_core::id::CallId;
use farcall_core::policy::{LimitSpec, UpstreamPolicy};
use farcall_core::time::{Instant, Now, Timestamp};

const CALLS: u32 = 100_000;

fn now(micros: u32) -> Now {
    Now { instant: Instant::from_micros(i64::from(micros)), timestamp: Timestamp::from_micros(i64::from(micros)) }
}

/// Calls that wait for as many upstreams in turns, all of them with a callback of their own.
fn filled(upstreams: u32) -> (Dispatcher, HashSet<CallId>) {
    let limit = LimitSpec { count: NonZeroU32::MIN, window: Duration::from_secs(86_400) };
    let policy = UpstreamPolicy { limits: vec![limit], ..UpstreamPolicy::default() };
    let mut dispatcher = Dispatcher::new(UpstreamPolicy::default(), 1);
    let ids: Vec<UpstreamId> = (0..upstreams).map(|_| dispatcher.declare(policy.clone())).collect();
    let mut left = HashSet::new();
    for number in 0..CALLS {
        let upstream = ids[(number % upstreams) as usize];
        let spec = CallSpec {
            id: CallId::from_bits(u128::from(number) + 1),
            upstream,
            source: Source::Bulk,
            durability: Durability::Durable,
            method: Method::Get,
            priority: Priority::default(),
            tenant: TenantId::default(),
            cost: NonZeroU32::MIN,
            accepted_at: now(number).timestamp,
            not_before: None,
            deadline: None,
            overrides: None,
            has_file: false,
            callback: Some(upstream),
            callback_of: None,
        };
        dispatcher.handle(now(number), Event::Offered(Box::new(spec)));
        if number % 1_000 == 999 {
            commit(&mut dispatcher, now(number));
        }
        left.extend(dispatcher.take_left());
    }
    (dispatcher, left)
}

fn commit(dispatcher: &mut Dispatcher, now: Now) {
    for _ in 0..4 {
        let seq: Seq = dispatcher.turn(now).seq;
        dispatcher.handle(now, Event::Committed { seq });
    }
}

fn check(upstreams: u32, in_memory_max: usize) {
    let (dispatcher, left) = filled(upstreams);
    let all = (0..CALLS).map(|number| CallId::from_bits(u128::from(number) + 1));
    let (loaded, stored): (Vec<CallId>, Vec<CallId>) = all.partition(|&call| dispatcher.is_loaded(call));
    assert!(loaded.len() <= in_memory_max, "{} calls of {upstreams} upstreams are in memory", loaded.len());
    assert!(loaded.len() >= in_memory_max / 4, "only {} calls of {upstreams} upstreams are", loaded.len());
    assert!(stored.iter().all(|call| left.contains(call)), "a call was let go of and nobody was told");
}

#[test]
fn of_many_calls_for_one_upstream_the_front_is_in_memory() {
    // One of them is out.
    check(1, Memory::default().lane_max + 1);
}

#[test]
fn of_many_calls_for_many_upstreams_few_of_each_are_in_memory() {
    let Memory { calls_max, lane_min, .. } = Memory::default();
    check(100, calls_max + 100);
    check(10_000, calls_max.max(10_000 * lane_min) + 10_000);
}
