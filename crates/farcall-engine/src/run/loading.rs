//! Documents of attempts that are launched together are read together: a read by itself costs more than what it reads.
//!
//! Only a short cut. An attempt whose document cannot be read or understood here, or that comes while a read breaks
//! down, reads it again by itself and reports what is wrong.

use std::pin::pin;
use std::sync::Arc;

use farcall_core::id::CallId;
use farcall_store::port::Reader;
use farcall_store::record::RequestRecord;

use super::attempts::{Attempt, Target, Way};
use super::documents::Kept;
use super::runners::{Job, Runner};
use super::{Run, casualty};
use crate::config::Config;
use crate::document::Routing;

/// Documents read at one go; those that come first wait for the last.
const TOGETHER_MAX: usize = 64;

/// An attempt that cannot begin before its document is read.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) attempt: Attempt,
    pub(super) way: Way,
    pub(super) runner: Runner,
}

impl Run {
    /// Has the documents read that the attempts launched so far want, and the attempts made then.
    pub(super) fn load_unread(&mut self) {
        let unread = &mut self.pending.unread;
        while !unread.is_empty() {
            let rest = unread.split_off(unread.len().min(TOGETHER_MAX));
            let together = std::mem::replace(unread, rest);
            self.tasks.spawn(make(together));
        }
    }
}

async fn make(unread: Vec<Unread>) {
    let kept = casualty::survived(pin!(load(&unread))).await.unwrap_or_default();
    let kept = kept.into_iter().map(|kept| kept.map(Arc::new)).chain(std::iter::repeat(None));
    for (Unread { attempt, way, runner }, kept) in unread.into_iter().zip(kept) {
        Job { attempt, target: Target::Http { kept, way }, runner }.begin();
    }
}

async fn load(unread: &[Unread]) -> Vec<Option<Kept>> {
    let Some(Unread { attempt, .. }) = unread.first() else { return Vec::new() };
    let ids: Vec<CallId> = unread.iter().map(|unread| unread.attempt.id.call).collect();
    let config = Arc::clone(&attempt.around.config);
    attempt.around.reads.with(move |reader| read(reader, &ids, &config)).await
}

fn read(reader: &mut dyn Reader, ids: &[CallId], config: &Config) -> Vec<Option<Kept>> {
    let Ok(stored) = reader.requests(ids) else { return Vec::new() };
    let understood = |stored: Option<RequestRecord>| Kept::read(&stored?, &Routing::from(config)).ok();
    stored.found.into_iter().map(understood).collect()
}
