//! What users see: results on stdout, everything else on stderr, colour and tables for eyes only.
//!
//! A reader that has gone away is no failure of ours: output to a closed pipe is dropped.

mod json;
pub(crate) mod records;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::exit::Failure;
use crate::settings::Environment;

/// Why a result did not reach stdout, if one did not: the first reason but that nobody reads it.
static LOST: OnceLock<String> = OnceLock::new();

/// The form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Ndjson,
}

/// The two streams, and what may be shown on them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    no_color: bool,
}

impl Screen {
    pub(crate) fn of(environment: &Environment) -> Self {
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            no_color: environment.no_color,
        }
    }

    /// The form that was asked for, or the one that suits the reader.
    pub(crate) fn output(&self, asked: Option<Output>) -> Output {
        asked.unwrap_or(if self.stdout_is_terminal { Output::Table } else { Output::Ndjson })
    }

    pub(crate) const fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    pub(crate) const fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    pub(crate) const fn stdout_has_color(&self) -> bool {
        self.stdout_is_terminal && !self.no_color
    }

    pub(crate) const fn stderr_has_color(&self) -> bool {
        self.stderr_is_terminal && !self.no_color
    }

    /// Prints a line of results; [`Screen::delivered`] says whether it could.
    pub(crate) fn result(&self, line: impl Display) {
        note(writeln!(io::stdout(), "{line}"));
    }

    /// Prints a part of a result, which has no end of its own.
    pub(crate) fn part(&self, text: impl Display) {
        note(write!(io::stdout(), "{text}"));
    }

    /// Whether all results that were printed are where stdout leads, or nobody reads them.
    ///
    /// # Errors
    /// When one could not be written, because the disk is full for example.
    pub(crate) fn delivered(&self) -> Result<(), Failure> {
        note(io::stdout().flush());
        match LOST.get() {
            None => Ok(()),
            Some(reason) => Err(Failure::usage(format_args!("results cannot be written: {reason}"))),
        }
    }

    /// Tells a person something.
    pub(crate) fn tell(&self, line: impl Display) {
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// Prints records for a machine.
    pub(crate) fn records(&self, records: &[Value], form: Records) {
        match form {
            Records::Document => self.result(format_args!("{:#}", Value::Array(records.to_vec()))),
            Records::Lines => records.iter().for_each(|record| self.result(record)),
        }
    }

    /// A table, a line for each row: one that is too long for a terminal is broken by the terminal, so that an id can be
    /// copied as a whole.
    pub(crate) fn table(&self, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if !self.stdout_has_color() {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|column| Cell::new(column.name).add_attribute(Attribute::Bold)));
        for row in rows {
            table.add_row(row.iter().map(|text| cell(text)).collect::<Vec<_>>());
        }
        for (column, own) in table.column_iter_mut().zip(columns) {
            match own.kind {
                Kind::Text => {}
                Kind::Number => column.set_cell_alignment(CellAlignment::Right),
            }
        }
        for line in table.to_string().lines() {
            self.result(line.trim_end());
        }
    }

    /// Names and values below each other.
    pub(crate) fn fields(&self, fields: &[(String, String)]) {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let (bold, plain) = if self.stdout_has_color() { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        for (name, value) in fields {
            let name = visible(name);
            self.result(format_args!("{bold}{name:width$}{plain}  {}", visible(value)));
        }
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// When they cannot be written, for another reason than that nobody reads them.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// Remembers why a result was lost.
fn note(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
}

/// What others wrote, as it may be shown on a terminal: nothing in it moves the cursor or begins a line.
fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(shown.collect())
}

/// States of calls have colours, where there are any.
fn cell(text: &str) -> Cell {
    let cell = Cell::new(visible(text));
    match text {
        "succeeded" => cell.fg(Color::Green),
        "failed" | "expired" | "unknown" | "poisoned" => cell.fg(Color::Red),
        "running" | "retrying" | "paused" => cell.fg(Color::Yellow),
        _ => cell,
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
}

impl Column {
    pub(crate) const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    pub(crate) const fn number(name: &'static str) -> Self {
        Self { name, kind: Kind::Number }
    }
}

/// How records are laid out for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// All in one array.
    Document,
    /// A line each.
    Lines,
}

/// A number and its noun: `1 upstream`, `2 upstreams`.
pub(crate) fn counted(count: impl Into<u64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shown_reaches_the_terminal_as_a_command() {
        assert_eq!(visible("a\u{1b}[2Jb\nc\u{9b}d é"), "a\\u{1b}[2Jb\\nc\\u{9b}d é");
        assert!(matches!(visible("plain é"), Cow::Borrowed(_)));
    }
}
