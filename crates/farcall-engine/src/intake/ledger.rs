//! When to look at a file of the inbox, and what to do with what is seen: decisions only.
//!
//! Remembered are names that wait for something: a writer to close them, `settle` to pass, a turn to be looked at; and
//! those that were warned of. Names that are taken as soon as they are found leave no trace, so memory does not grow with
//! the inbox. Time is an argument.

use std::collections::btree_map::BTreeMap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use farcall_core::time::{Instant, Now, Timestamp};

/// After a name appeared without a rename: time for the first write to be seen, to tell a link from a new file.
pub(super) const APPEARANCE_DELAY: Duration = Duration::from_millis(20);

pub(super) type Name = Arc<[u8]>;

/// What a notification says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new: created to be written, or linked.
    Created,
    Written,
    /// A writer closed it.
    Closed,
    /// It was renamed into place, or is no file at all.
    MovedIn,
}

/// Which state of which file was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// ctime in nanoseconds.
    pub(super) changed_ns: i64,
    /// mtime in nanoseconds.
    pub(super) modified_ns: i64,
    pub(super) size: u64,
    pub(super) has_other_names: bool,
}

/// What was seen under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Gone,
    /// No regular file, or one that may not be read.
    Odd(Oddity),
    /// It changed while it was read.
    Changing,
    /// Parses, and is a valid call.
    Valid(Stamp),
    /// Does not parse, or is no valid call.
    Invalid(Stamp),
}

/// Why a name is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    SymbolicLink,
    Folder,
    Special,
    Unreadable,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Offer it to the engine.
    Offer,
    /// Give it up.
    Reject,
    /// Nothing now.
    Wait,
    /// Leave it, and say so this once.
    Warn(Oddity),
}

/// The names that wait.
#[derive(Debug)]
pub(super) struct Ledger {
    settle: Duration,
    entries: HashMap<Name, Entry>,
    /// When to look at which, first come first served within the same instant.
    looks: BTreeMap<(Instant, u64), Name>,
    looks_scheduled: u64,
    warned: HashMap<Name, Oddity>,
    /// Names whose files the engine has been offered and not answered for; they are not looked at before.
    offered: HashSet<Name>,
    /// Names met by the scan that is going on.
    scanned: HashSet<Name>,
}

#[derive(Debug)]
struct Entry {
    writer: Writer,
    changed_at: Instant,
    /// As it was last seen.
    stamp: Option<Stamp>,
    /// Notifications were lost: only time can tell that nobody writes any more.
    is_uncertain: bool,
    look: Option<(Instant, u64)>,
}

/// Whether anybody was seen to begin writing and not to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    /// The name is new; whether by a writer or by a link is not known yet.
    Perhaps,
    Writing,
}

