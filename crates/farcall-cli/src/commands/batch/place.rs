//! Where a batch lies: its input, its output, and the folder of what it has to remember.
//!
//! A batch of its own works in a folder beside its output, or beside its input: `results.ndjson.farcall/`. With `--dir` it
//! works in that directory's store, and its journal lies in `DIR/.farcall/batches/`.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use farcall_engine::batch::{self, Journal, JournalError};

use super::RESTART;
use crate::args::batch::BatchArgs;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// What the folder of a batch adds to the name of its output or input.
const FOLDER_SUFFIX: &str = ".farcall";
const JOURNAL: &str = "batch.ndjson";
/// Who reads or writes a stream instead of a file.
const STREAM: &str = "-";

/// Where a batch lies.
#[derive(Debug)]
pub(super) struct Place {
    /// In which the engine works.
    pub(super) directory: PathBuf,
    /// The directory is the batch's alone.
    is_own: bool,
    pub(super) journal: PathBuf,
    /// Of lines whose ids somebody else gave them.
    pub(super) ids: PathBuf,
    input: Source,
    pub(super) output: Sink,
}

#[derive(Debug)]
enum Source {
    Stdin,
    File(File),
}

/// Where results go.
#[derive(Debug)]
pub(super) enum Sink {
    /// What is in it tells what was written.
    File(File),
    Stream(File),
}

impl Place {
    /// Finds the place. Nothing is made but an output that is not there yet.
    ///
    /// # Errors
    /// With exit code 2 when input or output cannot be used, 4 when the output belongs to something else.
    pub(super) fn of(context: &Context, args: &BatchArgs) -> Result<Self, Failure> {
        let input = source(&args.file)?;
        let (output, path) = sink(args)?;
        if let (Source::File(input), Sink::File(output)) = (&input, &output) {
            refuse_same(input, output)?;
        }
        let beside = match (path, &input) {
            (Some(output), _) => Some(output),
            (None, Source::File(_)) => Some(args.file.as_path()),
            (None, Source::Stdin) => None,
        };
        let (directory, journal) = match (&args.dir, beside) {
            (Some(dir), _) => (dir.clone(), dir.join(".farcall/batches").join(name_within(&args.file, path)?)),
            (None, Some(path)) => in_folder(folder_beside(path)),
            (None, None) => in_folder(temporary(context)),
        };
        let ids = journal.with_extension("ids");
        let place = Self { directory, is_own: args.dir.is_none(), journal, ids, input, output };
        place.refuse_foreign_output(args)?;
        Ok(place)
    }

    /// Reads the input from its beginning.
    pub(super) fn reader(&self) -> Result<Box<dyn Read + Send>, Failure> {
        match &self.input {
            Source::Stdin => Ok(Box::new(io::stdin())),
            Source::File(file) => Ok(Box::new(file.try_clone().map_err(Failure::directory)?)),
        }
    }

    /// The input's size in bytes; nothing for a stream.
    pub(super) fn input_bytes(&self) -> Option<u64> {
        match &self.input {
            Source::Stdin => None,
            Source::File(file) => file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len()),
        }
    }

    /// Makes the folder that the journal lies in.
    pub(super) fn make_journal_folder(&self) -> Result<(), Failure> {
        let folder = self.journal.parent().expect("a journal lies in a folder");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("cannot make {}", folder.display())).map_err(Failure::directory)
    }

    /// Forgets a batch that was begun, and empties its output. Of one within a directory the calls stay.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        let removed = if self.is_own { self.remove_directory() } else { fs::remove_file(&self.journal) };
        if_there(removed).context("cannot forget the batch that was begun").map_err(Failure::directory)?;
        self.forget_ids()?;
        self.empty_output()
    }

    /// The same where no lock of a directory has told that nobody is at it.
    pub(super) fn restart_unless_under_way(&mut self) -> Result<(), Failure> {
        match Journal::open(&self.journal, |_| false) {
            Err(error @ JournalError::InUse) => return Err(Failure::directory(error)),
            // Whatever is in it is to be forgotten.
            Ok(_) | Err(JournalError::Io(_) | JournalError::Damaged { .. }) => {}
        }
        self.restart()
    }

    /// What an earlier batch of this name was given is none of the next one's.
    pub(super) fn forget_ids(&self) -> Result<(), Failure> {
        let removed = if_there(fs::remove_file(&self.ids));
        removed.context("cannot forget the ids of an earlier batch").map_err(Failure::directory)
    }

    fn empty_output(&self) -> Result<(), Failure> {
        let Sink::File(output) = &self.output else { return Ok(()) };
        output.set_len(0).context("cannot empty the output").map_err(Failure::directory)
    }

    /// Removes what is needed no more once all results are durable: the batch's own store; of results in a stream,
    /// everything. Within a directory calls stay as long as its configuration says.
    pub(super) fn tidy_up(&self) -> Result<(), Failure> {
        let removed = match (&self.output, self.is_own) {
            (Sink::File(_), true) => {
                // Empty, or somebody put something there.
                ["requests", "responses", "rejected"]
                    .iter()
                    .for_each(|name| drop(fs::remove_dir(self.directory.join(name))));
                fs::remove_dir_all(self.directory.join(".farcall"))
            }
            (Sink::File(_), false) => Ok(()),
            (Sink::Stream(_), false) => fs::remove_file(&self.journal),
            (Sink::Stream(_), true) => self.remove_directory(),
        };
        if_there(removed).context("cannot remove what the batch needs no more").map_err(Failure::directory)?;
        self.forget_ids()
    }

    /// At one go: half a folder would be half a batch.
    fn remove_directory(&self) -> io::Result<()> {
        let mut removed = self.directory.clone().into_os_string();
        removed.push(format!(".{}.tmp", std::process::id()));
        fs::rename(&self.directory, &removed)?;
        fs::remove_dir_all(&removed)
    }

    /// Whether nothing is left of it when it is killed: there is no name to find it by.
    pub(super) fn is_forgetful(&self, args: &BatchArgs) -> bool {
        matches!((&self.input, &self.output), (Source::Stdin, Sink::Stream(_))) && args.dir.is_none()
    }

    /// A file that something else wrote is never cut or added to.
    fn refuse_foreign_output(&self, args: &BatchArgs) -> Result<(), Failure> {
        let (Sink::File(output), Some(path)) = (&self.output, &args.out) else { return Ok(()) };
        let length = output.metadata().map_err(Failure::directory)?.len();
        if length == 0 || args.restart || self.journal.exists() {
            return Ok(());
        }
        let error = anyhow!("{} is there already, and no batch that was begun has written it", path.display());
        Err(Failure::new(Exit::Conflict, error).with_hint("remove it, name another, or empty it with --restart"))
    }
}

