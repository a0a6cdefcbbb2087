//! Mistakes in a configuration: where they stand, what is wrong, how to put it right.
//!
//! [`Diagnostics`] owns the texts that were read and renders each mistake like a compiler does: place, the text
//! underlined, a hint. It judges nothing itself; the readers report to it.

use std::fmt;
use std::path::Path;

/// All mistakes of one configuration, or all of its warnings.
///
/// `Display` renders them plainly; [`Diagnostics::render`] also in colour; [`Diagnostics::iter`] gives them to
/// machines.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    sources: Vec<Source>,
    items: Vec<Diagnostic>,
    omitted: usize,
}

/// One mistake as a machine reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding<'a> {
    pub severity: Severity,
    /// The file, or the flag or environment variable the value came from.
    pub path: Option<&'a str>,
    /// Counted from 1.
    pub line: Option<usize>,
    /// In characters, counted from 1.
    pub column: Option<usize>,
    pub message: &'a str,
    pub hint: Option<&'a str>,
}

/// Whether the configuration can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// A range of bytes in one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    source: SourceId,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId(usize);

/// A text that was read. Its `Debug` leaves the text out: it may hold literal secrets.
#[derive(Clone)]
struct Source {
    name: String,
    text: String,
    references: References,
}

/// Whether `${env:NAME}` and `${file:PATH}` mean something in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum References {
    Resolved,
    Literal,
}

/// One mistake being described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnostic {
    severity: Severity,
    place: Option<Span>,
    message: String,
    label: Option<String>,
    related: Option<(Span, String)>,
    hint: Option<String>,
}

impl Diagnostics {
    /// More than these are counted, not shown.
    pub const SHOWN_MAX: usize = 100;

    /// Every mistake in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = Finding<'_>> {
        self.items.iter().map(|item| {
            let position = item.place.map(|span| self.source(span).position(span.start));
            Finding {
                severity: item.severity,
                path: item.place.map(|span| self.source(span).name.as_str()),
                line: position.map(|(line, _)| line),
                column: position.map(|(_, column)| column),
                message: &item.message,
                hint: item.hint.as_deref(),
            }
        })
    }

    /// How many there are, those beyond [`Diagnostics::SHOWN_MAX`] included.
    pub fn len(&self) -> usize {
        self.items.len() + self.omitted
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Everything for a reader's eyes, without a newline at the end.
    pub fn render(&self, color: bool) -> String {
        use annotate_snippets::Renderer;
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut parts: Vec<String> = self.items.iter().map(|item| self.render_one(item, &renderer)).collect();
        if self.omitted > 0 {
            parts.push(format!("and {} more", self.omitted));
        }
        parts.join("\n\n")
    }

    fn render_one(&self, item: &Diagnostic, renderer: &annotate_snippets::Renderer) -> String {
        use annotate_snippets::{AnnotationKind, Level, Snippet};
        let level = match item.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let snippet_of = |span: Span| {
            let source = self.source(span);
            Snippet::source(source.text.as_str()).path(source.name.as_str())
        };
        let mut snippets = Vec::new();
        if let Some(span) = item.place {
            let primary =
                AnnotationKind::Primary.span(self.source(span).whole_characters(span)).label(item.label.as_deref());
            snippets.push(snippet_of(span).annotation(primary));
        }
        if let Some((span, label)) = &item.related {
            let context =
                AnnotationKind::Context.span(self.source(*span).whole_characters(*span)).label(label.as_str());
            match (item.place, snippets.pop()) {
                (Some(place), Some(primary)) if place.source == span.source => {
                    snippets.push(primary.annotation(context));
                }
                (_, primary) => snippets.extend(primary.into_iter().chain([snippet_of(*span).annotation(context)])),
            }
        }
        let mut group = level.primary_title(item.message.as_str()).elements(snippets);
        if let Some(hint) = &item.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }

    pub(super) fn add_source(&mut self, name: String, text: String, references: References) -> SourceId {
        self.sources.push(Source { name, text, references });
        SourceId(self.sources.len() - 1)
    }

    /// The text of a whole source.
    pub(super) fn text(&self, source: SourceId) -> &str {
        &self.sources[source.0].text
    }

    /// The text a span covers, as written.
    pub(super) fn written(&self, span: Span) -> &str {
        self.source(span).text.get(span.start..span.end).unwrap_or_default()
    }

    pub(super) fn references_at(&self, span: Span) -> References {
        self.source(span).references
    }

    pub(super) fn error(&mut self, place: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, Some(place), message.into())
    }

    pub(super) fn error_without_place(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, None, message.into())
    }

    pub(super) fn warning(&mut self, place: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, Some(place), message.into())
    }

    pub(super) fn warning_about(&mut self, path: &Path, message: impl fmt::Display) -> &mut Diagnostic {
        self.push(Severity::Warning, None, format!("{}: {message}", path.display()))
    }

    pub(super) fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// Puts them in the order of the text, each once (a merged or repeated part can be read twice), and keeps the
    /// first [`Diagnostics::SHOWN_MAX`].
    pub(super) fn finish(mut self) -> Self {
        self.items.sort_by_key(|item| item.place);
        self.items.dedup();
        self.omitted = self.items.len().saturating_sub(Self::SHOWN_MAX);
        self.items.truncate(Self::SHOWN_MAX);
        self
    }

    fn push(&mut self, severity: Severity, place: Option<Span>, message: String) -> &mut Diagnostic {
        self.items.push(Diagnostic { severity, place, message, label: None, related: None, hint: None });
        self.items.last_mut().expect("one was just pushed")
    }

    fn source(&self, span: Span) -> &Source {
        &self.sources[span.source.0]
    }
}

