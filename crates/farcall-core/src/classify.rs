//! What one attempt's result means under a policy. Pure tables, in the order of the contract's section 3.
//!
//! What follows for the call, a retry or its end, is decided in `settle`.

use std::time::Duration;

use crate::attempt::{AttemptOutcome, AttemptResult, BytesSent};
use crate::call::{ErrorKind, Method, UpstreamId};
use crate::hop::Redirect;
use crate::policy::Terms;

/// The meaning of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Success,
    /// The same try goes on there, by a request of this method.
    Redirected {
        upstream: UpstreamId,
        method: Method,
    },
    /// The upstream asked everybody to wait (429 or 503 with Retry-After, 429 with a quota that is used up).
    Throttled {
        wait: Duration,
    },
    /// Known not to have worked, and worth another try.
    Retryable(ErrorKind),
    /// Bytes were sent and no complete answer came.
    Unknown(ErrorKind),
    /// Another try would end the same.
    Failure(ErrorKind),
}

impl Verdict {
    /// How the attempt is stored.
    pub const fn outcome(self) -> AttemptOutcome {
        match self {
            Self::Success | Self::Redirected { .. } => AttemptOutcome::Success,
            Self::Throttled { .. } => AttemptOutcome::Throttled,
            Self::Retryable(_) => AttemptOutcome::Retryable,
            Self::Unknown(_) => AttemptOutcome::Unknown,
            Self::Failure(_) => AttemptOutcome::Failure,
        }
    }

    /// The error that goes with it.
    pub const fn error(self) -> Option<ErrorKind> {
        match self {
            Self::Success | Self::Redirected { .. } => None,
            Self::Throttled { .. } => Some(ErrorKind::HttpStatus),
            Self::Retryable(kind) | Self::Unknown(kind) | Self::Failure(kind) => Some(kind),
        }
    }
}

/// Judges a result by the terms that hold for its call.
pub fn classify(terms: &Terms<'_>, result: &AttemptResult) -> Verdict {
    match result.error {
        Some(kind) => classify_error(kind, result.bytes_sent),
        None => classify_answer(terms, result),
    }
}

fn classify_answer(terms: &Terms<'_>, result: &AttemptResult) -> Verdict {
    let Some(status) = result.status else {
        return Verdict::Unknown(ErrorKind::Internal);
    };
    match result.redirect.filter(|_| terms.may_follow()) {
        Some(Redirect::To { upstream, method }) => return Verdict::Redirected { upstream, method },
        Some(Redirect::Downgrade) => return Verdict::Failure(ErrorKind::BlockedAddress),
        None => {}
    }
    if terms.success_statuses().contains(status) && result.content_ok {
        return Verdict::Success;
    }
    let retry = terms.retry();
    if let Some(wait) = result.told_to_wait() {
        return Verdict::Throttled { wait };
    }
    // Who turns away because the quota is used up, and says when it no longer is, means the same.
    if let (429, Some(wait)) = (status, result.quota.and_then(|said| said.exhausted_for())) {
        return Verdict::Throttled { wait: wait.min(retry.retry_after_max) };
    }
    if retry.statuses.contains(status) && retry.methods.contains(terms.method()) {
        return Verdict::Retryable(ErrorKind::HttpStatus);
    }
    Verdict::Failure(ErrorKind::HttpStatus)
}

