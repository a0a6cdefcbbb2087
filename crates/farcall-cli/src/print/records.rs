//! Records of a server in the form that was asked for: a table, one JSON document, or a line each.
//!
//! JSON is what the server wrote, byte for byte but for white space. A table shows what its columns pick; `-q` the one
//! field that names each record.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Column, Output, Screen, json};
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// How one kind of records is shown.
#[derive(Debug)]
pub(crate) struct Form {
    /// The field that names a record.
    pub(crate) id: &'static str,
    pub(crate) columns: &'static [Column],
    /// A cell for each column.
    pub(crate) row: fn(&Value) -> Vec<String>,
}

/// Prints many records, in as many parts as they come in.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    screen: Screen,
    shape: Shape,
    form: &'a Form,
    count: u64,
}

/// What is printed of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Ids,
    As(Output),
}

impl Shape {
    fn of(context: &Context) -> Self {
        if context.global.quiet { Self::Ids } else { Self::As(context.output()) }
    }
}

impl<'a> Listing<'a> {
    pub(crate) fn new(context: &Context, form: &'a Form) -> Self {
        Self { screen: context.screen, shape: Shape::of(context), form, count: 0 }
    }

    /// Whether records are best printed as they come; a table needs them together.
    pub(crate) fn is_streaming(&self) -> bool {
        self.shape != Shape::As(Output::Table)
    }

    /// Prints some more.
    ///
    /// # Errors
    /// When they are no records, or cannot be written.
    pub(crate) fn print(&mut self, records: &[Box<RawValue>]) -> Result<(), Failure> {
        match self.shape {
            Shape::Ids => {
                for record in records {
                    self.screen.result(text(&parse(record)?[self.form.id]));
                }
            }
            Shape::As(Output::Ndjson) => {
                records.iter().for_each(|record| self.screen.result(json::compact(record.get())));
            }
            Shape::As(Output::Json) => {
                for (record, number) in records.iter().zip(self.count..) {
                    let before = if number == 0 { "[\n  " } else { ",\n  " };
                    self.screen.part(format_args!("{before}{}", json::pretty(record.get(), 1)));
                }
            }
            Shape::As(Output::Table) if records.is_empty() => {}
            Shape::As(Output::Table) => {
                let rows = records.iter().map(|record| Ok((self.form.row)(&parse(record)?)));
                self.screen.table(self.form.columns, rows.collect::<Result<Vec<_>, Failure>>()?);
            }
        }
        self.count += u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.screen.delivered()
    }

    /// Prints what comes after the last one.
    pub(crate) fn end(self) {
        if self.shape == Shape::As(Output::Json) {
            self.screen.result(if self.count == 0 { "[]" } else { "\n]" });
        }
    }

    /// The same; when there was none, people are told so in these words.
    pub(crate) fn end_or_tell(self, none: &str) {
        if self.shape == Shape::As(Output::Table) && self.count == 0 {
            self.screen.tell(none);
        }
        self.end();
    }
}

/// Prints one record by itself: its fields below each other, or its document.
///
/// `body` is printed last, over lines.
///
/// # Errors
/// When it is no record.
pub(crate) fn single(context: &Context, id: &str, record: &RawValue) -> Result<(), Failure> {
    let screen = context.screen;
    match Shape::of(context) {
        Shape::Ids => screen.result(text(&parse(record)?[id])),
        Shape::As(Output::Ndjson) => screen.result(json::compact(record.get())),
        Shape::As(Output::Json) => screen.result(json::pretty(record.get(), 0)),
        Shape::As(Output::Table) => {
            let Members(members) = serde_json::from_str(record.get()).map_err(unreadable)?;
            screen.fields(&shown(&members)?);
            if let Some((_, body)) = members.iter().find(|(name, body)| name == "body" && body.get() != "null") {
                let lines = match parse(body)? {
                    Value::String(text) => text,
                    _ => json::pretty(body.get(), 0),
                };
                screen.result("");
                lines.lines().for_each(|line| screen.result(super::visible(line)));
            }
        }
    }
    Ok(())
}

/// The members of an object, in the order they were written in.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// The fields with a value, without the body.
fn shown(members: &[(String, Box<RawValue>)]) -> Result<Vec<(String, String)>, Failure> {
    let mut shown = Vec::new();
    for (name, value) in members.iter().filter(|(name, _)| name != "body") {
        add(&mut shown, name, &parse(value)?);
    }
    Ok(shown)
}

/// Adds a value; the members of an object have its name before their own, the objects of a list their number.
fn add(shown: &mut Vec<(String, String)>, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) if items.iter().all(Value::is_object) => {
            shown.extend(items.iter().zip(1..).map(|(item, number)| (format!("{name}.{number}"), pairs(item))));
        }
        Value::Object(inner) => inner.iter().for_each(|(inner, value)| add(shown, &format!("{name}.{inner}"), value)),
        value => shown.push((name.to_owned(), text(value))),
    }
}

/// `name value, name value`: an object in one cell.
fn pairs(object: &Value) -> String {
    let members = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    members.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
}

/// A value as a cell of a table shows it; nothing for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    }
}

fn parse(record: &RawValue) -> Result<Value, Failure> {
    serde_json::from_str(record.get()).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(Exit::Unreachable, anyhow::Error::new(error).context("the answer cannot be shown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_has_the_names_of_all_it_is_in() {
        let text =
            r#"{"b": {"y": 1, "x": {"z": [2, 3]}}, "a": null, "c": [], "l": [{"n": "10/1s", "u": 3}], "body": 1}"#;
        let Members(members) = serde_json::from_str(text).expect("it is an object");
        let shown = shown(&members).expect("its values are JSON");
        let shown: Vec<_> = shown.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["b.x.z=2, 3", "b.y=1", "l.1=n 10/1s, u 3"]);
    }
}
