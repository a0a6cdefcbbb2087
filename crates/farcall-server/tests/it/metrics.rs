//! `/metrics` of a real engine: what it counts, what its labels may say, and that Prometheus's own tool reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use farcall_store::memory::Trouble;

use crate::farcall::{Farcall, Setup};
use crate::http::bounded;
use crate::upstream::Upstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
const THROTTLED: &str =
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 600\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Samples by name and labels as they are written.
#[derive(Debug)]
pub(crate) struct Scrape {
    text: String,
    pub(crate) samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(farcall: &Farcall) -> Self {
        let reply = farcall.get("/metrics").await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/plain; version=0.0.4; charset=utf-8"))
        );
        let text = String::from_utf8(reply.body).expect("it is text");
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
            (sample.to_owned(), value.parse().expect("a number"))
        });
        Self { samples: samples.collect(), text }
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, f64)]) {
        for &(sample, value) in expected {
            assert_eq!(self.samples.get(sample), Some(&value), "{sample} in\n{}", self.text);
        }
    }

    /// The names that metadata give.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split_once(' ').expect("a name and a type").0).collect()
    }

    /// All labels and all their values.
    pub(crate) fn labels(&self) -> BTreeSet<(String, String)> {
        let inside = self.samples.keys().filter_map(|sample| sample.split_once('{'));
        let pairs = inside.flat_map(|(_, labels)| labels.trim_end_matches("\"}").split("\","));
        pairs.map(|pair| pair.split_once("=\"").expect("a label and its value")).map(own).collect()
    }
}

fn own((label, value): (&str, &str)) -> (String, String) {
    (label.to_owned(), value.to_owned())
}

