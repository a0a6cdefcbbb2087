//! `monitoring/`, which people import and run: held to the metrics that there are, their labels and words, and to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::metrics::{Scrape, busy, promtool};

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../monitoring");
/// What Prometheus adds to every sample, or makes by itself.
const OF_PROMETHEUS: [&str; 5] = ["instance", "job", "le", "alertname", "alertstate"];
const METRICS_OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// Variables that Grafana sets.
const OF_GRAFANA: [&str; 1] = ["__rate_interval"];
/// Labels whose values no scrape can know before they come.
const OPEN: [&str; 5] = ["instance", "job", "status", "alertname", "alertstate"];

fn text(file: &str) -> String {
    std::fs::read_to_string(format!("{MONITORING}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana-dashboard.json")).expect("it is JSON")
}

/// Panels that ask something, rows left out.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let targets = panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().expect("questions"));
    targets.map(|target| target["expr"].as_str().expect("an expression")).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Label, operator, value.
type Matcher<'e> = (&'e str, &'e str, &'e str);

/// Each metric that an expression names, with its matchers.
fn selectors(expression: &str) -> Vec<(&str, Vec<Matcher<'_>>)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("farcall_") {
        let rest = &expression[at..];
        let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let matchers = rest[end..].strip_prefix('{').and_then(|rest| Some(rest.split_once('}')?.0)).unwrap_or("");
        let pairs = matchers.split("\",").filter(|matcher| !matcher.is_empty());
        let matcher = |pair: &'_ str| -> Option<(usize, usize)> { Some((pair.find(['=', '!'])?, pair.find('"')?)) };
        let pairs = pairs.map(|pair| {
            let (operator, quote) = matcher(pair).unwrap_or_else(|| panic!("{pair} in {expression}"));
            (pair[..operator].trim(), &pair[operator..quote], pair[quote + 1..].trim_end_matches('"'))
        });
        found.push((&rest[..end], pairs.collect()));
    }
    found
}

/// The labels by which an expression groups.
fn groups(expression: &str) -> BTreeSet<&str> {
    let by = ["by (", "on (", "without ("];
    let inside = by.iter().flat_map(|word| expression.split(word).skip(1));
    let lists = inside.filter_map(|rest| Some(rest.split_once(')')?.0));
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|label| !label.is_empty()).collect()
}

/// What follows on `$` or stands in `{{}}`.
fn between<'t>(text: &'t str, open: &str) -> Vec<&'t str> {
    let rests = text.split(open).skip(1).map(|rest| rest.trim_start_matches(['{', ' ']));
    rests.map(|rest| &rest[..rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())]).collect()
}

/// What a scrape has: the labels of each sample's name, and the values of each label.
struct Known {
    labels: BTreeMap<String, BTreeSet<String>>,
    values: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    fn of(scrape: &Scrape) -> Self {
        let mut known = Self { labels: BTreeMap::new(), values: BTreeMap::new() };
        for sample in scrape.samples.keys() {
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let own = known.labels.entry(name.to_owned()).or_default();
            let pairs = labels.trim_end_matches('}').split("\",").filter_map(|pair| pair.split_once("=\""));
            own.extend(pairs.map(|(label, _)| label.to_owned()));
        }
        for (label, value) in scrape.labels() {
            known.values.entry(label).or_default().insert(value);
        }
        // Shown once there is one.
        known.values.entry("kind".to_owned()).or_default().insert("hedge".to_owned());
        known
    }

    #[track_caller]
    fn check(&self, expression: &str) {
        let mut grouped = groups(expression);
        for (metric, matchers) in selectors(expression) {
            let labels = self.labels.get(metric).unwrap_or_else(|| panic!("there is no {metric}: {expression}"));
            let has = |label: &str| labels.contains(label) || OF_PROMETHEUS.contains(&label);
            for (label, _, value) in matchers {
                assert!(has(label), "{metric} has no label {label}: {expression}");
                let values = self.values.get(label).cloned().unwrap_or_default();
                if value.starts_with('$') || OPEN.contains(&label) {
                    continue;
                }
                for word in value.split('|') {
                    assert!(values.contains(word), "{label} is never {word}: {expression}");
                }
            }
            grouped.retain(|label| !has(label));
        }
        assert_eq!(grouped, BTreeSet::new(), "nothing has these labels: {expression}");
    }
}

