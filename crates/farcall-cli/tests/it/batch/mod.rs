//! `farcall batch`: a line is a call, and has one result, whatever happens in between.

mod examples;
mod policy;
mod results;
mod resuming;
mod streams;
mod through;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::rig::command::{Running, start};
use crate::rig::recorder::Recorder;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A folder with an input of some lines.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn with(lines: impl IntoIterator<Item = String>) -> std::io::Result<Self> {
        let desk = Self { folder: tempfile::tempdir()? };
        desk.write(lines)?;
        Ok(desk)
    }

    /// So many POSTs to `/1`, `/2` and so on.
    fn with_posts(upstream: &Recorder, count: u32) -> std::io::Result<Self> {
        Self::with((1..=count).map(|number| post(upstream, number)))
    }

    fn write(&self, lines: impl IntoIterator<Item = String>) -> std::io::Result<()> {
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        fs::write(self.path("calls.ndjson"), text)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a batch of this input, with these words behind it; `@` stands for the folder.
    fn start(&self, words: &str) -> std::io::Result<Running> {
        let folder = self.folder.path().display().to_string();
        let words: Vec<String> = words.split_whitespace().map(|word| word.replace('@', &folder)).collect();
        let input = self.path("calls.ndjson").display().to_string();
        start(["batch".to_owned(), input].into_iter().chain(words), [])
    }

    /// The lines of a file of results.
    fn results(&self, name: &str) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        parsed(&fs::read_to_string(self.path(name))?)
    }
}

fn post(upstream: &Recorder, number: u32) -> String {
    json!({"url": format!("{}/{number}", upstream.url()), "body": {"number": number}}).to_string()
}

fn parsed(text: &str) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn lines(results: &[Value]) -> Vec<u64> {
    results.iter().filter_map(|result| result["line"].as_u64()).collect()
}

fn states(results: &[Value]) -> Vec<&str> {
    results.iter().filter_map(|result| result["state"].as_str()).collect()
}

/// How often each path was asked for.
fn arrivals_by_path(upstream: &Recorder) -> std::collections::BTreeMap<String, usize> {
    let mut count = std::collections::BTreeMap::new();
    for arrival in upstream.arrivals().iter() {
        *count.entry(arrival.path.clone()).or_default() += 1;
    }
    count
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
