//! Limits: `rate_second` and its like, and the general form `"10/1s"`.
//!
//! What a limit means is the core's matter; here it becomes a number and a window, and never zero.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::policy::LimitSpec;

use super::diagnostic::Span;
use super::reader::Reader;
use super::tree::{Node, Value};
use crate::quantity::duration::{self, DurationError};

/// The most windows one upstream may have.
const WINDOWS_MAX: usize = 16;
const FORM_HINT: &str = "write a number and a window: \"10/1s\" is at most 10 calls in any second";
const ZERO_HINT: &str = "leave the key out for no limit";

/// Reads the N of `rate_second` and its like.
pub(super) fn rate(reader: &mut Reader<'_>, node: &Node) -> Option<NonZeroU32> {
    if node.value == Value::Integer(0) {
        reader.error(node.span, "a limit of 0 would never let a call start").hint(ZERO_HINT);
        return None;
    }
    let count = reader.integer(node, &(1..=u64::MAX))?;
    bounded(reader, count, node.span)
}

/// Reads `["10/1s", "400/1h"]`.
pub(super) fn list(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<LimitSpec>> {
    let items = reader.items(node)?;
    if items.len() > WINDOWS_MAX {
        reader.error(node.span, format!("more than {WINDOWS_MAX} windows"));
        return None;
    }
    Some(items.iter().filter_map(|item| limit(reader, item)).collect())
}

/// All windows given, shortest first; of several counts for one window the lowest holds.
pub(super) fn combined(limits: impl IntoIterator<Item = LimitSpec>) -> Vec<LimitSpec> {
    let mut limits: Vec<LimitSpec> = limits.into_iter().collect();
    limits.sort_by_key(|limit| (limit.window, limit.count));
    limits.dedup_by_key(|limit| limit.window);
    limits
}

fn limit(reader: &mut Reader<'_>, node: &Node) -> Option<LimitSpec> {
    let Value::Text(text) = &node.value else {
        reader.mismatch(node, "a limit").hint(FORM_HINT);
        return None;
    };
    let halves = text.split_once('/').map(|(count, window)| (count.trim(), window.trim()));
    let Some((count, window)) = halves.and_then(|(count, window)| Some((count.parse::<u64>().ok()?, window))) else {
        reader.error(node.span, format!("`{text}` is no limit")).hint(FORM_HINT);
        return None;
    };
    if count == 0 {
        reader.error(node.span, "a limit of 0 would never let a call start").hint(ZERO_HINT);
        return None;
    }
    let count = bounded(reader, count, node.span)?;
    match window_length(window) {
        Ok(Duration::ZERO) => {
            reader.error(node.span, "a window of length 0 limits nothing").hint(FORM_HINT);
            None
        }
        Ok(window) => Some(LimitSpec { count, window }),
        Err(mistake) => {
            reader.error(node.span, format!("`{window}` is no window: {mistake}")).hint(FORM_HINT);
            None
        }
    }
}

/// A duration in text, or a number of seconds.
fn window_length(window: &str) -> Result<Duration, DurationError> {
    match window.parse::<i128>() {
        Ok(seconds) => duration::from_whole_seconds(seconds),
        Err(_) => duration::from_text(window),
    }
}

fn bounded(reader: &mut Reader<'_>, count: u64, place: Span) -> Option<NonZeroU32> {
    let within = u32::try_from(count).ok();
    if within.is_none() {
        reader.error(place, format!("a limit above {}", u32::MAX)).hint(ZERO_HINT);
    }
    within.and_then(NonZeroU32::new)
}
