//! A directory, an upstream and two submitters, and what each of them knows: the facts that `checker` compares.
//!
//! Calls come in by API and by file, plain and large, good and rejected, some under a name that was used before; PUTs
//! may be repeated, POSTs may not. Each carries a number, by which it is known everywhere.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::pause;
use super::program::{Launch, Program, get, post_call};
use super::recorder::{Arrival, Recorder, Reply};

/// Attempts at once, and callbacks at once: what may be out when the program dies.
pub(crate) const CONCURRENCY: usize = 8;
pub(crate) const CALLBACKS: usize = 4;

/// Bodies that do not fit a row.
const LARGE_BYTES: usize = 70_000;
const LARGE_EVERY: u64 = 16;
const LARGE_REQUEST: u64 = 7;
const LARGE_RESPONSE: u64 = 5;
/// The name that is used again and again.
const SHARED_NAME: &str = "shared.json";

/// What a submitter was told of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Accepted under this id.
    Accepted(String),
    /// Refused, with this status.
    Refused(u16),
    /// An error, or nothing.
    Unknown,
}

/// What a dropped file is.
#[derive(Debug, Clone)]
pub(crate) struct Dropped {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) is_valid: bool,
    /// It was seen to have left the inbox.
    pub(crate) is_gone: bool,
    /// It was in the inbox when the power was cut, and nobody had synced it: whatever became of it may be.
    pub(crate) is_doubtful: bool,
}

/// A directory at work, and everything around it that outlives it.
#[derive(Debug)]
pub(crate) struct World {
    dir: PathBuf,
    /// The directory, unless it is somebody else's; what callbacks note, and what the program says.
    outside: tempfile::TempDir,
    pub(crate) upstream: Recorder,
    throttle: Arc<AtomicBool>,
    next: AtomicU64,
    pub(crate) told: Mutex<HashMap<u64, Told>>,
    pub(crate) dropped: Mutex<HashMap<u64, Dropped>>,
    /// Ends seen so far, by id.
    pub(crate) ends: Mutex<HashMap<String, String>>,
    /// How often the program was killed or its disk taken away.
    deaths: AtomicUsize,
}

impl World {
    /// In a directory of its own.
    pub(crate) fn new() -> std::io::Result<Arc<Self>> {
        let outside = tempfile::tempdir()?;
        let dir = outside.path().join("dir");
        std::fs::create_dir(&dir)?;
        Self::make(dir, outside)
    }

    /// In this directory, which exists.
    pub(crate) fn within(dir: &Path) -> std::io::Result<Arc<Self>> {
        Self::make(dir.to_owned(), tempfile::tempdir()?)
    }

    fn make(dir: PathBuf, outside: tempfile::TempDir) -> std::io::Result<Arc<Self>> {
        let throttle = Arc::new(AtomicBool::new(false));
        let asks_to_wait = Arc::clone(&throttle);
        let upstream = Recorder::start(move |arrival, count| {
            if asks_to_wait.swap(false, Ordering::Relaxed) { wait_a_second() } else { reply(arrival, count) }
        })?;
        let note = outside.path().join("note.sh");
        let log = outside.path().join("callbacks.log");
        std::fs::write(&note, format!("echo \"$FARCALL_ID $FARCALL_STATE\" >> {}\n", log.display()))?;
        std::fs::write(&log, "")?;
        let callback = format!("/bin/sh {}", note.display());
        let config = format!(
            "store: {{ min_free: 0 }}\ninbox: {{ settle: 50ms }}\nupstreams:\n  api: {{ base_url: \"{}\", concurrency: \
             {CONCURRENCY}, retry: {{ max: 50, base: 20ms, max_delay: 100ms }},\n    callback_success: \"{callback}\", \
             callback_fail: \"{callback}\" }}\n",
            upstream.url()
        );
        write_durably(&dir.join("farcall.yml"), &config)?;
        let (told, dropped, ends) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (next, deaths) = (AtomicU64::new(0), AtomicUsize::new(0));
        Ok(Arc::new(Self { dir, outside, upstream, throttle, next, told, dropped, ends, deaths }))
    }

