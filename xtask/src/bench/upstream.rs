//! The upstream of a round, as a process beside what is measured: where it is, and what arrived there.
//!
//! Each round has its own, so that its counts and its processor time are the round's alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_gauge::Process;
use serde_json::Value;

use super::programs::Programs;

/// A running upstream; it ends with this.
pub(super) struct Upstream {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(super) address: String,
}

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) distinct: u64,
    pub(super) first_us: u64,
    pub(super) last_us: u64,
}

impl Upstream {
    pub(super) fn start(programs: &Programs) -> Result<Self> {
        Self::run(programs.command("bench-upstream"))
    }

    /// The same, on this core alone.
    pub(super) fn start_on(programs: &Programs, core: u32) -> Result<Self> {
        Self::run(programs.pinned(core, "bench-upstream"))
    }

    fn run(mut command: Command) -> Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run the upstream")?;
        let commands = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("the upstream has a stdout")?);
        let mut address = String::new();
        answers.read_line(&mut address)?;
        Ok(Self { child, commands, answers, address: address.trim_end().to_owned() })
    }

    pub(super) fn tally(&mut self) -> Result<Tally> {
        let answer = self.ask("tally")?;
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        Ok(Tally {
            count: number("count"),
            distinct: number("distinct"),
            first_us: number("first_us"),
            last_us: number("last_us"),
        })
    }

    /// Waits until so many calls have arrived.
    pub(super) fn arrived(&mut self, count: u64, patience: Duration) -> Result<Tally> {
        let until = Instant::now() + patience;
        loop {
            let tally = self.tally()?;
            if tally.count >= count {
                return Ok(tally);
            }
            ensure!(Instant::now() < until, "only {} of {count} calls arrived in {patience:?}", tally.count);
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A number that it tells of so many microseconds: `worst`, `within` or `after`.
    pub(super) fn number(&mut self, what: &str, us: u64) -> Result<u64> {
        self.ask(&format!("{what} {us}"))?[what].as_u64().with_context(|| format!("the upstream knows no {what}"))
    }

    /// Forgets what has arrived.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.ask("reset").map(drop)
    }

    /// Each of so many calls arrived, and none twice.
    pub(super) fn exactly_once(&mut self, count: u64) -> Result<Tally> {
        let tally = self.tally()?;
        ensure!((tally.count, tally.distinct) == (count, count), "{count} calls were made, and {tally:?} arrived");
        Ok(tally)
    }

    /// Processor seconds so far.
    pub(super) fn cpu_s(&self) -> Result<f64> {
        Ok(Process::of(self.child.id()).cpu()?.as_secs_f64())
    }

    fn ask(&mut self, command: &str) -> Result<Value> {
        let commands = self.commands.as_mut().context("the upstream listens")?;
        writeln!(commands, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("the upstream answered {answer:?}"))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It ends when nobody can ask it anything any more.
        drop(self.commands.take());
        let _ = self.child.wait();
    }
}
