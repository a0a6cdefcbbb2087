//! Headers that an upstream's calls carry: names checked, values templates of secrets.
//!
//! Those of the connection and of framing are refused; values are resolved when a request is sent.

use super::diagnostic::{References, Span};
use super::reader::Reader;
use super::tree::{Entry, Node, Value};
use crate::connection_headers;
use crate::secret::{Template, TemplateMistake};

/// Reads a mapping of names to values; names in lower case.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(String, Template)>> {
    let mut headers: Vec<(String, Template)> = Vec::new();
    let mut places: Vec<Span> = Vec::new();
    for entry in reader.entries(node)? {
        let Some(name) = name(reader, &entry.key.name, entry.key.span) else { continue };
        if let Some(index) = headers.iter().position(|(earlier, _)| *earlier == name) {
            reader.duplicate(&entry.key, places[index]);
            continue;
        }
        let Some(value) = value(reader, entry) else { continue };
        headers.push((name, value));
        places.push(entry.key.span);
    }
    Some(headers)
}

/// The name of one header in lower case, if a configuration may set it.
pub(super) fn name(reader: &mut Reader<'_>, written: &str, place: Span) -> Option<String> {
    let Ok(name) = http::HeaderName::from_bytes(written.as_bytes()) else {
        reader.error(place, format!("`{written}` is no header name")).hint("names are letters, digits and hyphens");
        return None;
    };
    if connection_headers::contain(&name) {
        reader.error(place, format!("`{written}` is set by farcall itself")).hint("leave it out");
        return None;
    }
    Some(name.as_str().to_owned())
}

/// Reads a text with references and sees that it has a value now.
pub(super) fn template(reader: &mut Reader<'_>, node: &Node) -> Option<Template> {
    let Value::Text(text) = &node.value else {
        reader.mismatch(node, "a text");
        return None;
    };
    let template = match reader.diagnostics.references_at(node.span) {
        References::Literal => Template::literal(text),
        References::Resolved => parsed(reader, node, text)?,
    };
    reader.secret_variables.extend(template.variables().map(str::to_owned));
    let Err(error) = template.resolve(reader.dir) else {
        return Some(template);
    };
    let place = error.reference().map_or(node.span, |reference| locate(reader, node.span, reference));
    let message = match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    reader.error(place, message);
    None
}

fn value(reader: &mut Reader<'_>, entry: &Entry) -> Option<Template> {
    match &entry.node.value {
        // As written: 1.0 is not 1.
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
            Some(Template::literal(reader.diagnostics.written(entry.node.span)))
        }
        _ => template(reader, &entry.node),
    }
}

fn parsed(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<Template> {
    let error = match Template::parse(text) {
        Ok(template) => return Some(template),
        Err(error) => error,
    };
    let place = locate(reader, node.span, &text[error.range.clone()]);
    let hint = match &error.mistake {
        TemplateMistake::Unclosed | TemplateMistake::Nameless => {
            "a reference is `${env:NAME}` or `${file:PATH}`".to_owned()
        }
        TemplateMistake::UnknownKind { bare: Some(name), .. } => format!("did you mean `${{env:{name}}}`?"),
        TemplateMistake::UnknownKind { bare: None, .. } => {
            "`${env:NAME}` and `${file:PATH}` are references; write `$${` for a literal `${`".to_owned()
        }
    };
    reader.error(place, error.to_string()).hint(hint);
    None
}

/// Where a part of a value stands, if it is written as it reads; else the whole value.
fn locate(reader: &Reader<'_>, whole: Span, part: &str) -> Span {
    match reader.diagnostics.written(whole).find(part) {
        Some(offset) => whole.part(offset, part.len()),
        None => whole,
    }
}
