//! `farcall init [DIR]`: writes the configuration that explains itself.
//!
//! Never over one that is there, under either of its names.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use farcall_engine::config;

use crate::args::Dir;
use crate::context::Context;
use crate::directory;
use crate::exit::{Exit, Failure};

pub(crate) fn run(context: &Context, dir: &Dir) -> Result<Exit, Failure> {
    if let Some(setting) = context.global.settings.given.first() {
        return Err(Failure::usage(format!("init takes no settings; write {} into the file", setting.origin)));
    }
    let dir = directory::prepare(&context.directory(dir)?)?;
    let path = context.global.config.clone().unwrap_or_else(|| dir.join("farcall.yml"));
    if let Some(present) = in_the_way(context, &dir, &path) {
        return Err(there_already(&present));
    }
    match write_new(&path, config::init_text()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(there_already(&path)),
        Err(error) => {
            let error = anyhow::Error::new(error).context(format!("cannot write {}", path.display()));
            return Err(Failure::directory(error));
        }
    }
    context.screen.result(path.display());
    if !context.global.quiet {
        context.screen.tell(format_args!("Next: name your upstreams there, then `farcall check {}`.", dir.display()));
    }
    Ok(Exit::Ok)
}

/// A directory has one configuration: the other name counts too.
fn in_the_way(context: &Context, dir: &Path, path: &Path) -> Option<PathBuf> {
    let other = dir.join("kofaf.yml");
    let names_another = context.global.config.is_some();
    [Some(path.to_owned()), (!names_another).then_some(other)]
        .into_iter()
        .flatten()
        .find(|path| path.symlink_metadata().is_ok())
}

fn there_already(path: &Path) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{} is there already; it was left as it is", path.display()))
}

/// Secrets may be written into it later, so it is its owner's alone.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
