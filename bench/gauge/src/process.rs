//! Processor time and memory of a process, its own or another's.
//!
//! Processor time is that of all its threads, those that have ended too; by thread, of those alive.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, process};

/// The unit of `/proc/<pid>/stat`, part of the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

/// A process to look at.
#[derive(Debug, Clone)]
pub struct Process {
    dir: PathBuf,
}

/// Memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    pub resident_kib: u64,
    /// The most that was resident since its start.
    pub peak_kib: u64,
    /// With shared pages divided among those who share them.
    pub proportional_kib: u64,
}

impl Process {
    pub fn own() -> Self {
        Self::of(process::id())
    }

    pub fn of(id: u32) -> Self {
        Self { dir: format!("/proc/{id}").into() }
    }

    /// Processor time of all its threads, in steps of 10 ms.
    ///
    /// # Errors
    /// When the process has gone; so for all of these.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(self.dir.join("stat"))?;
        // The name, in parentheses, may hold anything; the 14th and 15th fields are user and system time.
        let fields = stat.rsplit_once(") ").ok_or(ErrorKind::InvalidData)?.1;
        let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        let [user, system] = ticks[..] else { return Err(ErrorKind::InvalidData.into()) };
        Ok(Duration::from_millis((user + system) * 1_000 / TICKS_PER_SECOND))
    }

    /// Processor time of the threads alive, by name; threads of one name together.
    ///
    /// # Errors
    /// As [`Process::cpu`].
    pub fn cpu_by_thread(&self) -> io::Result<BTreeMap<String, Duration>> {
        let mut threads = BTreeMap::<String, Duration>::new();
        for task in fs::read_dir(self.dir.join("task"))? {
            let task = task?.path();
            // A thread may end while it is looked at.
            let (Ok(name), Ok(times)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let on_cpu_ns = times.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            *threads.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(on_cpu_ns);
        }
        Ok(threads)
    }

    /// # Errors
    /// As [`Process::cpu`].
    pub fn memory(&self) -> io::Result<Memory> {
        let status = fs::read_to_string(self.dir.join("status"))?;
        let smaps = fs::read_to_string(self.dir.join("smaps_rollup"))?;
        Ok(Memory {
            resident_kib: kib(&status, "VmRSS:"),
            peak_kib: kib(&status, "VmHWM:"),
            proportional_kib: kib(&smaps, "Pss:"),
        })
    }
}

/// The number behind a name in a table of the kernel's.
fn kib(table: &str, name: &str) -> u64 {
    let rest = table.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to() -> io::Result<()> {
        let own = Process::own();
        let before = own.cpu()?;
        let mut sum = 0_u64;
        while own.cpu()? < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let threads: Duration = own.cpu_by_thread()?.values().sum();
        assert!(threads >= Duration::from_millis(10), "{threads:?}");
        let memory = own.memory()?;
        assert!(memory.resident_kib > 100 && memory.peak_kib >= memory.resident_kib, "{memory:?}");
        assert!((1..=memory.resident_kib).contains(&memory.proportional_kib), "{memory:?}");
        Ok(())
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        let nobody = Process::of(u32::MAX);
        assert!(nobody.cpu().is_err() && nobody.memory().is_err() && nobody.cpu_by_thread().is_err());
    }
}
