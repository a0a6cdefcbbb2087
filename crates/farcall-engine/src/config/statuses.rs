//! Sets of status codes: `[408, "500-599"]`.
//!
//! Codes lie between 100 and 599; a range that ends before it begins is a mistake with a hint.

use std::ops::RangeInclusive;

use farcall_core::retry::StatusSet;

use super::reader::Reader;
use super::tree::{Node, Value};

const CODES: RangeInclusive<u16> = 100..=599;
const FORM_HINT: &str = "write codes from 100 to 599 and ranges: [408, \"500-599\"]";

pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<StatusSet> {
    let items = reader.items(node)?;
    Some(StatusSet::new(items.iter().filter_map(|item| range(reader, item)).collect()))
}

fn range(reader: &mut Reader<'_>, node: &Node) -> Option<(u16, u16)> {
    let (low, high) = match &node.value {
        Value::Integer(code) => (u16::try_from(*code).ok(), u16::try_from(*code).ok()),
        Value::Text(text) => {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            (low.trim().parse().ok(), high.trim().parse().ok())
        }
        _ => (None, None),
    };
    match (low, high) {
        (Some(low), Some(high)) if low > high && CODES.contains(&low) && CODES.contains(&high) => {
            reader.error(node.span, "this range ends before it begins").hint(format!("write \"{high}-{low}\""));
            None
        }
        (Some(low), Some(high)) if CODES.contains(&low) && CODES.contains(&high) => Some((low, high)),
        _ => {
            let written = reader.diagnostics.written(node.span).to_owned();
            reader.error(node.span, format!("{written} is no status code or range")).hint(FORM_HINT);
            None
        }
    }
}
