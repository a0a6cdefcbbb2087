//! What a callback's command is told: the variables of its words, and the same values in its environment.
//!
//! The words were made once, from the configuration, by shell quoting rules; here values are put in and the result is
//! run directly. No shell reads them again, so no value can start a command, split a word or add an option. Names of
//! files are bytes and stay bytes. When a callback runs, and how often, is decided elsewhere.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use farcall_store::record::CallRecord;

use crate::execute::process::Command;

/// How a call ended, as its callback is told; the same on every try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackValues {
    /// The name of the call file, for a call that came from one.
    pub file: Option<OsString>,
    pub ended_at: Timestamp,
    pub id: CallId,
    /// The status of the answer that decided, when there was one.
    pub status: Option<u16>,
    pub state: State,
    /// The absolute path of the response file, for a call that came from a file.
    pub response: Option<PathBuf>,
}

/// The variables, in the order of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    File,
    Datetime,
    Id,
    Status,
    State,
    Response,
}

/// The command of a callback, ready to run in the working directory.
pub(crate) fn command(words: &[String], parent: &CallRecord, response: Option<PathBuf>, directory: &Path) -> Command {
    let values = CallbackValues {
        file: parent.file.as_ref().map(|file| OsString::from_vec(file.name.clone())),
        ended_at: parent.progress.finished_at.unwrap_or(parent.accepted_at),
        id: parent.id,
        status: parent.progress.status,
        state: parent.progress.state,
        response,
    };
    Command {
        words: expand(words, &values),
        dir: directory.to_owned(),
        env: environment(&values),
        withheld: BTreeSet::new(),
        grace: Command::GRACE,
    }
}

/// The words of a command with every `$variable` replaced, in one pass: what a value holds is never looked at again.
///
/// A variable ends where its name ends, so `$files` and `$file_x` are other words and stay as written. A value that
/// would begin a word with `-` or `@` gets `./` before it: a file called `-o.json` is not an option.
///
/// # Example
/// ```
/// # use farcall_core::{call::State, id::CallId, time::Timestamp};
/// # use farcall_engine::callback::{CallbackValues, expand};
/// let values = CallbackValues {
///     file: Some("order.json".into()), ended_at: Timestamp::from_micros(0), id: CallId::from_bits(1),
///     status: Some(200), state: State::Succeeded, response: None,
/// };
/// assert_eq!(expand(&["-d".into(), "id=$file&s=$status".into()], &values), ["-d", "id=order.json&s=200"]);
/// ```
pub fn expand(words: &[String], values: &CallbackValues) -> Vec<OsString> {
    words.iter().map(|word| expand_word(word, values)).collect()
}

/// The same values for the environment, for commands that would rather read them there.
pub fn environment(values: &CallbackValues) -> Vec<(OsString, OsString)> {
    Variable::ALL.iter().map(|variable| (variable.environment_name().into(), variable.value(values))).collect()
}

/// Whether a word holds a variable that [`expand`] would replace.
pub fn has_variable(word: &str) -> bool {
    parts(word).any(|part| matches!(part, Part::Variable(_)))
}

fn expand_word(word: &str, values: &CallbackValues) -> OsString {
    let mut bytes = Vec::with_capacity(word.len() + 32);
    for part in parts(word) {
        match part {
            Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Part::Variable(variable) => {
                let value = variable.value(values);
                if bytes.is_empty() && matches!(value.as_bytes().first(), Some(b'-' | b'@')) {
                    bytes.extend_from_slice(b"./");
                }
                bytes.extend_from_slice(value.as_bytes());
            }
        }
    }
    OsString::from_vec(bytes)
}

/// A piece of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Variable(Variable),
}

/// Cuts a word before every `$` and behind every name that follows one.
fn parts(word: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match rest.strip_prefix('$') {
            Some(name) => 1 + name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len()),
            None => rest.find('$').unwrap_or(rest.len()),
        };
        let (text, later) = rest.split_at(end);
        rest = later;
        Some(text.strip_prefix('$').and_then(Variable::of).map_or(Part::Text(text), Part::Variable))
    })
}

impl Variable {
    const ALL: [Self; 6] = [Self::File, Self::Datetime, Self::Id, Self::Status, Self::State, Self::Response];

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variable| variable.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Datetime => "datetime",
            Self::Id => "id",
            Self::Status => "status",
            Self::State => "state",
            Self::Response => "response",
        }
    }

    const fn environment_name(self) -> &'static str {
        match self {
            Self::File => "FARCALL_FILE",
            Self::Datetime => "FARCALL_DATETIME",
            Self::Id => "FARCALL_ID",
            Self::Status => "FARCALL_STATUS",
            Self::State => "FARCALL_STATE",
            Self::Response => "FARCALL_RESPONSE",
        }
    }

    /// The text that is put in; empty where the call has no such thing.
    fn value(self, values: &CallbackValues) -> OsString {
        match self {
            Self::File => values.file.clone().unwrap_or_default(),
            Self::Datetime => iso_seconds(values.ended_at).into(),
            Self::Id => values.id.to_string().into(),
            Self::Status => values.status.map(|status| status.to_string()).unwrap_or_default().into(),
            Self::State => values.state.as_str().into(),
            Self::Response => values.response.as_deref().map(|path| path.as_os_str()).unwrap_or(OsStr::new("")).into(),
        }
    }
}

