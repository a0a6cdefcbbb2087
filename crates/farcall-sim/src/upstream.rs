//! A modelled upstream and the network before it: what becomes of one attempt, decided when it is launched.
//!
//! The network keeps to the conditions of the contract's section 3, "Limits", and to nothing more: where a short window
//! is limited its delay varies by less than `jitter`; where a long or strict one is, nothing is delivered later than
//! `jitter` after the connection was closed or the engine started again.

use std::time::Duration;

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{ErrorKind, Method, UpstreamId};
use farcall_core::hop::Redirect;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::time::Instant;

use crate::dice::Dice;

/// The place of redirects among what may become of an attempt.
const REDIRECTS: usize = 7;

/// How one upstream and the way there behave.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    base: Duration,
    spread: Duration,
    connect_max: Duration,
    write_max: Duration,
    think_max: Duration,
    /// How long an executor may take to report that it has cut an attempt off.
    pub(crate) abort_max: Duration,
    /// Its delay varies by no more than `spread`, whatever happens.
    is_steady: bool,
    /// Nothing arrives later than this after the connection closed; unset, whatever is under way may.
    pub(crate) late_max: Option<Duration>,
    /// By place in `Fate::draw`.
    weights: [u32; 8],
    retry_after_max: Duration,
    /// Where its answers may redirect to.
    redirects_to: Vec<u32>,
}

/// What will become of an attempt, if nobody cuts it off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// The first byte may leave from here on.
    pub(crate) write_at: Instant,
    pub(crate) sent_at: Instant,
    /// The part of the request that the upstream counts leaves here.
    pub(crate) counted_at: Instant,
    /// When the upstream counts it.
    pub(crate) arrives_at: Option<Instant>,
    pub(crate) first_byte_at: Option<Instant>,
    /// Its own end, and what the executor then reports; without, it is silent for ever.
    pub(crate) finish: Option<(Instant, AttemptResult)>,
}

impl Network {
    /// A way to an upstream of this policy. `may_change`: its limits may be any after a restart.
    pub(crate) fn draw(dice: &mut Dice, policy: &UpstreamPolicy, may_change: bool) -> Self {
        let is_short = |window: Duration| !policy.strict && window <= Duration::from_secs(60);
        let is_steady = may_change && !policy.strict || policy.limits.iter().any(|limit| is_short(limit.window));
        let is_bounded = may_change || policy.limits.iter().any(|limit| !is_short(limit.window));
        let jitter = policy.jitter - Duration::from_micros(1);
        let moment = Duration::from_micros(1);
        Self {
            base: dice.spread(moment, Duration::from_secs(3)),
            spread: if is_steady { jitter } else { dice.spread(Duration::from_millis(10), Duration::from_secs(20)) },
            connect_max: dice.spread(moment, Duration::from_secs(1)),
            write_max: dice.spread(moment, Duration::from_secs(1)),
            think_max: dice.spread(moment, Duration::from_secs(40)),
            abort_max: dice.spread(moment, Duration::from_secs(1)),
            is_steady,
            late_max: is_bounded.then_some(jitter),
            weights: Self::weights(dice),
            retry_after_max: dice.spread(Duration::from_secs(1), Duration::from_secs(300_000)),
            redirects_to: Vec::new(),
        }
    }

    /// Some of its answers send whoever asks to one of these upstreams.
    pub(crate) fn redirect_to(&mut self, places: Vec<u32>, weight: u32) {
        self.weights[REDIRECTS] = weight;
        self.redirects_to = places;
    }

    /// Whether it delivers what was sent before anything that is sent `jitter` later.
    pub(crate) const fn keeps_time(&self) -> bool {
        self.is_steady
    }

    /// The same way once nothing goes wrong any more: prompt success.
    pub(crate) fn heal(&mut self) {
        self.weights = [1, 0, 0, 0, 0, 0, 0, 0];
        self.think_max = Duration::from_millis(10);
    }

    /// It answers nobody, or asks everybody to wait for very long. No other upstream may feel it.
    pub(crate) fn turn_hostile(&mut self, dice: &mut Dice) {
        let answers = dice.percent(50);
        self.weights = if answers { [0, 1, 0, 0, 0, 0, 0, 0] } else { [0, 0, 0, 0, 0, 0, 1, 0] };
        self.retry_after_max = Duration::from_secs(300_000);
    }

    /// How long an attempt takes at most once healed, from launch to its end.
    pub(crate) fn healthy_max(&self) -> Duration {
        self.connect_max + self.write_max + (self.base + self.spread) * 2 + Duration::from_millis(30)
    }

    /// What becomes of an attempt launched now, by a request of this method.
    pub(crate) fn course(&self, dice: &mut Dice, now: Instant, method: &str, is_out: bool) -> Course {
        let write_at = now + dice.up_to(self.connect_max);
        let write_time = dice.up_to(self.write_max);
        let sent_at = write_at + write_time;
        let counted_at = write_at + dice.up_to(write_time);
        let arrives_at = counted_at + self.delay(dice);
        let silent =
            Course { write_at, sent_at, counted_at, arrives_at: Some(arrives_at), first_byte_at: None, finish: None };
        if is_out {
            return silent.refused(write_at);
        }
        let answered_at = arrives_at.max(sent_at) + dice.up_to(self.think_max) + self.delay(dice);
        match dice.weighted(&self.weights) {
            0 => silent.answered(dice, answered_at, answer(200, None)),
            1 => {
                let bad = self.bad_answer(dice);
                silent.answered(dice, answered_at, bad)
            }
            2 => silent.refused(write_at),
            3 => silent.reset(dice, write_at, answered_at),
            4 => silent.broken(dice, answered_at),
            5 => silent.turned_away(answered_at),
            REDIRECTS => {
                let redirect = self.redirect(dice, method);
                silent.answered(dice, answered_at, redirect)
            }
            _ => Course { arrives_at: silent.arrives_at.filter(|_| dice.percent(70)), ..silent },
        }
    }