#[tokio::test]
async fn every_metric_label_and_word_that_is_named_there_is() {
    let (farcall, _upstreams) = busy().await;
    let scrape = Scrape::of(&farcall).await;
    let known = Known::of(&scrape);
    let dashboard = dashboard();
    let asked = expressions(&dashboard);
    assert!(asked.len() > 30, "{} questions", asked.len());
    asked.iter().for_each(|expression| known.check(expression));
    let alerts = text("alerts.yml");
    let rules: Vec<&str> =
        alerts.split("- alert:").skip(1).map(|rule| rule.split("annotations:").next().unwrap_or(rule)).collect();
    assert_eq!(rules.len(), 9);
    rules.iter().for_each(|rule| known.check(rule));
    for name in scrape.names() {
        assert!(asked.iter().any(|expression| expression.contains(name)), "no panel shows {name}");
    }
    for expression in &asked {
        let is_answered =
            expression.contains("farcall_") || METRICS_OF_PROMETHEUS.iter().any(|name| expression.contains(name));
        assert!(is_answered, "{expression} asks for nothing");
    }
    let tested = text("alerts_test.yml");
    let named: BTreeSet<&str> =
        tested.split(|letter| !is_word(letter)).filter(|word| word.starts_with("farcall_")).collect();
    assert!(named.len() > 5 && named.iter().all(|name| known.labels.contains_key(*name)), "{named:?}");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let declared: BTreeSet<&str> =
        variables.iter().map(|variable| variable["name"].as_str().expect("a name")).collect();
    let whole = dashboard.to_string();
    let used: BTreeSet<&str> = between(&whole, "$").into_iter().collect();
    let of_grafana: BTreeSet<&str> = OF_GRAFANA.into_iter().chain(["__all"]).collect();
    assert_eq!(used.difference(&of_grafana).copied().collect::<BTreeSet<_>>(), declared, "used, and declared");
    let mut ids = BTreeSet::new();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{title}: its number is another's");
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a place");
        for x in place("x")..place("x") + place("w") {
            assert!(x < 24, "{title} reaches over the edge");
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title} says nothing of itself");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let references: BTreeSet<_> =
            panel["targets"].as_array().expect("questions").iter().map(|one| one["refId"].as_str()).collect();
        assert_eq!(references.len(), panel["targets"].as_array().map_or(0, Vec::len), "{title}: names of questions");
        for target in panel["targets"].as_array().expect("questions") {
            let expression = target["expr"].as_str().expect("an expression");
            let legend = between(target["legendFormat"].as_str().unwrap_or_default(), "{{");
            let groups = groups(expression);
            let is_told =
                |label: &&str| groups.contains(label) || (groups.is_empty() && !expression.starts_with("sum("));
            assert!(legend.iter().all(is_told), "{title}: {legend:?} of {expression}");
        }
    }
}

/// The mounts of the compose file are there, and what one file names another has.
#[test]
fn the_compose_file_fits_what_it_starts() {
    let compose = text("compose.yml");
    let mounts: Vec<(&str, &str)> = compose
        .split(['"', ' ', '[', ']'])
        .filter(|word| word.starts_with("./"))
        .map(|word| word.trim().split_once(':').expect("a place inside"))
        .collect();
    assert_eq!(mounts.len(), 5, "{mounts:?}");
    for (outside, _) in &mounts {
        assert!(Path::new(MONITORING).join(outside).exists(), "{outside}");
    }
    let inside = |outside: &str| {
        let mount =
            mounts.iter().find(|(own, _)| *own == outside).unwrap_or_else(|| panic!("{outside} is not mounted"));
        mount.1.trim_end().trim_end_matches(":ro").to_owned()
    };
    assert!(compose.contains(&format!("--config.file={}", inside("./compose/prometheus.yml"))));
    let prometheus = text("compose/prometheus.yml");
    assert!(prometheus.contains(&inside("./alerts.yml")), "the rules are where they are looked for");
    assert!(prometheus.contains("\"farcall:8888\"") && compose.contains("\n  farcall:\n"));
    assert!(prometheus.contains("/run/secrets/farcall-token") && compose.contains("  farcall-token: {"));
    let source = text("compose/grafana/datasources/prometheus.yml");
    assert!(source.contains("url: http://prometheus:9090") && compose.contains("\n  prometheus:\n"));
    let provider = text("compose/grafana/dashboards/farcall.yml");
    let shown = inside("./grafana-dashboard.json");
    let folder = Path::new(&shown).parent().and_then(Path::to_str).expect("a folder");
    assert!(provider.contains(&format!("path: {folder}")), "{folder}");
    assert!(compose.contains(&format!("HOME_DASHBOARD_PATH: {shown}")));
    let dockerfile = std::fs::read_to_string(format!("{MONITORING}/../Dockerfile")).expect("a Dockerfile");
    assert!(dockerfile.contains("VOLUME /data") && compose.contains("calls:/data"));
}

#[test]
fn the_alert_rules_fire_on_an_outage_and_not_before() {
    let is_fine = |output: std::process::Output| {
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    };
    promtool(&["check", "config", &format!("{MONITORING}/prometheus.yml")], "", is_fine);
    promtool(&["check", "config", "--syntax-only", &format!("{MONITORING}/compose/prometheus.yml")], "", is_fine);
    promtool(&["test", "rules", &format!("{MONITORING}/alerts_test.yml")], "", is_fine);
}
