//! Pauses and openings by hand: what they hold up and let go, that they are stored, and what a failed commit leaves.

use super::*;

impl Bench {
    fn pause(&mut self, ticket: u64) -> &mut Self {
        self.dispatcher.pause(self.upstream, ticket);
        self.turn()
    }

    fn resume(&mut self, ticket: u64) -> &mut Self {
        self.dispatcher.resume(self.now(), self.upstream, ticket);
        self.turn()
    }

    fn tickets(&self) -> Vec<u64> {
        let ticket = |effect: &Effect| match *effect {
            Effect::UpstreamStored { ticket } => Some(ticket),
            _ => None,
        };
        self.effects.iter().filter_map(ticket).collect()
    }

    fn waits_for(&self, call: u128) -> (Option<WaitReason>, Option<Instant>) {
        let standing = self.dispatcher.standing(CallId::from_bits(call)).expect("it is in memory");
        (standing.wait_reason, standing.next_at)
    }
}

fn throttled(seconds: u64) -> AttemptResult {
    AttemptResult { retry_after: Some(Duration::from_secs(seconds)), ..answered(429) }
}

#[test]
fn a_paused_upstream_starts_nothing_until_it_is_resumed() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let (first, second) = (bench.spec(1), bench.spec(2));
    bench.offer(first).pause(1).offer(second);
    assert_eq!((bench.launches(), bench.tickets()), (vec![(1, 1)], vec![1]));
    assert_eq!(bench.waits_for(2), (Some(WaitReason::Paused), None));
    bench.answer(1, 1, 200).advance(3_600_000);
    assert_eq!(bench.end_of(1), Some(State::Succeeded), "what was out goes on");
    assert_eq!(bench.launches(), [(1, 1)]);
    assert_eq!(bench.resume(2).launches(), [(1, 1), (2, 1)]);
    assert_eq!(bench.tickets(), [1, 2]);
}

#[test]
fn a_pause_holds_for_all_that_share_the_quota_and_for_nobody_else() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let sharing = bench.dispatcher.declare_sharing(UpstreamPolicy::default(), bench.upstream);
    let other = bench.dispatcher.declare(UpstreamPolicy::default());
    bench.pause(1);
    for (number, upstream) in [(1, sharing), (2, other)] {
        let spec = CallSpec { upstream, ..bench.spec(number) };
        bench.offer(spec);
    }
    assert_eq!(bench.launches(), [(2, 1)]);
    assert_eq!(bench.waits_for(1), (Some(WaitReason::Paused), None));
    assert_eq!(bench.resume(2).launches(), [(2, 1), (1, 1)]);
}

#[test]
fn a_pause_outlives_the_return_of_the_upstream_to_the_configuration() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let spec = bench.spec(1);
    bench.pause(1).offer(spec);
    bench.dispatcher.withdraw(bench.upstream);
    bench.resume(2);
    assert_eq!(bench.launches(), [], "it is still gone");
    bench.pause(3);
    bench.dispatcher.reinstate(bench.upstream);
    assert_eq!(bench.turn().launches(), []);
    assert_eq!(bench.resume(4).launches(), [(1, 1)]);
}

#[test]
fn resuming_opens_a_closed_upstream_also_for_the_call_that_was_told_to_wait() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let (first, second) = (bench.spec(1), bench.spec(2));
    bench.offer(first).tell(Event::Finished { attempt: attempt(1, 1), result: throttled(900) }).offer(second);
    bench.advance(1_000);
    assert_eq!(bench.waits_for(2).0, Some(WaitReason::Cooldown));
    bench.resume(1);
    assert_eq!(bench.launches(), [(1, 1), (2, 1), (1, 2)]);
    let opened = bench.writes.contains(&Write::Open { upstream: bench.upstream });
    let released = bench.writes.iter().any(|write| matches!(write, Write::Release { call, .. } if call.bits() == 1));
    assert!(opened && released, "{:?}", bench.writes);
    bench.answer(1, 2, 200).advance(900_000);
    assert_eq!(bench.launches().len(), 3, "its old time wakes nobody");
}

