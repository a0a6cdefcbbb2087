//! One value of a call document with the path to it, read as the type it should have.
//!
//! Every reader says in its fault what would have been right. Nothing here knows which keys there are.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::json::{Member, Shape, Value};
use super::{RejectionKind, When};
use crate::nearest::nearest;
use crate::quantity::duration::{self, DurationError};
use crate::quantity::size::{self, SIZE_MAX};
use farcall_core::time::Timestamp;

/// How much of a key a message repeats.
const KEY_BYTES_SHOWN: usize = 128;
/// The most members of an object, and elements of an array, that are settings; bodies have no such limit.
const CHILDREN_MAX: usize = 10_000;

/// A mistake, before its place in the text is counted out.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: RejectionKind,
    pub(super) message: String,
    pub(super) key: Option<String>,
    /// The byte where it stands.
    pub(super) at: usize,
}

/// A value and its key.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    /// The key of the mapping it stands in, when that is not the document.
    inside: Option<&'static str>,
    pub(super) key: Cow<'a, str>,
    key_at: usize,
    pub(super) value: Value<'a>,
}

/// Defines a mapping's known keys, each an optional field, and a constructor that refuses any other key.
macro_rules! mapping {
    ($(#[$meta:meta])* $name:ident { $($key:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(in crate::document) struct $name<'a> { $(pub(in crate::document) $key: Option<crate::document::field::Field<'a>>),+ }

        impl<'a> $name<'a> {
            pub(in crate::document) const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];

            /// Takes a field whose key is known; gives any other back.
            pub(in crate::document) fn put(
                &mut self,
                field: crate::document::field::Field<'a>,
            ) -> Result<(), crate::document::field::Field<'a>> {
                $(if field.key == stringify!($key) {
                    self.$key = Some(field);
                    return Ok(());
                })+
                Err(field)
            }
        }
    };
}
pub(super) use mapping;

impl<'a> Field<'a> {
    pub(super) fn new(inside: Option<&'static str>, member: Member<'a>) -> Self {
        Self { inside, key: member.key, key_at: member.key_at, value: member.value }
    }

    /// `headers.Host`, or just `url`; shortened when the key is absurdly long.
    pub(super) fn path(&self) -> String {
        let key = shortened(&self.key);
        match self.inside {
            Some(mapping) => format!("{mapping}.{key}"),
            None => key.to_owned(),
        }
    }

    /// A mistake in the value; the message follows the key: "must be ...".
    pub(super) fn wrong(&self, message: impl std::fmt::Display) -> Fault {
        let path = self.path();
        self.fault(RejectionKind::Invalid, format!("`{path}` {message}"), self.value.at())
    }

    /// A mistake in that the key is there at all.
    pub(super) fn misplaced(&self, message: impl std::fmt::Display) -> Fault {
        let path = self.path();
        self.fault(RejectionKind::Invalid, format!("`{path}` {message}"), self.key_at)
    }

    pub(super) fn unknown(&self, known: &[&'static str]) -> Fault {
        let hint =
            nearest(&self.key, known.iter().copied()).map_or(String::new(), |near| format!("; is `{near}` meant?"));
        let message = format!("unknown key `{}`{hint}", self.path());
        self.fault(RejectionKind::Invalid, message, self.key_at)
    }

    pub(super) fn not_available_yet(&self) -> Fault {
        let message = format!("`{}` is not available yet in this version", self.path());
        self.fault(RejectionKind::NotAvailableYet, message, self.key_at)
    }

    pub(super) fn string(&self) -> Result<Cow<'a, str>, Fault> {
        if self.value.shape() != Shape::String {
            return Err(self.wrong("must be a string"));
        }
        self.value.string().ok_or_else(|| self.wrong("holds half of a surrogate pair, which is no character"))
    }

