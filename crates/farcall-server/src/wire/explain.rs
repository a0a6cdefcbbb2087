//! Why a call waits, as the API tells it: the gate that holds it with what can be told of that gate, its place, an
//! estimate, and a sentence for people.

use farcall_core::call::{State, WaitReason};
use farcall_core::dispatcher::Held;
use farcall_core::hedge::HeldBack;
use farcall_engine::outcome::rfc3339;
use farcall_engine::schema::{CallIdText, Time, Word};
use farcall_engine::{CallView, Explained, HedgingView, UpstreamView};
use schemars::JsonSchema;
use serde::Serialize;

use super::upstream::{Breaker, Concurrency, Limit, Quota, Spacing};

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Explanation {
    #[schemars(with = "CallIdText")]
    id: String,
    #[schemars(with = "Word<State>")]
    state: &'static str,
    upstream: Option<String>,
    #[schemars(with = "Option<Word<WaitReason>>")]
    wait_reason: Option<&'static str>,
    #[schemars(with = "Option<Time>")]
    next_at: Option<String>,
    /// The same in one or two sentences.
    explanation: String,
    gate: Option<Gate>,
    /// 1 goes next.
    position: Option<usize>,
    /// Without it the position is that or further back.
    position_is_exact: Option<bool>,
    #[schemars(with = "Option<Time>")]
    estimated_start_at: Option<String>,
    /// `store` while nothing can be stored, `draining` while farcall stops.
    held_by: Option<&'static str>,
    /// While it runs, and its attempts may be hedged.
    hedging: Option<Hedging>,
}

/// How the attempts of a call that runs are hedged.
#[derive(Debug, Serialize, JsonSchema)]
struct Hedging {
    /// Attempts added to the present try.
    made: u32,
    /// Attempts that may be added to a try.
    extra: u32,
    /// When it is looked at next whether one is added.
    #[schemars(with = "Option<Time>")]
    next_at: Option<String>,
    /// Why none was added when it was last looked at.
    #[schemars(with = "Option<Word<HeldBack>>")]
    held_back: Option<&'static str>,
}

/// What holds a call, by its `reason`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
enum Gate {
    NotBefore {
        #[schemars(with = "Option<Time>")]
        not_before: Option<String>,
    },
    Backoff {
        #[schemars(with = "Option<Time>")]
        until: Option<String>,
        next_attempt: u32,
        retries: u32,
        error: Option<String>,
    },
    RateLimit {
        limits: Vec<Limit>,
        /// What the upstream said remains of its own quota.
        quota: Option<Quota>,
        spacing: Option<Spacing>,
    },
    Concurrency {
        concurrency: Concurrency,
        overall: bool,
    },
    Cooldown {
        #[schemars(with = "Option<Time>")]
        closed_until: Option<String>,
    },
    BreakerOpen {
        breaker: Option<Breaker>,
    },
    Paused {
        missing: bool,
    },
    Fairness {},
}

impl Explanation {
    pub(crate) fn of(view: &CallView, explained: Option<&Explained>) -> Self {
        let record = &view.record;
        let wait_reason = explained.and_then(|explained| explained.wait_reason);
        let gate = explained.zip(wait_reason).map(|(explained, reason)| gate(view, explained, reason));
        let ahead = explained.and_then(|explained| explained.ahead);
        // One that is further back is as far as is counted at least.
        let position = ahead.map(|(calls, is_exact)| if is_exact { calls + 1 } else { calls.max(1) });
        Self {
            id: record.id.to_string(),
            state: explained.map_or(record.progress.state, |explained| explained.state).as_str(),
            upstream: explained
                .map_or(record.upstream.as_ref(), |explained| Some(&explained.upstream.as_ref()?.name))
                .cloned(),
            wait_reason: wait_reason.map(WaitReason::as_str),
            next_at: explained.and_then(|explained| explained.next_at).map(rfc3339),
            explanation: sentence(view, explained),
            gate,
            position,
            position_is_exact: ahead.map(|(_, is_exact)| is_exact),
            estimated_start_at: explained.and_then(|explained| explained.starts_at).map(rfc3339),
            held_by: explained.and_then(|explained| explained.held).map(|held| match held {
                Held::Draining => "draining",
                Held::Storage => "store",
            }),
            hedging: explained.and_then(|explained| explained.hedging).map(|hedging| Hedging {
                made: hedging.made,
                extra: hedging.extra,
                next_at: hedging.next_at.map(rfc3339),
                held_back: hedging.held_back.map(HeldBack::as_str),
            }),
        }
    }
}

fn gate(view: &CallView, explained: &Explained, reason: WaitReason) -> Gate {
    let until = explained.next_at.map(rfc3339);
    let progress = &view.record.progress;
    let upstream = explained.upstream.as_ref();
    match reason {
        WaitReason::NotBefore => Gate::NotBefore { not_before: until },
        WaitReason::Backoff => Gate::Backoff {
            until,
            next_attempt: view.record.attempts + 1,
            retries: progress.retries,
            error: progress.error.as_ref().map(|error| error.message.clone()),
        },
        WaitReason::RateLimit => Gate::RateLimit {
            limits: upstream.map(|upstream| upstream.limits.iter().map(Limit::of).collect()).unwrap_or_default(),
            quota: upstream.and_then(Quota::of),
            spacing: upstream.and_then(Spacing::of),
        },
        WaitReason::Concurrency => {
            let (used, capacity) = explained.concurrency;
            Gate::Concurrency { concurrency: Concurrency::new(used, capacity), overall: used < capacity }
        }
        WaitReason::Cooldown => {
            let closed_until = upstream.and_then(|upstream| upstream.closed_until).map(rfc3339);
            Gate::Cooldown { closed_until: closed_until.or(until) }
        }
        WaitReason::BreakerOpen => Gate::BreakerOpen { breaker: upstream.and_then(Breaker::of) },
        WaitReason::Paused => Gate::Paused { missing: upstream.is_some_and(|upstream| upstream.is_missing) },
        WaitReason::Fairness => Gate::Fairness {},
    }
}

