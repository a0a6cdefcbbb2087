//! Documents of calls that wait, kept in memory while there is room, so that most attempts need no read.
//!
//! Only a cache: the store holds every document, byte for byte.

use std::collections::HashMap;
use std::sync::Arc;

use farcall_core::id::CallId;

use crate::document::Document;

/// Bytes of documents kept; a document counts as twice the length of its text.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// A bounded cache: what does not fit is read from the store again when its attempt is made.
#[derive(Debug, Default)]
pub(super) struct Documents {
    kept: HashMap<CallId, (Arc<Document>, usize)>,
    bytes: usize,
}

impl Documents {
    pub(super) fn keep(&mut self, call: CallId, document: Document, text_bytes: usize) {
        let bytes = text_bytes * 2 + size_of::<Document>();
        if self.bytes + bytes <= KEPT_BYTES_MAX {
            self.bytes += bytes;
            self.kept.insert(call, (Arc::new(document), bytes));
        }
    }

    pub(super) fn get(&self, call: CallId) -> Option<Arc<Document>> {
        self.kept.get(&call).map(|(document, _)| Arc::clone(document))
    }

    pub(super) fn forget(&mut self, call: CallId) {
        if let Some((_, bytes)) = self.kept.remove(&call) {
            self.bytes -= bytes;
        }
    }
}
