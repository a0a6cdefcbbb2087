//! The declared upstreams: by name, and by the host that a URL names.
//!
//! Each call that comes in asks which of them its URL belongs to, so the answer must cost the same beside ten upstreams
//! and ten thousand. Cheap to clone: a patch changes one of them, and the others stay shared.

use std::collections::{BTreeMap, HashMap};
use std::ops::Index;
use std::sync::Arc;

use url::Url;

use super::base_url::{depth, lies_below};
use super::model::Upstream;

/// Declared upstreams.
///
/// # Example
/// ```
/// # use farcall_engine::config::{Declared, Upstream};
/// # use url::Url;
/// let mut declared = Declared::default();
/// for (name, base_url) in [("shop", "https://shop.example"), ("admin", "https://shop.example/admin")] {
///     declared.insert(name, Upstream { base_url: Some(Url::parse(base_url)?), ..Upstream::default() });
/// }
/// let name_for = |url| declared.find(&url).map(|(name, _)| name);
/// assert_eq!(name_for(Url::parse("https://shop.example/admin/orders")?), Some("admin"));
/// assert_eq!(name_for(Url::parse("https://shop.example/administrator")?), Some("shop"));
/// assert_eq!(name_for(Url::parse("https://other.example/admin")?), None);
/// # Ok::<(), url::ParseError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Declared {
    by_name: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Names of those whose base URL names this host.
    by_host: HashMap<String, Vec<Arc<str>>>,
}

impl Declared {
    /// Declares an upstream, or another one under its name.
    pub fn insert(&mut self, name: &str, upstream: impl Into<Arc<Upstream>>) {
        let (name, upstream) = (Arc::<str>::from(name), upstream.into());
        self.forget_host(&name);
        if let Some(host) = upstream.base_url.as_ref().and_then(Url::host_str) {
            self.by_host.entry(host.to_owned()).or_default().push(Arc::clone(&name));
        }
        self.by_name.insert(name, upstream);
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// The one that a URL belongs to, with its name: the one with the longest `base_url` that the URL equals or lies below,
    /// whole path segments and the same origin.
    pub fn find(&self, url: &Url) -> Option<(&str, &Arc<Upstream>)> {
        let names = self.by_host.get(url.host_str()?)?;
        let upstreams = names.iter().filter_map(|name| self.by_name.get_key_value(name));
        let with_base = upstreams.filter_map(|(name, upstream)| Some((name, upstream, upstream.base_url.as_ref()?)));
        with_base
            .filter(|(_, _, base)| lies_below(base, url))
            .max_by_key(|(_, _, base)| depth(base))
            .map(|(name, upstream, _)| (&**name, upstream))
    }

    /// By its name, with the name as it is kept.
    pub fn get_named(&self, name: &str) -> Option<(&str, &Upstream)> {
        self.by_name.get_key_value(name).map(|(name, upstream)| (&**name, &**upstream))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.by_name.iter().map(|(name, upstream)| (&**name, upstream))
    }

    /// In order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// In the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.by_name.values()
    }

    /// Changes one of them, when it is declared.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Upstream)) {
        if let Some(upstream) = self.by_name.get(name) {
            let mut upstream = Upstream::clone(upstream);
            change(&mut upstream);
            self.insert(name, upstream);
        }
    }

    /// Changes each of them.
    pub fn change_all(&mut self, mut change: impl FnMut(&mut Upstream)) {
        for name in self.by_name.keys().cloned().collect::<Vec<_>>() {
            self.change(&name, &mut change);
        }
    }

    fn forget_host(&mut self, name: &str) {
        let base_url = self.by_name.get(name).and_then(|upstream| upstream.base_url.as_ref());
        let Some(names) = base_url.and_then(Url::host_str).and_then(|host| self.by_host.get_mut(host)) else { return };
        names.retain(|other| **other != *name);
    }
}

impl Index<&str> for Declared {
    type Output = Upstream;

    /// # Panics
    /// When none has this name.
    fn index(&self, name: &str) -> &Upstream {
        &self.by_name[name]
    }
}

impl<N: AsRef<str>> FromIterator<(N, Upstream)> for Declared {
    fn from_iter<I: IntoIterator<Item = (N, Upstream)>>(upstreams: I) -> Self {
        let mut declared = Self::default();
        upstreams.into_iter().for_each(|(name, upstream)| declared.insert(name.as_ref(), upstream));
        declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(base_url: &str) -> Upstream {
        Upstream { base_url: Some(base_url.parse().expect("a URL")), ..Upstream::default() }
    }

    #[test]
    fn one_that_is_declared_anew_is_found_at_its_new_base_url_alone() {
        let mut declared: Declared =
            [("a", upstream("http://one.example")), ("b", upstream("http://two.example"))].into_iter().collect();
        declared.insert("a", upstream("http://three.example/x"));
        declared.change("b", |b| b.base_url = Some("http://three.example".parse().expect("a URL")));
        declared.change("c", |_| panic!("there is none"));
        let found = |url: &str| declared.find(&url.parse().expect("a URL")).map(|(name, _)| name);
        assert_eq!((found("http://one.example/"), found("http://two.example/")), (None, None));
        assert_eq!((found("http://three.example/x/y"), found("http://three.example/y")), (Some("a"), Some("b")));
        assert_eq!(declared.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_change_of_all_leaves_copies_as_they_were() {
        let mut declared: Declared = [("a", upstream("http://one.example"))].into_iter().collect();
        let copy = declared.clone();
        declared.change_all(|upstream| upstream.max_response = 7);
        assert_eq!(declared["a"].max_response, 7);
        assert_ne!(copy["a"].max_response, 7);
    }
}
