//! Whose a plain name is, among the calls that are not filed yet.
//!
//! Only names with a call still to be filed are remembered; the files themselves tell the rest. A million calls may wait,
//! so what is the rule, one call of a name, takes no more than the name and the id.

use std::collections::HashMap;

use farcall_core::id::CallId;

/// Plain names and the files taken under them.
#[derive(Debug, Default)]
pub(super) struct Owners {
    names: HashMap<Box<[u8]>, Claim>,
}

#[derive(Debug)]
enum Claim {
    /// The call taken last, and the only one that is not filed yet; and whether this process has taken its file away.
    Sole {
        id: CallId,
        is_cleared: bool,
    },
    Contested(Box<Contested>),
}

#[derive(Debug)]
struct Contested {
    /// The call taken last, or nothing when it was a rejected file.
    last: Option<CallId>,
    unfiled: Vec<CallId>,
}

impl Owners {
    /// A call was taken under this name.
    pub(super) fn claim(&mut self, name: &[u8], id: CallId) {
        match self.names.get_mut(name) {
            Some(claim) if claim.unfiled().contains(&id) => {}
            Some(claim) => {
                let contested = claim.contested();
                contested.last = Some(id);
                contested.unfiled.push(id);
            }
            None => drop(self.names.insert(name.into(), Claim::Sole { id, is_cleared: false })),
        }
    }

    /// The call was not accepted after all: the name is the one's that had it before.
    pub(super) fn withdraw(&mut self, name: &[u8], id: CallId) {
        self.release(name, id);
        if let Some(claim) = self.names.get_mut(name).filter(|claim| claim.last() == Some(id)) {
            let contested = claim.contested();
            contested.last = contested.unfiled.last().copied();
        }
    }

    /// A file of this name was rejected.
    pub(super) fn reject(&mut self, name: &[u8]) {
        if let Some(claim) = self.names.get_mut(name) {
            claim.contested().last = None;
        }
    }

    /// Whether no later file of this name is known.
    pub(super) fn owns(&self, name: &[u8], id: CallId) -> bool {
        self.names.get(name).is_none_or(|claim| claim.last() == Some(id))
    }

    /// Whether a call was claimed and its files are not in place yet.
    pub(super) fn is_unfiled(&self, name: &[u8], id: CallId) -> bool {
        self.names.get(name).is_some_and(|claim| claim.unfiled().contains(&id))
    }

    /// This process took the call's file out of the inbox. It is remembered of names with a single call.
    pub(super) fn note_cleared(&mut self, name: &[u8], id: CallId) {
        if let Some(Claim::Sole { id: call, is_cleared }) = self.names.get_mut(name)
            && *call == id
        {
            *is_cleared = true;
        }
    }

    /// Whether the call's file is known to have left the inbox.
    pub(super) fn is_cleared(&self, name: &[u8], id: CallId) -> bool {
        matches!(self.names.get(name), Some(Claim::Sole { id: call, is_cleared: true }) if *call == id)
    }

    /// A call's files are in place.
    pub(super) fn release(&mut self, name: &[u8], id: CallId) {
        let Some(claim) = self.names.get_mut(name).filter(|claim| claim.unfiled().contains(&id)) else { return };
        if let Claim::Contested(contested) = claim {
            contested.unfiled.retain(|&unfiled| unfiled != id);
            if !contested.unfiled.is_empty() {
                return;
            }
        }
        self.names.remove(name);
        // After a million files room for a million names is left.
        if self.names.len() < self.names.capacity() / 8 {
            self.names.shrink_to(self.names.len() * 2);
        }
    }
}

impl Claim {
    fn last(&self) -> Option<CallId> {
        match self {
            Self::Sole { id, .. } => Some(*id),
            Self::Contested(contested) => contested.last,
        }
    }

    fn unfiled(&self) -> &[CallId] {
        match self {
            Self::Sole { id, .. } => std::slice::from_ref(id),
            Self::Contested(contested) => &contested.unfiled,
        }
    }

    fn contested(&mut self) -> &mut Contested {
        if let Self::Sole { id, .. } = *self {
            *self = Self::Contested(Box::new(Contested { last: Some(id), unfiled: vec![id] }));
        }
        match self {
            Self::Contested(contested) => contested,
            Self::Sole { .. } => unreachable!("it was just made one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_taken_owns_until_all_are_filed() {
        let (a, b, name) = (CallId::from_bits(1), CallId::from_bits(2), b"order.json");
        let mut owners = Owners::default();
        owners.claim(name, a);
        assert!(owners.owns(name, a));
        owners.claim(name, b);
        owners.claim(name, a);
        assert!(!owners.owns(name, a), "a claim repeated is no new one");
        owners.release(name, b);
        assert!(!owners.owns(name, a), "the later call stays the owner when it is filed first");
        owners.release(name, a);
        assert!(owners.names.is_empty());
    }

    #[test]
    fn a_call_that_was_not_accepted_leaves_the_name_to_the_one_before() {
        let (a, b, name) = (CallId::from_bits(1), CallId::from_bits(2), b"order.json");
        let mut owners = Owners::default();
        owners.claim(name, a);
        owners.claim(name, b);
        owners.withdraw(name, b);
        assert!(owners.owns(name, a) && !owners.is_unfiled(name, b));
        owners.withdraw(name, a);
        assert!(owners.names.is_empty());
    }

    #[test]
    fn that_a_file_has_left_is_remembered_of_its_call_alone() {
        let (a, b, name) = (CallId::from_bits(1), CallId::from_bits(2), b"order.json");
        let mut owners = Owners::default();
        owners.note_cleared(name, a);
        assert!(!owners.is_cleared(name, a), "nobody claimed the name");
        owners.claim(name, a);
        assert!(!owners.is_cleared(name, a));
        owners.note_cleared(name, b);
        assert!(!owners.is_cleared(name, a) && !owners.is_cleared(name, b));
        owners.note_cleared(name, a);
        assert!(owners.is_cleared(name, a) && !owners.is_cleared(name, b));
        owners.claim(name, b);
        assert!(!owners.is_cleared(name, b), "the later call's file lies there still");
        owners.release(name, a);
        owners.release(name, b);
        owners.claim(name, a);
        assert!(!owners.is_cleared(name, a), "nothing is left of what was");
    }

    #[test]
    fn what_is_remembered_of_a_file_is_small() {
        assert!(size_of::<(Box<[u8]>, Claim)>() <= 48);
        let mut owners = Owners::default();
        let name = |number: u32| format!("{number:07}.json").into_bytes();
        (0..10_000).for_each(|number| owners.claim(&name(number), CallId::from_bits(number.into())));
        let room = owners.names.capacity();
        (0..10_000).for_each(|number| owners.release(&name(number), CallId::from_bits(number.into())));
        assert!(owners.names.is_empty() && owners.names.capacity() < room / 100);
    }

    #[test]
    fn a_rejected_file_takes_the_name_from_a_waiting_call() {
        let (a, name) = (CallId::from_bits(1), b"order.json");
        let mut owners = Owners::default();
        owners.reject(name);
        assert!(owners.names.is_empty());
        owners.claim(name, a);
        owners.reject(name);
        assert!(!owners.owns(name, a));
    }
}
