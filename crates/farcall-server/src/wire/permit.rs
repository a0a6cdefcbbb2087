//! A permit as the API tells it.
//!
//! Its id is that of the call inside, by another name: it is none that could be looked up.

use farcall_core::id::CallId;
use farcall_engine::outcome::rfc3339;
use farcall_engine::permit::Lease;
use farcall_engine::schema::Time;

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Permit {
    #[schemars(regex(pattern = "^permit_[0-9a-f-]{36}$"))]
    id: String,
    upstream: String,
    /// Slots taken of every window.
    cost: u32,
    #[schemars(with = "Time")]
    granted_at: String,
    /// Nothing may be sent with it from then on.
    #[schemars(with = "Time")]
    expires_at: String,
}

/// One that was given back.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Released {
    #[schemars(regex(pattern = "^permit_[0-9a-f-]{36}$"))]
    id: String,
    /// It counts as sent.
    sent: bool,
}

impl Permit {
    pub(crate) fn of(lease: &Lease) -> Self {
        Self {
            id: name(lease.id),
            upstream: lease.upstream.clone(),
            cost: lease.cost,
            granted_at: rfc3339(lease.granted_at),
            expires_at: rfc3339(lease.expires_at),
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/upstreams/{}/permits/{}", self.upstream, self.id)
    }
}

impl Released {
    pub(crate) fn of(id: CallId, sent: bool) -> Self {
        Self { id: name(id), sent }
    }
}

fn name(id: CallId) -> String {
    format!("permit_{}", id.to_string().trim_start_matches("call_"))
}
