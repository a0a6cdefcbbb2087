//! The one table of how a call's state may change. Every change of state in the dispatcher goes through [`next`].
//!
//! Why a step is taken is decided elsewhere; here stands only which steps there are.

use crate::call::State;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The time before which it must not start has come.
    Due,
    /// An attempt starts.
    Start,
    /// All its attempts have ended and it will be tried again.
    Wait,
    /// Its first attempt was never made.
    HandBack,
    /// It ends in this state.
    End(State),
}

/// The state after a step, or nothing when that step cannot be.
pub const fn next(state: State, step: Step) -> Option<State> {
    match (state, step) {
        (State::Scheduled, Step::Due) => Some(State::Queued),
        (State::Queued | State::Retrying | State::Running, Step::Start) => Some(State::Running),
        (State::Running, Step::Wait) => Some(State::Retrying),
        (State::Running, Step::HandBack) => Some(State::Queued),
        (State::Running, Step::End(end)) if end.is_end() => Some(end),
        // A call that waits can only be given up: no answer can come.
        (State::Scheduled | State::Queued | State::Retrying, Step::End(State::Expired)) => Some(State::Expired),
        (State::Scheduled | State::Queued | State::Retrying, Step::End(State::Cancelled)) => Some(State::Cancelled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_final() {
        let steps =
            [Step::Due, Step::Start, Step::Wait, Step::HandBack, Step::End(State::Failed), Step::End(State::Succeeded)];
        for &state in State::ALL.iter().filter(|state| state.is_end()) {
            for step in steps {
                assert_eq!(next(state, step), None, "{state} {step:?}");
            }
        }
    }

    #[test]
    fn only_a_running_call_can_succeed_fail_or_wait() {
        for &state in State::ALL.iter().filter(|state| !matches!(state, State::Running)) {
            for step in [Step::Wait, Step::End(State::Succeeded), Step::End(State::Failed), Step::End(State::Unknown)] {
                assert_eq!(next(state, step), None, "{state} {step:?}");
            }
        }
    }

    #[test]
    fn a_step_never_ends_a_call_in_a_state_that_is_no_end() {
        assert_eq!(next(State::Running, Step::End(State::Queued)), None);
    }
}