impl Ledger {
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            settle,
            entries: HashMap::new(),
            looks: BTreeMap::new(),
            looks_scheduled: 0,
            warned: HashMap::new(),
            offered: HashSet::new(),
            scanned: HashSet::new(),
        }
    }

    /// How long a file that does not parse is left; one that is waited for is looked at again.
    pub(super) fn settle_within(&mut self, settle: Duration, now: Instant) {
        if std::mem::replace(&mut self.settle, settle) == settle {
            return;
        }
        let waiting = self.entries.iter().filter(|(_, entry)| entry.look.is_some());
        for name in waiting.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.reschedule(&name, Some(now));
        }
    }

    /// How many names wait for a look, or for somebody to close them.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many names are not settled, those that were offered included.
    pub(super) fn unsettled(&self) -> usize {
        self.entries.len() + self.offered.iter().filter(|name| !self.entries.contains_key(*name)).count()
    }

    /// The names that wait, but for those that were offered.
    pub(super) fn names_not_offered(&self) -> Vec<Name> {
        self.entries.keys().filter(|name| !self.offered.contains(*name)).map(Arc::clone).collect()
    }

    /// The engine is offered this file. What is noted of its name meanwhile concerns what is decided when the answer has
    /// come: the file is taken or left, as it is then.
    pub(super) fn offer(&mut self, name: Name) {
        self.offered.insert(name);
    }

    /// The engine has answered for this file.
    pub(super) fn answered(&mut self, name: &[u8]) {
        self.offered.remove(name);
    }

    /// A notification came.
    pub(super) fn note(&mut self, name: &[u8], change: Change, now: Instant) {
        let name = self.entry(name, now);
        let entry = self.entries.get_mut(&name).expect("it was just made");
        entry.changed_at = now;
        entry.is_uncertain = false;
        let look_at = match change {
            Change::Created => {
                entry.writer = Writer::Perhaps;
                Some(now + APPEARANCE_DELAY)
            }
            Change::Written => {
                entry.writer = Writer::Writing;
                None
            }
            Change::Closed | Change::MovedIn => {
                entry.writer = Writer::None;
                Some(now)
            }
        };
        self.reschedule(&name, look_at);
    }

    /// Notifications were lost: who was writing may have ended.
    pub(super) fn notes_lost(&mut self, now: Instant) {
        let writing = self.entries.iter_mut().filter(|(_, entry)| entry.writer != Writer::None);
        let mut names = Vec::new();
        for (name, entry) in writing {
            *entry = Entry { writer: Writer::None, changed_at: now, is_uncertain: true, ..*entry };
            names.push(Arc::clone(name));
        }
        for name in names {
            self.reschedule(&name, Some(now + self.settle));
        }
    }

    /// A scan begins; one that was given up leaves nothing behind.
    pub(super) fn begin_scan(&mut self) {
        self.scanned.clear();
    }

    /// A scan met a name: whether to look at it now. Names with a look to come, or a writer, are not.
    pub(super) fn meets(&mut self, name: &[u8]) -> bool {
        if let Some((name, _)) = self.warned.get_key_value(name) {
            self.scanned.insert(Arc::clone(name));
        }
        let Some((name, entry)) = self.entries.get_key_value(name) else { return !self.offered.contains(name) };
        self.scanned.insert(Arc::clone(name));
        entry.look.is_none() && entry.writer == Writer::None && !self.offered.contains(name)
    }

    /// A scan has met every name that there is: waiting names it did not meet are looked at, for they may be gone.
    pub(super) fn end_scan(&mut self, now: Instant) {
        let scanned = std::mem::take(&mut self.scanned);
        self.warned.retain(|name, _| scanned.contains(name));
        let missing: Vec<Name> = self.entries.keys().filter(|name| !scanned.contains(*name)).map(Arc::clone).collect();
        for name in missing {
            self.reschedule(&name, Some(now));
        }
    }

    /// At most `count_max` names whose time to be looked at has come.
    pub(super) fn due(&mut self, now: Instant, count_max: usize) -> Vec<Name> {
        let mut names = Vec::new();
        while names.len() < count_max
            && let Some(first) = self.looks.first_entry()
            && first.key().0 <= now
        {
            let name = first.remove();
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.look = None;
            }
            if !self.offered.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.first_key_value().map(|(&(at, _), _)| at)
    }

    /// What to do about a name, given what was seen of it.
    pub(super) fn judge(&mut self, name: &[u8], sight: Sight, now: Now) -> Decision {
        let stamp = match sight {
            Sight::Gone => {
                self.forget(name);
                return Decision::Wait;
            }
            Sight::Odd(oddity) => return self.judge_odd(name, oddity),
            Sight::Changing => {
                self.look_again(name, now.instant, self.settle);
                return Decision::Wait;
            }
            Sight::Valid(stamp) | Sight::Invalid(stamp) => stamp,
        };
        self.warned.remove(name);
        if self.is_being_written(name, stamp) {
            return Decision::Wait;
        }
        let is_valid = matches!(sight, Sight::Valid(_));
        let uncertain = self.entries.get(name).is_some_and(|entry| entry.is_uncertain);
        if is_valid && !uncertain {
            return Decision::Offer;
        }
        let settled_at = self.last_change(name, stamp, now) + self.settle;
        if now.instant < settled_at {
            self.reschedule(&Name::from(name), Some(settled_at));
            return Decision::Wait;
        }
        if is_valid { Decision::Offer } else { Decision::Reject }
    }

    /// What was decided could not be done, or not yet: look again after a while.
    pub(super) fn look_again(&mut self, name: &[u8], now: Instant, delay: Duration) {
        let name = self.entry(name, now);
        self.reschedule(&name, Some(now + delay));
    }

    /// The name is settled.
    pub(super) fn forget(&mut self, name: &[u8]) {
        self.warned.remove(name);
        if let Some(look) = self.entries.remove(name).and_then(|entry| entry.look) {
            self.looks.remove(&look);
        }
    }

    fn judge_odd(&mut self, name: &[u8], oddity: Oddity) -> Decision {
        let known = self.warned.get(name).copied();
        self.forget(name);
        self.warned.insert(Name::from(name), oddity);
        if known == Some(oddity) { Decision::Wait } else { Decision::Warn(oddity) }
    }

    /// Whether somebody was seen to begin writing it and not to end.
    fn is_being_written(&mut self, name: &[u8], stamp: Stamp) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        // It was linked if it had contents before anybody wrote, or another name.
        if entry.writer == Writer::Perhaps && (stamp.size > 0 || stamp.has_other_names) {
            entry.writer = Writer::None;
        }
        entry.writer != Writer::None
    }

    /// When the file was last changed, as far as was seen or the file itself says.
    fn last_change(&mut self, name: &[u8], stamp: Stamp, now: Now) -> Instant {
        let by_file = now.instant_of(Timestamp::from_micros(stamp.changed_ns / 1_000)).min(now.instant);
        let name = self.entry(name, by_file);
        let entry = self.entries.get_mut(&name).expect("it was just made");
        if entry.stamp.is_some_and(|earlier| earlier != stamp) {
            entry.changed_at = now.instant;
        }
        entry.stamp = Some(stamp);
        entry.changed_at
    }

    /// The name as it is kept, with an entry.
    fn entry(&mut self, name: &[u8], changed_at: Instant) -> Name {
        if let Some((name, _)) = self.entries.get_key_value(name) {
            return Arc::clone(name);
        }
        let name = Name::from(name);
        let entry = Entry { writer: Writer::None, changed_at, stamp: None, is_uncertain: false, look: None };
        self.entries.insert(Arc::clone(&name), entry);
        name
    }

    fn reschedule(&mut self, name: &Name, look_at: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(look) = entry.look.take() {
            self.looks.remove(&look);
        }
        let Some(at) = look_at else { return };
        self.looks_scheduled += 1;
        let look = (at, self.looks_scheduled);
        entry.look = Some(look);
        self.looks.insert(look, Arc::clone(name));
    }
}

#[cfg(test)]
mod tests;
