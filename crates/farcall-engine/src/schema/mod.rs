//! How the values of calls and policies read, as JSON Schema (2020-12): quantities, words, names.
//!
//! Types here are forms and hold nothing: they stand in `#[schemars(with = "…")]` of what is told, and in the schemas of
//! what is read (`document::schema`, `config::patch_schema`). What a reader takes is decided by the reader; tests hold
//! the schemas to it.

mod form;
mod word;

pub use form::{CallIdText, MethodName, Priority, Time};
pub(crate) use form::{
    SHARE, date_time, duration, hedge, label, method, one_of, positive_duration, scalar, size, status_list, token, url,
};
pub use word::{Word, Words};
