//! Wall clocks that are set forward and back, a process that is suspended, a machine that starts anew.
//!
//! The wall clock of the program alone is moved, by a small library that is compiled here and put before the C library;
//! another boot is another boot id, mounted over the kernel's in a namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::rig::command::{Running, spawn};
use crate::rig::confined::{has_namespaces, healthy, serve_after, serve_with_boot_clock, uptime_s};
use crate::rig::program::{get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, pause, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const DAY_S: i64 = 86_400;
/// Arrivals are noted late where the machine is busy, as much as requests may differ in their delay.
const TEN_A_SECOND: &str = "[10/1s], jitter: 3s";

/// Adds the seconds that a file holds to what the wall clock shows.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    char text[32] = {0};
    int file = clock == CLOCK_REALTIME ? open(getenv("WALL_OFFSET"), O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atoll(text);
        close(file);
    }
    return result;
}
"#;

/// A directory, an upstream, and a program whose wall clock can be set.
struct Bench {
    dir: tempfile::TempDir,
    recorder: Recorder,
    shim: PathBuf,
    tools: tempfile::TempDir,
}

impl Bench {
    fn new(limits: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let (dir, tools) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let recorder = Recorder::start(|_, _| Reply::new(200))?;
        let config = format!("upstreams:\n  api: {{ base_url: {}, limits: {limits} }}\n", recorder.url());
        fs::write(dir.path().join("farcall.yml"), config)?;
        let (source, shim) = (tools.path().join("shim.c"), tools.path().join("shim.so"));
        fs::write(&source, SHIM)?;
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).arg("-ldl").status()?;
        assert!(compiled.success(), "the shim does not compile");
        let bench = Self { dir, recorder, shim, tools };
        bench.set_wall(0)?;
        Ok(bench)
    }

    /// The wall clock shows this many seconds more than the machine's.
    fn set_wall(&self, offset_s: i64) -> std::io::Result<()> {
        let (new, file) = (self.tools.path().join("new"), self.tools.path().join("offset"));
        fs::write(&new, offset_s.to_string())?;
        fs::rename(new, file)
    }

    fn serve(&self) -> std::io::Result<Running> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
        command.args(["serve", "--listen", "none"]).arg(self.dir.path());
        let (shim, offset) = (self.shim.display().to_string(), self.tools.path().join("offset").display().to_string());
        Ok(healthy(spawn(command, [("LD_PRELOAD", &shim), ("WALL_OFFSET", &offset)])?, self.dir.path()))
    }

    fn load(&self, calls: std::ops::Range<u32>) -> Outcome {
        for number in calls {
            let call = json!({"upstream": "api", "end_point": format!("/{number}"), "deadline": "2h"});
            drop_file(self.dir.path(), format!("{number}.json"), &call.to_string())?;
        }
        Ok(())
    }

    fn arrived(&self) -> usize {
        self.recorder.arrivals().len()
    }

    fn until_arrived(&self, count: usize) {
        until(&format!("{count} arrivals"), || (self.arrived() >= count).then_some(()));
    }
}

/// Calls in a state.
fn calls(dir: &Path, state: &str) -> Result<u64, Box<dyn std::error::Error>> {
    get(dir, "/healthz")?.body["calls"][state].as_u64().ok_or_else(|| "no count".into())
}

/// K1, K2: no burst, no mass expiry, no stall, however far it jumps.
fn jumps_while_running(offset_s: i64) -> Outcome {
    let bench = Bench::new(TEN_A_SECOND)?;
    let running = bench.serve()?;
    bench.load(0..60)?;
    bench.until_arrived(15);
    bench.set_wall(offset_s)?;
    let accepted = post_call(bench.dir.path(), &json!({"upstream": "api", "end_point": "/late"}))?;
    let at = accepted.body["accepted_at"].as_str().unwrap_or_default().to_owned();
    assert!(!at.starts_with(&today()), "the wall clock was not set: {at}");
    bench.until_arrived(61);
    let times: Vec<Instant> = bench.recorder.arrivals().iter().map(|arrival| arrival.at).collect();
    let gap = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default();
    assert!(gap < Duration::from_secs(15), "stalled for {gap:?}");
    assert!(bench.recorder.worst_window(Duration::from_secs(1)) <= 10);
    until("all to end", || calls(bench.dir.path(), "succeeded").ok().filter(|count| *count == 61));
    assert_eq!(calls(bench.dir.path(), "expired")?, 0);
    drop(running);
    Ok(())
}

fn today() -> String {
    let now = farcall_engine::clock::now().timestamp;
    farcall_engine::outcome::rfc3339(now)[..10].to_owned()
}

#[test]
fn a_wall_clock_set_forward_a_day_makes_no_burst_and_nothing_expire() -> Outcome {
    jumps_while_running(DAY_S)
}

