//! Every client command against the real server with wrong input: the exit code says what kind of wrong it is, stderr
//! says what, stdout says nothing, and nothing has changed.

use std::fs;

use serde_json::json;

use super::{NOBODY, Outcome, accepted, client, ended, text};
use crate::rig::program::{Program, get};
use crate::rig::recorder::{Recorder, Reply};

/// Usage, or refused by the server.
const WRONG: i32 = 2;
const NOT_THERE: i32 = 3;
const CONFLICT: i32 = 4;
const TOO_LATE: i32 = 5;
const NO_SERVER: i32 = 6;

/// A command, its exit code, and what stderr says of it. `ENDED` and `WAITING` are calls, `NOBODY` is none.
const COMMANDS: [(&str, i32, &str); 61] = [
    ("get", WRONG, "<ID>"),
    ("get NOBODY", NOT_THERE, "there is no call"),
    ("get order-17", NOT_THERE, "order-17"),
    ("get ENDED WAITING", WRONG, "unexpected argument"),
    ("get ENDED --attempts --response", WRONG, "--response"),
    ("get NOBODY --attempts", NOT_THERE, "there is no call"),
    ("get NOBODY --response", NOT_THERE, "there is no call"),
    ("get WAITING --response", CONFLICT, "409 not_ended"),
    ("get ENDED --output xml", WRONG, "table, json, ndjson"),
    ("list ENDED", WRONG, "unexpected argument"),
    ("list --state done", WRONG, "key state"),
    ("list --source nowhere", WRONG, "key source"),
    ("list --since yesterday", WRONG, "key since"),
    ("list --limit 0", WRONG, "1 at least"),
    ("list --limit many", WRONG, "--limit"),
    ("list --cursor x", WRONG, "key cursor"),
    ("list --colour red", WRONG, "--colour"),
    ("wait", WRONG, "<ID>"),
    ("wait NOBODY", NOT_THERE, "there is no call"),
    ("wait order-17", NOT_THERE, "order-17"),
    ("wait WAITING --timeout soon", WRONG, "--timeout"),
    ("wait WAITING --timeout 50ms", TOO_LATE, "1 of 1 call not ended within 50ms"),
    ("cancel", WRONG, "which calls?"),
    ("cancel ENDED", CONFLICT, "409 already_ended"),
    ("cancel NOBODY", NOT_THERE, "there is no call"),
    ("cancel order-17", NOT_THERE, "order-17"),
    ("cancel ENDED --state queued", WRONG, "ids and filters"),
    ("cancel --state done", WRONG, "state"),
    ("cancel ENDED --dry-run", WRONG, "--dry-run"),
    ("retry", WRONG, "which calls?"),
    ("retry WAITING", CONFLICT, "409 not_ended"),
    ("retry NOBODY", NOT_THERE, "there is no call"),
    ("retry order-17", NOT_THERE, "order-17"),
    ("retry ENDED --tag x", WRONG, "ids and filters"),
    ("retry --since yesterday", WRONG, "since"),
    ("explain", WRONG, "<ID>"),
    ("explain NOBODY", NOT_THERE, "there is no call"),
    ("explain order-17", NOT_THERE, "order-17"),
    ("explain ENDED WAITING", WRONG, "unexpected argument"),
    ("upstreams close shop", WRONG, "close"),
    ("upstreams show", WRONG, "<NAME>"),
    ("upstreams show nobody", NOT_THERE, "there is no upstream"),
    ("upstreams pause", WRONG, "<NAME>"),
    ("upstreams pause nobody", NOT_THERE, "there is no upstream"),
    ("upstreams resume nobody", NOT_THERE, "there is no upstream"),
    ("upstreams set shop", WRONG, "<KEY=VALUE>"),
    ("upstreams set shop rate_second", WRONG, "KEY=VALUE"),
    ("upstreams set shop rate_second=fast", WRONG, "key rate_second"),
    ("upstreams set shop rate_second=0", WRONG, "key rate_second"),
    ("upstreams set shop rate_secnd=5", WRONG, "rate_second"),
    ("upstreams set shop base_url=http://localhost", WRONG, "key base_url"),
    ("upstreams set nobody rate_second=5", NOT_THERE, "there is no upstream"),
    ("call", WRONG, "URL"),
    ("call nowhere/x", WRONG, "names no configured upstream"),
    ("call ftp://localhost/x", WRONG, "http"),
    ("call shop/x --header host:other", WRONG, "host"),
    ("call shop/x --json {", WRONG, "--json"),
    ("call shop/../../x", WRONG, "key end_point"),
    ("functions list", WRONG, "not available yet"),
    ("lst", WRONG, "list"),
    ("get ENDED --token hush", WRONG, "cannot be used with"),
];

#[test]
fn wrong_input_has_its_exit_code_says_why_and_changes_nothing() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  shop: {{ base_url: \"{}/shop\", rate_second: 10 }}\n", upstream.url());
    fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Program::serve(dir.path())?;
    let ended = ended(dir.path(), &upstream)?;
    let waiting = accepted(dir.path(), &json!({"upstream": "shop", "end_point": "/late", "delay": 3600}))?;
    let look = || -> std::io::Result<_> {
        let (shop, call) =
            (get(dir.path(), "/v1/upstreams/shop")?.body, get(dir.path(), &format!("/v1/calls/{waiting}"))?);
        Ok((program.health()?["calls"].clone(), shop["policy"].clone(), shop["paused"].clone(), call.body))
    };
    let before = look()?;
    for (command, code, part) in COMMANDS {
        let line = command.replace("ENDED", &ended).replace("WAITING", &waiting).replace("NOBODY", NOBODY);
        let finished = client(&line, &["--dir", text(dir.path())])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{command}: {}", finished.stderr);
        assert!(finished.stderr.contains(part), "{command}: {}", finished.stderr);
        assert!(!finished.stderr.contains("panicked"), "{command}: {}", finished.stderr);
    }
    assert_eq!(look()?, before);
    assert_eq!(upstream.arrivals().len(), 1, "the one that ended before");

    program.kill()?;
    for line in
        ["get ID", "list", "wait ID", "cancel ID", "retry ID", "explain ID", "upstreams", "upstreams pause shop"]
    {
        let finished = client(&line.replace("ID", &waiting), &["--dir", text(dir.path())])?;
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(NO_SERVER), ""), "{line}: {}", finished.stderr);
        assert!(finished.stderr.contains("farcall serve"), "{line}: {}", finished.stderr);
    }
    Ok(())
}