/// ISO 8601 in UTC, whole seconds: `2021-02-27T22:36:07Z`.
fn iso_seconds(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> CallbackValues {
        CallbackValues {
            file: Some("order_123.json".into()),
            ended_at: Timestamp::from_micros(1_614_465_367_999_999),
            id: CallId::from_bits(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057),
            status: Some(201),
            state: State::Succeeded,
            response: Some("/srv/box/responses/order_123.json".into()),
        }
    }

    fn check(word: &str, expected: impl AsRef<OsStr>) {
        check_with(&values(), word, expected);
    }

    fn check_with(values: &CallbackValues, word: &str, expected: impl AsRef<OsStr>) {
        assert_eq!(expand(&[word.to_owned()], values), [expected.as_ref()], "{word}");
    }

    fn named(file: impl Into<OsString>) -> CallbackValues {
        CallbackValues { file: Some(file.into()), ..values() }
    }

    #[test]
    fn every_variable_is_put_in() {
        check("$file", "order_123.json");
        check("$datetime", "2021-02-27T22:36:07Z");
        check("$id", "call_01890a5d-ac96-774b-bcce-b302099a8057");
        check("$status", "201");
        check("$state", "succeeded");
        check("$response", "/srv/box/responses/order_123.json");
        check("id=$file&posted_at=$datetime", "id=order_123.json&posted_at=2021-02-27T22:36:07Z");
    }

    #[test]
    fn a_name_ends_where_the_word_ends() {
        check("$state$status", "succeeded201");
        check("$file.bak", "order_123.json.bak");
        check("$file-x", "order_123.json-x");
        check("$fileé", "order_123.jsoné");
        for other in ["$files", "$file_x", "$File", "$HOME", "${file}", "$", "$$", "a$", "$1", "$(file)", "file", ""] {
            check(other, other);
        }
        check("$$file", "$order_123.json");
    }

    #[test]
    fn values_are_put_in_once() {
        check_with(&named("$id $status"), "$file", "$id $status");
        check_with(&named("$"), "${file}$file", "${file}$");
        check_with(&named("$"), "$file.id", "$.id");
    }

    #[test]
    fn a_value_cannot_become_an_option_or_a_reference() {
        check_with(&named("-o.json"), "$file", "./-o.json");
        check_with(&named("@etc.json"), "$file", "./@etc.json");
        check_with(&named("-o.json"), "--data=$file", "--data=-o.json");
        check_with(&named("-o.json"), "@$file", "@-o.json");
        check_with(&named("a-b.json"), "$file", "a-b.json");
        let unanswered = CallbackValues { status: None, ..named("-o.json") };
        check_with(&unanswered, "$status$file", "./-o.json");
    }

    #[test]
    fn one_word_stays_one_word_whatever_the_name_holds() {
        for name in ["$(touch x);'.json", "a b\nc.json", "\"; rm -rf ~ #.json", "`id`.json", "*.json"] {
            assert_eq!(expand(&["echo".into(), "$file".into()], &named(name)), ["echo", name]);
        }
    }

    #[test]
    fn names_that_are_no_text_keep_their_bytes() {
        let name = OsString::from_vec(b"caf\xe9\xff.json".to_vec());
        let expected = OsString::from_vec(b"id=caf\xe9\xff.json".to_vec());
        check_with(&named(name), "id=$file", expected);
    }

    #[test]
    fn what_a_call_does_not_have_is_empty() {
        let bare = CallbackValues { file: None, status: None, response: None, ..values() };
        check_with(&bare, "[$file|$status|$response]", "[||]");
        check_with(&bare, "$file", "");
        let empty: Vec<_> = environment(&bare).into_iter().filter(|(_, value)| value.is_empty()).collect();
        assert_eq!(empty.len(), 3, "{empty:?}");
    }

    #[test]
    fn the_environment_holds_the_same_values_unaltered() {
        let environment = environment(&named("-o.json"));
        let names: Vec<_> = environment.iter().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert_eq!(
            names,
            ["FARCALL_FILE", "FARCALL_DATETIME", "FARCALL_ID", "FARCALL_STATUS", "FARCALL_STATE", "FARCALL_RESPONSE"]
        );
        assert_eq!(environment[0].1, "-o.json", "only words need the guard");
        assert_eq!(environment[5].1, "/srv/box/responses/order_123.json");
    }

    #[test]
    fn a_word_is_known_to_hold_a_variable() {
        for (word, expected) in [("a $file b", true), ("$files", false), ("plain", false), ("$x$id", true)] {
            assert_eq!(has_variable(word), expected, "{word}");
        }
    }
}
