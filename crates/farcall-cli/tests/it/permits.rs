//! Permits from a shell: the script of `docs/limits.md` as it stands there, beside calls that farcall makes itself.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::json;

use crate::rig::program::{Launch, get};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const LOOPS: usize = 3;
const TURNS: usize = 6;
const FILES: usize = 12;

/// The script that the documentation shows.
fn script() -> Outcome<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md"))?;
    let (_, rest) = text.split_once("```sh\n").ok_or("no script")?;
    Ok(rest.split_once("```").ok_or("no end of the script")?.0.to_owned())
}

fn shell(dir: &Path, command: &str) -> std::io::Result<Child> {
    Command::new("sh").args(["-c", command]).current_dir(dir).spawn()
}

#[test]
fn a_script_and_calls_share_two_windows() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let keys = format!("base_url: \"{}\", limits: [\"5/1s\", \"12/4s\"], strict: true", upstream.url());
    fs::write(dir.path().join("farcall.yml"), format!("upstreams:\n  shop: {{ {keys} }}\n"))?;
    let program = Launch::new(dir.path()).listening().serve()?;
    let script = script()?;
    assert!(script.contains("http://127.0.0.1:8888"), "{script}");
    let work = tempfile::tempdir()?;
    let script = script.replace("http://127.0.0.1:8888", &format!("http://{}", program.address()));
    fs::write(work.path().join("fetch.sh"), script)?;
    let command = |number: usize| {
        let url = format!("{}/script", upstream.url());
        format!("for turn in $(seq {TURNS}); do sh fetch.sh {url} answer-{number}-$turn || exit 1; done")
    };
    let loops: Vec<Child> =
        (0..LOOPS).map(|number| shell(work.path(), &command(number))).collect::<std::io::Result<_>>()?;
    for number in 0..FILES {
        drop_file(
            dir.path(),
            format!("{number}.json"),
            &json!({"upstream": "shop", "end_point": "/file"}).to_string(),
        )?;
    }
    for mut child in loops {
        assert!(child.wait()?.success(), "a loop of the script failed");
    }
    for number in 0..FILES {
        assert_eq!(response(dir.path(), format!("{number}.json"))["state"], "succeeded");
    }
    let answers = fs::read_dir(work.path())?.count() - 1;
    assert_eq!((answers, upstream.arrivals().len()), (LOOPS * TURNS, LOOPS * TURNS + FILES));
    let worst = [1, 4].map(|seconds| upstream.worst_window(Duration::from_secs(seconds)));
    assert!(worst[0] <= 5 && worst[1] <= 12, "{worst:?} arrived within 1 and 4 s");
    until("no permit is out", || (get(dir.path(), "/v1/upstreams/shop").ok()?.body["in_flight"] == 0).then_some(()));
    Ok(())
}
