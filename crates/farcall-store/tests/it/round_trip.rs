//! Whatever is stored comes back as it was, also to another process.
//!
//! Awkward values are in the samples: names and headers that are no UTF-8, extreme numbers, empty texts.

use bytes::Bytes;
use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{ErrorKind, Source, State, Via};
use farcall_core::id::CallId;
use farcall_store::port::{AttemptEnd, Settle, Start, Write};
use farcall_store::record::{
    AttemptRecord, CallRecord, ErrorRecord, IdempotencyRecord, OutcomeRecord, Progress, RequestRecord, ResponseRecord,
};

use crate::lab::{Ask as _, Lab};
use crate::sample::{
    at, attempt_end, call, full_call, id, insert, insert_traced, insert_with, key, progress, response, settle_with,
    start, steady,
};
use crate::{Outcome, for_each_store};

for_each_store! {
    every_field_of_a_call_comes_back,
    every_word_comes_back,
    every_field_of_a_settled_attempt_comes_back,
    a_start_changes_state_number_and_first_time_only,
    the_progress_of_a_settlement_replaces_the_calls,
    bodies_of_any_size_and_content_come_back,
    the_trace_of_a_call_comes_back_with_its_request,
    headers_of_any_bytes_come_back,
    unknown_calls_have_nothing,
    outcomes_come_together_as_many_as_fit,
    a_key_leads_to_its_call_in_its_scope_only,
}

/// Reads before and after a restart.
fn twice(lab: &mut dyn Lab, mut check: impl FnMut(&mut dyn Lab) -> Outcome) -> Outcome {
    check(lab)?;
    lab.restart()?;
    check(lab)
}

fn every_field_of_a_call_comes_back(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), insert(full_call(2))])?;
    twice(lab, |lab| {
        assert_eq!(lab.call(id(1))?, call(1));
        assert_eq!(lab.call(id(2))?, full_call(2));
        Ok(())
    })
}

fn every_word_comes_back(lab: &mut dyn Lab) -> Outcome {
    let mut calls = Vec::new();
    for (n, &source) in (0..).zip(Source::ALL) {
        calls.push(CallRecord { source, ..call(n) });
    }
    for (n, &via) in (50..).zip(Via::ALL) {
        calls.push(CallRecord { via, ..call(n) });
    }
    for (n, &state) in (100..).zip(State::ALL) {
        calls.push(CallRecord { progress: progress(state), ..call(n) });
    }
    for (n, &kind) in (200..).zip(ErrorKind::ALL) {
        let error = Some(ErrorRecord { kind, message: kind.to_string() });
        calls.push(CallRecord { progress: Progress { error, ..progress(State::Failed) }, ..call(n) });
    }
    lab.commit(&calls.iter().cloned().map(insert).collect::<Vec<_>>())?;
    twice(lab, |lab| {
        for call in &calls {
            assert_eq!(lab.call(call.id)?, *call);
        }
        Ok(())
    })
}

fn every_field_of_a_settled_attempt_comes_back(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1))])?;
    let mut expected = Vec::new();
    let outcomes = AttemptOutcome::ALL.iter().filter(|outcome| **outcome != AttemptOutcome::Running);
    for (number, &outcome) in (1..).zip(outcomes) {
        let kind = AttemptKind::ALL[number as usize % AttemptKind::ALL.len()];
        let (started_at, granted_at) = (at(i64::from(number)), steady(i64::from(number)));
        let error = (number % 2 == 0).then(|| ErrorRecord { kind: ErrorKind::Reset, message: "ß".to_owned() });
        let (status, proved_at) = ((number % 3 == 0).then_some(599), (number % 2 == 1).then(|| steady(7)));
        let end = AttemptEnd { number, outcome, status, proved_at, ended_at: at(8), error: error.clone() };
        lab.commit(&[Write::Start(Start { call: id(1), number, kind, started_at, granted_at })])?;
        lab.commit(&[settle_with(1, Some(end), State::Retrying, None)])?;
        let ended_at = Some(at(8));
        expected.push(AttemptRecord {
            number,
            kind,
            outcome,
            status,
            started_at,
            granted_at,
            proved_at,
            ended_at,
            error,
        });
    }
    twice(lab, |lab| {
        assert_eq!(lab.reader()?.attempts(id(1))?, expected);
        Ok(())
    })
}

