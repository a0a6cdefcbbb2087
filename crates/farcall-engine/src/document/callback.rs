//! A call's own callback: a URL that is told the outcome, and the secret that signs it.
//!
//! Never a command: whoever may send calls need not be allowed to run programs. Text is text here; `${...}` means
//! nothing in a call.

use super::field::{Fault, Field, mapping};
use super::json::Shape;
use super::{OwnCallback, Routing, address};
use crate::callback::SigningKey;

mapping! {
    /// The keys of a callback.
    CallbackKeys { url, secret, function }
}

pub(super) fn read(field: &Field<'_>, routing: &Routing<'_>) -> Result<OwnCallback, Fault> {
    if field.value.shape() != Shape::Object {
        return Err(field.wrong("must be an object with a `url`; command lines stand in the configuration only"));
    }
    let mut keys = CallbackKeys::default();
    for member in field.members("callback")? {
        keys.put(member).map_err(|member| member.unknown(CallbackKeys::KEYS))?;
    }
    if let Some(function) = &keys.function {
        return Err(function.not_available_yet());
    }
    let Some(url) = &keys.url else { return Err(field.wrong("must have a `url`")) };
    let (upstream, url) = address::alone(url, routing)?;
    Ok(OwnCallback { upstream, url, key: keys.secret.as_ref().map(key).transpose()? })
}

/// Whatever is wrong with a secret, the message does not repeat it.
fn key(field: &Field<'_>) -> Result<SigningKey, Fault> {
    SigningKey::from_text(&field.string()?).map_err(|error| field.wrong(format_args!("is no signing secret: {error}")))
}

#[cfg(test)]
mod tests;
