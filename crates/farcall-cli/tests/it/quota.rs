//! Upstreams that say how much of a quota remains: what is sent then, also when somebody else uses the quota, and after a
//! kill.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::program::{Program, get, post_call, send};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The quota of the upstream, and how much of it somebody else takes as soon as a window begins.
const COUNT: u32 = 20;
const OTHERS: u32 = 12;
const WINDOW: Duration = Duration::from_secs(1);
const CALLS: usize = 60;

fn directory(url: &str, keys: &str) -> Outcome<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), format!("upstreams:\n  api: {{ base_url: \"{url}\", {keys} }}\n"))?;
    Ok(dir)
}

/// An upstream that counts in windows of its own, most of which somebody else takes; how many it turned away.
fn shared(tells: bool) -> Outcome<(Recorder, Arc<Mutex<u32>>)> {
    let window: Mutex<Option<(Instant, u32)>> = Mutex::new(None);
    let turned_away = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&turned_away);
    let upstream = Recorder::start(move |_, _| {
        let mut window = window.lock().expect("nobody panics while it counts");
        let open = window.filter(|(began, _)| began.elapsed() < WINDOW);
        let (began, used) = open.map_or((Instant::now(), OTHERS + 1), |(began, used)| (began, used + 1));
        *window = Some((began, used));
        let mut reply = Reply::new(if used > COUNT { 429 } else { 200 });
        *counter.lock().expect("nobody panics while it counts") += u32::from(used > COUNT);
        if tells {
            let reset = WINDOW.saturating_sub(began.elapsed()).as_secs_f64();
            let remaining = COUNT.saturating_sub(used);
            reply.headers.push(("x-ratelimit-limit", COUNT.to_string()));
            reply.headers.push(("x-ratelimit-remaining", remaining.to_string()));
            reply.headers.push(("x-ratelimit-reset-after", format!("{reset:.3}")));
        }
        reply
    })?;
    Ok((upstream, turned_away))
}

/// How many requests were turned away until all calls had succeeded.
fn turned_away(tells: bool) -> Outcome<(u32, usize)> {
    let (upstream, turned_away) = shared(tells)?;
    let keys = "limits: [\"20/1s\"], concurrency: 4, retry: { max: 1000, wait: 0.1 }";
    let dir = directory(&upstream.url(), keys)?;
    let _program = Program::serve(dir.path())?;
    for number in 0..CALLS {
        drop_file(dir.path(), format!("{number}.json"), &json!({"upstream": "api", "end_point": "/"}).to_string())?;
    }
    for number in 0..CALLS {
        let response = response(dir.path(), format!("{number}.json"));
        assert_eq!(response["state"], "succeeded", "{response}");
    }
    let count = *turned_away.lock().expect("nobody panics while it counts");
    let arrived = upstream.arrivals().len();
    Ok((count, arrived))
}

#[test]
fn a_quota_that_somebody_else_uses_too_is_kept_when_the_upstream_tells_what_remains() -> Outcome {
    let ((untold, of_untold), (told, of_told)) = (turned_away(false)?, turned_away(true)?);
    let counted = format!("turned away: {untold} of {of_untold} without, {told} of {of_told} with what it says");
    // Right after a reset nobody has said anything: four may be out. A busy machine may miss a window's end.
    let windows = u32::try_from(CALLS)?.div_ceil(COUNT - OTHERS);
    assert!(told <= windows * 4, "{counted}");
    assert!(untold >= told * 3 && untold >= windows * 4, "{counted}");
    Ok(())
}

#[test]
fn a_quota_that_is_used_up_closes_its_upstream_over_a_kill_until_it_is_resumed() -> Outcome {
    let upstream = Recorder::start(|_, number| {
        let mut reply = Reply::new(200);
        if number == 0 {
            reply.headers.push(("ratelimit", "\"hour\";r=0;t=3600".to_owned()));
        }
        reply
    })?;
    let dir = directory(&upstream.url(), "concurrency: 1")?;
    let mut program = Program::serve(dir.path())?;
    drop_file(dir.path(), "first.json", &json!({"upstream": "api", "end_point": "/first"}).to_string())?;
    assert_eq!(response(dir.path(), "first.json")["state"], "succeeded");
    let second = post_call(dir.path(), &json!({"upstream": "api", "end_point": "/second"}))?;
    let call = format!("/v1/calls/{}", second.body["id"].as_str().ok_or("an id")?);
    for _ in 0..2 {
        let waits = || get(dir.path(), &call).ok().filter(|answer| answer.body["wait_reason"] == "cooldown");
        until("the call that waits", waits);
        let shown = get(dir.path(), "/v1/upstreams/api")?.body;
        assert!(shown["closed_until"].is_string(), "{shown}");
        program.kill()?;
        program = Program::serve(dir.path())?;
    }
    assert_eq!(upstream.arrivals().len(), 1, "nothing was sent while it was closed");
    send(dir.path(), "POST", "/v1/upstreams/api/resume", None)?;
    until("the call that went on", || (upstream.arrivals().len() == 2).then_some(()));
    Ok(())
}
