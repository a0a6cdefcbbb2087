//! The state of the engine as `/healthz` tells it.
//!
//! Counts are of one commit, so `accepted = pruned + sum of calls` in every answer.

use std::borrow::Cow;

use farcall_core::call::State;
use farcall_core::dispatcher::Census;
use farcall_engine::{Snapshot, StoreHealth};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::{Serialize, SerializeMap, Serializer};

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(crate) struct Health {
    status: Status,
    version: &'static str,
    draining: bool,
    store: Store,
    /// Durable calls ever accepted: those pruned and those in each state together.
    accepted: u64,
    pruned: u64,
    calls: Calls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// New calls are refused.
    Degraded,
    Failing,
}

#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
struct Store {
    state: StoreState,
    free_bytes: Option<u64>,
    /// What the store said, while it does not do well.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StoreState {
    Ok,
    /// Less is free than `store.min_free`, or a commit found no space.
    Full,
    /// A commit failed, and the store is being opened again.
    Recovering,
    Failed,
}

/// How many there are in each state.
#[derive(Debug)]
struct Calls(Census);

impl Health {
    /// `free_bytes` is nothing when the store did not say.
    pub(crate) fn of(snapshot: &Snapshot, free_bytes: Option<u64>, min_free: u64) -> Self {
        let state = match (snapshot.store, free_bytes) {
            (StoreHealth::Failed, _) | (StoreHealth::Ok, None) => StoreState::Failed,
            (StoreHealth::Recovering, _) => StoreState::Recovering,
            (StoreHealth::Full, _) => StoreState::Full,
            (StoreHealth::Ok, Some(free_bytes)) if free_bytes < min_free => StoreState::Full,
            (StoreHealth::Ok, Some(_)) => StoreState::Ok,
        };
        let status = match state {
            StoreState::Ok => Status::Ok,
            StoreState::Full | StoreState::Recovering => Status::Degraded,
            StoreState::Failed => Status::Failing,
        };
        Self {
            status,
            version: env!("CARGO_PKG_VERSION"),
            draining: snapshot.is_draining,
            store: Store { state, free_bytes, reason: snapshot.store_error.clone() },
            accepted: snapshot.census.accepted,
            pruned: snapshot.census.pruned,
            calls: Calls(snapshot.census),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status == Status::Ok && !self.draining
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.status == Status::Failing
    }
}

impl JsonSchema for Calls {
    fn schema_name() -> Cow<'static, str> {
        "Census".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let states: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
        let count = |state: &&str| ((*state).to_owned(), serde_json::json!({ "type": "integer", "minimum": 0 }));
        let counts: serde_json::Map<String, serde_json::Value> = states.iter().map(count).collect();
        json_schema!({
            "description": "How many calls there are in each state.",
            "type": "object",
            "properties": counts,
            "required": states,
        })
    }
}

impl Serialize for Calls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(State::ALL.len()))?;
        for &state in State::ALL {
            map.serialize_entry(state.as_str(), &self.0.calls(state))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_degrades_and_a_failed_one_fails() {
        let check = |store, free_bytes, expected: &str| {
            let snapshot = Snapshot { store, ..Snapshot::default() };
            let health = serde_json::to_value(Health::of(&snapshot, free_bytes, 100)).expect("health is JSON");
            let seen = format!("{} {} {}", health["status"], health["store"]["state"], health["store"]["free_bytes"]);
            assert_eq!(seen.replace('"', ""), expected);
        };
        check(StoreHealth::Ok, Some(100), "ok ok 100");
        check(StoreHealth::Ok, Some(99), "degraded full 99");
        check(StoreHealth::Ok, None, "failing failed null");
        check(StoreHealth::Full, Some(100), "degraded full 100");
        check(StoreHealth::Recovering, Some(100), "degraded recovering 100");
        check(StoreHealth::Failed, Some(99), "failing failed 99");
    }

    #[test]
    fn every_state_is_counted() {
        let calls = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let snapshot = Snapshot { census: Census::new(60, 5, calls), ..Snapshot::default() };
        let text = serde_json::to_string(&Health::of(&snapshot, Some(0), 0)).expect("health is JSON");
        let counts = "\"accepted\":60,\"pruned\":5,\"calls\":{\"scheduled\":1,\"queued\":2,\"running\":3,\"retrying\":4,\
             \"succeeded\":5,\"failed\":6,\"cancelled\":7,\"expired\":8,\"unknown\":9,\"poisoned\":10}}";
        assert!(text.ends_with(counts), "{text}");
    }
}
