//! When a connection's other side is asked whether it is still there, and when it is given up.
//!
//! Asked only while somebody waits for an answer: an idle connection costs nothing and is looked at when it is used
//! again. Decides on counts it is handed; the timer is the caller's.

/// Rounds of silence after which it is asked (PING, RFC 9113, section 6.7).
const ASK_AFTER: u32 = 2;
/// Rounds of silence after which it is taken for dead.
const GIVE_UP_AFTER: u32 = 4;

/// How long the other side has been silent.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    received_bytes: u64,
    silent_rounds: u32,
}

/// What a round comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    Fine,
    Ask,
    Dead,
}

impl KeepAlive {
    /// A round has passed; so many bytes were received in all, and somebody waits or nobody does.
    pub(super) fn round(&mut self, received_bytes: u64, waiting: usize) -> Round {
        let is_silent = received_bytes == self.received_bytes && waiting > 0;
        self.received_bytes = received_bytes;
        self.silent_rounds = if is_silent { self.silent_rounds + 1 } else { 0 };
        match self.silent_rounds {
            ASK_AFTER => Round::Ask,
            GIVE_UP_AFTER.. => Round::Dead,
            _ => Round::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Round::{Ask, Dead, Fine};
    use super::*;

    fn check(rounds: &[(u64, usize)], expected: &[Round]) {
        let mut keep_alive = KeepAlive::default();
        let came: Vec<_> = rounds.iter().map(|&(received, waiting)| keep_alive.round(received, waiting)).collect();
        assert_eq!(came, expected);
    }

    #[test]
    fn silence_is_asked_about_once_and_ends_the_connection() {
        check(&[(9, 1), (9, 1), (9, 1), (9, 1), (9, 1), (9, 1)], &[Fine, Fine, Ask, Fine, Dead, Dead]);
    }

    #[test]
    fn anything_received_begins_anew() {
        check(&[(9, 1), (9, 1), (9, 1), (17, 1), (17, 1), (17, 1)], &[Fine, Fine, Ask, Fine, Fine, Ask]);
    }

    #[test]
    fn nobody_is_asked_for_nobody() {
        check(
            &[(9, 0), (9, 0), (9, 0), (9, 0), (9, 1), (9, 0), (9, 1), (9, 1)],
            &[Fine, Fine, Fine, Fine, Fine, Fine, Fine, Ask],
        );
    }
}
