//! What was set at upstreams: it outlives the process, the last word counts, and what is blank leaves nothing behind.

use farcall_store::port::Write;
use farcall_store::record::UpstreamRecord;

use crate::lab::{Ask, Lab};
use crate::sample::{call, insert, start, steady};
use crate::{Outcome, for_each_store};

for_each_store! {
    what_was_set_last_is_taken_over,
    what_is_blank_leaves_nothing,
    an_opened_upstream_is_not_closed_any_more,
    a_batch_that_is_refused_sets_and_opens_nothing,
}

fn set(limit_key: &str, is_paused: bool, patches: &str) -> Write {
    Write::Upstream(Box::new(record(limit_key, is_paused, patches)))
}

fn record(limit_key: &str, is_paused: bool, patches: &str) -> UpstreamRecord {
    UpstreamRecord { limit_key: limit_key.to_owned(), is_paused, patches: patches.to_owned() }
}

fn open(limit_key: &str) -> Write {
    Write::Open { limit_key: limit_key.to_owned() }
}

fn what_was_set_last_is_taken_over(lab: &mut dyn Lab) -> Outcome {
    assert_eq!(lab.restart()?.upstreams, []);
    lab.commit(&[set("shop", true, "")])?;
    lab.commit(&[set("shop", true, "{\"timeout\":1}"), set("https://a.example", false, "é")])?;
    let expected = [record("https://a.example", false, "é"), record("shop", true, "{\"timeout\":1}")];
    for _ in 0..2 {
        assert_eq!(lab.restart()?.upstreams, expected);
    }
    Ok(())
}

fn what_is_blank_leaves_nothing(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[set("shop", true, ""), set("bank", false, "")])?;
    assert_eq!(lab.restart()?.upstreams, [record("shop", true, "")]);
    lab.commit(&[set("shop", false, "")])?;
    assert_eq!(lab.restart()?.upstreams, []);
    Ok(())
}

fn an_opened_upstream_is_not_closed_any_more(lab: &mut dyn Lab) -> Outcome {
    let close = |seconds| Write::Close { call: call(1).id, until: steady(seconds) };
    lab.commit(&[insert(call(1)), start(1, 1), close(900)])?;
    lab.commit(&[open("shop"), open("unknown")])?;
    assert_eq!(lab.reader()?.closed_until("shop")?, None);
    lab.commit(&[close(300)])?;
    lab.restart()?;
    assert_eq!(lab.reader()?.closed_until("shop")?, Some(steady(300)), "an earlier end counts after that");
    Ok(())
}

fn a_batch_that_is_refused_sets_and_opens_nothing(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[insert(call(1)), Write::Close { call: call(1).id, until: steady(900) }, set("shop", true, "a")])?;
    let refused = lab.commit(&[set("shop", false, "b"), open("shop"), start(1, 7)]);
    assert!(refused.is_err());
    assert_eq!(lab.reader()?.closed_until("shop")?, Some(steady(900)));
    assert_eq!(lab.restart()?.upstreams, [record("shop", true, "a")]);
    Ok(())
}
