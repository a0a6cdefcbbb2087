//! One spelling per host: `api.example.com.` is `api.example.com` (RFC 1034, section 3.1: the dot is the root's).
//!
//! Limits are counted by origin, and an upstream is found by its base URL; a host with two spellings would have two of
//! each. Case and the default port are the url crate's; the dot it leaves.

use url::{Host, Url};

/// The URL with its host in the one spelling; nothing when there is no host in it then.
pub(crate) fn with_one_host(mut url: Url) -> Option<Url> {
    let Some(Host::Domain(host)) = url.host() else { return Some(url) };
    let Some(plain) = host.strip_suffix('.').map(str::to_owned) else { return Some(url) };
    if plain.is_empty() || plain.ends_with('.') || url.set_host(Some(&plain)).is_err() {
        return None;
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let url = Url::parse(text).expect("a URL of this test");
        assert_eq!(with_one_host(url).as_ref().map(Url::as_str), expected, "{text}");
    }

    #[test]
    fn the_dot_of_the_root_is_left_out() {
        check("https://api.example.com./v1?q", Some("https://api.example.com/v1?q"));
        check("https://api.example.com.:8443/", Some("https://api.example.com:8443/"));
        check("https://api.example.com/", Some("https://api.example.com/"));
        check("http://localhost./", Some("http://localhost/"));
        check("http://127.0.0.1./", Some("http://127.0.0.1/"));
        check("http://[::1]/", Some("http://[::1]/"));
    }

    #[test]
    fn a_host_of_nothing_but_dots_is_none() {
        check("http://./", None);
        check("http://a../", None);
    }
}
