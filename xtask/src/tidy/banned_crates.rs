//! Crates that are never built, not even below another one: a second TLS or HTTP stack, or a C library of the system.
//!
//! It looks at what is built and not at all that is pinned: a lock file also holds crates that only a weak feature
//! mentions. `deny.toml` says the same to cargo-deny, for every platform.

use std::path::Path;

use super::Finding;
use super::tree::Tree;

const BANNED: [(&str, &str); 4] = [
    ("reqwest", "it retries and follows redirects by itself, uncounted"),
    ("ring", "a second cryptography provider makes rustls panic at first use"),
    ("openssl-sys", "TLS is rustls; nothing of the system's is linked"),
    ("native-tls", "TLS is rustls; nothing of the system's is linked"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let banned = BANNED.iter().filter(|(name, _)| tree.built.iter().any(|built| built == name));
    banned
        .map(|(name, reason)| Finding {
            path: Path::new("Cargo.lock").to_owned(),
            line: line_of(&tree.lock, name),
            message: format!("the crate {name} is banned: {reason}; `cargo tree -i {name}` shows who asks for it"),
        })
        .collect()
}

fn line_of(lock: &str, name: &str) -> usize {
    let entry = format!("name = \"{name}\"");
    lock.lines().position(|line| line == entry).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(built: &[&str]) -> Vec<usize> {
        let tree = Tree {
            built: built.iter().map(|&name| name.to_owned()).collect(),
            lock: "[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\n".to_owned(),
            ..Tree::default()
        };
        check(&tree).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_banned_crate_that_is_built_is_found() {
        assert_eq!(found(&["clap", "ring"]), [2]);
        assert_eq!(found(&["native-tls", "reqwest"]), [1, 1]);
    }

    #[test]
    fn one_that_is_only_pinned_is_not() {
        assert_eq!(found(&["clap", "stringprep"]), [0; 0]);
    }
}
