//! Where a client's target leads: a path and query below an upstream's `base_url`, and nowhere else.

use url::Url;

use crate::config::base_url::lies_below;
use crate::document::hides_dot_segments;

/// The longest URL, which is what the HTTP client can carry.
const URL_BYTES_MAX: usize = 65_534;

/// The base without trailing slashes, one `/`, the target without leading slashes; without a target the base as written.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn below(base: &Url, target: &str) -> Result<Url, &'static str> {
    if target.is_empty() {
        return Ok(base.clone());
    }
    if base.query().is_some() {
        return Err("nothing can follow a base_url that has a query");
    }
    // What the url crate would silently change.
    if target.contains(|c: char| c.is_ascii_control() || matches!(c, '\\' | '#' | ' ')) {
        return Err("the target holds characters that no target has");
    }
    let joined = format!("{}/{}", base.as_str().trim_end_matches('/'), target.trim_start_matches('/'));
    if joined.len() > URL_BYTES_MAX {
        return Err("the URL is longer than 65534 bytes");
    }
    let url = Url::parse(&joined).map_err(|_| "the target is no path and query")?;
    if hides_dot_segments(url.path()) || !lies_below(base, &url) {
        return Err("the target leads out of base_url");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, target: &str, expected: Result<&str, &str>) {
        let base = Url::parse(base).expect("a URL");
        assert_eq!(below(&base, target).as_ref().map(Url::as_str).map_err(|what| *what), expected, "{target}");
    }

    #[test]
    fn a_target_lies_below_its_base() {
        check("http://a.test", "/orders?page=2", Ok("http://a.test/orders?page=2"));
        check("http://a.test/v1/", "orders", Ok("http://a.test/v1/orders"));
        check("http://a.test/v1", "?q=%20x", Ok("http://a.test/v1/?q=%20x"));
        check("http://a.test/v1", "", Ok("http://a.test/v1"));
        check("http://a.test/v1", "//b.test/x", Ok("http://a.test/v1/b.test/x"));
        check("http://a.test/v1", "a/../b", Ok("http://a.test/v1/b"));
    }

    #[test]
    fn what_leads_out_is_refused() {
        let out = Err("the target leads out of base_url");
        for target in ["../x", "a/../../x", "%2e%2e/x", "..%2fx", "a/%2e%2e%2f%2e%2e%2fx"] {
            check("http://a.test/v1", target, out);
        }
        let characters = Err("the target holds characters that no target has");
        for target in ["..\\x", "a b", "a#b", "a\tb"] {
            check("http://a.test/v1", target, characters);
        }
    }
}
