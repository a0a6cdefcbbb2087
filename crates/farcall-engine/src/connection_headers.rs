//! Headers that belong to one connection, or are made from the URL and the body.
//!
//! Neither a configuration nor a call may set them: farcall sets those that are needed (RFC 9110, sections 7.6.1 and
//! 8.6).

/// Beside these, everything that begins with `proxy-`.
const NAMES: [&str; 8] =
    ["connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// Whether a header, its name in lower case, is none of the user's.
pub(crate) fn contain(name: &http::HeaderName) -> bool {
    NAMES.contains(&name.as_str()) || name.as_str().starts_with("proxy-")
}
