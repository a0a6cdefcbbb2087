//! What users see: results on stdout, everything else on stderr, colour and tables for eyes only.
//!
//! A reader that has gone away is no failure of ours: output to a closed pipe is dropped.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::settings::Environment;

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

    /// Prints a line of results.
    pub(crate) fn result(&self, line: impl Display) {
        let _ = writeln!(io::stdout(), "{line}");
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

    /// A table that fits the terminal; the first column is text, the others are numbers.
    pub(crate) fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !self.stdout_has_color() {
            table.force_no_tty();
        }
        table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.to_string().lines() {
            self.result(line.trim_end());
        }
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
