//! Calls that wait: each stands in one lane, in the order in which they may go on, until it starts or ends.

use farcall_core::call::{State, TenantId};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_store::port::{AttemptEnd, LaneRange, Settle, Write};
use farcall_store::record::{CallRecord, LaneName, LaneRecord, Progress};

use crate::lab::{Ask as _, Lab};
use crate::sample::{attempt_end, call, headed, hop, id, insert, progress, settle_with, start, steady, waiting};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_lane_is_read_in_the_order_of_its_places,
    calls_of_one_moment_are_read_in_the_order_of_their_ids,
    lanes_are_told_apart_by_key_priority_and_tenant,
    a_call_leaves_its_lane_when_it_starts_and_comes_back_when_it_waits,
    a_call_waits_where_redirects_have_led_it,
    a_call_that_is_held_back_waits_from_its_release_on,
    only_a_call_that_is_held_back_can_be_released,
    waiting_calls_come_by_their_deadlines,
}

fn lane() -> LaneName {
    LaneName { limit_key: "shop".to_owned(), of_callbacks: false, priority: 3, tenant: TenantId::default() }
}

fn ids(calls: &[CallRecord]) -> Vec<CallId> {
    calls.iter().map(|call| call.id).collect()
}

/// Before every other place.
const FIRST: (Steady, CallId) = (Steady::from_micros(i64::MIN), CallId::from_bits(0));

/// The ids in a lane from a place on.
fn read(
    lab: &mut dyn Lab,
    lane: LaneName,
    (ready_at, call): (Steady, CallId),
    count: u32,
) -> Result<Vec<CallId>, Box<dyn std::error::Error>> {
    let read = lab.reader()?.lanes(&[LaneRange { lane, ready_at, call, count }])?.found;
    assert_eq!(read.len(), 1);
    Ok(ids(&read[0]))
}

fn next(id: CallId) -> CallId {
    CallId::from_bits(id.bits() + 1)
}

fn all(lab: &mut dyn Lab) -> Result<Vec<CallId>, Box<dyn std::error::Error>> {
    read(lab, lane(), FIRST, 100)
}

fn lanes(lab: &mut dyn Lab) -> Result<Vec<(LaneName, u64)>, Box<dyn std::error::Error>> {
    Ok(lab.restart()?.lanes.into_iter().map(|LaneRecord { lane, waiting }| (lane, waiting)).collect())
}

fn a_lane_is_read_in_the_order_of_its_places(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(waiting(1, 30)), insert(waiting(2, -10)), insert(waiting(3, 20)), insert(call(4))])?;
    assert_eq!(all(lab)?, [id(2), id(3), id(1)]);
    assert_eq!(read(lab, lane(), FIRST, 2)?, [id(2), id(3)]);
    assert_eq!(read(lab, lane(), (steady(20), id(3)), 5)?, [id(3), id(1)]);
    assert_eq!(read(lab, lane(), (steady(20), next(id(3))), 5)?, [id(1)]);
    assert_eq!(lanes(lab)?, [(lane(), 3)]);
    Ok(())
}

fn calls_of_one_moment_are_read_in_the_order_of_their_ids(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&(1..=5).map(|n| insert(waiting(n, 7))).collect::<Vec<_>>())?;
    // The ids of the samples descend.
    assert_eq!(all(lab)?, [id(5), id(4), id(3), id(2), id(1)]);
    assert_eq!(read(lab, lane(), (steady(7), next(id(4))), 2)?, [id(3), id(2)]);
    Ok(())
}

fn lanes_are_told_apart_by_key_priority_and_tenant(lab: &mut dyn Lab) -> Outcome {
    let others = [
        LaneName { limit_key: "bank".to_owned(), ..lane() },
        LaneName { priority: 1, ..lane() },
        LaneName { of_callbacks: true, ..lane() },
        LaneName { tenant: TenantId(1), ..lane() },
        LaneName { tenant: TenantId(u64::MAX), ..lane() },
    ];
    lab.commit(&[insert(waiting(0, 1)), insert(waiting(9, 2))])?;
    for (n, LaneName { limit_key, of_callbacks, priority, tenant }) in (1..).zip(others.clone()) {
        let callback_of = of_callbacks.then(|| id(1_000));
        let call = CallRecord { limit_key, callback_of, priority, tenant_id: tenant, ..waiting(n, 0) };
        lab.commit(&[insert(call)])?;
    }
    for (n, other) in (1..).zip(others.clone()) {
        assert_eq!(read(lab, other, FIRST, 9)?, [id(n)]);
    }
    let range = |lane: &LaneName| LaneRange { lane: lane.clone(), ready_at: FIRST.0, call: FIRST.1, count: 1 };
    let ranges: Vec<_> = others.iter().map(range).collect();
    let read = lab.reader()?.lanes(&ranges)?.found;
    assert_eq!(
        read.iter().map(|calls| ids(calls)).collect::<Vec<_>>(),
        (1..=5).map(|n| vec![id(n)]).collect::<Vec<_>>()
    );
    let mut expected: Vec<_> = others.into_iter().map(|lane| (lane, 1)).chain([(lane(), 2)]).collect();
    expected.sort();
    assert_eq!(lanes(lab)?, expected);
    Ok(())
}

