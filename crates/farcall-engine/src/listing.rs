//! Lists of calls, newest first, page by page.
//!
//! A page examines a bounded number of calls, so one whose filters match little may be short, even empty, and still
//! have another after it.

use farcall_core::id::CallId;
pub use farcall_store::port::CallFilter;
use farcall_store::port::{ListAsk, ReadError};

use crate::handle::{CallView, Handle};

/// Most calls of a page.
pub const PAGE_MAX: u32 = 1_000;
/// Calls examined by one read of the store, and by one page.
const EXAMINED_TOGETHER: u32 = 10_000;
const EXAMINED_MAX: u32 = 200_000;

/// A page of calls.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Without their answers.
    pub calls: Vec<CallView>,
    /// Where the next page begins; nothing when this is the last.
    pub next: Option<Cursor>,
}

/// Where a page begins. It holds for ever: calls that come later are newer, and calls that go leave no gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(u64);

impl Cursor {
    /// As clients keep it.
    pub fn encode(self) -> String {
        format!("{:x}", self.0)
    }

    /// What [`Cursor::encode`] made, or nothing.
    ///
    /// # Example
    /// ```
    /// use farcall_engine::listing::Cursor;
    ///
    /// assert_eq!(Cursor::decode("1f").map(Cursor::encode).as_deref(), Some("1f"));
    /// assert_eq!(Cursor::decode("+1"), None);
    /// ```
    pub fn decode(text: &str) -> Option<Self> {
        let is_hex = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_hex).map(Self)
    }
}

impl Handle {
    /// The ids alone of a page, which may be shorter than it need be.
    pub(crate) async fn ids(
        &self,
        filter: &CallFilter,
        from: Option<Cursor>,
        count: u32,
    ) -> Result<(Vec<CallId>, Option<Cursor>), ReadError> {
        let before = from.map(|cursor| cursor.0);
        let ask = ListAsk { filter: filter.clone(), before, count, examined_max: EXAMINED_TOGETHER };
        let listed = self.reads.with(move |reader| reader.list(&ask)).await?;
        Ok((listed.calls.iter().map(|call| call.id).collect(), listed.next.map(Cursor)))
    }

    /// At most `count` calls (and never more than [`PAGE_MAX`]) that the filter lets through, newest first; those that
    /// somebody waits for lead the first page.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, filter: &CallFilter, from: Option<Cursor>, count: u32) -> Result<Page, ReadError> {
        let count = count.clamp(1, PAGE_MAX);
        let mut page = Page { calls: Vec::new(), next: from };
        if from.is_none() {
            // They are no part of what is kept, so a cursor never leads back to them.
            let admitted = self.guests().await.into_iter().filter(|guest| filter.admits(&guest.record));
            page.calls.extend(admitted.take(count as usize));
        }
        if page.calls.len() >= count as usize {
            page.next = Some(Cursor(u64::MAX >> 1));
            return Ok(page);
        }
        let mut examined = 0;
        loop {
            let found = u32::try_from(page.calls.len()).unwrap_or(u32::MAX);
            let before = page.next.map(|cursor| cursor.0);
            let ask = ListAsk { filter: filter.clone(), before, count: count - found, examined_max: EXAMINED_TOGETHER };
            let (calls, next) = self.reads.list(ask).await?;
            page.calls.extend(calls);
            page.next = next.map(Cursor);
            examined += EXAMINED_TOGETHER;
            if page.next.is_none() || page.calls.len() >= count as usize || examined >= EXAMINED_MAX {
                break;
            }
        }
        self.add_standings(&mut page.calls).await;
        Ok(page)
    }
}
