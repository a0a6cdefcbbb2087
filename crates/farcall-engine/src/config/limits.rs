//! Limits: `rate_second` and its like, and the general form `"10/1s"`.
//!
//! What a limit means is the core's matter; here it becomes a number and a window, and never zero.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::policy::LimitSpec;

use super::reader::Reader;
use super::tree::{Node, Value};
use crate::quantity::duration::{self, DurationError};

/// The most windows one upstream may have.
pub(super) const WINDOWS_MAX: usize = 16;
const FORM_HINT: &str = "write a number and a window: \"10/1s\" is at most 10 calls in any second";
const ZERO_HINT: &str = "leave the key out for no limit";

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LimitError {
    pub message: String,
    /// What to write instead.
    pub hint: &'static str,
}

/// Reads the N of `rate_second` and its like.
pub(super) fn rate(reader: &mut Reader<'_>, node: &Node) -> Option<NonZeroU32> {
    if node.value == Value::Integer(0) {
        reader.error(node.span, "a limit of 0 would never let a call start").hint(ZERO_HINT);
        return None;
    }
    let count = reader.integer(node, &(1..=u64::MAX))?;
    bounded(count).map_err(|error| reader.error(node.span, error.message).hint(error.hint)).ok()
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
    match parse(text) {
        Ok(limit) => Some(limit),
        Err(LimitError { message, hint }) => {
            reader.error(node.span, message).hint(hint);
            None
        }
    }
}

/// Reads a limit in its general form, `10/1s`.
///
/// # Errors
/// When it is none, or never lets a call start.
///
/// # Example
/// ```
/// use farcall_engine::config::parse_limit;
///
/// assert_eq!(parse_limit("400/1h").map(|limit| (limit.count.get(), limit.window.as_secs())), Ok((400, 3_600)));
/// assert!(parse_limit("fast").is_err());
/// ```
pub fn parse(text: &str) -> Result<LimitSpec, LimitError> {
    let mistake = |message: String, hint| LimitError { message, hint };
    let halves = text.split_once('/').map(|(count, window)| (count.trim(), window.trim()));
    let Some((count, window)) = halves.and_then(|(count, window)| Some((count.parse::<u64>().ok()?, window))) else {
        return Err(mistake(format!("`{text}` is no limit"), FORM_HINT));
    };
    if count == 0 {
        return Err(mistake("a limit of 0 would never let a call start".to_owned(), ZERO_HINT));
    }
    let count = bounded(count)?;
    match window_length(window) {
        Ok(Duration::ZERO) => Err(mistake("a window of length 0 limits nothing".to_owned(), FORM_HINT)),
        Ok(window) => Ok(LimitSpec { count, window }),
        Err(error) => Err(mistake(format!("`{window}` is no window: {error}"), FORM_HINT)),
    }
}

/// A duration in text, or a number of seconds.
fn window_length(window: &str) -> Result<Duration, DurationError> {
    match window.parse::<i128>() {
        Ok(seconds) => duration::from_whole_seconds(seconds),
        Err(_) => duration::from_text(window),
    }
}

fn bounded(count: u64) -> Result<NonZeroU32, LimitError> {
    let within = u32::try_from(count).ok().and_then(NonZeroU32::new);
    within.ok_or_else(|| LimitError { message: format!("a limit above {}", u32::MAX), hint: ZERO_HINT })
}
