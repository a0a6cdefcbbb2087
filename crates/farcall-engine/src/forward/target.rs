//! Where a client's target leads: a path and query below an upstream's `base_url`, as they are written, and nowhere else.
//!
//! Servers differ in how they read a path: some resolve dot segments before they decode it, some after, some take several
//! slashes for one. A target stays below its base for all of them, or is refused.

use http::uri::PathAndQuery;
use url::Url;

use crate::config::base_url::lies_below;
use crate::document::hides_dot_segments;

/// The longest URL, which is what the HTTP client can carry.
const URL_BYTES_MAX: usize = 65_534;

/// A place below a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The same as the URL library writes it.
    pub(crate) url: Url,
    /// What goes out.
    pub(crate) written: PathAndQuery,
}

/// The base's path without trailing slashes, then the target as it is; without a path in the target the base as written.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn below(base: &Url, target: &str) -> Result<Target, &'static str> {
    // What the url crate would silently change.
    if target.contains(|c: char| c.is_ascii_control() || matches!(c, '\\' | '#' | ' ')) {
        return Err("the target holds characters that no target has");
    }
    let path = target.split('?').next().unwrap_or_default();
    let above = if path.is_empty() { base.path() } else { base.path().trim_end_matches('/') };
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let written = format!("{above}{slash}{target}");
    let origin = &base[..url::Position::BeforePath];
    if origin.len() + written.len() > URL_BYTES_MAX {
        return Err("the URL is longer than 65534 bytes");
    }
    let url = Url::parse(&format!("{origin}{written}")).map_err(|_| "the target is no path and query")?;
    if rises(path) || hides_dot_segments(path) || !lies_below(base, &url) {
        return Err("the target leads out of base_url");
    }
    let written = PathAndQuery::try_from(written).map_err(|_| "the target is no path and query")?;
    Ok(Target { url, written })
}

/// Whether a path leads above where it begins, should several slashes count as one.
fn rises(path: &str) -> bool {
    let mut depth = 0_u32;
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        match (plain.as_str(), depth.checked_sub(1)) {
            (".", _) => {}
            ("..", None) => return true,
            ("..", Some(above)) => depth = above,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, target: &str, expected: Result<&str, &str>) {
        let base = Url::parse(base).expect("a URL");
        let found = below(&base, target);
        assert_eq!(found.as_ref().map(|found| found.written.as_str()).map_err(|what| *what), expected, "{target}");
    }

    #[test]
    fn a_target_lies_below_its_base_as_it_is_written() {
        check("http://a.test", "/orders?page=2", Ok("/orders?page=2"));
        check("http://a.test", "", Ok("/"));
        check("http://a.test/v1/", "orders", Ok("/v1/orders"));
        check("http://a.test/v1", "?q=%20x", Ok("/v1?q=%20x"));
        check("http://a.test/v1/", "?q", Ok("/v1/?q"));
        check("http://a.test/v1", "", Ok("/v1"));
        check("http://a.test/v1", "/", Ok("/v1/"));
        check("http://a.test/v1", "//b.test/x", Ok("/v1//b.test/x"));
        check("http://a.test/v1", "/a/../b", Ok("/v1/a/../b"));
        check("http://a.test/v1", "/a'b/%c3%A9;x=1?q='(x)!*;|", Ok("/v1/a'b/%c3%A9;x=1?q='(x)!*;|"));
        check("http://a.test/v1", "/a?../../..", Ok("/v1/a?../../.."));
    }

    #[test]
    fn what_leads_out_is_refused() {
        let out = Err("the target leads out of base_url");
        for target in
            ["/..", "../x", "a/../../x", "%2e%2e/x", "..%2fx", "a/%2e%2e%2f%2e%2e%2fx", "//../x", "/a//../../x"]
        {
            check("http://a.test/v1", target, out);
            check("http://a.test", target, out);
        }
        let characters = Err("the target holds characters that no target has");
        for target in ["..\\x", "a b", "a#b", "a\tb"] {
            check("http://a.test/v1", target, characters);
        }
    }
}
