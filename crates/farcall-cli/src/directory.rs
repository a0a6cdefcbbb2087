//! The working directory before anything is done in it: found, made, and refused when others could write it.
//!
//! What stands in it belongs to the engine.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::exit::{Exit, Failure};

/// The directory as an absolute path without links; made with mode 0700 when it is missing.
///
/// # Errors
/// When it cannot be read and written, or everyone can write in it.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf, Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the directory {}", dir.display())).map_err(Failure::directory)?;
    let path = existing(dir)?;
    // Files are taken out of it: one that only can be read would be executed and never leave.
    let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, &path, rights, AtFlags::EACCESS)
        .with_context(|| format!("cannot read and write in {}", dir.display()))
        .map_err(Failure::directory)?;
    Ok(path)
}

/// The same for a directory that must be there.
///
/// # Errors
/// When it cannot be used, or everyone can write in it.
pub(crate) fn existing(dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return Failure::directory(anyhow!("there is no directory {}", dir.display()));
        }
        Failure::directory(anyhow::Error::new(error).context(format!("cannot use the directory {}", dir.display())))
    };
    let path = dir.canonicalize().map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_dir() {
        return Err(Failure::directory(anyhow!("{} is no directory", dir.display())));
    }
    // Whoever can write here decides what is called and, by the configuration, what is run.
    if metadata.mode() & 0o002 != 0 {
        let failure = Failure::directory(anyhow!("everyone can write in {}", dir.display()));
        return Err(failure.with_hint(format!("take that right away: chmod o-w {}", dir.display())));
    }
    Ok(path)
}

/// The names of the call files that wait in a directory, as they may be shown; none when it cannot be read.
pub(crate) fn call_files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = files.map(|entry| entry.file_name().as_encoded_bytes().escape_ascii().to_string());
    names.filter(|name| name.ends_with(".json") && !name.starts_with('.')).collect()
}

/// The directory that was given, or the one in the user's home.
///
/// # Errors
/// When none was given and there is no home.
pub(crate) fn named(given: Option<&Path>, home: Option<&Path>, default: &str) -> Result<PathBuf, Failure> {
    match (given, home) {
        (Some(dir), _) => Ok(dir.to_owned()),
        (None, Some(home)) => Ok(home.join(default)),
        (None, None) => Err(Failure::new(Exit::Usage, anyhow!("there is no home directory; name a directory"))),
    }
}