    /// The connection of this course is gone from `now` on; what was sent may be delivered until `last`.
    pub(crate) fn close(&self, course: &mut Course, dice: &mut Dice, now: Instant, last: Option<Instant>) {
        let Some(arrives_at) = course.arrives_at.filter(|&at| at > now) else { return };
        let has_left = course.has_written(now) && course.counted_at <= now;
        if !has_left || dice.percent(30) {
            course.arrives_at = None;
            return;
        }
        let Some(last) = last.filter(|&last| last < arrives_at || !self.is_steady) else { return };
        // An unsteady network waits as long as it may; a steady one cannot deliver sooner than it does.
        course.arrives_at = if self.is_steady { None } else { Some(last) };
    }

    /// Any report at all.
    pub(crate) fn nonsense(&self, dice: &mut Dice) -> AttemptResult {
        if dice.percent(50) { answer(200, None) } else { self.bad_answer(dice) }
    }

    /// A redirect, and what a client makes of it: browsers ask with GET for what a POST was sent on to.
    fn redirect(&self, dice: &mut Dice, method: &str) -> AttemptResult {
        let status = *dice.pick(&[301, 302, 303, 307, 308]);
        let becomes_get = match status {
            301 | 302 => method == "POST",
            303 => !["GET", "HEAD"].contains(&method),
            _ => false,
        };
        let method = if becomes_get { Method::Get } else { Method::of(method) };
        let to = Redirect::To { upstream: UpstreamId(*dice.pick(&self.redirects_to)), method };
        let redirect = Some(if dice.percent(3) { Redirect::Downgrade } else { to });
        AttemptResult { redirect, ..answer(status, None) }
    }

    fn weights(dice: &mut Dice) -> [u32; 8] {
        let mut weights = [50, 0, 0, 0, 0, 0, 0, 0];
        for weight in &mut weights[1..REDIRECTS] {
            if dice.percent(50) {
                *weight = dice.count(1, 40);
            }
        }
        weights
    }

    fn delay(&self, dice: &mut Dice) -> Duration {
        self.base + dice.up_to(self.spread)
    }

    fn bad_answer(&self, dice: &mut Dice) -> AttemptResult {
        let status = *dice.pick(&[201, 302, 400, 404, 408, 429, 429, 429, 500, 500, 502, 503, 503, 501]);
        let wait = match dice.count(0, 3) {
            0 => Duration::ZERO,
            1 => dice.spread(Duration::from_secs(1), Duration::from_secs(20)),
            _ => dice.spread(Duration::from_secs(1), self.retry_after_max),
        };
        answer(status, dice.percent(60).then_some(wait))
    }
}

impl Course {
    /// Whether anything can have left by now.
    pub(crate) fn has_written(&self, now: Instant) -> bool {
        self.write_at <= now
    }

    fn refused(self, at: Instant) -> Self {
        let result = AttemptResult {
            bytes_sent: BytesSent::No,
            status: None,
            error: Some(ErrorKind::Connect),
            ..answer(0, None)
        };
        Self { arrives_at: None, finish: Some((at, result)), ..self }
    }

    fn answered(self, dice: &mut Dice, at: Instant, result: AttemptResult) -> Self {
        let end = at + dice.up_to(Duration::from_millis(20));
        Self { first_byte_at: Some(at), finish: Some((end, result)), ..self }
    }

    /// Cut off by the other side or something between, before any answer.
    fn reset(self, dice: &mut Dice, from: Instant, until: Instant) -> Self {
        let at = from + dice.up_to(until.since(from));
        Self { finish: Some((at, failed(ErrorKind::Reset))), ..self }
    }

    /// The upstream counts it, does nothing with it, and says so.
    fn turned_away(self, at: Instant) -> Self {
        let result = AttemptResult { bytes_sent: BytesSent::Refused, ..failed(ErrorKind::Reset) };
        Self { finish: Some((at, result)), ..self }
    }

    fn broken(self, dice: &mut Dice, at: Instant) -> Self {
        let kind = *dice.pick(&[
            ErrorKind::Internal,
            ErrorKind::Truncated,
            ErrorKind::TooLarge,
            ErrorKind::Decode,
            ErrorKind::Protocol,
        ]);
        self.answered(dice, at, failed(kind))
    }
}

fn failed(kind: ErrorKind) -> AttemptResult {
    AttemptResult { status: None, error: Some(kind), ..answer(0, None) }
}

const fn answer(status: u16, retry_after: Option<Duration>) -> AttemptResult {
    AttemptResult {
        status: Some(status),
        error: None,
        retry_after,
        quota: None,
        redirect: None,
        content_ok: true,
        bytes_sent: BytesSent::Maybe,
        latency: Duration::ZERO,
        size: 0,
    }
}
