//! `--upstream`, `--rate`, `--concurrency`: the policy of files without configuration.

use std::time::Duration;

use serde_json::json;

use super::{Desk, Outcome, post, states};
use crate::rig::recorder::{Recorder, Reply};

#[test]
fn rates_hold_at_the_upstream_all_at_once() -> Outcome {
    for name in ["", "--upstream shop"] {
        let upstream = Recorder::start(|_, _| Reply::new(200))?;
        let desk = Desk::with_posts(&upstream, 24)?;
        let words = format!("--rate 10/1s --rate 3/200ms --out @/results.ndjson {name}");
        let finished = desk.start(&words)?.finish()?;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(upstream.arrivals().len(), 24);
        let worst = [Duration::from_secs(1), Duration::from_millis(200)].map(|window| upstream.worst_window(window));
        assert!(worst[0] <= 10 && worst[1] <= 3, "{worst:?}");
    }
    Ok(())
}

#[test]
fn no_more_attempts_run_at_once_than_the_concurrency() -> Outcome {
    let at_once = std::sync::Arc::new((std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0)));
    let seen = std::sync::Arc::clone(&at_once);
    let order = std::sync::atomic::Ordering::SeqCst;
    let upstream = Recorder::start(move |_, _| {
        let now = seen.0.fetch_add(1, order) + 1;
        seen.1.fetch_max(now, order);
        crate::rig::pause(Duration::from_millis(20));
        seen.0.fetch_sub(1, order);
        Reply::new(200)
    })?;
    let desk = Desk::with_posts(&upstream, 30)?;
    assert_eq!(desk.start("--concurrency 3")?.finish()?.code, Some(0));
    assert_eq!(at_once.1.load(order), 3);
    Ok(())
}

#[test]
fn lines_without_url_go_to_the_upstream_that_was_named() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let path = |path: &str| json!({"end_point": path, "body": {}}).to_string();
    let desk = Desk::with([path("a"), path("b"), post(&upstream, 3)])?;
    let named = format!("--out @/named.ndjson --upstream shop={}/api", upstream.url());
    let finished = desk.start(&named)?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(states(&desk.results("named.ndjson")?), ["succeeded", "succeeded", "succeeded"]);
    let mut paths: Vec<String> = upstream.arrivals().iter().map(|arrival| arrival.path.clone()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/3", "/api/a", "/api/b"]);

    let finished = desk.start("--out @/origin.ndjson --upstream shop")?.finish()?;
    assert_eq!(finished.code, Some(0), "the origin of the line with a URL is shop's: {}", finished.stderr);
    let without = desk.start("--out @/without.ndjson")?.finish()?;
    assert_eq!(without.code, Some(1), "{}", without.stderr);
    assert_eq!(states(&desk.results("without.ndjson")?), ["rejected", "rejected", "succeeded"]);
    Ok(())
}

#[test]
fn upstreams_that_cannot_be_are_refused_and_nothing_is_sent() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with([json!({"end_point": "x"}).to_string()])?;
    for (name, part) in [
        ("shop", "no line has a URL"),
        ("shop=nowhere", "no valid URL"),
        ("a/b=http://localhost", "cannot be the name of an upstream"),
        ("=http://localhost", "an upstream needs a name"),
    ] {
        let finished = desk.start(&format!("--upstream {name}"))?.finish()?;
        assert_eq!(finished.code, Some(2), "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{name}: {}", finished.stderr);
    }
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}
