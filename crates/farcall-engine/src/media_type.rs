//! Media types as settings name them: type and subtype, without parameters.
//!
//! What an answer declares is compared with this by the executor; here it is only read.

/// Reads `application/json` and its like, in lower case; nothing when it is no media type or has parameters.
pub(crate) fn from_text(text: &str) -> Option<String> {
    // A type and a subtype are tokens, and so is a method (RFC 9110, sections 8.3.1 and 9.1).
    let is_token = |part: &str| http::Method::from_bytes(part.as_bytes()).is_ok();
    let (kind, subtype) = text.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_two_tokens_and_nothing_else() {
        assert_eq!(from_text("Application/vnd.api+JSON").as_deref(), Some("application/vnd.api+json"));
        for text in ["", "json", "application/", "/json", "a/b/c", "text/html; charset=utf-8", "text /html"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
