//! An operation as the API tells it.
//!
//! Every key is always there; what is not known yet is null.

use farcall_engine::operations;
use farcall_engine::outcome::rfc3339;
use farcall_engine::schema::Time;

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Operation<'a> {
    #[schemars(regex(pattern = "^op_[0-9a-f-]{36}$"))]
    id: String,
    /// `cancel` or `retry`.
    action: &'static str,
    /// Nothing is done, only counted.
    dry_run: bool,
    /// `running`, `done` or `failed`.
    state: &'static str,
    /// Calls that the filter named, once that is known.
    total: Option<u64>,
    done: u64,
    /// Calls about which there was nothing to be done any more.
    skipped: u64,
    errors: u64,
    error: Option<&'a str>,
    #[schemars(with = "Time")]
    started_at: String,
    #[schemars(with = "Option<Time>")]
    finished_at: Option<String>,
}

impl<'a> Operation<'a> {
    pub(crate) fn of(operation: &'a operations::Operation) -> Self {
        Self {
            id: format!("op_{}", operation.id.to_string().trim_start_matches("call_")),
            action: if operation.is_cancel { "cancel" } else { "retry" },
            dry_run: operation.dry_run,
            state: operation.phase.as_str(),
            total: operation.total,
            done: operation.done,
            skipped: operation.skipped,
            errors: operation.errors,
            error: operation.error.as_deref(),
            started_at: rfc3339(operation.started_at),
            finished_at: operation.finished_at.map(rfc3339),
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/v1/operations/{}", self.id)
    }
}
