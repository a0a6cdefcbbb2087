//! Filters of lists and operations: which calls are meant, as clients write it.
//!
//! What cannot be meant is refused with the key at fault, never ignored.

use farcall_core::call::{Source, State};
use farcall_core::time::Timestamp;
use farcall_engine::listing::{CallFilter, Cursor, PAGE_MAX};

use crate::problem::{Code, Problem};

/// Calls of a page when the client does not say.
const LIMIT_DEFAULT: u32 = 50;

/// The filters of lists and operations.
pub(super) const NAMES: [&str; 7] = ["state", "upstream", "function", "source", "tag", "since", "until"];

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) filter: CallFilter,
    pub(super) limit: u32,
    pub(super) cursor: Option<Cursor>,
    /// Of a function there is no call yet.
    pub(super) matches_none: bool,
}

/// Reads a query string. Each key stands once, but `state`, of which several may be wanted.
pub(super) fn of_query(query: &str) -> Result<Asked, Problem> {
    let mut asked = Asked { filter: CallFilter::default(), limit: LIMIT_DEFAULT, cursor: None, matches_none: false };
    let mut seen: Vec<String> = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if key != "state" && seen.iter().any(|seen| *seen == key) {
            return Err(wrong(&key, "stands more than once"));
        }
        match &*key {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                asked.limit = limit.ok_or_else(|| wrong(&key, &format!("must be a number from 1 to {PAGE_MAX}")))?;
            }
            "cursor" => {
                let unknown = || wrong(&key, "is none that a list gave as `next_cursor`");
                asked.cursor = Some(Cursor::decode(&value).ok_or_else(unknown)?);
            }
            "function" => asked.matches_none = true,
            _ => set(&mut asked.filter, &key, &value)?,
        }
        seen.push(key.into_owned());
    }
    Ok(asked)
}

/// Sets one key of a filter.
pub(super) fn set(filter: &mut CallFilter, key: &str, value: &str) -> Result<(), Problem> {
    match key {
        "state" => {
            for word in value.split(',') {
                let unknown =
                    || wrong(key, &format!("must be one of {}", words(State::ALL.iter().map(|state| state.as_str()))));
                let state = State::from_word(word.trim()).ok_or_else(unknown)?;
                if !filter.states.contains(&state) {
                    filter.states.push(state);
                }
            }
        }
        "source" => {
            let unknown =
                || wrong(key, &format!("must be one of {}", words(Source::ALL.iter().map(|source| source.as_str()))));
            filter.source = Some(Source::from_word(value).ok_or_else(unknown)?);
        }
        "upstream" => filter.upstream = Some(value.to_owned()),
        "tag" => filter.tag = Some(value.to_owned()),
        "since" => filter.since = Some(time(key, value)?),
        "until" => filter.until = Some(time(key, value)?),
        _ => return Err(unknown(key)),
    }
    Ok(())
}

/// What is said of a key that is no filter.
pub(super) fn unknown(key: &str) -> Problem {
    wrong(key, &format!("is no filter; there are {}, limit and cursor", NAMES.join(", ")))
}

fn time(key: &str, value: &str) -> Result<Timestamp, Problem> {
    let time: Result<jiff::Timestamp, _> = value.parse();
    let wrong = |_| wrong(key, "must be a time such as 2026-11-20T09:00:00Z");
    Ok(Timestamp::from_micros(time.map_err(wrong)?.as_microsecond()))
}

fn words(words: impl Iterator<Item = &'static str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn wrong(key: &str, what: &str) -> Problem {
    Problem::new(Code::InvalidFilter, format!("`{key}` {what}")).at_key(key)
}
