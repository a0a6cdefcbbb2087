//! What is told of a call that could not be read back.
//!
//! How a whole call reads is the engine's `outcome`, because webhooks tell the same.

use farcall_core::id::CallId;

/// What is certain of a call that could not be read back.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct AcceptedId {
    #[schemars(with = "farcall_engine::schema::CallIdText")]
    id: String,
}

impl AcceptedId {
    pub(crate) fn of(id: CallId) -> Self {
        Self { id: id.to_string() }
    }
}
