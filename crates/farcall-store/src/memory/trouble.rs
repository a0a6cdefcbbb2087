//! Troubles of a disk that last: a test switches them on and off while an engine has the store.
//!
//! Faults of single commits are `Fault`'s.

use std::sync::{Arc, Mutex, PoisonError};

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    #[default]
    None,
    /// No commit finds space.
    Full,
    /// Every commit fails, and the store cannot be opened again.
    Broken,
}

/// The switch.
#[derive(Debug, Clone, Default)]
pub struct Troubles(Arc<Mutex<Trouble>>);

impl Troubles {
    /// From now on this is wrong with the disk.
    pub fn set(&self, trouble: Trouble) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn present(&self) -> Trouble {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
