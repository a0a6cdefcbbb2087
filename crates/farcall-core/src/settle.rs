//! What happens to a call after an attempt: it ends, or it waits and is tried again.
//!
//! [`decide`] is the whole retry policy: counters and terms in, a decision with its reason out. It changes nothing.

use crate::call::{ErrorKind, Method, State, UpstreamId, WaitReason};
use crate::classify::Verdict;
use crate::policy::Terms;
use crate::retry::{Fraction, OnUnknown};
use crate::time::Instant;

/// How often a call has been tried again so far, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// Retries used in the present round.
    pub retries: u32,
    /// Rounds begun after the first.
    pub requeues: u32,
    /// Waits for Retry-After.
    pub throttles: u32,
    /// Attempts whose handling broke down.
    pub deaths: u32,
    /// How often in a row farcall died with an attempt out that it had only just begun.
    pub orphaned: u32,
}

/// What becomes of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    End {
        state: State,
        error: Option<ErrorKind>,
    },
    /// It waits; `tries` are the counters from now on.
    Wait {
        until: Instant,
        reason: WaitReason,
        tries: Tries,
    },
    /// To the back of the queue at once.
    Requeue {
        tries: Tries,
    },
    /// The same, as if it had not been tried: nothing was sent, and it was us who stopped it.
    HandBack,
    /// The same try goes on there, by a request of this method.
    Hop {
        upstream: UpstreamId,
        method: Method,
    },
}

/// Decides after a verdict. `chance` shortens jittered delays.
pub fn decide(terms: &Terms<'_>, tries: Tries, verdict: Verdict, now: Instant, chance: Fraction) -> Decision {
    match verdict {
        Verdict::Success => Decision::End { state: State::Succeeded, error: None },
        Verdict::Redirected { upstream, method } => Decision::Hop { upstream, method },
        Verdict::Failure(kind) => failed(kind),
        Verdict::Throttled { wait } => throttled(terms, tries, wait, now),
        Verdict::Retryable(kind) => again(terms, tries, kind, now, chance),
        Verdict::Unknown(kind) => match terms.on_unknown() {
            OnUnknown::Stop => Decision::End { state: State::Unknown, error: Some(kind) },
            OnUnknown::Retry => again(terms, tries, kind, now, chance),
        },
    }
}

/// Decides for an attempt that we cut off ourselves, by a crash or a drain: nothing is charged for it.
pub fn decide_interrupted(terms: &Terms<'_>, tries: Tries, kind: ErrorKind) -> Decision {
    match terms.on_unknown() {
        OnUnknown::Stop => Decision::End { state: State::Unknown, error: Some(kind) },
        OnUnknown::Retry => Decision::Requeue { tries },
    }
}

const fn failed(kind: ErrorKind) -> Decision {
    Decision::End { state: State::Failed, error: Some(kind) }
}

fn throttled(terms: &Terms<'_>, tries: Tries, wait: std::time::Duration, now: Instant) -> Decision {
    let retry = terms.retry();
    if retry.is_none() {
        return failed(ErrorKind::HttpStatus);
    }
    if wait > retry.retry_after_max {
        return failed(ErrorKind::RetryAfterTooLong);
    }
    if tries.throttles >= retry.throttle_max {
        return failed(ErrorKind::HttpStatus);
    }
    let tries = Tries { throttles: tries.throttles + 1, ..tries };
    Decision::Wait { until: now + wait, reason: WaitReason::Cooldown, tries }
}