#[test]
fn a_wall_clock_set_back_a_day_stalls_nothing() -> Outcome {
    jumps_while_running(-DAY_S)
}

#[test]
fn what_was_sent_before_a_stop_counts_whatever_the_wall_clock_shows_after_it() -> Outcome {
    for offset_s in [-3_600, 3_600, DAY_S * 400] {
        let bench = Bench::new("[5/1h]")?;
        let running = bench.serve()?;
        bench.load(0..8)?;
        bench.until_arrived(5);
        until("the answers", || calls(bench.dir.path(), "succeeded").ok().filter(|count| *count == 5));
        running.signal(Signal::KILL)?;
        running.finish()?;
        bench.set_wall(offset_s)?;
        let running = bench.serve()?;
        pause(Duration::from_millis(700));
        assert_eq!(bench.arrived(), 5, "with the wall clock {offset_s} s off");
        assert_eq!(calls(bench.dir.path(), "expired")?, 0);
        drop(running);
    }
    Ok(())
}

#[test]
fn a_suspended_process_catches_up_without_a_burst() -> Outcome {
    let bench = Bench::new(TEN_A_SECOND)?;
    let running = bench.serve()?;
    bench.load(0..50)?;
    bench.until_arrived(12);
    running.signal(Signal::STOP)?;
    pause(Duration::from_secs(3));
    let before = bench.arrived();
    running.signal(Signal::CONT)?;
    let resumed = Instant::now();
    bench.until_arrived(before + 1);
    assert!(resumed.elapsed() < Duration::from_secs(15), "{:?}", resumed.elapsed());
    bench.until_arrived(50);
    assert!(bench.recorder.worst_window(Duration::from_secs(1)) <= 10);
    Ok(())
}

/// A container that moves to another machine, or goes on from a snapshot: its boot clock is far ahead, or begins anew.
#[test]
fn what_was_sent_counts_whatever_the_boot_clock_of_another_time_namespace_shows() -> Outcome {
    for offset_s in [30 * DAY_S, 10 - uptime_s()] {
        let bench = Bench::new("[5/1h]")?;
        let running = bench.serve()?;
        bench.load(0..8)?;
        until("the answers", || calls(bench.dir.path(), "succeeded").ok().filter(|count| *count == 5));
        let kill = |running: Running| running.signal(Signal::KILL).and_then(|()| running.finish().map(drop));
        kill(running)?;
        let Some(running) = serve_with_boot_clock(bench.dir.path(), offset_s)? else { return Ok(()) };
        let running = healthy(running, bench.dir.path());
        pause(Duration::from_millis(700));
        assert_eq!(bench.arrived(), 5, "with the boot clock {offset_s} s off");
        assert_eq!(calls(bench.dir.path(), "expired")?, 0, "with the boot clock {offset_s} s off");
        kill(running)?;
        // And back again, where it shows what it showed.
        let running = bench.serve()?;
        pause(Duration::from_millis(700));
        assert_eq!(bench.arrived(), 5, "after the boot clock was {offset_s} s off");
        assert_eq!(calls(bench.dir.path(), "expired")?, 0, "after the boot clock was {offset_s} s off");
        let config = fs::read_to_string(bench.dir.path().join("farcall.yml"))?;
        fs::write(bench.dir.path().join("farcall.yml"), config.replace("[5/1h]", "[50/1h]"))?;
        bench.until_arrived(8);
        drop(running);
    }
    Ok(())
}

#[test]
fn in_another_boot_a_short_window_counts_everything_from_its_beginning() -> Outcome {
    if !has_namespaces() {
        return Ok(());
    }
    let bench = Bench::new("[5/5s]")?;
    let running = bench.serve()?;
    bench.load(0..5)?;
    until("the answers", || calls(bench.dir.path(), "succeeded").ok().filter(|count| *count == 5));
    running.signal(Signal::TERM)?;
    running.finish()?;
    // Long enough for the window to be empty by any clock of this boot.
    pause(Duration::from_millis(5_500));
    let boot_id = bench.tools.path().join("boot_id");
    fs::write(&boot_id, "00000000-0000-4000-8000-000000000001\n")?;
    let mount = format!("mount --bind {} /proc/sys/kernel/random/boot_id", boot_id.display());
    let begun = Instant::now();
    let running = healthy(serve_after(bench.dir.path(), &mount)?, bench.dir.path());
    bench.load(5..10)?;
    bench.until_arrived(10);
    let delay = bench.recorder.arrivals()[5].at.saturating_duration_since(begun);
    assert!((Duration::from_secs(5)..Duration::from_secs(8)).contains(&delay), "{delay:?}");
    drop(running);
    Ok(())
}
