//! Secret references: `${env:NAME}` and `${file:PATH}` inside a configured value.
//!
//! A [`Template`] holds the text with its references unresolved; resolving happens at the time of sending, and the
//! result is never stored, logged or returned. One of two places that read the environment.

/// A configured value that may hold references to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
}