fn a_start_changes_state_number_and_first_time_only(lab: &mut dyn Lab) -> Outcome {
    let waiting = CallRecord { started_at: None, attempts: 0, ..full_call(1) };
    // Once in the batch of the insert, once after it.
    lab.commit(&[insert(waiting.clone()), start(1, 1)])?;
    let mut expected = waiting;
    expected.attempts = 1;
    expected.started_at = Some(at(1));
    expected.progress.state = State::Running;
    expected.progress.ready_at = None;
    expected.progress.ready_at = None;
    assert_eq!(lab.call(id(1))?, expected);

    lab.commit(&[start(1, 2)])?;
    expected.attempts = 2;
    assert_eq!(lab.call(id(1))?, expected);
    let running = |number, kind, seconds| AttemptRecord {
        number,
        kind,
        outcome: AttemptOutcome::Running,
        status: None,
        started_at: at(seconds),
        granted_at: steady(seconds),
        proved_at: None,
        ended_at: None,
        error: None,
    };
    let attempts = [running(1, AttemptKind::First, 1), running(2, AttemptKind::Retry, 2)];
    assert_eq!(lab.reader()?.attempts(id(1))?, attempts);
    Ok(())
}

fn the_progress_of_a_settlement_replaces_the_calls(lab: &mut dyn Lab) -> Outcome {
    for (n, state) in [(1, State::Retrying), (2, State::Failed)] {
        let begun = CallRecord { started_at: None, attempts: 0, ..full_call(n) };
        let full = full_call(9).progress;
        let progress = Progress { state, ready_at: full.ready_at.filter(|_| !state.is_end()), ..full };
        let attempt = Some(attempt_end(1));
        let settle = Settle {
            at: steady(9),
            call: id(n),
            attempt,
            progress: Some(progress.clone()),
            heading: None,
            response: None,
        };
        lab.commit(&[insert(begun.clone()), start(n, 1)])?;
        lab.commit(&[Write::Settle(Box::new(settle))])?;
        let expected = CallRecord { started_at: Some(at(1)), attempts: 1, progress, ..begun };
        twice(lab, |lab| {
            assert_eq!(lab.call(id(n))?, expected);
            Ok(())
        })?;
    }
    Ok(())
}

fn bodies_of_any_size_and_content_come_back(lab: &mut dyn Lab) -> Outcome {
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(200_000).collect();
    for (n, length) in (0..).zip([0, 1, 64 * 1024, 64 * 1024 + 1, bytes.len()]) {
        let (request, answer) =
            (Bytes::copy_from_slice(&bytes[..length]), Bytes::copy_from_slice(&bytes[bytes.len() - length..]));
        lab.commit(&[insert_with(call(n), request.clone()), start(n, 1)])?;
        let ends = settle_with(n, Some(attempt_end(1)), State::Succeeded, Some(response(answer.clone())));
        lab.commit(&[ends])?;
        twice(lab, |lab| {
            let mut reader = lab.reader()?;
            assert_eq!(reader.request(id(n))?.as_ref(), Some(&request), "request of {length} bytes");
            let together = reader.requests(&[id(n), id(u32::MAX), id(n)])?.found;
            let stored = Some(RequestRecord { via: Via::Tcp, document: request.clone(), trace: None });
            assert_eq!(together, [stored.clone(), None, stored], "requests of {length} bytes");
            assert_eq!(reader.response(id(n))?, Some(response(answer.clone())), "response of {length} bytes");
            Ok(())
        })?;
    }
    Ok(())
}

