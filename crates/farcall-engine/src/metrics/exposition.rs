//! Prometheus's text format, version 0.0.4, which every scraper and `promtool` read.
//!
//! The library writes OpenMetrics. It differs in one thing for the kinds of metrics that are used here: a counter's
//! metadata leave out the `_total` that its samples end with.

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

/// The media type of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a registry; those of several may follow each other.
pub fn text(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    encode_registry(&mut open_metrics, registry).expect("a string takes all that is written to it");
    let mut text = String::with_capacity(open_metrics.len() + 512);
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        // A metric's HELP comes first, its TYPE next.
        let following = lines.peek().copied().unwrap_or_default();
        match metadata(line).zip(counter_name(line).or_else(|| counter_name(following))) {
            Some(((keyword, name, rest), counter)) if name == counter => {
                text.extend(["# ", keyword, " ", name, "_total ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

/// The keyword, the name and the rest of a line about a metric.
fn metadata(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    Some((keyword, name, rest))
}

/// The name of a counter in the line that says it is one.
fn counter_name(line: &str) -> Option<&str> {
    match metadata(line)? {
        ("TYPE", name, "counter") => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn counters_have_the_name_of_their_samples() {
        let mut registry = Registry::with_prefix("farcall");
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("hits", "All of them", counter);
        registry.register("level", "Now", Gauge::<i64>::default());
        let expected = "# HELP farcall_hits_total All of them.\n# TYPE farcall_hits_total counter\nfarcall_hits_total 1\n\
             # HELP farcall_level Now.\n# TYPE farcall_level gauge\nfarcall_level 0\n";
        assert_eq!(text(&registry), expected);
    }
}
