//! Finding a directory's configuration and reading it, from bytes to [`Config`].
//!
//! Nothing is guessed: two files, or one that everyone may write, are errors; a misnamed one is warned of.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostics, References, SourceId, Span};
use super::model::{Config, Listen};
use super::reader::Reader;
use super::settings::{self, Override};
use super::tree::{self, Entry, Node, Value};
use super::{file, root};

/// The largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

const FARCALL_YML: &str = "farcall.yml";
const KOFAF_YML: &str = "kofaf.yml";
/// What tokens may be given in, whatever the file says.
const TOKEN_VARIABLES: [&str; 2] = ["FARCALL_SERVER_TOKENS", "FARCALL_TOKEN"];
/// Names that people try; none of them is read.
const MISNAMED: [&str; 2] = ["farcall.yaml", "kofaf.yaml"];

/// What the command line and the environment say beside the file.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Another file than the one in the directory (`--config`).
    pub path: Option<PathBuf>,
    /// Settings that take the place of the file's. Of several for one setting the last is taken: put the environment's
    /// first and the flags' behind.
    pub overrides: Vec<Override>,
    /// The program runs under the name `kofaf`: without a file Kofaf's defaults hold, and no port is opened unless an
    /// override asks for one.
    pub kofaf: bool,
    /// What its calls are, unless the file is Kofaf's.
    pub calls: Calls,
}

/// Which calls a configuration is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    #[default]
    Durable,
    /// Somebody waits for each: none is retried but where the file gives `retry`.
    Ephemeral,
}

/// A configuration that is right.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// What is allowed but probably not meant; usually empty.
    pub warnings: Diagnostics,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Every mistake that was found.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// Whoever may write it decides what callbacks run.
    #[error("{} can be written by everyone; take that right away (chmod o-w)", path.display())]
    WritableByEveryone { path: PathBuf },
    #[error("{} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

/// Reads the configuration of a working directory: `farcall.yml` or `kofaf.yml` in it, or the file that the options
/// name. Without a file the defaults hold. Paths in the file are relative to the directory.
///
/// # Errors
/// All mistakes at once, each with its place; a file that everyone can write, or nobody can read.
///
/// # Example
/// ```
/// # use farcall_engine::config::{load, LoadOptions};
/// let dir = tempfile::tempdir()?;
/// std::fs::write(dir.path().join("farcall.yml"), "upstreams:\n  etsy: { base_url: https://openapi.etsy.com, rate_second: 10 }\n")?;
/// let loaded = load(dir.path(), &LoadOptions::default())?;
/// assert_eq!(loaded.config.upstreams["etsy"].policy.limits.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Loaded, LoadError> {
    let mut diagnostics = Diagnostics::default();
    let Some(found) = find(dir, options, &mut diagnostics) else {
        return Err(LoadError::Invalid(diagnostics));
    };
    let bytes = match &found.path {
        Some(path) => read_guarded(path)?,
        None => Vec::new(),
    };
    let name = found.path.as_deref().unwrap_or(dir).display().to_string();
    let references = if found.is_kofaf { References::Literal } else { References::Resolved };
    let tree = match into_text(bytes) {
        Ok(text) => {
            let source = diagnostics.add_source(name, text, references);
            parse(&mut diagnostics, source)
        }
        Err((valid, offset)) => {
            let source = diagnostics.add_source(name, valid, references);
            diagnostics.error(Span::new(source, offset..offset), "the file is not UTF-8 text from here on");
            None
        }
    };
    let Some(tree) = tree else {
        return Err(LoadError::Invalid(diagnostics));
    };
    let mut reader = Reader { dir, diagnostics, secret_variables: TOKEN_VARIABLES.map(str::to_owned).into() };
    let mut config = interpret(&mut reader, tree, options, &found);
    config.path = found.path;
    let diagnostics = reader.diagnostics.finish();
    if diagnostics.has_errors() {
        return Err(LoadError::Invalid(diagnostics));
    }
    Ok(Loaded { config, warnings: diagnostics })
}

struct Found {
    path: Option<PathBuf>,
    is_kofaf: bool,
}

fn find(dir: &Path, options: &LoadOptions, diagnostics: &mut Diagnostics) -> Option<Found> {
    if let Some(path) = &options.path {
        let name = path.file_name().unwrap_or_default();
        let is_kofaf = name == KOFAF_YML || (options.kofaf && name != FARCALL_YML);
        return Some(Found { path: Some(path.clone()), is_kofaf });
    }
    for name in MISNAMED.into_iter().filter(|name| is_present(&dir.join(name))) {
        let read = name.replace(".yaml", ".yml");
        diagnostics.warning_about(&dir.join(name), "not read").hint(format!("rename it to `{read}`"));
    }
    let (farcall, kofaf) = (dir.join(FARCALL_YML), dir.join(KOFAF_YML));
    match (is_present(&farcall), is_present(&kofaf)) {
        (true, true) => {
            diagnostics
                .error_without_place(format!("{} holds both {FARCALL_YML} and {KOFAF_YML}", dir.display()))
                .hint("remove one of them, or name the one you mean with --config");
            None
        }
        (true, false) => Some(Found { path: Some(farcall), is_kofaf: false }),
        (false, true) => Some(Found { path: Some(kofaf), is_kofaf: true }),
        (false, false) => Some(Found { path: None, is_kofaf: options.kofaf }),
    }
}

/// Also true for what cannot be looked at: reading it then says why.
fn is_present(path: &Path) -> bool {
    path.symlink_metadata().map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}

fn read_guarded(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let (opened, metadata) = file::open(path).map_err(unreadable)?;
    if is_writable_by_everyone(&metadata) {
        return Err(LoadError::WritableByEveryone { path: path.to_owned() });
    }
    file::read_opened(&opened, CONFIG_BYTES_MAX).map_err(unreadable)
}

fn is_writable_by_everyone(metadata: &Metadata) -> bool {
    metadata.mode() & 0o002 != 0
}

/// The text without a byte order mark; else the part that is text, and how long it is.
fn into_text(bytes: Vec<u8>) -> Result<String, (String, usize)> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            Err((String::from_utf8_lossy(&error.as_bytes()[..offset]).into_owned(), offset))
        }
    }
}

fn parse(diagnostics: &mut Diagnostics, source: SourceId) -> Option<Node> {
    match tree::parse(source, diagnostics.text(source)) {
        Ok(Some(node)) => Some(node),
        Ok(None) => Some(Node { span: Span::new(source, 0..0), value: Value::Null }),
        Err(error) => {
            let diagnostic = diagnostics.error(error.span, error.message);
            if let Some(hint) = error.hint {
                diagnostic.hint(hint);
            }
            None
        }
    }
}

fn interpret(reader: &mut Reader<'_>, mut tree: Node, options: &LoadOptions, found: &Found) -> Config {
    let mut config = if found.is_kofaf {
        let mut entries: Vec<Entry> = Vec::new();
        settings::apply(&mut reader.diagnostics, &mut entries, &options.overrides);
        root::read_kofaf(reader, &tree, &Node { span: tree.span, value: Value::Map(entries) })
    } else {
        if tree.value == Value::Null {
            tree.value = Value::Map(Vec::new());
        }
        if let Value::Map(entries) = &mut tree.value {
            settings::apply(&mut reader.diagnostics, entries, &options.overrides);
        }
        root::read_farcall(reader, &tree, options.calls)
    };
    let asks_to_listen = |given: &Override| (given.section.as_str(), given.key.as_str()) == ("server", "listen");
    if options.kofaf && !options.overrides.iter().any(asks_to_listen) {
        config.server.listen = Listen::None;
    }
    config
}
