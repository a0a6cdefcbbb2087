//! The working directory as hostile as it gets: `farcall serve` on files and folders that nobody planned for.
//!
//! Which rule of the inbox each test holds is listed in `docs/promises.md`.

mod arrival;
mod folders;
mod many;
mod names;
mod odd;
mod swapped;

use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::rig::command::{Running, start};
use crate::rig::confined::healthy;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A working directory and an upstream that answers 200 to everything.
struct Place {
    home: TempDir,
    upstream: Recorder,
}

impl Place {
    /// With the directory made, a configuration of these lines, and nobody serving yet.
    fn new(config: &str) -> std::io::Result<Self> {
        let place = Self { home: tempfile::tempdir()?, upstream: Recorder::start(|_, _| Reply::new(200))? };
        std::fs::create_dir(place.dir())?;
        std::fs::write(place.path("farcall.yml"), config)?;
        // Other users reach what is inside.
        std::fs::set_permissions(place.home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(place)
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("calls")
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir().join(name)
    }

    fn spawn(&self) -> std::io::Result<Running> {
        start([Path::new("serve"), Path::new("--listen"), Path::new("none"), &self.dir()], [])
    }

    /// Serves, and waits until it answers.
    fn serve(&self) -> std::io::Result<Running> {
        Ok(healthy(self.spawn()?, &self.dir()))
    }

    /// Serves, and waits until the inbox is watched: what comes from then on is seen as it comes, and in its order.
    fn serve_watching(&self) -> std::io::Result<Running> {
        let running = self.serve()?;
        let link = self.path("watched.json");
        std::os::unix::fs::symlink("nowhere", &link)?;
        said(&running, "ignored in the inbox: a symbolic link");
        std::fs::remove_file(link)?;
        Ok(running)
    }

    /// A call of this number to the upstream.
    fn call(&self, number: u32) -> String {
        json!({"url": format!("{}/{number}", self.upstream.url())}).to_string()
    }

    /// How often each call arrived: paths in order of arrival.
    fn arrivals(&self) -> Vec<String> {
        self.upstream.arrivals().iter().map(|arrival| arrival.path.clone()).collect()
    }

    fn await_arrivals(&self, count: usize) {
        until("calls to arrive", || (self.upstream.arrivals().len() >= count).then_some(()));
    }
}

/// Waits until the program has said this on stderr.
fn said(running: &Running, words: &str) {
    until(&format!("{words:?} in the log"), || running.stderr().contains(words).then_some(()));
}

/// How often it has said so.
fn times_said(running: &Running, words: &str) -> usize {
    running.stderr().matches(words).count()
}

/// The names in a folder, hidden ones left out, in order.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(names)
}
