//! The tour: four things that farcall does, shown with files, and checked against what the upstream saw.
//!
//! Every step waits for files to appear, as a user's program would, and says whether what was promised held.

use std::time::Duration;

use anyhow::Context;
use farcall_engine::clock;
use http::StatusCode;
use serde_json::{Value, json};

use super::example::{CALLBACK_LOG, Example};
use super::narrator::{Held, Narrator};
use super::upstream::{LIMIT_PER_SECOND, Upstream, worst_window};

/// Calls of the burst.
const BURST: usize = 15;
const LIMITED: &str = "/limited/";
/// What a row of the timeline covers.
const ROW: Duration = Duration::from_millis(500);
/// How long any file may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Everything the tour works with.
#[derive(Debug)]
pub(crate) struct Tour<'a> {
    pub(crate) narrator: Narrator,
    pub(crate) example: &'a Example,
    pub(crate) upstream: &'a Upstream,
    has_held: bool,
}

impl<'a> Tour<'a> {
    pub(crate) const fn new(narrator: Narrator, example: &'a Example, upstream: &'a Upstream) -> Self {
        Self { narrator, example, upstream, has_held: true }
    }

    /// Goes through all steps.
    ///
    /// # Errors
    /// When a file does not come.
    pub(crate) async fn guide(mut self) -> anyhow::Result<Held> {
        self.one_call().await?;
        self.retry().await?;
        self.burst().await?;
        self.mistake().await?;
        self.callbacks().await?;
        Ok(self.has_held.into())
    }

    async fn one_call(&mut self) -> anyhow::Result<()> {
        self.narrator.step(1, "A call file is dropped, a response file appears").await;
        let response = self.make("order.json", "shop", "/orders", &json!({"order_id": 123})).await?;
        let is_as_promised = response["state"] == "succeeded" && response["status"] == 201;
        let arrived = self.upstream.arrivals("/shop/orders").len();
        self.promise(is_as_promised && arrived == 1, "answered 201 by the upstream, which saw one request");
        Ok(())
    }

    async fn retry(&mut self) -> anyhow::Result<()> {
        self.narrator.step(2, "The upstream stumbles: 503, Retry-After: 1").await;
        let response = self.make("flaky.json", "shop", "/flaky", &json!({"order_id": 124})).await?;
        let arrivals = self.upstream.arrivals("/shop/flaky");
        let [first, second] = arrivals.as_slice() else {
            self.promise(false, format!("two requests were expected, the upstream saw {}", arrivals.len()));
            return Ok(());
        };
        let pause = second.at.since(first.at);
        let is_as_promised = response["attempts"] == 2 && response["status"] == 200 && pause >= Duration::from_secs(1);
        let text = format!("tried again after {}, with the same Idempotency-Key, and answered 200", seconds(pause));
        self.promise(is_as_promised, text);
        Ok(())
    }

    async fn burst(&mut self) -> anyhow::Result<()> {
        let title = format!("{BURST} calls at once, where {LIMIT_PER_SECOND} a second are allowed");
        self.narrator.step(3, &title).await;
        let names: Vec<String> = (1..=BURST).map(|number| format!("item-{number:02}.json")).collect();
        self.narrator.say(format_args!("→ {} … {}", names[0], names[BURST - 1]));
        let begun = clock::now().instant;
        for (number, name) in (1..).zip(&names) {
            let text = self.example.call("limited", &format!("/{number}"), &json!({"item": number}));
            self.example.drop_file(name, &text)?;
        }
        self.timeline().await?;
        let mut succeeded = 0;
        for name in &names {
            succeeded += usize::from(self.response(name).await?["state"] == "succeeded");
        }
        let arrivals = self.upstream.arrivals(LIMITED);
        let took = arrivals.last().map_or(Duration::ZERO, |last| last.at.since(begun));
        let text = format!("{succeeded} of {BURST} succeeded, by {} requests within {}", arrivals.len(), seconds(took));
        self.promise(succeeded == BURST && arrivals.len() == BURST, text);
        let worst = worst_window(&arrivals, Duration::from_secs(1));
        let refused = arrivals.iter().filter(|arrival| arrival.status != StatusCode::OK).count();
        let text = format!("never more than {worst} in any second, wherever it begins; {refused} answered 429");
        self.promise(worst <= LIMIT_PER_SECOND && refused == 0, text);
        Ok(())
    }

