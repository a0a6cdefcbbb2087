//! Hedges: `hedge`, a mapping of when an attempt that takes long is repeated, how often, and what that may cost; or `none`.
//!
//! Of two layers the upper one's hedging replaces the lower one's as a whole.

use std::time::Duration;

use farcall_core::hedge::{EXTRA_MAX, HedgeDelay, HedgePolicy};
use farcall_core::share::Share;

use super::diagnostic::Span;
use super::reader::{KeyReader, Reader, Zero};
use super::tree::{Entry, Node, Value};
use crate::quantity::share;

/// A hedging, and where its `after` stands; nothing of `hedge: none`.
pub(super) type HedgeLayer = Option<(HedgePolicy, Span)>;

/// What one mapping says.
#[derive(Debug, Default)]
struct Given {
    after: Option<HedgeDelay>,
    /// Where `after` stands, also when it is wrong.
    after_place: Option<Span>,
    extra: Option<u32>,
    budget: Option<Option<Share>>,
}

const KEYS: &[KeyReader<Given>] = &[
    ("after", |reader, entry, given| {
        given.after_place = Some(entry.node.span);
        given.after = after(reader, &entry.node);
    }),
    ("extra", |reader, entry, given| {
        let extra = reader.integer(&entry.node, &(1..=u64::from(EXTRA_MAX)));
        given.extra = extra.and_then(|extra| u32::try_from(extra).ok());
    }),
    ("budget", |reader, entry, given| given.budget = budget(reader, &entry.node)),
];

/// Reads the value of `hedge`.
pub(super) fn read(reader: &mut Reader<'_>, entry: &Entry) -> Option<HedgeLayer> {
    if matches!(&entry.node.value, Value::Text(text) if text == "none") {
        return Some(None);
    }
    if !matches!(entry.node.value, Value::Map(_)) {
        reader.mismatch(&entry.node, "a mapping, or `none`").hint(HINT);
        return None;
    }
    let mut given = Given::default();
    reader.keys(&entry.node, KEYS, &mut given);
    let Some(place) = given.after_place else {
        reader.error(entry.key.span, "`hedge` has no `after`").hint(HINT);
        return None;
    };
    let after = given.after?;
    let budget = given.budget.unwrap_or(match after {
        HedgeDelay::Fixed(_) => None,
        HedgeDelay::Learned(_) => Some(HedgePolicy::LEARNED_BUDGET),
    });
    Some(Some((HedgePolicy { after, extra: given.extra.unwrap_or(1), budget, on_failure: false }, place)))
}

/// Reports a delay that no attempt of this timeout, of the same mapping, ever comes to.
pub(super) fn check(reader: &mut Reader<'_>, hedge: HedgeLayer, timeout: Option<Duration>) {
    let Some((HedgePolicy { after: HedgeDelay::Fixed(after), .. }, place)) = hedge else { return };
    if timeout.is_some_and(|timeout| after >= timeout) {
        reader
            .error(place, "no attempt is out for so long: `timeout` is not longer")
            .hint("a hedge starts while the first attempt is out");
    }
}

fn after(reader: &mut Reader<'_>, node: &Node) -> Option<HedgeDelay> {
    match &node.value {
        Value::Text(text) if text.starts_with('p') => {
            let percentile = share::percentile_from_text(text);
            if percentile.is_none() {
                reader
                    .error(node.span, format!("`{text}` is no percentile that a delay can be learned from"))
                    .hint("from `p50` to `p99.9`, or a length of time such as `300ms`");
            }
            percentile.map(HedgeDelay::Learned)
        }
        _ => match reader.duration(node, Zero::Allowed)? {
            Duration::ZERO => {
                reader
                    .error(node.span, "every attempt would be made twice")
                    .hint("give the first one time to be answered, for example `after: 300ms`");
                None
            }
            after => Some(HedgeDelay::Fixed(after)),
        },
    }
}

fn budget(reader: &mut Reader<'_>, node: &Node) -> Option<Option<Share>> {
    let share = match &node.value {
        Value::Text(text) if text == "none" => return Some(None),
        Value::Text(text) => share::from_text(text).filter(|share| share.parts() > 0),
        _ => None,
    };
    if share.is_none() {
        let written = reader.diagnostics.written(node.span).to_owned();
        reader
            .error(node.span, format!("{written} is no share of the first attempts"))
            .hint("from `0.01%` to `100%`, or `none` for no bound");
    }
    share.map(Some)
}

const HINT: &str = "for example `hedge: { after: 300ms, extra: 2 }`, or `after: p95` to learn the delay";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farcall_core::hedge::Percentile;

    use super::*;
    use crate::config::{LoadOptions, load};

    /// What holds for each upstream of a configuration.
    fn hedges(text: &str) -> BTreeMap<String, Option<HedgePolicy>> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("farcall.yml"), text).expect("a file");
        let config = load(dir.path(), &LoadOptions::default()).expect("it is right").config;
        config.upstreams.iter().map(|(name, upstream)| (name.to_owned(), upstream.policy.hedge)).collect()
    }

    #[test]
    fn a_hedging_replaces_that_of_the_defaults_and_none_is_none() {
        let fixed = |ms| HedgeDelay::Fixed(Duration::from_millis(ms));
        let policy = |after, extra, budget| Some(HedgePolicy { after, extra, budget, on_failure: false });
        let found = hedges(
            "defaults: { hedge: { after: 300ms, extra: 2 } }\nupstreams:\n  \
             inherits: { base_url: 'https://a.example' }\n  never: { base_url: 'https://b.example', hedge: none }\n  \
             own: { base_url: 'https://c.example', hedge: { after: 1, budget: 2.5% } }\n  \
             learns: { base_url: 'https://d.example', hedge: { after: p95 } }\n  \
             unbound: { base_url: 'https://e.example', hedge: { after: p99.9, budget: none } }\n",
        );
        let learned = |permille| HedgeDelay::Learned(Percentile::from_permille(permille).expect("it is one"));
        assert_eq!(found["inherits"], policy(fixed(300), 2, None));
        assert_eq!(found["never"], None);
        assert_eq!(found["own"], policy(fixed(1_000), 1, Some(Share::from_permille(25))));
        assert_eq!(found["learns"], policy(learned(950), 1, Some(Share::from_permille(100))));
        assert_eq!(found["unbound"], policy(learned(999), 1, None));
    }
}
