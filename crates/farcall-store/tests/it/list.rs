//! Lists: newest first, by filters, page by page, whatever was pruned between.

use farcall_core::call::{Source, State};
use farcall_core::id::CallId;
use farcall_store::port::{CallFilter, ListAsk, Prune, Write};
use farcall_store::record::CallRecord;

use crate::lab::Lab;
use crate::sample::{at, call, hop, id, insert, settle, start, steady};
use crate::{Outcome, for_each_store};

for_each_store! {
    calls_come_newest_first_and_page_by_page,
    each_filter_lets_through_what_it_names,
    a_page_looks_at_so_many_and_no_more,
    pruned_calls_leave_no_gap,
}

fn ask(filter: CallFilter) -> ListAsk {
    ListAsk { filter, before: None, count: 100, examined_max: 100 }
}

fn list(lab: &mut dyn Lab, ask: &ListAsk) -> Result<(Vec<CallId>, Option<u64>), Box<dyn std::error::Error>> {
    let listed = lab.reader()?.list(ask)?;
    Ok((listed.calls.iter().map(|call| call.id).collect(), listed.next))
}

/// All pages, and how many there were.
fn walk(lab: &mut dyn Lab, mut ask: ListAsk) -> Result<(Vec<CallId>, usize), Box<dyn std::error::Error>> {
    let (mut all, mut pages) = (Vec::new(), 0);
    loop {
        let (page, next) = list(lab, &ask)?;
        assert!(page.len() <= ask.count as usize);
        all.extend(page);
        pages += 1;
        assert!(pages < 100, "it ends");
        let Some(next) = next else { return Ok((all, pages)) };
        ask.before = Some(next);
    }
}

fn calls_come_newest_first_and_page_by_page(lab: &mut dyn Lab) -> Outcome {
    assert_eq!(list(lab, &ask(CallFilter::default()))?, (vec![], None), "an empty store");
    lab.commit(&(1..=5).map(|n| insert(call(n))).collect::<Vec<_>>())?;
    let newest_first = [id(5), id(4), id(3), id(2), id(1)];
    assert_eq!(list(lab, &ask(CallFilter::default()))?, (newest_first.to_vec(), None));
    let by_two = ListAsk { count: 2, ..ask(CallFilter::default()) };
    assert_eq!(walk(lab, by_two.clone())?, (newest_first.to_vec(), 3));
    let (page, next) = list(lab, &by_two)?;
    lab.commit(&[insert(call(6))])?;
    let (rest, _) = walk(lab, ListAsk { before: next, ..by_two })?;
    assert_eq!([page, rest].concat(), newest_first, "what comes later disturbs no walk");
    Ok(())
}

fn each_filter_lets_through_what_it_names(lab: &mut dyn Lab) -> Outcome {
    let declared = |name: &str| Some(name.to_owned());
    lab.commit(&[
        insert(CallRecord { upstream: declared("a"), limit_key: "a".to_owned(), ..call(1) }),
        insert(CallRecord { source: Source::Inbox, tags: vec!["x".to_owned(), "y\"z".to_owned()], ..call(2) }),
        insert(CallRecord { accepted_at: at(50), limit_key: "http://o".to_owned(), ..call(3) }),
        insert(CallRecord { accepted_at: at(60), upstream: declared("ab"), tags: vec!["xy".to_owned()], ..call(4) }),
        start(4, 1),
        insert(CallRecord { accepted_at: at(70), limit_key: "http://o".to_owned(), hop: Some(hop(1)), ..call(5) }),
    ])?;
    let mut check = |filter: CallFilter, expected: &[u32]| -> Outcome {
        let expected: Vec<CallId> = expected.iter().map(|&n| id(n)).collect();
        assert_eq!(list(lab, &ask(filter.clone()))?.0, expected, "{filter:?}");
        Ok(())
    };
    let none = CallFilter::default;
    check(CallFilter { states: vec![State::Running], ..none() }, &[4])?;
    check(CallFilter { states: vec![State::Queued, State::Failed], ..none() }, &[5, 3, 2, 1])?;
    check(CallFilter { states: vec![State::Failed], ..none() }, &[])?;
    check(CallFilter { upstream: declared("a"), ..none() }, &[1])?;
    check(CallFilter { upstream: declared("http://o"), ..none() }, &[3])?;
    check(CallFilter { upstream: declared(&hop(1).home_key), ..none() }, &[5])?;
    check(CallFilter { source: Some(Source::Inbox), ..none() }, &[2])?;
    check(CallFilter { tag: declared("x"), ..none() }, &[2])?;
    check(CallFilter { tag: declared("y\"z"), ..none() }, &[2])?;
    check(CallFilter { since: Some(at(60)), ..none() }, &[5, 4])?;
    check(CallFilter { until: Some(at(60)), ..none() }, &[3, 2, 1])?;
    check(CallFilter { since: Some(at(50)), until: Some(at(70)), tag: declared("xy"), ..none() }, &[4])?;
    Ok(())
}

fn a_page_looks_at_so_many_and_no_more(lab: &mut dyn Lab) -> Outcome {
    let tagged = CallRecord { tags: vec!["rare".to_owned()], ..call(1) };
    lab.commit(&[insert(tagged)])?;
    lab.commit(&(2..=30).map(|n| insert(call(n))).collect::<Vec<_>>())?;
    let filter = CallFilter { tag: Some("rare".to_owned()), ..CallFilter::default() };
    let by_ten = ListAsk { examined_max: 10, ..ask(filter) };
    let (page, next) = list(lab, &by_ten)?;
    assert!(page.is_empty() && next.is_some());
    assert_eq!(walk(lab, by_ten)?, (vec![id(1)], 3));
    Ok(())
}

fn pruned_calls_leave_no_gap(lab: &mut dyn Lab) -> Outcome {
    let end = |n: u32| [insert(call(n)), start(n, 1), settle(n, 1, State::Succeeded)];
    lab.commit(&(1..=20).flat_map(end).collect::<Vec<_>>())?;
    let prune = |n: u32| Write::Prune(Prune { call: id(n), grants_since: steady(0) });
    lab.commit(&(3..=19).map(prune).collect::<Vec<_>>())?;
    let by_four = ListAsk { examined_max: 4, ..ask(CallFilter::default()) };
    assert_eq!(walk(lab, by_four)?.0, [id(20), id(2), id(1)]);
    Ok(())
}
