//! Routes: paths of this server whose requests go to an upstream, and which of them a request is for.
//!
//! How they are read is next door in `routes`; what a route of each style does is the server's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use farcall_core::hedge::Hedging;

use super::model::Success;

/// The longest path of a route, in bytes.
pub const ROUTE_BYTES_MAX: usize = 255;

/// A path of this server whose requests go to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub style: Style,
    /// A declared one, by its name.
    pub upstream: String,
    /// Where requests go below the upstream's base URL: empty, or beginning with a slash.
    pub path: String,
    /// How calls are hedged, in place of what the upstream says; of the smart style there is always one.
    pub hedge: Option<Hedging>,
    /// What counts as success in place of what the upstream says; of the smart style there is always one.
    pub success: Option<Success>,
}

/// What a route makes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Passes it on, and its answer back. It answers at its path and everywhere below.
    #[default]
    Proxy,
    /// Asks for one JSON document within a time, as Requestko does. It answers at its path alone.
    Smart,
}

/// The routes of a configuration, by path. Cheap to clone.
///
/// # Example
/// ```
/// # use farcall_engine::config::{Route, Routes, Style};
/// let shop = Route { style: Style::Proxy, upstream: "shop".to_owned(), path: "/v2".to_owned(), hedge: None, success: None };
/// let routes: Routes = [("/shop", shop)].into_iter().collect();
/// let found = routes.find("/shop/orders/7").expect("it lies below");
/// assert_eq!((&**found.name, found.rest), ("/shop", "/orders/7"));
/// assert!(routes.find("/shopping").is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Routes {
    by_path: Arc<BTreeMap<Arc<str>, Arc<Route>>>,
}

/// The route that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRoute<'a> {
    /// Its path, as it is configured.
    pub name: &'a Arc<str>,
    pub route: &'a Arc<Route>,
    /// What of the request's path lies below its own: empty, or beginning with a slash.
    pub rest: &'a str,
}

impl Routes {
    /// The route with the longest path that this one equals or, when the route passes on what lies below, lies below.
    /// Paths are compared as they are written, byte by byte.
    pub fn find<'a>(&'a self, path: &'a str) -> Option<FoundRoute<'a>> {
        let mut end = path.len();
        loop {
            // Longer ones are none, and cost nothing that way.
            if end <= ROUTE_BYTES_MAX
                && let Some((name, route)) = self.by_path.get_key_value(&path[..end])
                && (end == path.len() || route.style == Style::Proxy)
            {
                return Some(FoundRoute { name, route, rest: &path[end..] });
            }
            let before = path.get(..end.min(ROUTE_BYTES_MAX + 1)).unwrap_or(&path[..end]);
            end = before.rfind('/').filter(|&at| at > 0)?;
        }
    }

    /// In the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Route)> {
        self.by_path.iter().map(|(path, route)| (&**path, &**route))
    }

    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }
}

impl<P: AsRef<str>> FromIterator<(P, Route)> for Routes {
    fn from_iter<I: IntoIterator<Item = (P, Route)>>(routes: I) -> Self {
        let by_path = routes.into_iter().map(|(path, route)| (Arc::from(path.as_ref()), Arc::new(route)));
        Self { by_path: Arc::new(by_path.collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_route_on_whole_segments_is_found() {
        let route =
            |style| Route { style, upstream: "work".to_owned(), path: String::new(), hedge: None, success: None };
        let routes: Routes =
            [("/api", route(Style::Proxy)), ("/api/v2", route(Style::Proxy)), ("/api/smart", route(Style::Smart))]
                .into_iter()
                .collect();
        let check = |path: &str, expected: Option<(&str, &str)>| {
            let found = routes.find(path).map(|found| (&**found.name, found.rest));
            assert_eq!(found, expected, "{path}");
        };
        check("/api", Some(("/api", "")));
        check("/api/", Some(("/api", "/")));
        check("/api//x", Some(("/api", "//x")));
        check("/api/v2/a/b", Some(("/api/v2", "/a/b")));
        check("/api/v20", Some(("/api", "/v20")));
        check("/api/smart", Some(("/api/smart", "")));
        // Below a smart route is what lies below others.
        check("/api/smart/", Some(("/api", "/smart/")));
        check("/API", None);
        check("/apis", None);
        check("/", None);
        check("", None);
        check("*", None);
        let deep = "/api".to_owned() + &"/é".repeat(20_000);
        check(&deep, Some(("/api", &deep[4..])));
        check(&"/é".repeat(20_000), None);
    }
}
