//! Documents of calls that wait, kept in memory while there is room, so that most attempts need no read.
//!
//! Only a cache: the store holds every document, byte for byte.

use std::sync::Arc;

use farcall_core::call::Via;
use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use farcall_store::record::RequestRecord;

use crate::document::{self, Document, Rejection, Routing};
use crate::trace::understood;

/// Bytes of documents kept.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What an attempt needs to know of its call.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) document: Document,
    pub(super) via: Via,
}

impl Kept {
    /// From what the store keeps of a call, under the present configuration.
    ///
    /// # Errors
    /// When that does not understand the document any more.
    pub(super) fn read(stored: &RequestRecord, routing: &Routing<'_>) -> Result<Self, Rejection> {
        let document = document::parse(&stored.document, routing)?;
        let trace = understood(stored.trace.as_deref());
        Ok(Self { document: Document { trace, ..document }, via: stored.via })
    }
}

/// A bounded cache: what does not fit is read from the store again when its attempt is made.
#[derive(Debug, Default)]
pub(super) struct Documents {
    kept: IdMap<CallId, (Arc<Kept>, usize)>,
    bytes: usize,
}

impl Documents {
    pub(super) fn keep(&mut self, call: CallId, kept: Arc<Kept>, text_bytes: usize) {
        let bytes = kept_bytes(text_bytes);
        self.forget(call);
        if self.bytes + bytes <= KEPT_BYTES_MAX {
            self.bytes += bytes;
            self.kept.insert(call, (kept, bytes));
        }
    }

    /// Bytes of documents that can still be kept.
    pub(super) const fn room(&self) -> usize {
        KEPT_BYTES_MAX.saturating_sub(self.bytes)
    }

    pub(super) fn get(&self, call: CallId) -> Option<Arc<Kept>> {
        self.kept.get(&call).map(|(kept, _)| Arc::clone(kept))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn forget(&mut self, call: CallId) {
        if let Some((_, bytes)) = self.kept.remove(&call) {
            self.bytes -= bytes;
        }
    }
}

/// What it takes to keep a document of so many bytes of text: its parts, and the text that they point to.
pub(super) const fn kept_bytes(text_bytes: usize) -> usize {
    text_bytes * 2 + size_of::<Kept>()
}
