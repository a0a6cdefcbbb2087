//! Upstreams of the real server: shown, paused, resumed, changed while calls wait.

use std::fs;

use serde_json::json;

use super::{Outcome, accepted, client, lines, text};
use crate::rig::command::Finished;
use crate::rig::program::{Program, get};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

#[test]
fn a_paused_upstream_says_so_and_goes_on_when_resumed() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let configuration = format!("upstreams:\n  shop: {{ base_url: \"{}\", limits: [\"10/1m\"] }}\n", upstream.url());
    fs::write(dir.path().join("farcall.yml"), configuration)?;
    let _program = Program::serve(dir.path())?;
    let on = |line: &str| -> std::io::Result<Finished> {
        let finished = client(line, &["--dir", text(dir.path())])?;
        assert_eq!(finished.code, Some(0), "{line}: {}", finished.stderr);
        Ok(finished)
    };
    assert_eq!(lines(&on("upstreams pause shop")?.stdout)[0]["state"], "paused");
    let id = accepted(dir.path(), &json!({"upstream": "shop", "end_point": "/orders"}))?;
    until("the call to wait for the pause", || {
        (get(dir.path(), &format!("/v1/calls/{id}")).ok()?.body["wait_reason"] == "paused").then_some(())
    });
    let table = on("upstreams --output table")?.stdout;
    let rows: Vec<_> = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows[0], "name base_url state waiting in flight limits why");
    assert_eq!(rows[1], format!("shop {}/ paused 1 0 of 16 0 of 10/1m paused", upstream.url()));
    assert_eq!(on("upstreams -q")?.stdout, "shop\n");

    assert_eq!(lines(&on("upstreams resume shop")?.stdout)[0]["state"], "open");
    on(&format!("wait {id}"))?;
    assert_eq!(upstream.arrivals().len(), 1);
    Ok(())
}

#[test]
fn a_change_holds_from_its_answer_on_and_null_takes_it_back() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(
        dir.path().join("farcall.yml"),
        "upstreams:\n  shop: { base_url: \"http://localhost:1\", rate_second: 10 }\n",
    )?;
    let _program = Program::serve(dir.path())?;
    let set = |changes: &str| client(&format!("upstreams set shop {changes}"), &["--dir", text(dir.path())]);
    let limits = |finished: &Finished| lines(&finished.stdout)[0]["policy"]["limits"].clone();
    assert_eq!(limits(&set("rate_second=5 timeout=10s")?), json!(["5/1s"]));
    assert_eq!(limits(&client("upstreams show shop", &["--dir", text(dir.path())])?), json!(["5/1s"]));
    assert_eq!(limits(&set("rate_second=null")?), json!(["10/1s"]));
    for (changes, key) in [("base_url=x", "base_url"), ("rate_secnd=5", "rate_secnd"), ("timeout=soon", "timeout")] {
        let refused = set(changes)?;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{changes}");
        assert!(refused.stderr.contains(&format!("422 invalid_policy, key {key}")), "{}", refused.stderr);
    }
    let unknown = client("upstreams show nobody", &["--dir", text(dir.path())])?;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(3), ""), "{}", unknown.stderr);
    Ok(())
}
