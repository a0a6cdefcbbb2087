//! Canaries: secrets that go where they belong, and are found nowhere else.
//!
//! Every way a secret is given (environment, file, proxy credentials, token) and every way a call can end; then the
//! directory, the log, the API's answers, the command line and what children were given are searched for them.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::json;

use crate::rig::command::{Running, start};
use crate::rig::program::get;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const BY_ENVIRONMENT: &str = "canary-of-the-environment";
const BY_FILE: &str = "canary-of-a-file";
const OF_THE_PROXY: &str = "canary-of-the-proxy";
const TOKEN: &str = "canary-of-the-server-token";

/// A search for every canary, also as it is sent to a proxy.
struct Search {
    patterns: Vec<Vec<u8>>,
    searched: usize,
}

impl Search {
    fn new() -> Self {
        let credentials = STANDARD.encode(format!("shop:{OF_THE_PROXY}"));
        let patterns = ["canary-of-", credentials.trim_end_matches('=')].map(|text| text.as_bytes().to_vec());
        Self { patterns: patterns.to_vec(), searched: 0 }
    }

    fn finds(&self, bytes: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| bytes.windows(pattern.len()).any(|window| window == pattern))
    }

    fn assert_absent(&mut self, place: &str, bytes: &[u8]) {
        self.searched += 1;
        assert!(!self.finds(bytes), "a canary in {place}: {}", String::from_utf8_lossy(bytes));
    }

    /// All files at or below a folder but the one in which a secret belongs.
    fn assert_absent_below(&mut self, folder: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // While the program runs, files come and go.
            let Some(kind) = there(fs::symlink_metadata(&path))? else { continue };
            if kind.is_dir() {
                self.assert_absent_below(&path)?;
            } else if kind.is_file()
                && !path.ends_with("key")
                && let Some(bytes) = there(fs::read(&path))?
            {
                self.assert_absent(&path.display().to_string(), &bytes);
            }
            self.assert_absent("a file's name", path.as_os_str().as_encoded_bytes());
        }
        Ok(())
    }
}

/// What was found; nothing when it has gone meanwhile.
fn there<T>(looked: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match looked {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        looked => looked.map(Some),
    }
}

fn configuration(dir: &Path, upstream: &Recorder, proxy: &Recorder) -> Outcome {
    let headers = r#"{ Authorization: "Bearer ${env:TOKEN_A}", X-Api-Key: "${file:key}" }"#;
    let (api, proxy) = (upstream.url(), proxy.url().replace("http://", ""));
    // What a child is given: its words and its environment.
    let callback =
        r#"sh -c 'tr "\\0" "\\n" < /proc/self/environ >> children; tr "\\0" "\\n" < /proc/$PPID/cmdline >> children'"#;
    fs::write(dir.join("key"), BY_FILE)?;
    fs::write(dir.join("spoilt"), "fine for now")?;
    let text = format!(
        "server: {{ listen: \"127.0.0.1:0\", tokens: [\"${{env:TOKEN_S}}\"] }}\n\
         defaults: {{ retry: 0, headers: {headers}, callback_success: {callback:?}, callback_fail: {callback:?} }}\n\
         upstreams:\n  \
           api: {{ base_url: \"{api}\" }}\n  \
           gone: {{ base_url: \"http://127.0.0.1:1\" }}\n  \
           proxied: {{ base_url: \"http://shop.test\", proxy: \"http://shop:${{env:TOKEN_P}}@{proxy}\" }}\n  \
           walled: {{ base_url: \"https://shop.test\", proxy: \"http://shop:${{env:TOKEN_P}}@{proxy}\" }}\n  \
           spoilt: {{ base_url: \"{api}/spoilt\", headers: {{ X-Api-Key: \"${{file:key}}${{file:spoilt}}\" }} }}\n"
    );
    Ok(fs::write(dir.join("farcall.yml"), text)?)
}

fn serve(dir: &Path) -> std::io::Result<Running> {
    let args = ["serve", "--log-format", "json"].map(Path::new).into_iter().chain([dir]);
    let variables =
        [("TOKEN_A", BY_ENVIRONMENT), ("TOKEN_P", OF_THE_PROXY), ("TOKEN_S", TOKEN), ("FARCALL_LOG", "trace")];
    let running = start(args, variables)?;
    until("the server's health", || get(dir, "/healthz").ok().filter(|health| health.status == 200));
    Ok(running)
}

