//! How a callback is kept: as a call whose document says what is to be done.
//!
//! A command's words are kept as the configuration had them. Of a webhook there is only who asked for it: its URL is
//! the call's, and its secret stays where it was given, in the configuration or in the document of the call that ended.

use bytes::Bytes;
use farcall_core::dispatcher::AskedBy;
use serde_json::{Value, json};

/// The document of a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    Command { words: Vec<String> },
    Webhook { asked_by: AskedBy, is_signed: bool },
}

impl Stored {
    pub(crate) fn to_bytes(&self) -> Bytes {
        let document = match self {
            Self::Command { words } => json!({ "command": words }),
            Self::Webhook { asked_by, is_signed } => {
                json!({ "webhook": { "asked_by": word(*asked_by), "signed": is_signed } })
            }
        };
        document.to_string().into()
    }

    /// Nothing for bytes that are no such document.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        if let Some(words) = document.get("command") {
            let words = words.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<_>>()?;
            return Some(Self::Command { words });
        }
        let webhook = document.get("webhook")?;
        let asked_by = webhook.get("asked_by")?.as_str()?;
        let asked_by = [AskedBy::Policy, AskedBy::Call].into_iter().find(|&by| word(by) == asked_by)?;
        Some(Self::Webhook { asked_by, is_signed: webhook.get("signed")?.as_bool()? })
    }
}

const fn word(asked_by: AskedBy) -> &'static str {
    match asked_by {
        AskedBy::Policy => "configuration",
        AskedBy::Call => "call",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_reads_back() {
        let words = vec!["echo".to_owned(), "a \"b\"\n".to_owned(), String::new()];
        let webhook = |asked_by, is_signed| Stored::Webhook { asked_by, is_signed };
        let all = [Stored::Command { words }, webhook(AskedBy::Policy, true), webhook(AskedBy::Call, false)];
        for stored in all {
            assert_eq!(Stored::from_bytes(&stored.to_bytes()), Some(stored));
        }
        for other in ["", "{}", r#"{"command": 1}"#, r#"{"webhook": {"asked_by": "nobody", "signed": true}}"#] {
            assert_eq!(Stored::from_bytes(other.as_bytes()), None, "{other}");
        }
    }
}
