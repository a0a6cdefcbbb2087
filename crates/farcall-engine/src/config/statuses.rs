//! Sets of status codes: `[408, "500-599"]`.
//!
//! A code or range is read by `quantity`; here each mistake gets its place and a hint.

use farcall_core::retry::StatusSet;

use super::reader::Reader;
use super::tree::{Node, Value};
use crate::quantity::status_range::{self, StatusRangeError};

const FORM_HINT: &str = "write codes from 100 to 599 and ranges: [408, \"500-599\"]";

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<StatusSet> {
    let items = reader.items(node)?;
    Some(StatusSet::new(items.iter().filter_map(|item| range(reader, item)).collect()))
}

fn range(reader: &mut Reader<'_>, node: &Node) -> Option<(u16, u16)> {
    let read = match &node.value {
        Value::Integer(code) => status_range::from_text(&code.to_string()),
        Value::Text(text) => status_range::from_text(text),
        Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            Err(StatusRangeError::Malformed)
        }
    };
    match read {
        Ok(range) => return Some(range),
        Err(StatusRangeError::Backwards { first, last }) => {
            reader.error(node.span, "this range ends before it begins").hint(format!("write \"{last}-{first}\""));
        }
        Err(StatusRangeError::Malformed) => {
            let written = reader.diagnostics.written(node.span).to_owned();
            reader.error(node.span, format!("{written} is no status code or range")).hint(FORM_HINT);
        }
    }
    None
}