/// A shop that answers, a market that asks everybody to keep away, and a call to each, to an origin and to nobody.
pub(crate) async fn busy() -> (Farcall, [Upstream; 2]) {
    let (shop, market) = (Upstream::start(OK).await, Upstream::start(THROTTLED).await);
    let file = format!(
        "upstreams:\n  shop:\n    base_url: {}/secret-path\n    limits: [\"10/1h\"]\n  market:\n    base_url: {}\n",
        shop.url(),
        market.url()
    );
    let allows = |setup: &mut Setup| setup.config.undeclared.addresses = Some(farcall_engine::config::Addresses::Any);
    let farcall = Setup::new().with_file(&file).with(allows).start().await;
    let origin = format!(r#"{{"url": "{}/elsewhere", "tenant": "Tyrell"}}"#, shop.url());
    let documents = [
        r#"{"upstream": "shop", "end_point": "a", "tenant": "Tyrell"}"#,
        r#"{"upstream": "shop", "end_point": "b", "tags": ["replicant"]}"#,
        origin.as_str(),
    ];
    for document in documents {
        assert_eq!(farcall.post_call("", document).await.status, 202);
    }
    farcall.until_ended(3).await;
    assert_eq!(farcall.post_call("", r#"{"upstream": "market", "end_point": "c"}"#).await.status, 202);
    market.until_asked(1).await;
    // Told at once that it is closed, and counted when that is durable.
    let throttled = async {
        let counted = "farcall_attempts_total{upstream=\"market\",outcome=\"throttled\",kind=\"first\"}";
        let closed = "farcall_cooldown_seconds{upstream=\"market\"}";
        let is_seen = |scrape: Scrape| [counted, closed].iter().all(|sample| scrape.samples.get(*sample) > Some(&0.0));
        while !is_seen(Scrape::of(&farcall).await) {
            tokio::task::yield_now().await;
        }
    };
    bounded(throttled).await;
    (farcall, [shop, market])
}

#[tokio::test]
async fn what_was_done_is_counted_and_how_it_stands_is_told() {
    let (farcall, _upstreams) = busy().await;
    let retried = "farcall_attempts_total{upstream=\"market\",outcome=\"throttled\",kind=\"first\"}";
    let scrape = Scrape::of(&farcall).await;
    scrape.check(&[
        ("farcall_calls_accepted_total{source=\"api\"}", 4.0),
        ("farcall_calls_accepted_total{source=\"inbox\"}", 0.0),
        ("farcall_calls_finished_total{upstream=\"shop\",state=\"succeeded\"}", 2.0),
        ("farcall_calls_finished_total{upstream=\"shop\",state=\"failed\"}", 0.0),
        ("farcall_calls_finished_total{upstream=\"undeclared\",state=\"succeeded\"}", 1.0),
        ("farcall_calls_finished_total{upstream=\"market\",state=\"succeeded\"}", 0.0),
        ("farcall_attempts_total{upstream=\"shop\",outcome=\"success\",kind=\"first\"}", 2.0),
        (retried, 1.0),
        ("farcall_attempt_duration_seconds_count{upstream=\"shop\"}", 2.0),
        ("farcall_queue_wait_seconds_count{upstream=\"shop\"}", 2.0),
        ("farcall_calls{state=\"succeeded\"}", 3.0),
        ("farcall_calls{state=\"retrying\"}", 1.0),
        ("farcall_calls_waiting{reason=\"rate_limit\"}", 0.0),
        ("farcall_limit_used{upstream=\"shop\",window=\"1h\"}", 2.0),
        ("farcall_limit_capacity{upstream=\"shop\",window=\"1h\"}", 10.0),
        ("farcall_cooldown_seconds{upstream=\"shop\"}", 0.0),
        ("farcall_breaker_state{upstream=\"shop\"}", 0.0),
        ("farcall_http_requests_total{route=\"/v1/calls\",status=\"202\"}", 4.0),
        ("farcall_http_requests_in_flight", 1.0),
    ]);
    let cooldown = scrape.samples["farcall_cooldown_seconds{upstream=\"market\"}"];
    assert!((500.0..=600.0).contains(&cooldown), "{cooldown}");
    assert!(scrape.samples["farcall_store_commit_seconds_count"] >= 2.0);
    assert!(scrape.samples["farcall_attempt_duration_seconds_sum{upstream=\"shop\"}"] > 0.0);
    let version = format!("farcall_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    scrape.check(&[(&version, 1.0)]);
}

#[tokio::test]
async fn labels_are_names_and_words_and_say_nothing_of_anybody() {
    let (farcall, [shop, _market]) = busy().await;
    farcall.get("/v1/calls/call_of_mine").await;
    farcall.get("/nowhere/secret").await;
    let scrape = Scrape::of(&farcall).await;
    scrape.check(&[
        ("farcall_http_requests_total{route=\"/v1/calls/{id}\",status=\"404\"}", 1.0),
        ("farcall_http_requests_total{route=\"none\",status=\"404\"}", 1.0),
    ]);
    let port = shop.url().rsplit_once(':').expect("a port").1.to_owned();
    let labels = scrape.labels();
    for (label, value) in &labels {
        let told = ["http:", "127.0.0.1", &port, "secret", "call_", "Tyrell", "replicant", "elsewhere"];
        assert!(!told.iter().any(|word| value.contains(word)), "{label} is {value:?}");
    }
    let upstreams: Vec<&str> =
        labels.iter().filter(|(label, _)| label == "upstream").map(|(_, value)| value.as_str()).collect();
    assert_eq!(upstreams, ["callbacks", "market", "shop", "undeclared"]);
    let known = ["kind", "le", "outcome", "reason", "result", "route", "source", "state", "status", "upstream"];
    let known = known.into_iter().chain(["version", "window"]).collect::<BTreeSet<_>>();
    assert_eq!(labels.iter().map(|(label, _)| label.as_str()).collect::<BTreeSet<_>>(), known);
}

#[tokio::test]
async fn files_and_callbacks_are_counted_by_what_came_of_them() {
    let shop = Upstream::start(OK).await;
    let hook = format!("callback_success: {{ url: \"{0}/hook\" }}", shop.url());
    // One of them has the name that callbacks are counted by.
    let file = format!(
        "inbox: {{ settle: 10ms }}\nupstreams:\n  shop: {{ base_url: \"{0}/shop\", {hook} }}\n  \
         callbacks: {{ base_url: \"{0}/callbacks\", limits: [\"10/1h\"] }}\n",
        shop.url()
    );
    let farcall = Setup::new().with_file(&file).start().await;
    let none = Scrape::of(&farcall).await;
    none.check(&[
        ("farcall_inbox_files_total{result=\"taken\"}", 0.0),
        ("farcall_inbox_files_total{result=\"rejected\"}", 0.0),
        ("farcall_callbacks_total{outcome=\"success\"}", 0.0),
        ("farcall_callbacks_total{outcome=\"failure\"}", 0.0),
    ]);
    // Its own callback goes to nobody, being undeclared and not public; the upstream's does.
    let walled = r#"{"upstream": "shop", "end_point": "b", "callback": {"url": "http://127.0.0.1:1/"}}"#;
    assert_eq!(farcall.post_call("", walled).await.status, 202);
    assert_eq!(farcall.post_call("", r#"{"upstream": "callbacks", "end_point": "c"}"#).await.status, 202);
    for (name, text) in [("good", r#"{"upstream": "shop", "end_point": "a"}"#), ("bad", "{")] {
        let hidden = farcall.home().join(format!(".{name}"));
        std::fs::write(&hidden, text).expect("a file");
        std::fs::rename(&hidden, farcall.home().join(format!("{name}.json"))).expect("renamed");
    }
    farcall.until_ended(6).await;
    let moved = async {
        while Scrape::of(&farcall).await.samples["farcall_inbox_files_total{result=\"rejected\"}"] == 0.0 {
            tokio::task::yield_now().await;
        }
    };
    bounded(moved).await;
    Scrape::of(&farcall).await.check(&[
        ("farcall_inbox_files_total{result=\"taken\"}", 1.0),
        ("farcall_inbox_files_total{result=\"rejected\"}", 1.0),
        ("farcall_callbacks_total{outcome=\"success\"}", 2.0),
        ("farcall_callbacks_total{outcome=\"failure\"}", 1.0),
        ("farcall_calls_accepted_total{source=\"inbox\"}", 1.0),
        ("farcall_calls_accepted_total{source=\"callback\"}", 3.0),
        ("farcall_calls_finished_total{upstream=\"callbacks\",state=\"succeeded\"}", 2.0),
        ("farcall_calls_finished_total{upstream=\"callbacks\",state=\"failed\"}", 1.0),
        ("farcall_calls_finished_total{upstream=\"callbacks#\",state=\"succeeded\"}", 1.0),
        ("farcall_limit_used{upstream=\"callbacks#\",window=\"1h\"}", 1.0),
    ]);
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_counted() {
    let farcall = Setup::new().with_trouble(Trouble::Broken).start().await;
    assert_eq!(farcall.post_call("", r#"{"url": "http://localhost:1"}"#).await.status, 503);
    let scrape = Scrape::of(&farcall).await;
    scrape.check(&[
        ("farcall_calls_accepted_total{source=\"api\"}", 0.0),
        ("farcall_store_commit_seconds_count", 0.0),
        ("farcall_http_requests_total{route=\"/v1/calls\",status=\"503\"}", 1.0),
    ]);
}

#[tokio::test]
async fn with_tokens_metrics_need_one() {
    let farcall = Setup::new().with(|setup| setup.config.server.tokens = vec!["secret".to_owned()]).start().await;
    assert_eq!(farcall.get("/metrics").await.status, 401);
    let request = "GET /metrics HTTP/1.1\nHost: localhost\nAuthorization: Bearer secret\n\n";
    let reply = farcall.exchange(request).await;
    assert_eq!(reply.status, 200);
    let refused = "farcall_http_requests_total{route=\"none\",status=\"401\"} 1";
    assert!(String::from_utf8_lossy(&reply.body).contains(refused), "whoever is refused is counted");
}

#[tokio::test]
async fn every_metric_is_in_the_documentation_and_the_other_way_round() {
    let (farcall, _upstreams) = busy().await;
    let page = include_str!("../../../../docs/metrics.md");
    let documented = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(['{', '`']).next());
    let scrape = Scrape::of(&farcall).await;
    assert_eq!(scrape.names(), documented.collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn promtool_finds_nothing() {
    let (farcall, _upstreams) = busy().await;
    let text = Scrape::of(&farcall).await.text;
    promtool(&["check", "metrics"], &text, |output| {
        let said = [output.stdout, output.stderr].concat();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&said).as_ref()), (Some(0), ""), "{text}");
    });
}

/// Runs Prometheus's own tool; where it is not there this says so past the test runner's capture, and fails in CI.
pub(crate) fn promtool(words: &[&str], input: &str, judge: impl FnOnce(std::process::Output)) {
    let mut command = Command::new("promtool");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let why = format!("promtool (Debian's package prometheus): {error}");
            assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "this test cannot run: {why}");
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ = writeln!(std::io::stderr(), "WARNING: {test} CHECKS NOTHING: {why}");
            return;
        }
    };
    // One that reads none of it may have ended.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    judge(child.wait_with_output().expect("it ends"));
}