const fn classify_error(kind: ErrorKind, bytes_sent: BytesSent) -> Verdict {
    match (kind, bytes_sent) {
        (ErrorKind::TooLarge | ErrorKind::Decode | ErrorKind::Invalid | ErrorKind::BlockedAddress, _) => {
            Verdict::Failure(kind)
        }
        // A process that ended has an outcome, however bad.
        (ErrorKind::ProcessExit | ErrorKind::ProcessSignal | ErrorKind::ProcessMemory, _) => Verdict::Retryable(kind),
        (_, BytesSent::No | BytesSent::Refused) => Verdict::Retryable(kind),
        (_, BytesSent::Maybe) => Verdict::Unknown(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Method, Overrides};
    use crate::policy::UpstreamPolicy;
    use crate::remaining::{Bound, Remaining};
    use crate::retry::{MethodSet, RetryPolicy, StatusSet};

    fn answer(status: u16) -> AttemptResult {
        AttemptResult {
            status: Some(status),
            error: None,
            retry_after: None,
            quota: None,
            redirect: None,
            content_ok: true,
            bytes_sent: BytesSent::Maybe,
            latency: Duration::ZERO,
            size: 0,
        }
    }

    fn check(result: AttemptResult, expected: Verdict) {
        let policy = UpstreamPolicy::default();
        let terms = Terms::new(&policy, None, Method::Post);
        assert_eq!(classify(&terms, &result), expected, "{result:?}");
    }

    #[test]
    fn answers_are_judged_by_status() {
        check(answer(200), Verdict::Success);
        check(answer(299), Verdict::Success);
        check(answer(302), Verdict::Failure(ErrorKind::HttpStatus));
        check(answer(404), Verdict::Failure(ErrorKind::HttpStatus));
        check(answer(429), Verdict::Retryable(ErrorKind::HttpStatus));
        check(answer(503), Verdict::Retryable(ErrorKind::HttpStatus));
        check(answer(501), Verdict::Failure(ErrorKind::HttpStatus));
    }

    #[test]
    fn the_wrong_content_type_is_no_success() {
        check(AttemptResult { content_ok: false, ..answer(200) }, Verdict::Failure(ErrorKind::HttpStatus));
    }

    #[test]
    fn a_redirect_is_followed_while_it_may_be_and_else_is_an_answer() {
        let (upstream, method) = (UpstreamId(4), Method::Get);
        let to = AttemptResult { redirect: Some(Redirect::To { upstream, method }), ..answer(302) };
        let down = AttemptResult { redirect: Some(Redirect::Downgrade), ..answer(302) };
        let statuses = StatusSet::new(vec![(200, 399)]);
        let policy = UpstreamPolicy { redirects: 2, success_statuses: statuses, ..UpstreamPolicy::default() };
        let after = |count, result| classify(&Terms::new(&policy, None, Method::Post).after_redirects(count), &result);
        assert_eq!(after(0, to), Verdict::Redirected { upstream, method }, "even if its status would be a success");
        assert_eq!(after(1, down), Verdict::Failure(ErrorKind::BlockedAddress));
        assert_eq!((after(2, to), after(3, down)), (Verdict::Success, Verdict::Success));
        assert_eq!((Verdict::Redirected { upstream, method }).outcome(), AttemptOutcome::Success);
        check(to, Verdict::Failure(ErrorKind::HttpStatus));
    }

    #[test]
    fn retry_after_counts_for_429_and_503_only() {
        let wait = Duration::from_secs(7);
        for status in [429, 503] {
            check(AttemptResult { retry_after: Some(wait), ..answer(status) }, Verdict::Throttled { wait });
        }
        let other = AttemptResult { retry_after: Some(wait), ..answer(500) };
        check(other, Verdict::Retryable(ErrorKind::HttpStatus));
    }

    #[test]
    fn a_429_that_says_when_the_quota_is_new_is_told_to_wait_that_long_at_most() {
        let said = |remaining, hours: u64| Remaining::of([Bound::new(remaining, Duration::from_secs(hours * 3_600))]);
        let turned_away = |status, quota| AttemptResult { quota, ..answer(status) };
        let hour = Duration::from_secs(3_600);
        check(turned_away(429, said(0, 1)), Verdict::Throttled { wait: hour });
        check(turned_away(429, said(0, 500)), Verdict::Throttled { wait: hour * 24 });
        check(turned_away(429, said(1, 1)), Verdict::Retryable(ErrorKind::HttpStatus));
        check(turned_away(503, said(0, 1)), Verdict::Retryable(ErrorKind::HttpStatus));
        check(turned_away(200, said(0, 1)), Verdict::Success);
        let both = AttemptResult { retry_after: Some(Duration::from_secs(7)), ..turned_away(429, said(0, 1)) };
        check(both, Verdict::Throttled { wait: Duration::from_secs(7) });
    }

    #[test]
    fn errors_are_unknown_once_a_byte_may_be_out() {
        let failed = |kind, bytes_sent| AttemptResult { status: None, error: Some(kind), bytes_sent, ..answer(0) };
        for kind in
            [ErrorKind::Timeout, ErrorKind::Reset, ErrorKind::Truncated, ErrorKind::Protocol, ErrorKind::Unknown]
        {
            check(failed(kind, BytesSent::Maybe), Verdict::Unknown(kind));
        }
        for kind in [ErrorKind::Connect, ErrorKind::Dns, ErrorKind::Tls, ErrorKind::Secret, ErrorKind::Timeout] {
            check(failed(kind, BytesSent::No), Verdict::Retryable(kind));
            check(failed(kind, BytesSent::Refused), Verdict::Retryable(kind));
        }
        for kind in [ErrorKind::TooLarge, ErrorKind::Decode, ErrorKind::Invalid, ErrorKind::BlockedAddress] {
            check(failed(kind, BytesSent::Maybe), Verdict::Failure(kind));
        }
        check(failed(ErrorKind::ProcessExit, BytesSent::Maybe), Verdict::Retryable(ErrorKind::ProcessExit));
    }

    #[test]
    fn methods_restrict_which_statuses_are_retried() {
        let methods = MethodSet::Only(vec!["GET".to_owned()]);
        let retry = Some(RetryPolicy { methods, ..RetryPolicy::durable() });
        let overrides = Overrides { retry, ..Overrides::default() };
        let policy = UpstreamPolicy::default();
        let judged = |method| classify(&Terms::new(&policy, Some(&overrides), method), &answer(500));
        assert_eq!(judged(Method::Get), Verdict::Retryable(ErrorKind::HttpStatus));
        assert_eq!(judged(Method::Post), Verdict::Failure(ErrorKind::HttpStatus));
    }
}