    /// Puts other words into the configuration.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) -> std::io::Result<()> {
        let path = self.dir.join("farcall.yml");
        let config = std::fs::read_to_string(&path)?;
        assert!(config.contains(from), "{config}");
        write_durably(&path, &config.replace(from, to))
    }

    /// A number that no call has yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a call whose bodies are small.
    pub(crate) fn next_small_number(&self) -> u64 {
        std::iter::repeat_with(|| self.next_number()).find(|number| !is_large(*number)).expect("most are small")
    }

    /// The upstream asks everybody to wait for a second, in its next answer.
    pub(crate) fn throttle_once(&self) {
        self.throttle.store(true, Ordering::Relaxed);
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch::new(&self.dir).logging_to(&self.outside.path().join("serve.log"))
    }

    /// Ids and ends that callbacks were called with.
    pub(crate) fn callbacks(&self) -> std::io::Result<Vec<(String, String)>> {
        let log = std::fs::read_to_string(self.outside.path().join("callbacks.log"))?;
        let words = log.lines().filter_map(|line| line.split_once(' '));
        Ok(words.map(|(id, state)| (id.to_owned(), state.to_owned())).collect())
    }

    /// Submits by both ways, and watches the counts, until `done` says so or the program is gone.
    pub(crate) fn load_until(&self, mut done: impl FnMut() -> bool) {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.repeatedly(&stop, |number| drop(self.submit(number))));
            scope.spawn(|| self.repeatedly(&stop, |number| self.drop_file(number)));
            scope.spawn(|| self.watch(&stop));
            while !done() {
                pause(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    /// Submits until it has gone on for some time.
    pub(crate) fn load_for(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        self.load_until(|| std::time::Instant::now() >= end);
    }

    /// Notes that the program, or its disk, died.
    pub(crate) fn note_death(&self) {
        self.deaths.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn deaths(&self) -> usize {
        self.deaths.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self, program: Program) -> std::io::Result<()> {
        self.note_death();
        program.kill()
    }

    /// One call by API; what the submitter was told.
    pub(crate) fn submit(&self, number: u64) -> Told {
        let told = match post_call(&self.dir, &call(number)) {
            Ok(answer) if answer.status == 202 => {
                Told::Accepted(answer.body["id"].as_str().expect("an accepted call has an id").to_owned())
            }
            // A commit that failed may be durable all the same.
            Ok(answer) if answer.body["code"] == "store_failed" => Told::Unknown,
            Ok(answer) => Told::Refused(answer.status),
            Err(_) => Told::Unknown,
        };
        if told == Told::Unknown {
            pause(Duration::from_millis(5));
        }
        self.told.lock().expect("not poisoned").insert(number, told.clone());
        told
    }

    /// One call file, in the way the contract recommends. One whose name still stands in the inbox is not dropped.
    pub(crate) fn drop_file(&self, number: u64) {
        let is_valid = number % 9 != 4;
        let text = if is_valid { call(number).to_string() } else { format!("{{\"n\": {number},") };
        let name = match number % 5 {
            3 => SHARED_NAME.to_owned(),
            _ => format!("{number}.json"),
        };
        let hidden = self.dir.join(format!(".{number}.tmp"));
        let placed = std::fs::write(&hidden, &text).and_then(|()| place(&hidden, &self.dir.join(&name)));
        if placed.is_ok() {
            let dropped = Dropped { name, text, is_valid, is_gone: false, is_doubtful: false };
            self.dropped.lock().expect("not poisoned").insert(number, dropped);
        }
        pause(Duration::from_millis(2));
    }

    fn repeatedly(&self, stop: &AtomicBool, act: impl Fn(u64)) {
        while !stop.load(Ordering::Relaxed) {
            act(self.next_number());
        }
    }

    /// The counts must add up in every answer.
    fn watch(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Ok(health) = get(&self.dir, "/healthz") {
                assert_identity(&health.body);
            }
            self.look_at_inbox();
            pause(Duration::from_millis(5));
        }
    }

    /// Which files have left the inbox: their calls are accepted. One that is not there and cannot be looked for
    /// (the disk is gone) is not said to have left.
    fn look_at_inbox(&self) {
        let mut dropped = self.dropped.lock().expect("not poisoned");
        for file in dropped.values_mut().filter(|file| !file.is_gone) {
            let found = std::fs::symlink_metadata(self.dir.join(&file.name));
            file.is_gone = found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        }
    }

    /// Of files that the power cut may have caught in the inbox nothing is promised: the producer had synced nothing.
    pub(crate) fn note_power_cut(&self) {
        self.note_death();
        for file in self.dropped.lock().expect("not poisoned").values_mut() {
            file.is_doubtful |= !file.is_gone;
        }
    }
}

/// `accepted = pruned + sum of calls by state`.
pub(crate) fn assert_identity(health: &Value) {
    let sum: u64 = health["calls"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let total = health["pruned"].as_u64().unwrap_or(0) + sum;
    assert_eq!(health["accepted"].as_u64(), Some(total), "{health}");
}

/// The number a body carries.
pub(crate) fn number(body: &Value) -> Option<u64> {
    body["n"].as_u64()
}

/// Whether a call of this number may be repeated when its outcome is unknown.
pub(crate) const fn is_repeatable(number: u64) -> bool {
    number.is_multiple_of(2)
}

const fn is_large(number: u64) -> bool {
    matches!(number % LARGE_EVERY, LARGE_REQUEST | LARGE_RESPONSE)
}

fn call(number: u64) -> Value {
    let filler = if number % LARGE_EVERY == LARGE_REQUEST { "x".repeat(LARGE_BYTES) } else { String::new() };
    let method = if is_repeatable(number) { "PUT" } else { "POST" };
    json!({ "upstream": "api", "end_point": "/call", "method": method, "body": { "n": number, "filler": filler } })
}

/// Some fail at first, some take their time, some are large; each says how long it is.
fn reply(arrival: &Arrival, count: usize) -> Reply {
    let body: Value = serde_json::from_slice(&arrival.body).expect("bodies arrive whole");
    let number = number(&body).expect("every body has its number");
    let bytes = if number % LARGE_EVERY == LARGE_RESPONSE { LARGE_BYTES } else { 0 };
    let mut reply = Reply::new(if count % 7 == 3 { 503 } else { 200 });
    reply.body = json!({ "n": number, "bytes": bytes, "filler": "y".repeat(bytes) }).to_string();
    reply.after(Duration::from_millis(number % 11))
}

fn wait_a_second() -> Reply {
    let mut reply = Reply::new(429);
    reply.headers.push(("retry-after", "1".to_owned()));
    reply
}

/// Whoever configures farcall means it to be there after a power cut.
fn write_durably(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    let folder = path.parent().expect("a file lies in a folder");
    [path, folder].into_iter().try_for_each(|synced| std::fs::File::open(synced)?.sync_all())
}

/// Renames a file unless the name is taken.
fn place(from: &Path, to: &Path) -> std::io::Result<()> {
    let cwd = rustix::fs::CWD;
    Ok(rustix::fs::renameat_with(cwd, from, cwd, to, rustix::fs::RenameFlags::NOREPLACE)?)
}