fn sentence(view: &CallView, explained: Option<&Explained>) -> String {
    let state = view.record.progress.state;
    let Some(explained) = explained.filter(|_| !state.is_end()) else {
        return if state.is_end() {
            format!("It has ended ({state}): nothing holds it.")
        } else {
            "The engine does not run: nothing is known of why it waits.".to_owned()
        };
    };
    match explained.held {
        Some(Held::Draining) => return "farcall is stopping: nothing is started until it runs again.".to_owned(),
        Some(Held::Storage) => {
            return "The store cannot be written: nothing is started until it can.".to_owned();
        }
        None => {}
    }
    let Some(reason) = explained.wait_reason else {
        return match (explained.state, explained.is_cancel_requested) {
            (State::Running, false) => under_way(explained),
            (State::Running, true) => {
                "An attempt is under way; it is to be cancelled, and ends as that attempt does.".to_owned()
            }
            _ => "It reports on a call whose files are not in place yet, and goes on when they are.".to_owned(),
        };
    };
    let name = explained.upstream.as_ref().map_or("the command", |upstream| &upstream.name);
    format!("{}{}", why(view, explained, reason, name), place(explained))
}

fn why(view: &CallView, explained: &Explained, reason: WaitReason, name: &str) -> String {
    let until = explained.next_at.map_or(String::new(), |at| format!(" until {}", rfc3339(at)));
    match reason {
        WaitReason::NotBefore => match explained.next_at {
            Some(at) => format!("It is not to start before {}.", rfc3339(at)),
            None => "It is not to start before its time.".to_owned(),
        },
        WaitReason::Backoff => {
            format!("Its last attempt failed; attempt {} waits{until}.", view.record.attempts + 1)
        }
        WaitReason::RateLimit if is_told(explained.upstream.as_ref()) => {
            format!("What {name} said remains of its quota is taken{until}.")
        }
        WaitReason::RateLimit => {
            let (limits, are) = used_up(explained.upstream.as_ref());
            format!("The {limits} of {name} {are} used up{until}.")
        }
        WaitReason::Concurrency => match explained.concurrency {
            (1, 1) => format!("An attempt for {name} is out, and no more than one may be."),
            (used, capacity) if used >= capacity => {
                format!("{used} attempts for {name} are out, and no more than {capacity} may be.")
            }
            _ => "As many attempts are out over all upstreams as may be.".to_owned(),
        },
        WaitReason::Cooldown => format!("{name} asked everybody to keep away{until}."),
        WaitReason::BreakerOpen if until.is_empty() => {
            format!("{name} has failed too often; a probe is out, and what becomes of it decides whether others go.")
        }
        WaitReason::BreakerOpen => format!("{name} has failed too often: its breaker is open{until}."),
        WaitReason::Paused if explained.upstream.as_ref().is_some_and(|upstream| upstream.is_missing) => {
            format!("The configuration has no upstream {name} any more.")
        }
        WaitReason::Paused => format!("{name} is paused."),
        WaitReason::Fairness => "Nothing but its turn holds it.".to_owned(),
    }
}

fn under_way(explained: &Explained) -> String {
    match explained.hedging {
        Some(HedgingView { made: made @ 1.., .. }) => {
            format!("It takes long, and {made} more attempts were added: the first success wins.")
        }
        Some(HedgingView { held_back: Some(reason), .. }) => {
            format!("An attempt is under way, and takes long; none is added ({reason}).")
        }
        Some(_) | None => "An attempt is under way: nothing holds it.".to_owned(),
    }
}

/// Not a limit of ours holds it, but what the upstream said.
fn is_told(upstream: Option<&UpstreamView>) -> bool {
    let has_room = |upstream: &UpstreamView| upstream.limits.iter().all(|limit| limit.used < limit.spec.count.get());
    upstream.is_some_and(|upstream| upstream.told.is_some_and(|(left, _)| left == 0) && has_room(upstream))
}

/// The limits without a free slot, and the verb that goes with them.
fn used_up(upstream: Option<&UpstreamView>) -> (String, &'static str) {
    let full = |upstream: &UpstreamView| {
        let full = upstream.limits.iter().filter(|limit| limit.used >= limit.spec.count.get());
        full.map(|limit| Limit::of(limit).limit).collect::<Vec<_>>()
    };
    match upstream.map(full).unwrap_or_default().as_slice() {
        [] => ("limits".to_owned(), "are"),
        [limit] => (format!("limit {limit}"), "is"),
        limits => (format!("limits {}", limits.join(", ")), "are"),
    }
}

fn place(explained: &Explained) -> String {
    match explained.ahead {
        Some((0, true)) => " It goes next.".to_owned(),
        Some((1, true)) => " 1 call goes before it.".to_owned(),
        Some((calls, true)) => format!(" {calls} calls go before it."),
        Some((calls, false)) => format!(" At least {calls} calls go before it."),
        None => String::new(),
    }
}