fn the_trace_of_a_call_comes_back_with_its_request(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert_traced(call(1), "00-1-2-01\na=1"), insert_traced(full_call(2), "t"), insert(call(3))])?;
    twice(lab, |lab| {
        let found = lab.reader()?.requests(&[id(1), id(2), id(3)])?.found;
        let traces: Vec<_> = found.iter().flatten().map(|request| request.trace.as_deref()).collect();
        assert_eq!(traces, [Some("00-1-2-01\na=1"), Some("t"), None]);
        assert_eq!((lab.call(id(1))?, lab.call(id(2))?), (call(1), full_call(2)));
        Ok(())
    })
}

fn headers_of_any_bytes_come_back(lab: &mut dyn Lab) -> Outcome {
    let headers = vec![
        ("set-cookie".to_owned(), b"a=1".to_vec()),
        ("set-cookie".to_owned(), Vec::new()),
        ("x-raw".to_owned(), (0..=255).collect()),
        ("x-utf-8".to_owned(), "žluť".as_bytes().to_vec()),
    ];
    let answer = ResponseRecord { status: 599, headers, body: Bytes::new(), decoded: true };
    lab.commit(&[insert(call(1)), start(1, 1)])?;
    lab.commit(&[settle_with(1, Some(attempt_end(1)), State::Failed, Some(answer.clone()))])?;
    twice(lab, |lab| {
        assert_eq!(lab.reader()?.response(id(1))?, Some(answer.clone()));
        Ok(())
    })
}

fn unknown_calls_have_nothing(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1))])?;
    let mut reader = lab.reader()?;
    assert_eq!(reader.call(id(2))?, None);
    assert_eq!(reader.attempts(id(2))?, []);
    assert_eq!(reader.request(id(2))?, None);
    assert_eq!(reader.response(id(2))?, None);
    assert_eq!(reader.response(id(1))?, None);
    Ok(())
}

fn outcomes_come_together_as_many_as_fit(lab: &mut dyn Lab) -> Outcome {
    for n in 1..=3 {
        lab.commit(&[insert_with(call(n), vec![b'a'; 60]), start(n, 1)])?;
        lab.commit(&[settle_with(n, Some(attempt_end(1)), State::Succeeded, Some(response(vec![b'b'; 40])))])?;
    }
    let mut reader = lab.reader()?;
    let mut ids =
        |ids: &[CallId], bytes_max| reader.outcomes(ids, bytes_max).into_iter().collect::<Result<Vec<_>, _>>();
    let found = ids(&[id(1), id(9), id(3)], 1_000)?;
    let shown = |outcome: &Option<OutcomeRecord>| {
        let OutcomeRecord { call, document, response } = outcome.clone()?;
        Some((call.id, document.len(), response?.body.len()))
    };
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), [Some((id(1), 60, 40)), None, Some((id(3), 60, 40))]);
    let all = [id(1), id(2), id(3)];
    assert_eq!([0, 100, 101, 200, 201].map(|bytes| ids(&all, bytes).map_or(0, |found| found.len())), [1, 1, 2, 2, 3]);
    assert!(ids(&[], 1_000)?.is_empty());
    Ok(())
}

fn a_key_leads_to_its_call_in_its_scope_only(lab: &mut dyn Lab) -> Outcome {
    let keyed = |n, scope: &str, name| {
        let idempotency = Some(IdempotencyRecord { scope: scope.to_owned(), ..key(name) });
        CallRecord { idempotency, ..call(n) }
    };
    lab.commit(&[
        insert(keyed(1, "", "a")),
        insert(keyed(2, "token", "a")),
        insert(keyed(3, "", "")),
        insert(call(4)),
    ])?;
    twice(lab, |lab| {
        let mut reader = lab.reader()?;
        assert_eq!(reader.keyed("", "a")?, Some(keyed(1, "", "a")));
        assert_eq!(reader.keyed("token", "a")?, Some(keyed(2, "token", "a")));
        assert_eq!(reader.keyed("", "")?, Some(keyed(3, "", "")));
        assert_eq!(reader.keyed("token", "b")?, None);
        Ok(())
    })
}
