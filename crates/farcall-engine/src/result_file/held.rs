//! Plain names that are being worked on: nobody moves half a pair aside.
//!
//! The filer holds its batch's names from before the first response is placed until the last request is, syncs
//! included, and from before it looks when some of it may be in place already; who makes way for a newcomer holds one
//! name at a time, and waits only for that name.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The names that are held, and by how many calls of their holder.
#[derive(Debug, Default)]
pub(super) struct HeldNames {
    names: Mutex<HashMap<Vec<u8>, usize>>,
    released: Condvar,
}

/// Names held by one thread; given back when dropped.
#[derive(Debug)]
pub(super) struct Held<'h> {
    all: &'h HeldNames,
    names: Vec<Vec<u8>>,
}

impl HeldNames {
    /// Waits until nobody else holds any of these names, and holds them all. A thread must hold names once only.
    pub(super) fn hold<'n>(&self, names: impl IntoIterator<Item = &'n [u8]>) -> Held<'_> {
        let names: Vec<Vec<u8>> = names.into_iter().map(<[u8]>::to_vec).collect();
        let is_held = |held: &mut HashMap<Vec<u8>, usize>| names.iter().any(|name| held.contains_key(name));
        let mut held = self.released.wait_while(self.lock(), is_held).unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            *held.entry(name.clone()).or_default() += 1;
        }
        drop(held);
        Held { all: self, names }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, usize>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        for name in &self.names {
            if let Some(count) = held.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    held.remove(name);
                }
            }
        }
        drop(held);
        self.all.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_by_one_and_others_by_anybody() {
        let names = HeldNames::default();
        let batch = names.hold([&b"a"[..], b"b", b"a"]);
        drop(names.hold([&b"c"[..]]));
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _held = names.hold([&b"a"[..]]);
                sender.send(()).expect("the test waits");
            });
            assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "two hold a name");
            drop(batch);
            receiver.recv().expect("the name is free in the end");
        });
        assert!(names.lock().is_empty());
    }
}