/// A call that waits for its next try, as the store has it.
fn waiting_again(bench: &Bench, number: u128, ready_at: Instant) -> Recovered {
    Recovered {
        spec: bench.spec(number),
        state: State::Retrying,
        hop: None,
        tries: Tries::default(),
        attempts: 1,
        ready_at: Some(ready_at),
        is_cancel_requested: false,
        open: Vec::new(),
    }
}

#[test]
fn of_calls_from_the_store_resuming_lets_those_go_that_were_told_to_wait_and_no_others() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    let at = |seconds: i64| Instant::from_micros(seconds * 1_000_000);
    let lane = crate::lane::LaneId { priority: Priority::default(), tenant: TenantId::default() };
    let mut calls = [0; State::ALL.len()];
    calls[State::Retrying as usize] = 2;
    bench.dispatcher.restore_census(Census::new(2, 0, calls));
    bench.dispatcher.restore_closing(bench.upstream, at(900));
    bench.dispatcher.restore_lane(bench.upstream, lane, 2);
    bench.turn();
    let (backs_off, was_told) = (waiting_again(&bench, 1, at(60)), waiting_again(&bench, 2, at(900)));
    bench.tell(Event::Loaded(Box::new(Loaded { lanes: vec![vec![backs_off, was_told]], ..Loaded::default() })));
    assert_eq!(bench.waits_for(1), (Some(WaitReason::Backoff), Some(at(60))));
    assert_eq!(bench.waits_for(2), (Some(WaitReason::Cooldown), Some(at(900))));
    assert_eq!(bench.resume(1).launches(), [(2, 2)]);
    assert_eq!(bench.advance(60_000).launches(), [(2, 2), (1, 2)]);
}

#[test]
fn a_pause_that_cannot_be_stored_holds_and_is_stored_later() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.pause(bench.upstream, 5);
    let seq = bench.hand_over().expect("it is written");
    bench.tell(Event::CommitFailed { seq });
    assert_eq!((bench.tickets(), bench.launches()), (vec![], vec![]));
    bench.advance(5_000);
    assert_eq!(bench.tickets(), [5]);
    let spec = bench.spec(1);
    bench.offer(spec);
    assert_eq!(bench.launches(), []);
    assert_eq!(bench.waits_for(1), (Some(WaitReason::Paused), None));
}

#[test]
fn a_pause_of_an_earlier_process_holds_without_being_stored_again() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    bench.dispatcher.restore_pause(bench.upstream);
    let spec = bench.spec(1);
    bench.offer(spec);
    assert_eq!(bench.launches(), []);
    assert!(bench.writes.iter().all(|write| !matches!(write, Write::Upstream { .. })));
}

#[test]
fn an_attempt_is_on_its_way_until_its_arrival_is_certain() {
    let mut bench = Bench::new(UpstreamPolicy::default());
    for number in 1..=3 {
        let spec = bench.spec(number);
        bench.offer(spec);
    }
    let on_their_way = |bench: &Bench| -> Vec<u128> {
        let mut calls: Vec<u128> = bench
            .dispatcher
            .on_their_way(bench.now(), bench.upstream)
            .into_iter()
            .map(|attempt| attempt.call.bits())
            .collect();
        calls.sort_unstable();
        calls
    };
    assert_eq!(on_their_way(&bench), [1, 2, 3]);
    let at = bench.now().instant;
    bench.tell(Event::FirstByte { attempt: attempt(1, 1), at });
    bench.tell(Event::Sent { attempt: attempt(2, 1), at });
    assert_eq!(on_their_way(&bench), [2, 3]);
    bench.advance(99);
    assert_eq!(on_their_way(&bench), [2, 3]);
    bench.advance(1);
    assert_eq!(on_their_way(&bench), [3]);
    bench.answer(3, 1, 200);
    assert_eq!(on_their_way(&bench), []);
}
