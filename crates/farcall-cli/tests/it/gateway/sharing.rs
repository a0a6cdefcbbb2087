//! One limit for everything that goes to an upstream: files, the API, the proxy, routes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::rig::{Gateway, Outcome};
use crate::rig::program::post_call;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

#[test]
fn no_window_holds_more_than_the_limit_whoever_asks() -> Outcome {
    const CALLS: usize = 30;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!(
        "upstreams: {{ api: {{ base_url: \"{}\", limits: [\"10/1s\"] }} }}\nroutes: {{ /api/smart: {{ style: smart, upstream: api }} }}\n",
        upstream.url()
    );
    let gateway = Gateway::open(&config)?;
    let dir = gateway.home.path();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..CALLS {
                drop_file(dir, format!("{number}.json"), r#"{"upstream": "api"}"#).expect("a file");
            }
        });
        scope.spawn(|| {
            for _ in 0..CALLS {
                let answer = post_call(dir, &json!({"upstream": "api"})).expect("an answer");
                assert_eq!(answer.status, 202, "{answer:?}");
            }
        });
        for path in ["/proxy/api/x", "/api/smart?timeout=170000"] {
            for _ in 0..3 {
                let (gateway, answered) = (&gateway, &answered);
                scope.spawn(move || {
                    for _ in 0..CALLS / 3 {
                        assert_eq!(gateway.get(path).expect("an answer").status, 200, "{path}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
    });
    (0..CALLS).for_each(|n| assert_eq!(response(dir, format!("{n}.json"))["state"], "succeeded"));
    until("all calls", || (upstream.arrivals().len() >= 4 * CALLS).then_some(()));
    assert_eq!(answered.load(Ordering::Relaxed), 2 * CALLS);
    let worst = upstream.worst_window(Duration::from_secs(1));
    assert!(worst <= 10, "{worst} in a second");
    Ok(())
}

#[test]
fn who_waits_too_long_for_a_limit_sends_nothing() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let gateway =
        Gateway::open(&format!("upstreams: {{ api: {{ base_url: \"{}\", limits: [\"1/1h\"] }} }}\n", upstream.url()))?;
    assert_eq!(gateway.get("/proxy/api/first")?.status, 200);
    for _ in 0..2 {
        let reply = gateway.ask("GET /proxy/api/second HTTP/1.1\nhost: localhost\nfarcall-timeout: 300\n\n")?;
        assert!(matches!(reply.status, 503 | 504), "{}", reply.text());
    }
    assert_eq!(upstream.arrivals().len(), 1);
    Ok(())
}
