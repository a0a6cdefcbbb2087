//! Which crate may depend on which, and what each must never be built on.
//!
//! The arrows of `ARCHITECTURE.md`: cli → server → engine → store → core, and the simulator beside the engine. Crates
//! used by tests only are free.

use super::Finding;
use super::tree::{Package, Tree};

/// What a crate may be built on.
struct Direction {
    name: &'static str,
    /// Crates of this workspace.
    own: &'static [&'static str],
    others: Others,
}

/// Crates of other people.
enum Others {
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

const DATABASES: &[&str] = &["rusqlite", "libsqlite3-sys", "tokio-postgres", "deadpool-postgres"];

const DIRECTIONS: [Direction; 13] = [
    Direction { name: "farcall-crash", own: &[], others: Others::Only(&["rustix", "thiserror"]) },
    Direction { name: "farcall-core", own: &[], others: Others::Only(&["fastrand", "thiserror"]) },
    Direction {
        name: "farcall-store",
        own: &["farcall-core", "farcall-crash"],
        others: Others::AllBut(&["hyper", "hyper-util", "http", "axum", "reqwest", "tracing"]),
    },
    Direction {
        name: "farcall-engine",
        own: &["farcall-core", "farcall-crash", "farcall-store"],
        others: Others::AllBut(DATABASES),
    },
    Direction { name: "farcall-server", own: &["farcall-core", "farcall-engine"], others: Others::AllBut(DATABASES) },
    Direction {
        name: "farcall-sim",
        own: &["farcall-core", "farcall-store"],
        others: Others::AllBut(&["tokio", "hyper", "rusqlite"]),
    },
    Direction {
        name: "farcall-cli",
        own: &["farcall-core", "farcall-crash", "farcall-store", "farcall-engine", "farcall-server"],
        others: Others::AllBut(DATABASES),
    },
    Direction { name: "xtask", own: &["bench-gauge", "farcall-sim"], others: Others::AllBut(&[]) },
    Direction { name: "bench-gauge", own: &[], others: Others::AllBut(&[]) },
    Direction { name: "bench-upstream", own: &["bench-gauge"], others: Others::AllBut(&[]) },
    Direction { name: "bench-client", own: &["bench-gauge"], others: Others::AllBut(&[]) },
    Direction { name: "bench-floor", own: &["bench-gauge"], others: Others::AllBut(&[]) },
    Direction {
        name: "bench-engine",
        own: &["bench-gauge", "farcall-core", "farcall-store", "farcall-engine"],
        others: Others::AllBut(DATABASES),
    },
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let own = |name: &str| DIRECTIONS.iter().any(|direction| direction.name == name);
    tree.packages
        .iter()
        .flat_map(|package| match DIRECTIONS.iter().find(|direction| direction.name == package.name) {
            Some(direction) => refused(package, |name| direction.allows(name, own(name))),
            None => vec![finding(package, "this crate has no place in xtask/src/tidy/directions.rs".to_owned())],
        })
        .collect()
}

fn refused(package: &Package, allows: impl Fn(&str) -> bool) -> Vec<Finding> {
    let refused = package.dependencies.iter().filter(|name| !allows(name));
    refused.map(|name| finding(package, format!("{} must not depend on {name}", package.name))).collect()
}

fn finding(package: &Package, message: String) -> Finding {
    Finding { path: package.manifest.clone(), line: 1, message }
}

impl Direction {
    fn allows(&self, name: &str, is_own: bool) -> bool {
        match self.others {
            _ if is_own => self.own.contains(&name),
            Others::Only(only) => only.contains(&name),
            Others::AllBut(but) => !but.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, dependencies: &[&str]) -> Vec<String> {
        check(&Tree::of_package(name, dependencies)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn arrows_that_point_back_are_found() {
        assert_eq!(found("farcall-store", &["farcall-engine"]), ["farcall-store must not depend on farcall-engine"]);
        assert_eq!(found("farcall-server", &["farcall-store"]), ["farcall-server must not depend on farcall-store"]);
        assert_eq!(found("farcall-core", &["farcall-sim"]), ["farcall-core must not depend on farcall-sim"]);
        assert_eq!(found("farcall-engine", &["xtask"]), ["farcall-engine must not depend on xtask"]);
    }

    #[test]
    fn crates_of_others_in_the_wrong_place_are_found() {
        for name in ["tokio", "hyper", "rusqlite", "serde_json", "tracing", "serde"] {
            assert_eq!(found("farcall-core", &[name]), [format!("farcall-core must not depend on {name}")]);
        }
        assert_eq!(found("farcall-engine", &["rusqlite"]), ["farcall-engine must not depend on rusqlite"]);
    }

    #[test]
    fn the_arrows_themselves_are_free() {
        assert_eq!(found("farcall-core", &["thiserror"]), [""; 0]);
        assert_eq!(found("farcall-store", &["farcall-core", "rusqlite"]), [""; 0]);
        assert_eq!(found("farcall-cli", &["farcall-server", "farcall-store", "tokio"]), [""; 0]);
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(found("farcall-new", &[]), ["this crate has no place in xtask/src/tidy/directions.rs"]);
    }
}
