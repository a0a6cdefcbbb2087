//! What whole-program tests are made of: a recording upstream, the program as a process, and a way to talk to it.

pub(crate) mod cgroup;
pub(crate) mod checker;
pub(crate) mod command;
pub(crate) mod confined;
pub(crate) mod program;
pub(crate) mod recorder;
pub(crate) mod volume;
pub(crate) mod world;

use std::path::Path;
use std::time::{Duration, Instant};

/// No wait in a test takes longer; a busy machine needs much of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// How many rounds a test of chance goes on for: more than every run has time for, when `cargo xtask faults` says so.
pub(crate) fn rounds(short: u64) -> u64 {
    long_rounds().unwrap_or(short)
}

pub(crate) fn long_rounds() -> Option<u64> {
    std::env::var("FARCALL_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok())
}

/// Waits until a condition holds, looking again and again; fails when it never does.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_or(look, || what.to_owned())
}

/// The same; what it waited for in vain is found out when it has.
pub(crate) fn until_or<T>(mut look: impl FnMut() -> Option<T>, what: impl Fn() -> String) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {}", what());
        pause(Duration::from_millis(5));
    }
}

/// Something takes no longer than this. The machine may be busy with others just then, so the shortest of several tries counts.
pub(crate) fn assert_within(limit: Duration, what: &str, mut act: impl FnMut()) {
    let mut times = Vec::new();
    while times.len() < 10 {
        let begun = Instant::now();
        act();
        times.push(begun.elapsed());
        if begun.elapsed() < limit {
            return;
        }
    }
    panic!("{what} took {times:?}, each longer than {limit:?}");
}

/// Lets time pass where a test is about time.
pub(crate) fn pause(time: Duration) {
    let (_never, silence) = std::sync::mpsc::channel::<()>();
    let _ = silence.recv_timeout(time);
}

/// Drops a call file the way the contract recommends: written under another name, then renamed.
pub(crate) fn drop_file(dir: &Path, name: impl AsRef<Path>, text: &str) -> std::io::Result<()> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let hidden = dir.join(format!(".{number}.tmp"));
    std::fs::write(&hidden, text)?;
    std::fs::rename(hidden, dir.join(name))
}

/// The parsed response file, once it is there.
pub(crate) fn response(dir: &Path, name: impl AsRef<Path>) -> serde_json::Value {
    let path = dir.join("responses").join(&name);
    let text = until(&format!("{}", path.display()), || std::fs::read(&path).ok());
    serde_json::from_slice(&text).expect("a response file appears whole")
}
