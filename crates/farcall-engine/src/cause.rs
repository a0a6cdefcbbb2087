//! An error with everything that caused it, on one line: for logs and for people.
//!
//! Errors here name their sources apart (`source()`), so that each is told once; this is where they come together.

use std::error::Error;

/// The error's text and that of its sources, joined by `: `.
///
/// # Example
/// ```
/// let error = std::fs::read("/nonexistent").expect_err("there is no such file");
/// assert!(farcall_engine::cause::chain(&error).contains("No such file"));
/// ```
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