fn again(terms: &Terms<'_>, tries: Tries, kind: ErrorKind, now: Instant, chance: Fraction) -> Decision {
    let retry = terms.retry();
    if tries.retries < retry.max {
        let tries = Tries { retries: tries.retries + 1, ..tries };
        let until = now + retry.delay(tries.retries, chance);
        return Decision::Wait { until, reason: WaitReason::Backoff, tries };
    }
    if tries.requeues < retry.requeue {
        return Decision::Requeue { tries: Tries { retries: 0, requeues: tries.requeues + 1, ..tries } };
    }
    failed(kind)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::{Method, Overrides};
    use crate::policy::UpstreamPolicy;
    use crate::retry::{Backoff, Jitter, RetryPolicy};

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn with(retry: RetryPolicy, method: Method, tries: Tries, verdict: Verdict) -> Decision {
        let policy = UpstreamPolicy { retry, ..UpstreamPolicy::default() };
        decide(&Terms::new(&policy, None, method), tries, verdict, NOW, Fraction(1.0))
    }

    fn constant(max: u32, requeue: u32) -> RetryPolicy {
        let backoff = Backoff::Constant(Duration::from_secs(2));
        RetryPolicy { max, requeue, backoff, jitter: Jitter::None, ..RetryPolicy::durable() }
    }

    #[test]
    fn retries_then_requeues_then_failure() {
        let verdict = Verdict::Retryable(ErrorKind::Connect);
        let mut tries = Tries::default();
        let mut log = Vec::new();
        loop {
            match with(constant(2, 1), Method::Post, tries, verdict) {
                Decision::Wait { until, tries: next, .. } => {
                    log.push(format!("wait {}s", until.since(NOW).as_secs()));
                    tries = next;
                }
                Decision::Requeue { tries: next } => {
                    log.push("requeue".to_owned());
                    tries = next;
                }
                Decision::Hop { .. } | Decision::HandBack => unreachable!("nothing redirects or stops it"),
                Decision::End { state, error } => {
                    assert_eq!((state, error), (State::Failed, Some(ErrorKind::Connect)));
                    break;
                }
            }
        }
        assert_eq!(log, ["wait 2s", "wait 2s", "requeue", "wait 2s", "wait 2s"]);
    }

    #[test]
    fn an_unknown_attempt_follows_on_unknown() {
        let verdict = Verdict::Unknown(ErrorKind::Timeout);
        let stopped = with(constant(3, 0), Method::Post, Tries::default(), verdict);
        assert_eq!(stopped, Decision::End { state: State::Unknown, error: Some(ErrorKind::Timeout) });
        let retried = with(constant(3, 0), Method::Get, Tries::default(), verdict);
        assert!(matches!(retried, Decision::Wait { tries: Tries { retries: 1, .. }, .. }), "{retried:?}");
        let spent = with(constant(0, 0), Method::Get, Tries::default(), verdict);
        assert_eq!(spent, failed(ErrorKind::Timeout));
    }

    #[test]
    fn an_interrupted_attempt_costs_no_retry() {
        let policy = UpstreamPolicy { idempotent: true, retry: constant(0, 0), ..UpstreamPolicy::default() };
        let terms = Terms::new(&policy, None, Method::Post);
        let decision = decide_interrupted(&terms, Tries::default(), ErrorKind::Unknown);
        assert_eq!(decision, Decision::Requeue { tries: Tries::default() });
        let own = Overrides { idempotent: Some(false), ..Overrides::default() };
        let decision =
            decide_interrupted(&Terms::new(&policy, Some(&own), Method::Post), Tries::default(), ErrorKind::Unknown);
        assert_eq!(decision, Decision::End { state: State::Unknown, error: Some(ErrorKind::Unknown) });
    }

    #[test]
    fn retry_after_waits_without_using_up_a_retry_until_its_own_count_is_spent() {
        let verdict = Verdict::Throttled { wait: Duration::from_secs(30) };
        let retry = RetryPolicy { throttle_max: 1, ..constant(3, 0) };
        let first = with(retry.clone(), Method::Post, Tries::default(), verdict);
        let tries = Tries { throttles: 1, ..Tries::default() };
        let until = NOW + Duration::from_secs(30);
        assert_eq!(first, Decision::Wait { until, reason: WaitReason::Cooldown, tries });
        assert_eq!(with(retry, Method::Post, tries, verdict), failed(ErrorKind::HttpStatus));
    }

    #[test]
    fn retry_after_beyond_the_maximum_ends_the_call_and_without_retries_it_is_the_answer() {
        let verdict = Verdict::Throttled { wait: Duration::from_secs(90_000) };
        assert_eq!(with(constant(3, 0), Method::Get, Tries::default(), verdict), failed(ErrorKind::RetryAfterTooLong));
        assert_eq!(with(RetryPolicy::none(), Method::Get, Tries::default(), verdict), failed(ErrorKind::HttpStatus));
    }
}