    /// A string of at least one and at most `bytes_max` bytes, without control characters.
    pub(super) fn label(&self, bytes_max: usize) -> Result<String, Fault> {
        let text = self.string()?;
        if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
            return Err(self.wrong(format_args!("must be 1 to {bytes_max} bytes without control characters")));
        }
        Ok(text.into_owned())
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, Fault> {
        let wrong = || {
            let listed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.wrong(format_args!("must be {}", listed.join(" or ")))
        };
        let text = self.value.string().ok_or_else(wrong)?;
        words.iter().find(|(word, _)| *word == text).map(|&(_, meaning)| meaning).ok_or_else(wrong)
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        match self.value.raw() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.wrong("must be true or false")),
        }
    }

    /// A whole number.
    pub(super) fn whole(&self, allowed: RangeInclusive<u32>) -> Result<u32, Fault> {
        let number = self.whole_number().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| allowed.contains(number)).ok_or_else(|| {
            self.wrong(format_args!("must be a whole number from {} to {}", allowed.start(), allowed.end()))
        })
    }

    /// A positive number, whole or not.
    pub(super) fn positive(&self) -> Result<f64, Fault> {
        self.number()
            .filter(|number| *number > 0.0 && number.is_finite())
            .ok_or_else(|| self.wrong("must be a number above 0"))
    }

    /// Seconds as a number, or text such as `"1m30s"`.
    pub(super) fn duration(&self) -> Result<Duration, Fault> {
        let read = match (self.number(), self.value.string()) {
            (Some(number), _) => duration::from_seconds(number),
            (None, Some(text)) => duration::from_text(&text),
            (None, None) => Err(DurationError::Malformed),
        };
        read.map_err(|error| match error {
            DurationError::TooLong | DurationError::NotFinite => self.wrong("must be at most 100 years"),
            DurationError::Malformed | DurationError::NoUnit | DurationError::Negative => {
                self.wrong("must be a duration: seconds as a number, or text such as \"300ms\" or \"1m30s\"")
            }
        })
    }

    pub(super) fn positive_duration(&self) -> Result<Duration, Fault> {
        match self.duration()? {
            Duration::ZERO => Err(self.wrong("must be longer than 0")),
            duration => Ok(duration),
        }
    }

    /// A point in time as RFC 3339 writes it.
    pub(super) fn time(&self) -> Result<Timestamp, Fault> {
        let wrong = || self.wrong("must be a time such as \"2026-11-20T09:00:00Z\"");
        self.value.string().and_then(|text| rfc3339(&text)).ok_or_else(wrong)
    }

    /// A point in time, or a positive duration from acceptance.
    pub(super) fn when(&self) -> Result<When, Fault> {
        if let Some(time) = self.value.string().and_then(|text| rfc3339(&text)) {
            return Ok(When::At(time));
        }
        match self.positive_duration() {
            Ok(duration) => Ok(When::After(duration)),
            Err(_) => {
                Err(self.wrong("must be a time such as \"2026-11-20T09:00:00Z\", or a duration such as \"1m30s\""))
            }
        }
    }

    /// Bytes as a number, or text such as `"16MiB"`.
    pub(super) fn size(&self) -> Result<u64, Fault> {
        let bytes = match self.value.string() {
            Some(text) => size::from_text(&text),
            None => self.whole_number(),
        };
        match bytes {
            Some(0) => Err(self.wrong("must be more than 0 bytes")),
            Some(bytes) if bytes > SIZE_MAX => Err(self.wrong("must be at most 1 PiB")),
            Some(bytes) => Ok(bytes),
            None => Err(self.wrong("must be a size: bytes as a number, or text such as \"64KiB\" or \"16MiB\"")),
        }
    }

    /// The elements of an array, under this field's path.
    pub(super) fn elements(&self) -> Result<Vec<Field<'a>>, Fault> {
        if self.value.shape() != Shape::Array {
            return Err(self.wrong("must be an array"));
        }
        let element =
            |member: Member<'a>| Field { inside: self.inside, key: self.key.clone(), ..Field::new(None, member) };
        Ok(self.children("elements")?.into_iter().map(element).collect())
    }

    /// The members of an object; `inside` names it in their paths.
    pub(super) fn members(&self, inside: &'static str) -> Result<Vec<Field<'a>>, Fault> {
        if self.value.shape() != Shape::Object {
            return Err(self.wrong("must be an object"));
        }
        Ok(self.children("keys")?.into_iter().map(|member| Field::new(Some(inside), member)).collect())
    }

    /// A string, number or boolean as text; numbers as written.
    pub(super) fn scalar(&self) -> Result<Cow<'a, str>, Fault> {
        match self.value.shape() {
            Shape::String => self.string(),
            Shape::Number | Shape::Boolean => Ok(Cow::Borrowed(self.value.raw())),
            Shape::Object | Shape::Array | Shape::Null => Err(self.wrong("must be a string, a number or a boolean")),
        }
    }

    fn children(&self, what: &str) -> Result<Vec<Member<'a>>, Fault> {
        let children = self.value.children(CHILDREN_MAX + 1);
        if children.len() > CHILDREN_MAX {
            return Err(self.wrong(format_args!("must have at most {CHILDREN_MAX} {what}")));
        }
        Ok(children)
    }

    /// A number without a fraction. JSON has one sort of number (RFC 8259, section 6), so `3.0` is one, as JSON Schema has it.
    pub(super) fn whole_number(&self) -> Option<u64> {
        if self.value.shape() != Shape::Number {
            return None;
        }
        self.value.raw().parse().ok().or_else(|| whole(self.number()?))
    }

    fn number(&self) -> Option<f64> {
        (self.value.shape() == Shape::Number).then(|| self.value.raw().parse().ok()).flatten()
    }

    fn fault(&self, kind: RejectionKind, message: String, at: usize) -> Fault {
        Fault { kind, message, key: Some(self.path()), at }
    }
}

/// At most the first [`KEY_BYTES_SHOWN`] bytes, whole characters only.
pub(super) fn shortened(key: &str) -> &str {
    &key[..key.floor_char_boundary(KEY_BYTES_SHOWN)]
}

/// The same number as a whole one, if it is one and exact.
pub(crate) fn whole(number: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
    is_whole.then_some(number as u64)
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_micros(time.as_microsecond()))
}
