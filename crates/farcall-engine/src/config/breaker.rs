//! The breaker of an upstream: `breaker`, a mapping, or `off`.
//!
//! It is read as a whole: what a mapping leaves out is the default, not what another layer says.

use farcall_core::breaker::BreakerPolicy;

use super::reader::{KeyReader, Reader, Zero};
use super::tree::{Node, Value};

const KEYS: &[KeyReader<BreakerPolicy>] = &[
    ("failures", |reader, entry, breaker| {
        let Some(share) = reader.share(&entry.node) else { return };
        if share.of(u64::MAX) == 0 {
            reader.error(entry.node.span, "a share of nothing would be reached by upstreams that work");
        }
        breaker.failures = share;
    }),
    ("calls", |reader, entry, breaker| breaker.calls = reader.count(&entry.node).unwrap_or(breaker.calls)),
    ("window", |reader, entry, breaker| {
        breaker.window = reader.duration(&entry.node, Zero::Refused).unwrap_or(breaker.window);
    }),
    ("open", |reader, entry, breaker| {
        breaker.open = reader.duration(&entry.node, Zero::Refused).unwrap_or(breaker.open);
    }),
];

/// Reads the value of `breaker`; `Some(None)` is `off`.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Option<BreakerPolicy>> {
    match &node.value {
        Value::Text(text) if text == "off" => Some(None),
        Value::Map(_) => {
            let mut breaker = BreakerPolicy::default();
            reader.keys(node, KEYS, &mut breaker);
            Some(Some(breaker))
        }
        _ => {
            reader
                .mismatch(node, "a mapping, or `off`")
                .hint("`breaker: { failures: 50%, calls: 10, window: 30s, open: 30s }`, or any of these keys");
            None
        }
    }
}
