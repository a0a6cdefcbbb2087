//! What an answer's headers say of how much more its upstream takes: the RateLimit fields of the drafts, current and older,
//! and the dialects that came before them.
//!
//! There are as many as there are upstreams, so nothing is read by provider: a name says what a value is (`field`), a
//! value says how it is written (`value`, `moment`), and what belongs together has the rest of its name in common. What
//! does not make sense is no statement. What is never said is when nobody resets anything: then a bound holds for a short
//! while only, and is asked for anew. What follows from it is the core's decision; a bound can only make less start.
//! The dialects that are known to be read: `dialects.txt`; what users are told: `docs/limits.md`.

mod field;
mod moment;
mod value;

use std::time::Duration;

use farcall_core::remaining::{Bound, Remaining};
use farcall_core::time::Timestamp;
use http::HeaderMap;
use http::header::AGE;

use self::field::{Field, Role};
use self::moment::Unit;
use super::http_date;

/// For how long a bound holds when the answer says neither when it is reset nor how long its window is.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The same, at most, when the length of the window is known.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Headers about quotas that are read; more are nonsense.
const FIELDS_MAX: usize = 64;

/// What is said of one quota.
#[derive(Debug, Default)]
struct Group<'a> {
    about: Vec<&'a str>,
    limit: Vec<Quantity>,
    used: Vec<Quantity>,
    remaining: Option<u64>,
    resets_in: Option<Duration>,
    window: Option<Duration>,
}

/// A number, and the window that it is meant for where that is written beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quantity {
    count: u64,
    window: Option<Duration>,
}

/// What the answer says, if it says anything that makes sense. `now` is only asked when the answer has no `Date`.
pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> Option<Remaining> {
    let mut named = headers.iter().filter_map(|(name, value)| Some((Field::of(name.as_str())?, value))).peekable();
    named.peek()?;
    // From a cache: the request was not counted, and whatever it says was true some time ago.
    if headers.get(AGE).is_some_and(|age| age != "0") {
        return None;
    }
    let from = http_date::of_answer(headers, now);
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut bounds: Vec<Bound> = Vec::new();
    for (field, value) in named.take(FIELDS_MAX) {
        let Ok(text) = value.to_str() else { continue };
        let items = if field.may_be_structured() { value::items(text) } else { Vec::new() };
        if items.is_empty() {
            note(&mut groups, &field, text.trim(), from);
        }
        bounds.extend(items.iter().map(|item| bound(item.remaining, item.resets_in(from), field.window)));
    }
    bounds.extend(groups.iter().flat_map(|group| group.bounds(&groups)));
    Remaining::of(bounds)
}

/// Puts a value to what else is said of the same quota.
fn note<'a>(groups: &mut Vec<Group<'a>>, field: &Field<'a>, text: &str, from: Timestamp) {
    let place = groups.iter().position(|group| group.about == field.about).unwrap_or_else(|| {
        groups.push(Group { about: field.about.clone(), ..Group::default() });
        groups.len() - 1
    });
    let group = &mut groups[place];
    group.window = group.window.or(field.window);
    match field.role {
        Role::Limit => match value::used_of(text) {
            Some((used, limit)) if limit > 0 => group.less(limit.saturating_sub(used)),
            _ => group.limit = value::quantities(text),
        },
        Role::Used => group.used = value::quantities(text),
        Role::Remaining => {
            for quantity in value::quantities(text) {
                group.less(quantity.count);
                group.window = group.window.or(quantity.window);
            }
        }
        Role::Reset(unit) => {
            let said = moment::until(text, unit, from);
            // A length of time needs no clock, so it is believed rather than a moment.
            if unit == Unit::After || group.resets_in.is_none() {
                group.resets_in = said.or(group.resets_in);
            }
        }
        Role::Window(unit) => group.window = moment::length(text, unit).or(group.window),
    }
}

impl Group<'_> {
    /// At most so much remains: of several statements the lowest holds.
    fn less(&mut self, remaining: u64) {
        self.remaining = Some(self.remaining.map_or(remaining, |other| other.min(remaining)));
    }

    fn bounds(&self, all: &[Self]) -> Vec<Bound> {
        // Who allows nothing at all would not answer: it is how some say that there is no limit.
        if self.limit.iter().any(|limit| limit.count == 0) {
            return Vec::new();
        }
        let resets_in = self.resets_in.or_else(|| self.common_reset(all));
        if let Some(remaining) = self.remaining {
            return vec![bound(remaining, resets_in, self.window)];
        }
        if self.used.len() != self.limit.len() {
            return Vec::new();
        }
        let pairs = self.limit.iter().zip(&self.used);
        let left = |(limit, used): (&Quantity, &Quantity)| {
            let window = limit.window.or(used.window).or(self.window);
            bound(limit.count.saturating_sub(used.count), resets_in, window)
        };
        pairs.map(left).collect()
    }

    /// When all are reset that say nothing of it themselves.
    fn common_reset(&self, all: &[Self]) -> Option<Duration> {
        let is_wider = |group: &&Self| group.about.len() < self.about.len() && self.about.starts_with(&group.about);
        all.iter().filter(is_wider).filter_map(|group| group.resets_in).max()
    }
}

fn bound(remaining: u64, resets_in: Option<Duration>, window: Option<Duration>) -> Bound {
    let unsaid = || window.map_or(LOOK_AGAIN_AFTER, |window| window.min(LOOK_AGAIN_MAX));
    Bound::new(remaining, resets_in.unwrap_or_else(unsaid))
}

#[cfg(test)]
mod tests;
