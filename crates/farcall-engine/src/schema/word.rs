//! Closed sets of words, told as enumerations.
//!
//! The words themselves are the core's.

use std::borrow::Cow;
use std::marker::PhantomData;

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::breaker::BreakerState;
use farcall_core::call::{ErrorKind, Source, State, WaitReason};
use farcall_core::hedge::HeldBack;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A word of a closed set, for `#[schemars(with = "Word<State>")]`.
#[derive(Debug)]
pub struct Word<T>(PhantomData<T>);

/// A closed set of words.
pub trait Words {
    /// What the set is called in a schema.
    const NAME: &'static str;
    /// One sentence about it.
    const ABOUT: &'static str;

    /// Every word, in order.
    fn words() -> Vec<&'static str>;
}

impl<T: Words> JsonSchema for Word<T> {
    fn schema_name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": T::words(), "description": T::ABOUT })
    }
}

macro_rules! words {
    ($($set:ty, $name:literal, $about:literal;)+) => {
        $(impl Words for $set {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = $about;

            fn words() -> Vec<&'static str> {
                Self::ALL.iter().map(|word| word.as_str()).collect()
            }
        })+
    };
}

words! {
    State, "CallState", "Where a call stands: it waits (`scheduled`, `queued`, `retrying`), runs, or has ended.";
    Source, "CallSource", "Where a call came in.";
    BreakerState, "BreakerState", "How a breaker stands: everything may start, one attempt as a probe, or nothing.";
    WaitReason, "WaitReason", "Why a call that has not ended does not run.";
    ErrorKind, "ErrorKind", "What went wrong.";
    HeldBack, "HeldBack", "Why an attempt that takes long is not hedged just now.";
    AttemptKind, "AttemptKind", "Why an attempt was made.";
    AttemptOutcome, "AttemptOutcome", "How an attempt ended.";
}
