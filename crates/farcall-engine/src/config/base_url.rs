//! Base URLs: reading one, and whether another URL lies at or below it.
//!
//! Below means on a boundary of path segments: `/admin` holds `/admin/orders` and not `/administrator`.

use url::Url;

use super::diagnostic::Span;
use super::reader::Reader;
use super::tree::Node;
use crate::one_host::with_one_host;

/// Why a text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BaseUrlError {
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Reads the `base_url` of an upstream.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<(Url, Span)> {
    match parse(reader.name(node)?) {
        Ok(url) => Some((url, node.span)),
        Err(BaseUrlError { message, hint }) => {
            let diagnostic = reader.error(node.span, message);
            hint.map(|hint| diagnostic.hint(hint));
            None
        }
    }
}

/// Reads a base URL: http or https, a host, nothing that belongs to one request only.
///
/// # Errors
/// When it is none.
///
/// # Example
/// ```
/// use farcall_engine::config::base_url;
///
/// assert!(base_url::parse("https://shop.example/admin").is_ok());
/// assert!(base_url::parse("https://user@shop.example").is_err());
/// ```
pub fn parse(text: &str) -> Result<Url, BaseUrlError> {
    let url = Url::parse(text).map_err(|error| BaseUrlError {
        message: format!("no valid URL: {error}"),
        hint: (error == url::ParseError::RelativeUrlWithoutBase).then(|| format!("did you mean `https://{text}`?")),
    })?;
    let url =
        with_one_host(url).ok_or_else(|| BaseUrlError { message: "a base URL names a host".to_owned(), hint: None })?;
    match mistake(&url) {
        None => Ok(url),
        Some((message, hint)) => Err(BaseUrlError { message, hint: Some(hint.to_owned()) }),
    }
}

/// Whether a URL has the base's origin and its path equals the base's or lies below it, whole segments compared.
///
/// # Example
/// ```
/// # use farcall_engine::config::base_url::lies_below;
/// # use url::Url;
/// let base = Url::parse("https://shop.example/admin")?;
/// assert!(lies_below(&base, &Url::parse("https://shop.example/admin/orders?page=2")?));
/// assert!(!lies_below(&base, &Url::parse("https://shop.example/administrator")?));
/// # Ok::<(), url::ParseError>(())
/// ```
pub fn lies_below(base: &Url, url: &Url) -> bool {
    if origin(base) != origin(url) {
        return false;
    }
    let base_path = path(base);
    match url.path().strip_prefix(base_path) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The same for every spelling of one base URL.
pub(super) fn normalised(base: &Url) -> String {
    let (scheme, host, port) = origin(base);
    format!("{scheme}://{host}:{port}{}", path(base))
}

/// How specific a base URL is among those that a URL lies below.
pub(super) fn depth(base: &Url) -> usize {
    path(base).len()
}

fn path(base: &Url) -> &str {
    base.path().trim_end_matches('/')
}

fn origin(url: &Url) -> (&str, &str, u16) {
    (url.scheme(), url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

fn mistake(url: &Url) -> Option<(String, &'static str)> {
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("`{}` is no scheme that calls can use", url.scheme());
        return Some((message, "a base URL begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some((
            "a base URL holds no user or password".into(),
            "send them in `headers`, as a reference to a secret",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some(("a base URL has no query and no fragment".into(), "end it before the `?` or `#`"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, url: &str, expected: bool) {
        let parsed = |text| Url::parse(text).expect("a URL of this test");
        assert_eq!(lies_below(&parsed(base), &parsed(url)), expected, "{base} {url}");
    }

    #[test]
    fn a_url_lies_below_a_base_on_whole_segments_of_one_origin() {
        check("https://a.example", "https://a.example/", true);
        check("https://a.example/", "https://a.example/x", true);
        check("https://a.example:443/v1/", "https://A.example/v1", true);
        check("https://a.example/v1", "https://a.example/v1/x?y", true);
        check("https://a.example/v1", "https://a.example/v1?y", true);
        check("https://a.example/v1", "https://a.example/v10", false);
        check("https://a.example/v1", "https://a.example/v1/../v2", false);
        check("https://a.example/v1", "http://a.example/v1", false);
        check("https://a.example/v1", "https://a.example:8443/v1", false);
        check("https://a.example", "https://a.example.evil.example/", false);
    }

    #[test]
    fn spellings_of_one_base_are_normalised_to_one() {
        let check = |text: &str| {
            let url = Url::parse(text).expect("a URL of this test");
            assert_eq!(normalised(&url), "https://a.example:443/v1", "{text}");
        };
        check("https://a.example/v1");
        check("HTTPS://A.Example:443/v1//");
        check("https://a.example/x/../v1/");
    }
}
