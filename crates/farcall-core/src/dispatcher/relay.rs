//! Answers that are given on as they come: whether the head of one is the call's answer is decided before its body is there.
//!
//! It is, when nothing would follow if the body came whole: no retry, no other attempt that may do better. From then on the
//! call ends as this attempt does; a body that breaks off is no answer, and nothing is tried again.

use super::entry::{Cut, Live};
use super::finish::{Over, attempt_end};
use super::{Dispatcher, Effect};
use crate::attempt::AttemptResult;
use crate::breaker::evidence;
use crate::call::{ErrorKind, State};
use crate::classify::{Verdict, classify};
use crate::id::AttemptId;
use crate::retry::Fraction;
use crate::settle::{Decision, decide};
use crate::time::Now;
use crate::timers::Timer;

impl Dispatcher {
    /// The head of an answer is here.
    pub(super) fn answered(&mut self, now: Now, attempt: AttemptId, result: &AttemptResult) {
        let Some(entry) = self.calls.get_mut(&attempt.call) else { return };
        let others = entry.live.iter().filter(|live| live.number != attempt.number && live.cut.is_none()).count();
        let Some(live) = entry.launched(attempt.number).filter(|live| live.cut.is_none()) else { return };
        let live = live.clone();
        if live.is_relayed {
            return;
        }
        if !self.is_last_word(now, attempt, &live, result, others) {
            return self.effects.push(Effect::Withhold { attempt });
        }
        let entry = self.calls.get_mut(&attempt.call).expect("it was there just now");
        let lost: Vec<u32> =
            entry.live.iter().map(|live| live.number).filter(|&number| number != attempt.number).collect();
        if let Some(live) = entry.launched(attempt.number) {
            live.is_relayed = true;
            // However long the body takes: who carries it looks whether it goes on.
            if let Some(at) = live.times_out_at.take() {
                self.timers.cancel(at, Timer::Timeout(attempt));
            }
        }
        // How long the body takes says more of its size than of the upstream.
        self.learn(now, &live);
        for number in lost {
            self.cut(attempt.call, Some(number), Cut::Lost);
        }
        self.effects.push(Effect::Relay { attempt });
    }

    /// Whether nothing would follow if the body came whole. An answer that is no success waits for what others bring.
    fn is_last_word(&self, now: Now, attempt: AttemptId, live: &Live, result: &AttemptResult, others: usize) -> bool {
        let verdict = self.with_terms(attempt.call, |terms| classify(terms, result));
        if verdict == Verdict::Success {
            return true;
        }
        let tries = self.calls[&attempt.call].tries;
        // Chance shortens waits only.
        let chance = Fraction(0.0);
        let decision = self.with_terms(attempt.call, |terms| decide(terms, tries, verdict, now.instant, chance));
        let end = Some(attempt_end(now, live, verdict.outcome(), result.status, verdict.error()));
        let decision = self.final_decision(now, attempt.call, &Over { end, decision, is_cut: false });
        others == 0 && matches!(decision, Decision::End { .. })
    }

    /// An attempt is over whose answer was given on.
    pub(super) fn conclude_relayed(
        &mut self,
        now: Now,
        attempt: AttemptId,
        live: &Live,
        verdict: Verdict,
        result: &AttemptResult,
    ) {
        self.tell_breaker(now, live, evidence(verdict, result.status));
        let decision = match verdict {
            Verdict::Success => Decision::End { state: State::Succeeded, error: None },
            _ => Decision::End {
                state: State::Failed,
                error: verdict.error().or(result.error).or(Some(ErrorKind::HttpStatus)),
            },
        };
        let end = Some(attempt_end(now, live, verdict.outcome(), result.status, verdict.error()));
        // It is the last word, whatever others would have come to.
        self.follow_finally(now, attempt.call, &Over { end, decision, is_cut: false });
    }
}
