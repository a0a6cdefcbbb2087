//! Files that our handling breaks down on: a mistake of ours, which must cost the one file and no other.
//!
//! Whatever was in hand when the inbox broke down is suspect, and handled by itself from then on. A file that it breaks
//! down on three times is given up: rejected, with a problem file that says so. When even that breaks down it stays.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ledger::Name;

/// How often the inbox breaks down on a file before it is given up.
const DEATHS_MAX: u32 = 3;

/// Outlives the inboxes that break down.
#[derive(Debug, Default)]
pub(super) struct Casualties(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What is being handled.
    in_hand: HashSet<Name>,
    suspects: HashMap<Name, u32>,
}

/// What to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Handle,
    GiveUp,
    /// Also giving it up breaks down; the first time this is said.
    Leave {
        is_news: bool,
    },
}

impl Casualties {
    /// What is handled together: those under no suspicion, then each suspect, the least suspicious first.
    pub(super) fn batches(&self, names: Vec<Name>) -> Vec<Vec<Name>> {
        let state = self.state();
        let (mut suspects, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| state.suspects.contains_key(name));
        suspects.sort_by_key(|name| state.suspects[name]);
        let together = (!others.is_empty()).then_some(others);
        together.into_iter().chain(suspects.into_iter().map(|name| vec![name])).collect()
    }

    /// Whether one of these is suspected.
    pub(super) fn suspects(&self, names: &[Name]) -> bool {
        let state = self.state();
        names.iter().any(|name| state.suspects.contains_key(name))
    }

    pub(super) fn begin(&self, names: &[Name]) {
        self.state().in_hand.extend(names.iter().cloned());
    }

    /// Nothing broke down on these.
    pub(super) fn end<'n>(&self, names: impl IntoIterator<Item = &'n [u8]>) {
        let mut state = self.state();
        for name in names {
            state.in_hand.remove(name);
            if state.suspects.get(name).is_some_and(|&deaths| deaths < 2 * DEATHS_MAX) {
                state.suspects.remove(name);
            }
        }
    }

    /// Whoever was offered these broke down on one of them.
    pub(super) fn break_down_on<'n>(&self, names: impl IntoIterator<Item = &'n [u8]>) {
        let mut state = self.state();
        for name in names.into_iter().map(Name::from) {
            state.in_hand.remove(&name);
            *state.suspects.entry(name).or_default() += 1;
        }
    }

    /// It broke down on something that was in hand.
    pub(super) fn break_down(&self) {
        let mut state = self.state();
        for name in std::mem::take(&mut state.in_hand) {
            *state.suspects.entry(name).or_default() += 1;
        }
    }

    pub(super) fn judge(&self, name: &Name) -> Verdict {
        let mut state = self.state();
        match state.suspects.get_mut(name) {
            Some(deaths) if *deaths >= 2 * DEATHS_MAX => {
                let is_news = *deaths == 2 * DEATHS_MAX;
                *deaths = 2 * DEATHS_MAX + 1;
                Verdict::Leave { is_news }
            }
            Some(deaths) if *deaths >= DEATHS_MAX => Verdict::GiveUp,
            Some(_) | None => Verdict::Handle,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from(text.as_bytes())
    }

    /// Handles these names as the inbox does; breaks down on `bad`.
    fn round(casualties: &Casualties, names: &[Name], bad: &Name) -> Vec<Name> {
        let mut handled = Vec::new();
        for batch in casualties.batches(names.to_vec()) {
            casualties.begin(&batch);
            if batch.contains(bad) {
                casualties.break_down();
                return handled;
            }
            casualties.end(batch.iter().map(|name| &**name));
            handled.extend(batch);
        }
        handled
    }

    #[test]
    fn one_bad_file_is_given_up_after_three_deaths_and_all_others_are_handled_before() {
        let (bad, names) = (name("b"), [name("a"), name("b"), name("c")]);
        let casualties = Casualties::default();
        assert_eq!(round(&casualties, &names, &bad), [], "nobody knows yet which it is");
        assert_eq!(round(&casualties, &names, &bad), [name("a")], "each by itself");
        assert_eq!(round(&casualties, &names, &bad), [name("a"), name("c")], "the most suspicious last");
        let verdicts = names.each_ref().map(|name| casualties.judge(name));
        assert_eq!(verdicts, [Verdict::Handle, Verdict::GiveUp, Verdict::Handle]);
        casualties.begin(std::slice::from_ref(&bad));
        casualties.end([&*bad]);
        assert_eq!(casualties.judge(&bad), Verdict::Handle, "another file of the name is another matter");
    }

    #[test]
    fn a_file_that_cannot_even_be_given_up_is_left_and_told_of_once() {
        let bad = name("b");
        let casualties = Casualties::default();
        for _ in 0..6 {
            round(&casualties, std::slice::from_ref(&bad), &bad);
        }
        assert_eq!(casualties.judge(&bad), Verdict::Leave { is_news: true });
        casualties.begin(std::slice::from_ref(&bad));
        casualties.end([&*bad]);
        assert_eq!(casualties.judge(&bad), Verdict::Leave { is_news: false });
    }
}
