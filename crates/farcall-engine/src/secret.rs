//! Secret references: `${env:NAME}` and `${file:PATH}` inside a configured value.
//!
//! A [`Template`] holds the text with its references unresolved; resolving happens at the time of sending, and the
//! result is never stored, logged or returned. One of two places that read the environment. A literal `${` is written
//! `$${`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::file;

/// The largest file a reference may name, in bytes.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A configured value that may hold references to secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

/// A resolved value. It shows itself to nobody: read it with [`Secret::expose`], at the place of use.
#[derive(Clone)]
pub struct Secret(String);

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{mistake}")]
pub struct TemplateError {
    pub mistake: TemplateMistake,
    /// The bytes of the text at fault.
    pub range: Range<usize>,
}

/// What is wrong with a reference as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateMistake {
    #[error("this reference is never closed with `}}`")]
    Unclosed,
    #[error("this reference names nothing")]
    Nameless,
    #[error("`{written}` is no reference")]
    UnknownKind {
        written: String,
        /// The name without a kind, where that is what was written.
        bare: Option<String>,
    },
}

/// Why a template has no value at present. Names the reference, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("`{reference}` is not set")]
    Unset { reference: String },
    #[error("`{reference}` is empty")]
    Empty { reference: String },
    #[error("`{reference}` cannot be read")]
    Unreadable { reference: String, source: io::Error },
    #[error("`{reference}` is not UTF-8 text")]
    NotText { reference: String },
    #[error("`{reference}` holds a line break or another control character, which no header can")]
    ControlCharacter { reference: String },
    #[error("a line break or another control character stands here, which no header can hold")]
    ControlCharacterInText,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Environment { name: String },
    File { path: PathBuf },
}

impl Template {
    /// Reads a text and finds its references.
    ///
    /// # Errors
    /// A reference that is not closed, names nothing or is of no known kind.
    ///
    /// # Example
    /// ```
    /// # use farcall_engine::secret::Template;
    /// let template = Template::parse("Bearer ${env:ETSY_TOKEN}")?;
    /// assert!(template.has_references());
    /// assert_eq!(template.as_written(), "Bearer ${env:ETSY_TOKEN}");
    /// # Ok::<(), farcall_engine::secret::TemplateError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${").map(|offset| at + offset) {
            if text[at..found].ends_with('$') {
                literal.push_str(&text[at..found - 1]);
                literal.push_str("${");
                at = found + 2;
                continue;
            }
            literal.push_str(&text[at..found]);
            let (part, end) = reference(text, found)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
            at = end;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// A text in which nothing is a reference.
    pub fn literal(text: &str) -> Self {
        Self { text: text.to_owned(), parts: vec![Part::Literal(text.to_owned())] }
    }

    /// The environment's variables that it refers to.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Environment { name } => Some(name.as_str()),
            Part::Literal(_) | Part::File { .. } => None,
        })
    }

    /// The text as it was configured, references unresolved.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    pub fn has_references(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Literal(_)))
    }

    /// The value at present. Paths of `${file:PATH}` are relative to `base_dir`; one newline at the end of a file is
    /// left out. Reads the environment and files: call it when the value is needed, and keep the result no longer.
    ///
    /// # Errors
    /// A reference that is unset, empty, unreadable or not text, and a value that no header can hold.
    pub fn resolve(&self, base_dir: &Path) -> Result<Secret, SecretError> {
        let mut value = String::new();
        for part in &self.parts {
            value.push_str(&part.resolve(base_dir)?);
        }
        Ok(Secret(value))
    }
}

impl Part {
    fn resolve(&self, base_dir: &Path) -> Result<String, SecretError> {
        let value = match self {
            Self::Literal(text) if fits_header(text) => return Ok(text.clone()),
            Self::Literal(_) => return Err(SecretError::ControlCharacterInText),
            Self::Environment { name } => self.environment(std::env::var_os(name))?,
            Self::File { path } => self.file(&base_dir.join(path))?,
        };
        match value.as_str() {
            "" => Err(SecretError::Empty { reference: self.written() }),
            text if !fits_header(text) => Err(SecretError::ControlCharacter { reference: self.written() }),
            _ => Ok(value),
        }
    }

    fn environment(&self, value: Option<OsString>) -> Result<String, SecretError> {
        let Some(value) = value else {
            return Err(SecretError::Unset { reference: self.written() });
        };
        value.into_string().map_err(|_| SecretError::NotText { reference: self.written() })
    }

    fn file(&self, path: &Path) -> Result<String, SecretError> {
        let bytes = file::read(path, SECRET_BYTES_MAX)
            .map_err(|source| SecretError::Unreadable { reference: self.written(), source })?;
        let mut text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { reference: self.written() })?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(text)
    }

    /// The reference as it stands in the text.
    fn written(&self) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Environment { name } => format!("${{env:{name}}}"),
            Self::File { path } => format!("${{file:{}}}", path.display()),
        }
    }
}