    /// When the requests of the burst arrive, told as they do: a row for each half second.
    async fn timeline(&self) -> anyhow::Result<()> {
        let first = self.awaited("the first request", || self.upstream.arrivals(LIMITED).first().cloned()).await?;
        let mut begin = first.at;
        let mut told = 0;
        while told < BURST && begin.since(first.at) < PATIENCE {
            let end = begin + ROW;
            tokio::time::sleep(end.since(clock::now().instant)).await;
            let arrivals = self.upstream.arrivals(LIMITED);
            let count = arrivals.iter().filter(|arrival| (begin..end).contains(&arrival.at)).count();
            let at = begin.since(first.at).as_secs_f64();
            self.narrator.say(format_args!("{at:.1} s  {}", "■ ".repeat(count)));
            told += count;
            begin = end;
        }
        Ok(())
    }

    async fn mistake(&mut self) -> anyhow::Result<()> {
        self.narrator.step(4, "A call file with a mistake").await;
        let whole = self.example.call("shop", "/orders", &json!({"order_id": 125}));
        let broken = whole.replace("\"body\":", "\"body\"");
        self.narrator.dropped("broken.json", &broken);
        self.example.drop_file("broken.json", &broken)?;
        self.narrator.say("it may still be being written, so it is left alone for 2 s");
        let response = self.response("broken.json").await?;
        self.show("broken.json", &response);
        let kept = self.example.directory.join("rejected/broken.json");
        let kept = self.awaited("rejected/broken.json", || std::fs::read_to_string(&kept).ok()).await?;
        let error = &response["error"];
        let is_as_promised = response["state"] == "rejected" && error["line"] == 2 && error["column"].is_u64();
        let place = format!("line {}, column {}", error["line"], error["column"]);
        self.promise(is_as_promised && kept == broken, format!("kept as it is in rejected/, the mistake at {place}"));
        Ok(())
    }

    async fn callbacks(&mut self) -> anyhow::Result<()> {
        self.narrator.step(5, "A command was run for each success of `shop`").await;
        let lines =
            self.awaited(CALLBACK_LOG, || Some(self.example.callbacks()).filter(|lines| lines.len() >= 2)).await?;
        self.narrator.appeared(CALLBACK_LOG, &lines.join("\n"));
        let names = ["order.json", "flaky.json"].iter().all(|name| lines.iter().any(|line| line.contains(name)));
        self.promise(names && lines.len() == 2, "once for each, after its response file was in place");
        Ok(())
    }

    /// Drops a call file, waits for its response, shows both.
    async fn make(&self, name: &str, base: &str, end_point: &str, body: &Value) -> anyhow::Result<Value> {
        let text = self.example.call(base, end_point, body);
        self.narrator.dropped(name, &text);
        self.example.drop_file(name, &text)?;
        let response = self.response(name).await?;
        self.show(name, &response);
        Ok(response)
    }

    async fn response(&self, name: &str) -> anyhow::Result<Value> {
        self.awaited(&format!("responses/{name}"), || self.example.response(name)).await
    }

    async fn awaited<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        let seen = async {
            loop {
                looks.tick().await;
                if let Some(seen) = look() {
                    return seen;
                }
            }
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .with_context(|| format!("waited {} s in vain for {what}", PATIENCE.as_secs()))
    }

    fn show(&self, name: &str, response: &Value) {
        self.narrator.appeared(&format!("responses/{name}"), &brief(response));
    }

    fn promise(&mut self, held: bool, text: impl std::fmt::Display) {
        self.has_held &= held;
        self.narrator.verdict(held.into(), text);
    }
}

/// What matters of a response file, as it is written there.
pub(super) fn brief(response: &Value) -> String {
    let parts = |keys: &[&str]| -> Vec<String> {
        let shown = keys.iter().filter_map(|key| Some((key, response.get(key)?)));
        shown.map(|(key, value)| format!("\"{key}\": {value}")).collect()
    };
    let head = parts(&["state", "status", "attempts", "duration_ms"]).join(", ");
    let rest = parts(&["body", "error"]).join(", ");
    format!("{{ {head},\n  {rest}, … }}")
}

/// `1.04 s`
fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