/// What is not there need not be removed.
fn if_there(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn source(path: &Path) -> Result<Source, Failure> {
    if path == Path::new(STREAM) {
        return Ok(Source::Stdin);
    }
    let unreadable = |error: io::Error| {
        Failure::new(Exit::Usage, anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(Failure::usage(format!("{} is a folder, and no file of calls", path.display())));
    }
    Ok(Source::File(file))
}

/// Where results go, and its path when that is a regular file.
fn sink(args: &BatchArgs) -> Result<(Sink, Option<&Path>), Failure> {
    let Some(path) = args.out.as_deref().filter(|path| *path != Path::new(STREAM)) else {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        return stdout.map(|stdout| (Sink::Stream(stdout.into()), None)).map_err(|error| {
            Failure::new(Exit::Usage, anyhow::Error::new(error).context("standard output is closed"))
        });
    };
    let is_stream = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let opened = OpenOptions::new().read(!is_stream).write(true).create(!is_stream).open(path);
    let file = opened.with_context(|| format!("cannot write to {}", path.display()));
    let file = file.map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(if is_stream { (Sink::Stream(file), None) } else { (Sink::File(file), Some(path)) })
}

fn refuse_same(input: &File, output: &File) -> Result<(), Failure> {
    let [input, output] = [input, output].map(|file| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())));
    match (input, output) {
        (Ok(input), Ok(output)) if input == output => Err(Failure::usage("input and output are the same file")),
        _ => Ok(()),
    }
}

fn in_folder(folder: PathBuf) -> (PathBuf, PathBuf) {
    let journal = folder.join(JOURNAL);
    (folder, journal)
}

fn folder_beside(path: &Path) -> PathBuf {
    let mut folder: OsString = path.into();
    folder.push(FOLDER_SUFFIX);
    folder.into()
}

fn temporary(context: &Context) -> PathBuf {
    context.environment.temporary.join(format!("farcall-batch-{}", std::process::id()))
}

/// The name of a batch's journal among those of a directory: by where its input and output are.
fn name_within(input: &Path, output: Option<&Path>) -> Result<String, Failure> {
    let absolute = |path: &Path| -> Result<PathBuf, Failure> {
        let found = path.canonicalize().with_context(|| format!("cannot find {}", path.display()));
        found.map_err(|error| Failure::new(Exit::Usage, error))
    };
    let input = if input == Path::new(STREAM) { PathBuf::from(STREAM) } else { absolute(input)? };
    let output = output.map_or(Ok(PathBuf::from(STREAM)), absolute)?;
    Ok(format!("{}.ndjson", batch::name_of(&[input.as_os_str().as_bytes(), output.as_os_str().as_bytes()])))
}

impl Sink {
    /// The same, for whoever writes.
    pub(super) fn output(&self) -> Result<batch::Output, Failure> {
        Ok(match self {
            Self::File(file) => batch::Output::File(file.try_clone().map_err(Failure::directory)?),
            Self::Stream(file) => {
                let stream: Box<dyn Write + Send> = Box::new(file.try_clone().map_err(Failure::directory)?);
                batch::Output::Stream(stream)
            }
        })
    }
}

/// An error about a batch that is not the one that was begun.
pub(super) fn conflict(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Conflict, error).with_hint(RESTART)
}
