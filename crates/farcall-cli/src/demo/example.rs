//! The example directory: its configuration, and call files as users drop them.
//!
//! Only in a directory that was empty; what the tour leaves there stays, to be looked at.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde_json::Value;

use super::upstream::LIMIT_PER_SECOND;
use crate::directory;
use crate::exit::Failure;

/// Names tried for a temporary directory.
const NAMES_MAX: u32 = 10_000;
/// Where callbacks write a line each.
pub(crate) const CALLBACK_LOG: &str = "callbacks.log";

/// A directory with a configuration for the tour's upstream.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) directory: PathBuf,
    /// `http://127.0.0.1:PORT`
    upstream: String,
}

impl Example {
    /// Writes the configuration into an empty directory, the given one or a new temporary one.
    ///
    /// # Errors
    /// When the directory holds anything already, or cannot be used.
    pub(crate) fn create(given: Option<&Path>, temporary: &Path, upstream: String) -> Result<Self, Failure> {
        let directory = match given {
            Some(dir) => empty(dir)?,
            None => directory::existing(&new_temporary(temporary).map_err(Failure::directory)?)?,
        };
        let example = Self { directory, upstream };
        fs::write(example.directory.join("farcall.yml"), example.configuration()).map_err(Failure::directory)?;
        Ok(example)
    }

    /// The text of `farcall.yml`.
    pub(crate) fn configuration(&self) -> String {
        let Self { upstream, .. } = self;
        format!(
            "\
# `farcall init` writes a configuration that explains every key.
server: {{ listen: 127.0.0.1:0 }}      # any free port
upstreams:
  shop:
    base_url: {upstream}/shop
    retry: {{ max: 3, base: 200ms }}
    callback_success: sh -c 'echo \"$FARCALL_FILE $FARCALL_STATUS\" >> {CALLBACK_LOG}'
  limited:
    base_url: {upstream}/limited
    rate_second: {LIMIT_PER_SECOND}
"
        )
    }

    /// A call file for a path of the upstream; `base` is `shop` or `limited`.
    pub(crate) fn call(&self, base: &str, end_point: &str, body: &Value) -> String {
        let Self { upstream, .. } = self;
        format!("{{ \"base_url\": \"{upstream}/{base}\", \"end_point\": \"{end_point}\",\n  \"body\": {body} }}\n")
    }

    /// Drops a call file as the README recommends: written under another name, then renamed.
    pub(crate) fn drop_file(&self, name: &str, text: &str) -> io::Result<()> {
        let path = self.directory.join(name);
        let unfinished = self.directory.join(format!("{name}.tmp"));
        fs::write(&unfinished, text)?;
        fs::rename(unfinished, path)
    }

    /// The response file, once it is there.
    pub(crate) fn response(&self, name: &str) -> Option<Value> {
        let text = fs::read(self.directory.join("responses").join(name)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The lines that callbacks have written.
    pub(crate) fn callbacks(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join(CALLBACK_LOG)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn empty(dir: &Path) -> Result<PathBuf, Failure> {
    let directory = directory::prepare(dir)?;
    let mut entries = fs::read_dir(&directory).map_err(Failure::directory)?;
    if entries.next().is_some() {
        let failure = Failure::usage(format!("{} is not empty", dir.display()));
        return Err(failure.with_hint("the demo writes its own configuration and call files; name a new directory"));
    }
    Ok(directory)
}

/// Makes `farcall-demo-1`, or the next that nobody has made.
fn new_temporary(temporary: &Path) -> anyhow::Result<PathBuf> {
    for number in 1..=NAMES_MAX {
        let path = temporary.join(format!("farcall-demo-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(anyhow!(error).context(format!("cannot make {}", path.display()))),
        }
    }
    Err(anyhow!("there are {NAMES_MAX} demo directories in {} already", temporary.display()))
}
