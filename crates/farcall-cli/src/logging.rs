//! The log: one line an event, on stderr, as text for people or JSON for machines.
//!
//! What is logged is the engine's and the server's business. No value can begin a line of its own or speak to the
//! terminal: control characters are written escaped.

use std::fmt::{self, Write};
use std::io;

use indicatif::MultiProgress;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::args::LogFormat;
use crate::exit::Failure;

/// What to log, and how.
#[derive(Debug, Clone)]
pub(crate) struct Logging {
    pub(crate) format: LogFormat,
    pub(crate) has_color: bool,
    /// A filter of the user's own, else this level.
    pub(crate) filter: Option<String>,
    pub(crate) level: Level,
    /// A part of the program of which only errors are logged, unless the user's filter says otherwise.
    pub(crate) hushed: Option<&'static str>,
    /// Bars on the same terminal, which step aside for a line.
    pub(crate) bars: Option<MultiProgress>,
}

impl Logging {
    /// Starts logging, for the rest of the process's life.
    ///
    /// # Errors
    /// When the user's filter is none.
    pub(crate) fn start(self) -> Result<(), Failure> {
        let filter = match &self.filter {
            Some(text) => EnvFilter::try_new(text).map_err(|error| Failure::usage(format!("FARCALL_LOG: {error}")))?,
            None => {
                let hushed =
                    self.hushed.map(|part| format!("{part}=error").parse().expect("a module's name is a target"));
                let filter = EnvFilter::default().add_directive(self.level.into());
                hushed.into_iter().fold(filter, EnvFilter::add_directive)
            }
        };
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines { bars: self.bars });
        match self.format {
            LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
            LogFormat::Text => builder.with_ansi(self.has_color).event_format(OneLine).init(),
        }
        Ok(())
    }
}

/// Whether events go anywhere.
pub(crate) fn is_started() -> bool {
    tracing::dispatcher::has_been_set()
}

/// Whole lines to stderr, above whatever bars are shown.
#[derive(Debug, Clone)]
struct Lines {
    bars: Option<MultiProgress>,
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write_all(line);
        match &self.bars {
            Some(bars) => bars.suspend(write)?,
            None => write()?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-11-20T09:00:00.000000Z  INFO message key=value other="two words"`
#[derive(Debug, Clone, Copy)]
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (dim, level_style, reset) = match (writer.has_ansi_escapes(), *event.metadata().level()) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\u{1b}[2m", "\u{1b}[31m", "\u{1b}[0m"),
            (true, Level::WARN) => ("\u{1b}[2m", "\u{1b}[33m", "\u{1b}[0m"),
            (true, _) => ("\u{1b}[2m", "\u{1b}[32m", "\u{1b}[0m"),
        };
        write!(writer, "{dim}")?;
        SystemTime.format_time(&mut writer)?;
        write!(writer, "{reset} {level_style}{:>5}{reset} ", event.metadata().level())?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(writer, "{}", fields.message)?;
        for (name, value) in fields.values {
            write!(writer, " {dim}{name}={reset}{value}")?;
        }
        writeln!(writer)
    }
}

/// An event's message and values, as they may be written.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = escaped(value);
        } else {
            self.values.push((field.name(), quoted(value)));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Text that cannot be formatted is left out; a log line is no reason to fail.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

/// The value as it is when it is one plain word, else in quotes.
fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '='));
    if is_plain { value.to_owned() } else { format!("\"{}\"", escaped(value).replace('"', "\\\"")) }
}

/// The text with every character escaped that is not shown as itself.
fn escaped(text: &str) -> String {
    let is_harmless = |c: char| !c.is_control() && !is_invisible(c);
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
    }
    line
}

/// Line separators of Unicode, and characters that turn the direction of the text around them.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{200b}'..='\u{200f}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged in `events`, without the time.
    fn logged(events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(OneLine)
            .finish();
        tracing::subscriber::with_default(subscriber, events);
        let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(bytes).expect("a log is text");
        text.split_once(' ').expect("a time stands first").1.to_owned()
    }

    #[test]
    fn an_event_is_a_line_of_message_and_values() {
        let line = logged(|| tracing::warn!(status = 503, file = "two words.json", "a call failed"));
        assert_eq!(line, " WARN a call failed status=503 file=\"two words.json\"\n");
    }

    #[test]
    fn no_value_can_begin_a_line_or_speak_to_the_terminal() {
        let hostile = "x\n2026 ERROR forged\u{1b}[2J\r\u{9b}2J\u{2028}\u{202e}\"";
        let line = logged(|| tracing::info!(file = hostile, other = %hostile, third = ?hostile, "{hostile}"));
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.trim_end().chars().all(|c| !c.is_control() && !is_invisible(c)), "{line:?}");
        assert!(line.contains(r#"file="x\n2026 ERROR forged\u{1b}[2J\r\u{9b}2J\u{2028}\u{202e}\"""#), "{line}");
    }
}