impl Secret {
    /// The value itself. Never log, store or return it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl SecretError {
    /// The reference at fault, as written; nothing when it is the text around the references.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Unset { reference }
            | Self::Empty { reference }
            | Self::Unreadable { reference, .. }
            | Self::NotText { reference }
            | Self::ControlCharacter { reference } => Some(reference),
            Self::ControlCharacterInText => None,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The reference that begins at `start` with `${`, and where it ends.
fn reference(text: &str, start: usize) -> Result<(Part, usize), TemplateError> {
    let fail = |mistake, end| Err(TemplateError { mistake, range: start..end });
    let Some(end) = text[start..].find('}').map(|offset| start + offset + 1) else {
        return fail(TemplateMistake::Unclosed, text.len());
    };
    let inside = &text[start + 2..end - 1];
    match inside.split_once(':') {
        Some(("env" | "file", "")) => fail(TemplateMistake::Nameless, end),
        Some(("env", name)) if name.contains(['=', '\0']) => fail(TemplateMistake::Nameless, end),
        Some(("env", name)) => Ok((Part::Environment { name: name.to_owned() }, end)),
        Some(("file", path)) => Ok((Part::File { path: PathBuf::from(path) }, end)),
        Some(_) => fail(TemplateMistake::UnknownKind { written: text[start..end].to_owned(), bare: None }, end),
        None => {
            let bare = Some(inside.to_owned()).filter(|name| !name.is_empty());
            fail(TemplateMistake::UnknownKind { written: text[start..end].to_owned(), bare }, end)
        }
    }
}

/// RFC 9110, section 5.5: no control character but the tab.
fn fits_header(text: &str) -> bool {
    http::HeaderValue::from_bytes(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn references_are_put_in_where_they_stand() -> TestResult {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("token"), "t0ken\n")?;
        let check = |text: &str, expected: &str| -> TestResult {
            assert_eq!(Template::parse(text)?.resolve(dir.path())?.expose(), expected, "{text}");
            Ok(())
        };
        check("Bearer ${file:token}", "Bearer t0ken")?;
        check("${file:token}${file:token}!", "t0kent0ken!")?;
        check("${env:CARGO_PKG_NAME}", "farcall-engine")?;
        check("no $reference, $${env:X} { }", "no $reference, ${env:X} { }")?;
        check("", "")?;
        Ok(())
    }

    #[test]
    fn a_failing_reference_is_named_and_no_value_is() -> TestResult {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("empty"), "\n")?;
        std::fs::write(dir.path().join("lines"), "hunter2\nX: y\n")?;
        std::fs::write(dir.path().join("bytes"), [b'h', b'u', 0xff])?;
        std::fs::write(dir.path().join("long"), vec![b'a'; 65_537])?;
        let check = |text: &str, expected: &str| -> TestResult {
            let Err(error) = Template::parse(text)?.resolve(dir.path()) else { return Err(text.into()) };
            assert_eq!(error.to_string(), expected, "{text}");
            assert!(!format!("{error:?}").contains("hunter2"));
            Ok(())
        };
        check("${env:FARCALL_NO_SUCH_VARIABLE}", "`${env:FARCALL_NO_SUCH_VARIABLE}` is not set")?;
        check("${file:absent}", "`${file:absent}` cannot be read")?;
        check("${file:empty}", "`${file:empty}` is empty")?;
        check("${file:bytes}", "`${file:bytes}` is not UTF-8 text")?;
        check("${file:long}", "`${file:long}` cannot be read")?;
        let control = "holds a line break or another control character, which no header can";
        check("a ${file:lines}", &format!("`${{file:lines}}` {control}"))?;
        check("a\r\nb", "a line break or another control character stands here, which no header can hold")?;
        check("a\0b", "a line break or another control character stands here, which no header can hold")
    }

    #[test]
    fn what_is_no_reference_is_refused_with_its_place() {
        let check = |text: &str, range, mistake: &str| {
            let error = Template::parse(text).expect_err("it is no template");
            assert_eq!((error.range.clone(), error.to_string().as_str()), (range, mistake), "{text}");
        };
        check("a ${env:X", 2..9, "this reference is never closed with `}`");
        check("a ${env:} b", 2..9, "this reference names nothing");
        check("${TOKEN}", 0..8, "`${TOKEN}` is no reference");
        check("${evn:TOKEN}", 0..12, "`${evn:TOKEN}` is no reference");
    }

    #[test]
    fn a_secret_does_not_show_itself() -> TestResult {
        let secret = Template::parse("hunter2")?.resolve(Path::new("."))?;
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        Ok(())
    }
}
