//! A page of calls as the API lists them.
//!
//! Each reads as it does by itself, without its answer.

use farcall_engine::listing::{Cursor, Page};
use farcall_engine::outcome::Call;

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Calls<'a> {
    /// Newest first.
    data: Vec<Call<'a>>,
    /// The `cursor` of the next page; null on the last.
    next_cursor: Option<String>,
    has_more: bool,
}

impl<'a> Calls<'a> {
    pub(crate) fn of(page: &'a Page) -> Self {
        Self {
            data: page.calls.iter().map(Call::of).collect(),
            next_cursor: page.next.map(Cursor::encode),
            has_more: page.next.is_some(),
        }
    }

    /// The last page, with nothing on it.
    pub(crate) const fn none() -> Self {
        Self { data: Vec::new(), next_cursor: None, has_more: false }
    }
}