/// Calls by file, and how each ends.
const CALLS: [(&str, &str, &str); 8] = [
    ("good", r#"{"upstream": "api", "end_point": "/good", "body": {"n": 1}}"#, "succeeded"),
    ("failing", r#"{"upstream": "api", "end_point": "/failing"}"#, "failed"),
    ("redirected", r#"{"upstream": "api", "end_point": "/redirected"}"#, "failed"),
    ("refused", r#"{"upstream": "gone", "end_point": "/"}"#, "failed"),
    ("proxied", r#"{"upstream": "proxied", "end_point": "/good"}"#, "succeeded"),
    ("walled", r#"{"upstream": "walled", "end_point": "/good"}"#, "failed"),
    ("spoilt", r#"{"upstream": "spoilt", "end_point": "/x"}"#, "failed"),
    ("rejected", r#"{"upstream": "api", "end_point": "/x", "colour": "${env:TOKEN_A}"}"#, "rejected"),
];

#[test]
fn secrets_go_where_they_belong_and_are_found_nowhere_else() -> Outcome {
    let dir = tempfile::tempdir()?;
    let elsewhere = Recorder::start(|_, _| Reply::new(200))?;
    let other_origin = elsewhere.url();
    let upstream = Recorder::start(move |arrival, _| match arrival.path.as_str() {
        "/failing" => Reply::new(500),
        "/redirected" => Reply { headers: vec![("location", format!("{other_origin}/stolen"))], ..Reply::new(302) },
        _ => Reply::new(200),
    })?;
    let proxy = Recorder::start(|arrival, _| Reply::new(if arrival.method == "CONNECT" { 407 } else { 200 }))?;
    configuration(dir.path(), &upstream, &proxy)?;
    let running = serve(dir.path())?;
    // A secret that cannot be sent any more: the error must not quote it.
    fs::write(dir.path().join("spoilt"), "two\nlines")?;
    let mut search = Search::new();
    for (name, call, end) in CALLS {
        drop_file(dir.path(), format!("{name}.json"), call)?;
        let response = response(dir.path(), format!("{name}.json"));
        assert_eq!(response["state"], end, "{name}: {response}");
        for path in
            response["id"].as_str().iter().flat_map(|id| ["", "/attempts"].map(|end| format!("/v1/calls/{id}{end}")))
        {
            let answer = get(dir.path(), &path)?;
            search.assert_absent(&path, answer.body.to_string().as_bytes());
        }
    }
    let children = until("the callbacks of all calls", || {
        let children = fs::read_to_string(dir.path().join("children")).ok()?;
        (children.matches("FARCALL_STATE=").count() == CALLS.len() - 1).then_some(children)
    });
    assert!(children.contains("PATH="), "children were looked at: {children}");
    for file in ["cmdline", "comm", "status"] {
        search.assert_absent(file, &fs::read(format!("/proc/{}/{file}", running.pid()))?);
    }
    // Also while it runs: what is in the write-ahead log.
    search.assert_absent_below(dir.path())?;
    running.signal(Signal::TERM)?;
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("refused") || finished.stderr.len() > 500, "the log says something");
    search.assert_absent("the log", finished.stderr.as_bytes());
    search.assert_absent("what was printed", finished.stdout.as_bytes());
    search.assert_absent_below(dir.path())?;
    assert!(search.searched > 40, "{} places were searched", search.searched);

    let arrivals = upstream.arrivals();
    let paths: Vec<&str> = arrivals.iter().map(|arrival| arrival.path.as_str()).collect();
    assert_eq!(paths, ["/good", "/failing", "/redirected"]);
    for arrival in arrivals.iter() {
        assert_eq!(arrival.header("authorization"), Some(format!("Bearer {BY_ENVIRONMENT}").as_str()));
        assert_eq!(arrival.header("x-api-key"), Some(BY_FILE));
        assert_eq!(arrival.header("proxy-authorization"), None);
    }
    let credentials = format!("Basic {}", STANDARD.encode(format!("shop:{OF_THE_PROXY}")));
    let told: Vec<_> = proxy
        .arrivals()
        .iter()
        .map(|arrival| {
            let tunnel = arrival.method == "CONNECT";
            (tunnel, arrival.header("proxy-authorization") == Some(&credentials), arrival.header("x-api-key").is_some())
        })
        .collect();
    assert_eq!(told, [(false, true, true), (true, true, false)], "a tunnel's proxy learns its own credentials only");
    assert!(elsewhere.arrivals().is_empty(), "nothing followed the redirect");
    assert!(search.finds(credentials.as_bytes()) && search.finds(json!(BY_FILE).to_string().as_bytes()));
    Ok(())
}

#[test]
fn a_mistake_in_the_configuration_quotes_no_secret() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("key"), format!("{BY_FILE}\n{BY_FILE}"))?;
    let text = "upstreams:\n  a: { base_url: \"https://a.example\", headers: { X: \"${file:key}\" } }\n  \
                b: { base_url: \"https://b.example\", proxy: \"http://shop:${env:TOKEN_P}@10.0.0.1/path\" }\n";
    fs::write(dir.path().join("farcall.yml"), text)?;
    for command in ["check", "serve", "run"] {
        let args = [Path::new(command), dir.path()];
        let finished = start(args, [("TOKEN_P", OF_THE_PROXY)])?.finish()?;
        assert_eq!(finished.code, Some(2), "{command}: {}", finished.stderr);
        let mut search = Search::new();
        search.assert_absent(command, finished.stderr.as_bytes());
        search.assert_absent(command, finished.stdout.as_bytes());
        assert!(
            finished.stderr.contains("${file:key}") && finished.stderr.contains("has no path"),
            "{}",
            finished.stderr
        );
    }
    Ok(())
}

/// What a call and its sender bring themselves. The store keeps a call as it came; the log tells nothing of it.
const BROUGHT: [&str; 8] = ["header", "key", "cookie", "query", "userinfo", "wrong-token", "query-token", "set-cookie"];

fn canary(of: &str) -> String {
    format!("canary-of-{of}")
}

#[test]
fn the_log_tells_nothing_of_what_calls_and_their_senders_bring() -> Outcome {
    for format in ["json", "text"] {
        let upstream = Recorder::start(|_, _| Reply {
            headers: vec![("set-cookie", canary("set-cookie")), ("location", format!("/{}", canary("query")))],
            ..Reply::new(500)
        })?;
        let dir = tempfile::tempdir()?;
        let text = format!(
            "server: {{ listen: \"127.0.0.1:0\", tokens: [{TOKEN}] }}\ndefaults: {{ retry: 1, wait: 10ms }}\n\
             upstreams: {{ api: {{ base_url: \"{}\" }}, gone: {{ base_url: \"http://127.0.0.1:1\" }} }}\n",
            upstream.url()
        );
        fs::write(dir.path().join("farcall.yml"), text)?;
        let args = ["serve", "--log-format", format].map(Path::new).into_iter().chain([dir.path()]);
        let running = start(args, [("FARCALL_LOG", "trace")])?;
        let address = until("the address", || {
            let log = running.stderr();
            let at = log.find("127.0.0.1:")?;
            let rest = &log[at..];
            Some(rest[..rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?].to_owned())
        });
        let curl = |words: &[&str]| -> Result<String, std::io::Error> {
            let output = std::process::Command::new("curl").args(["-s"]).args(words).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (calls, bearer) = (format!("http://{address}/v1/calls"), format!("Authorization: Bearer {TOKEN}"));
        for upstream in ["api", "gone"] {
            let call = json!({
                "upstream": upstream, "end_point": "/x", "query": {"api_key": canary("query")},
                "headers": {"Authorization": canary("header"), "X-Api-Key": canary("key"), "Cookie": canary("cookie")},
            });
            let ended = curl(&[&calls, "-H", &bearer, "-H", "Prefer: wait=30", "--json", &call.to_string()])?;
            assert!(ended.contains("\"state\":\"failed\""), "{ended}");
            let masked = ["header", "key", "cookie"].iter().all(|of| !ended.contains(&canary(of)));
            assert!(masked && ended.contains("***"), "what carries rights reads back masked: {ended}");
        }
        let userinfo = json!({"url": format!("http://user:{}@127.0.0.1/", canary("userinfo"))}).to_string();
        let refused = curl(&[&calls, "-H", &bearer, "--json", &userinfo])?;
        assert!(refused.contains("invalid_call") && !refused.contains(&canary("userinfo")), "{refused}");
        drop_file(dir.path(), "order.json", &userinfo)?;
        let rejected = response(dir.path(), "order.json");
        assert!(rejected["state"] == "rejected" && !rejected.to_string().contains(&canary("userinfo")), "{rejected}");
        let wrong = format!("Farcall-Token: {}", canary("wrong-token"));
        assert!(curl(&[&calls, "-H", &wrong])?.contains("unauthorized"));
        let by_query = format!("{calls}?token={}", canary("query-token"));
        assert!(curl(&[&by_query])?.contains("unauthorized"));
        assert!(curl(&[&by_query, "-H", &bearer])?.contains("invalid_filter"));
        running.signal(Signal::TERM)?;
        let log = running.finish()?.stderr;
        assert!(log.matches("a call ended").count() == 2 && log.len() > 700, "{log}");
        for of in BROUGHT {
            assert!(!log.contains(&canary(of)), "{} in the log: {log}", canary(of));
        }
        assert!(!log.contains(TOKEN), "the server's token in the log: {log}");
        if format == "json" {
            let is_event = |line: &str| {
                serde_json::from_str::<serde_json::Value>(line).is_ok_and(|event| event["level"].is_string())
            };
            assert!(log.lines().all(is_event), "{log}");
        }
    }
    Ok(())
}