impl Diagnostic {
    /// What stands beside the underline.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = Some(label.into());
        self
    }

    /// Another place that has to do with it.
    pub(super) fn related(&mut self, place: Span, label: impl Into<String>) -> &mut Self {
        self.related = Some((place, label.into()));
        self
    }

    /// How to put it right.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Span {
    pub(super) fn new(source: SourceId, range: std::ops::Range<usize>) -> Self {
        Self { source, start: range.start, end: range.end.max(range.start) }
    }

    /// The part of it that begins `offset` bytes in and is `length` bytes long.
    pub(super) fn part(self, offset: usize, length: usize) -> Self {
        let start = (self.start + offset).min(self.end);
        Self { start, end: (start + length).min(self.end), ..self }
    }
}

impl Source {
    /// The span's bytes within the text, no character cut: the renderer panics otherwise.
    fn whole_characters(&self, span: Span) -> std::ops::Range<usize> {
        self.text.floor_char_boundary(span.start)..self.text.ceil_char_boundary(span.end)
    }

    /// Line and column of a byte, both from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_lines() -> (Diagnostics, SourceId) {
        let mut diagnostics = Diagnostics::default();
        let source = diagnostics.add_source("a.yml".into(), "é: 1\nkey: x\n".into(), References::Literal);
        (diagnostics, source)
    }

    #[test]
    fn places_count_characters_from_one() {
        let (mut diagnostics, source) = two_lines();
        diagnostics.error(Span::new(source, 4..5), "no");
        diagnostics.error(Span::new(source, 11..12), "neither").hint("try y");
        let places: Vec<_> = diagnostics.iter().map(|finding| (finding.line, finding.column)).collect();
        assert_eq!(places, [(Some(1), Some(4)), (Some(2), Some(6))]);
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_text_and_each_once() {
        let (mut diagnostics, source) = two_lines();
        for (start, message) in [(6, "second"), (0, "first"), (6, "second")] {
            diagnostics.error(Span::new(source, start..start + 1), message);
        }
        let diagnostics = diagnostics.finish();
        let messages: Vec<_> = diagnostics.iter().map(|finding| finding.message).collect();
        assert_eq!(messages, ["first", "second"]);
    }

    #[test]
    fn very_many_mistakes_are_counted_not_shown() {
        let (mut diagnostics, source) = two_lines();
        for index in 0..Diagnostics::SHOWN_MAX + 7 {
            diagnostics.error(Span::new(source, 0..1), format!("mistake {index}"));
        }
        let diagnostics = diagnostics.finish();
        assert_eq!((diagnostics.iter().count(), diagnostics.len()), (100, 107));
        assert!(diagnostics.to_string().ends_with("and 7 more"));
    }

    #[test]
    fn debug_output_leaves_the_text_out() {
        let (diagnostics, _) = two_lines();
        assert!(!format!("{diagnostics:?}").contains("key"));
    }
}
