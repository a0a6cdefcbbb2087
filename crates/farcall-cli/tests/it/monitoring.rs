//! The real Prometheus, with the configuration and the rules of `monitoring/`, beside a real server: it scrapes, and the
//! rules fire on an outage that is made.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::rig::program::{Launch, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../monitoring");
const TOKEN: &str = "a-token-for-prometheus";

/// Killed when dropped.
struct Prometheus {
    child: Child,
    address: String,
    _home: tempfile::TempDir,
}

impl Prometheus {
    /// With the configuration of the compose file, but for places; minutes of the rules are seconds here. Where there is
    /// none this says so past the test runner's capture, and fails in CI.
    fn start(target: &str) -> Outcome<Option<Self>> {
        let home = tempfile::tempdir()?;
        let place = |name: &str| home.path().join(name);
        let path = |name: &str| place(name).display().to_string();
        let config = fs::read_to_string(format!("{MONITORING}/compose/prometheus.yml"))?
            .replace("farcall:8888", target)
            .replace("/run/secrets/farcall-token", &path("token"))
            .replace("/etc/prometheus/alerts.yml", &path("alerts.yml"))
            .replace("_interval: 15s", "_interval: 200ms");
        let rules = fs::read_to_string(format!("{MONITORING}/alerts.yml"))?;
        let rules = ["1", "2", "5", "10", "15"].iter().fold(rules, |rules, minutes| {
            let sooner = rules.replace(&format!("for: {minutes}m"), &format!("for: {minutes}s"));
            sooner.replace(&format!("[{minutes}m]"), &format!("[{minutes}s]"))
        });
        assert!(!rules.contains("m]") && config.contains(target), "{config} {rules}");
        fs::write(place("prometheus.yml"), config)?;
        fs::write(place("alerts.yml"), rules)?;
        fs::write(place("token"), TOKEN)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let log = fs::File::create(place("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", path("data")))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Ok(Some(Self { child, address, _home: home })),
            Err(error) => {
                let why = format!("prometheus (Debian's package of that name): {error}");
                assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "this test cannot run: {why}");
                let _ = writeln!(std::io::stderr(), "WARNING: a test of monitoring CHECKS NOTHING: {why}");
                Ok(None)
            }
        }
    }

    /// What its API answers; nothing while it does not.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The value of an expression that has one.
    fn value(&self, expression: &str) -> Option<f64> {
        let query: String = form_urlencoded(expression);
        let data = self.ask(&format!("/api/v1/query?query={query}"))?;
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The rules that fire, with the upstream that they are about.
    fn firing(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alerts = self.ask("/api/v1/alerts").unwrap_or_default();
        let alerts = alerts["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["upstream"]))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn form_urlencoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Calls go on until this is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(dir: &Path) -> Self {
        let (stop, dir) = (Arc::new(AtomicBool::new(false)), dir.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = post_call(&dir, &json!({"upstream": "shop", "end_point": "/order"}));
                crate::rig::pause(std::time::Duration::from_millis(20));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn prometheus_scrapes_and_its_rules_fire_on_an_outage() -> Outcome {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Recorder::start(move |_, _| Reply::new(if down.load(Ordering::Relaxed) { 500 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    let text = format!(
        "server: {{ tokens: [{TOKEN}] }}\nupstreams:\n  shop: {{ base_url: \"{}\", retry: 1, wait: 50ms }}\n",
        upstream.url()
    );
    fs::write(dir.path().join("farcall.yml"), text)?;
    let program = Launch::new(dir.path()).listening().serve()?;
    let Some(prometheus) = Prometheus::start(&program.address())? else { return Ok(()) };

    // As long as all is well it sees what happens, and nothing fires.
    let load = Load::on(dir.path());
    until("Prometheus to see calls succeed", || {
        prometheus
            .value("farcall_calls_finished_total{upstream=\"shop\",state=\"succeeded\"}")
            .filter(|&count| count > 20.0)
    });
    assert_eq!(prometheus.value("up{job=\"farcall\"}"), Some(1.0));
    assert_eq!(prometheus.value("count(farcall_build_info)"), Some(1.0));
    // The disk may be slow, where other tests run.
    let fires = |alerts: &[&str]| prometheus.firing().iter().any(|(alert, _)| alerts.contains(&alert.as_str()));
    assert!(!fires(&["FarcallDown", "FarcallUpstreamFailing", "FarcallCallsLost", "FarcallRefusesCalls"]));

    // The upstream fails, and calls end without success.
    is_down.store(true, Ordering::Relaxed);
    for alert in ["FarcallUpstreamFailing", "FarcallCallsLost"] {
        let wanted = (alert.to_owned(), "shop".to_owned());
        until(alert, || prometheus.firing().contains(&wanted).then_some(()));
    }
    // It is over when the upstream is back.
    is_down.store(false, Ordering::Relaxed);
    until("the outage to be over", || (!fires(&["FarcallUpstreamFailing"])).then_some(()));
    drop(load);

    program.kill()?;
    until("FarcallDown", || fires(&["FarcallDown"]).then_some(()));
    Ok(())
}
