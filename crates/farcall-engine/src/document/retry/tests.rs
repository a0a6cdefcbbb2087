//! A call's own retries over its upstream's.

use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::Overrides;
use farcall_core::retry::{Backoff, RetryPolicy};

use super::*;
use crate::config::{self, Config, LoadOptions, Upstream};
use crate::document::{Document, Rejection, Routing, parse};

fn read(members: &str, policy: &RetryPolicy) -> Result<Document, Rejection> {
    let mut config = Config { undeclared: Upstream::default(), ..Config::default() };
    config.undeclared.policy.retry = policy.clone();
    parse(&Bytes::from(format!(r#"{{"url":"https://api.test/",{members}}}"#)), &Routing::from(&config))
}

fn retry_over(members: &str, policy: &RetryPolicy) -> RetryPolicy {
    read(members, policy).expect(members).overrides.retry.expect(members)
}

#[test]
fn what_is_left_out_is_the_upstreams() {
    let policy = RetryPolicy { max: 7, requeue: 2, ..RetryPolicy::durable() };
    assert_eq!(retry_over(r#""retry":1"#, &policy), RetryPolicy { max: 1, ..policy.clone() });
    assert_eq!(retry_over(r#""retry":{}"#, &policy), policy);
    let own = retry_over(
        r#""retry":{"max_delay":"1m","statuses":["500-599",429],"methods":["GET"],"requeue":0,"throttle_max":3,"retry_after_max":0}"#,
        &policy,
    );
    let expected = RetryPolicy {
        max_delay: Duration::from_secs(60),
        statuses: StatusSet::new(vec![(500, 599), (429, 429)]),
        methods: MethodSet::Only(vec!["GET".to_owned()]),
        requeue: 0,
        throttle_max: 3,
        retry_after_max: Duration::ZERO,
        ..policy
    };
    assert_eq!(own, expected);
}

#[test]
fn a_delay_of_another_form_brings_its_own_jitter() {
    let durable = RetryPolicy::durable();
    let constant = RetryPolicy {
        backoff: Backoff::Constant(Duration::from_secs(2)),
        jitter: Jitter::None,
        ..RetryPolicy::durable()
    };
    let check = |members: &str, policy: &RetryPolicy, backoff: Backoff, jitter: Jitter| {
        let own = retry_over(&format!(r#""retry":{{{members}}}"#), policy);
        assert_eq!((own.backoff, own.jitter), (backoff, jitter), "{members}");
    };
    let geometric = |millis, factor| Backoff::Geometric { base: Duration::from_millis(millis), factor };
    check(r#""wait":3"#, &durable, Backoff::Constant(Duration::from_secs(3)), Jitter::None);
    check(r#""wait":3,"jitter":"full""#, &durable, Backoff::Constant(Duration::from_secs(3)), Jitter::Full);
    check(r#""backoff_factor":2"#, &durable, Backoff::Factor(2.0), Jitter::None);
    check(r#""base":"500ms""#, &durable, geometric(500, 2.0), Jitter::Full);
    check(r#""factor":3"#, &durable, geometric(1_000, 3.0), Jitter::Full);
    check(r#""factor":3"#, &RetryPolicy { jitter: Jitter::None, ..durable }, geometric(1_000, 3.0), Jitter::None);
    check(r#""base":4"#, &constant, geometric(4_000, 2.0), Jitter::Full);
    check(r#""max":1"#, &constant, constant.backoff, Jitter::None);
}

#[test]
fn on_unknown_may_stand_in_either_place_but_not_both() {
    let policy = RetryPolicy::durable();
    let overrides = |members: &str| -> Overrides { read(members, &policy).expect(members).overrides };
    assert_eq!(overrides(r#""on_unknown":"retry""#).on_unknown, Some(OnUnknown::Retry));
    assert_eq!(overrides(r#""retry":{"on_unknown":"stop"}"#).on_unknown, Some(OnUnknown::Stop));
    let rejection = read(r#""on_unknown":"retry","retry":{"on_unknown":"retry"}"#, &policy).expect_err("both");
    assert_eq!(rejection.key.as_deref(), Some("on_unknown"));
}

#[test]
fn mistakes_in_retry_and_success_name_their_key() {
    let check = |members: &str, key: &str, message: &str| {
        let rejection = read(members, &RetryPolicy::durable()).expect_err(members);
        assert_eq!(rejection.key.as_deref(), Some(key), "{members}: {rejection}");
        assert!(rejection.message.contains(message), "{members}: {rejection}");
    };
    check(r#""retry":-1"#, "retry", "whole number");
    check(r#""retry":1.5"#, "retry", "whole number");
    check(r#""retry":"3""#, "retry", "a number of retries, or an object");
    check(r#""retry":{"maxx":1}"#, "retry.maxx", "is `max` meant?");
    check(r#""retry":{"max":"1"}"#, "retry.max", "whole number");
    check(r#""retry":{"wait":1,"base":1}"#, "retry.base", "excludes `retry.wait`");
    check(r#""retry":{"wait":1,"backoff_factor":1}"#, "retry.backoff_factor", "excludes `retry.wait`");
    check(r#""retry":{"backoff_factor":1,"factor":1}"#, "retry.factor", "excludes `retry.backoff_factor`");
    check(r#""retry":{"factor":0}"#, "retry.factor", "above 0");
    check(r#""retry":{"factor":1e999}"#, "retry.factor", "above 0");
    check(r#""retry":{"base":0}"#, "retry.base", "longer than 0");
    check(r#""retry":{"jitter":"half"}"#, "retry.jitter", r#""full" or "none""#);
    check(r#""retry":{"statuses":500}"#, "retry.statuses", "must be an array");
    check(r#""retry":{"statuses":[]}"#, "retry.statuses", "1 to 100 entries");
    check(r#""retry":{"statuses":["5xx"]}"#, "retry.statuses", "status code");
    check(r#""retry":{"statuses":[99]}"#, "retry.statuses", "from 100 to 599");
    check(r#""retry":{"methods":["get"]}"#, "retry.methods", "upper case");
    check(r#""success":200"#, "success", "must be an object");
    check(r#""success":{"statuses":[true]}"#, "success.statuses", "status code");
    check(r#""success":{"content_type":"json"}"#, "success.content_type", "media type");
    check(r#""success":{"content_type":"text/html; charset=utf-8"}"#, "success.content_type", "without parameters");
}

#[test]
fn any_content_type_can_be_allowed() {
    let call = read(r#""success":{"content_type":null}"#, &RetryPolicy::durable()).expect("null allows any");
    assert_eq!(call.success.content_type, Some(None));
}

#[test]
fn any_method_can_be_retried_again() {
    let policy = RetryPolicy { methods: MethodSet::Only(vec!["GET".to_owned()]), ..RetryPolicy::durable() };
    assert_eq!(retry_over(r#""retry":{"methods":"all"}"#, &policy).methods, MethodSet::All);
}

#[test]
fn a_calls_retry_has_the_keys_of_the_configurations() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("farcall.yml"), "defaults: { retry: { no_key_at_all: 1 } }")?;
    let mistakes = config::load(dir.path(), &LoadOptions::default()).expect_err("the key is unknown").to_string();
    let (_, known) = mistakes.split_once("known here: ").ok_or("the hint lists the keys")?;
    let mut known: Vec<&str> = known.lines().next().unwrap_or_default().split(", ").collect();
    let mut own = RetryKeys::KEYS.to_vec();
    known.sort_unstable();
    own.sort_unstable();
    assert_eq!(own, known);
    Ok(())
}