fn a_call_leaves_its_lane_when_it_starts_and_comes_back_when_it_waits(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(waiting(1, 1)), insert(waiting(2, 2)), insert(waiting(3, 3)), start(3, 1)])?;
    assert_eq!(all(lab)?, [id(1), id(2)]);
    lab.commit(&[start(1, 1)])?;
    assert_eq!((all(lab)?, lab.call(id(1))?.progress.ready_at), (vec![id(2)], None));
    let again = Progress { ready_at: Some(steady(9)), ..progress(State::Retrying) };
    let settle = Settle {
        at: steady(8),
        call: id(1),
        attempt: Some(attempt_end(1)),
        progress: Some(again),
        heading: None,
        response: None,
    };
    lab.commit(&[Write::Settle(Box::new(settle))])?;
    assert_eq!((all(lab)?, lab.call(id(1))?.progress.ready_at), (vec![id(2), id(1)], Some(steady(9))));
    lab.commit(&[settle_with(1, None, State::Expired, None), settle_with(2, None, State::Expired, None)])?;
    assert_eq!((all(lab)?, lanes(lab)?), (vec![], vec![]));
    Ok(())
}

fn a_call_waits_where_redirects_have_led_it(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(waiting(1, 1)), start(1, 1)])?;
    let again = Progress { ready_at: Some(steady(9)), ..progress(State::Retrying) };
    let settle = |attempt: Option<AttemptEnd>| {
        let progress = Some(again.clone());
        Write::Settle(Box::new(Settle { at: steady(8), call: id(1), attempt, progress, heading: None, response: None }))
    };
    lab.commit(&[headed(settle(Some(attempt_end(1))), "bank", Some(hop(1)))])?;
    for round in ["at once", "after a restart"] {
        let call = lab.call(id(1))?;
        assert_eq!((call.limit_key.as_str(), call.home_key(), &call.hop), ("bank", "etsy", &Some(hop(1))), "{round}");
        assert_eq!((lanes(lab)?, all(lab)?), (vec![(LaneName { limit_key: "bank".to_owned(), ..lane() }, 1)], vec![]));
        lab.restart()?;
    }
    lab.commit(&[headed(settle(None), "shop", None)])?;
    assert_eq!((all(lab)?, lab.call(id(1))?.hop), (vec![id(1)], None));
    lab.commit(&[settle_with(1, None, State::Expired, None)])?;
    let Write::Settle(bare) = headed(settle(None), "shop", None) else { unreachable!("it is a settlement") };
    let bare = Settle { attempt: Some(attempt_end(1)), progress: None, ..*bare };
    assert!(lab.commit(&[Write::Settle(Box::new(bare))]).is_err(), "an end of an attempt alone moves no call");
    Ok(())
}

fn a_call_that_is_held_back_waits_from_its_release_on(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), insert(waiting(2, 5))])?;
    assert_eq!(ids(&lab.restart()?.engaged), [id(1)]);
    lab.commit(&[Write::Release { call: id(1), ready_at: steady(3) }])?;
    assert_eq!(all(lab)?, [id(1), id(2)]);
    assert_eq!(ids(&lab.restart()?.engaged), []);
    Ok(())
}

fn only_a_call_that_is_held_back_can_be_released(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(waiting(1, 5)), insert(call(2)), start(2, 1), insert(call(3))])?;
    lab.commit(&[settle_with(3, None, State::Expired, None)])?;
    for n in 1..=4 {
        assert!(lab.commit(&[Write::Release { call: id(n), ready_at: steady(1) }]).is_err(), "call {n}");
    }
    assert_eq!(lab.call(id(1))?.progress.ready_at, Some(steady(5)));
    Ok(())
}

fn waiting_calls_come_by_their_deadlines(lab: &mut dyn Lab) -> Outcome {
    let until = |n, second| CallRecord { deadline: Some(steady(second)), ..waiting(n, 0) };
    lab.commit(&[insert(until(1, 50)), insert(until(2, 40)), insert(waiting(3, 0)), insert(until(4, 60))])?;
    lab.commit(&[insert(until(5, 10)), start(5, 1)])?;
    let mut reader = lab.reader()?;
    assert_eq!(ids(&reader.expiring(9)?.found), [id(2), id(1), id(4)]);
    assert_eq!(ids(&reader.expiring(1)?.found), [id(2)]);
    Ok(())
}
