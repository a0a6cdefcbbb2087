//! What files are called once their plain name belongs to another.
//!
//! Names are bytes. They keep their own beginning, shortened where the file system's limit asks for it.

use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use sha2::{Digest, Sha256};

/// The longest name of a file on Linux, in bytes.
const NAME_BYTES_MAX: usize = 255;
const EXTENSION: &[u8] = b".json";
const PROBLEM_EXTENSION: &[u8] = b".problem.json";

/// What tells a displaced file from others of its plain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Call(CallId),
    /// When its rejection was written.
    Rejected(Timestamp),
    /// Of a file whose call is not known any more: when it was last changed.
    Earlier(Timestamp),
}

/// `order.<call id>.json` or `order.rejected-<UTC time, µs>.json`; from the second on with a number behind.
pub(super) fn displaced(name: &[u8], tag: Tag, nth: u32) -> Vec<u8> {
    let mut suffix = match tag {
        Tag::Call(id) => format!(".{id}"),
        Tag::Rejected(at) => format!(".rejected-{}", micros(at)),
        Tag::Earlier(at) => format!(".earlier-{}", micros(at)),
    };
    if nth > 1 {
        suffix.push_str(&format!(".{nth}"));
    }
    suffix.push_str(".json");
    let stem = name.strip_suffix(EXTENSION).unwrap_or(name);
    // A problem file's name is to fit as well, without being shortened on its own.
    let room = NAME_BYTES_MAX - PROBLEM_EXTENSION.len() - suffix.len();
    [shortened(stem, room), suffix.as_bytes()].concat()
}

/// `order.json.problem.json`; for names near the limit the beginning and a digest, so that no two share one.
pub(super) fn problem(name: &[u8]) -> Vec<u8> {
    if name.len() + PROBLEM_EXTENSION.len() <= NAME_BYTES_MAX {
        return [name, PROBLEM_EXTENSION].concat();
    }
    let digest = Sha256::digest(name);
    let suffix = format!("~{:02x}{:02x}{:02x}{:02x}.json.problem.json", digest[0], digest[1], digest[2], digest[3]);
    let stem = name.strip_suffix(EXTENSION).unwrap_or(name);
    [shortened(stem, NAME_BYTES_MAX - suffix.len()), suffix.as_bytes()].concat()
}

/// At most so many bytes; of UTF-8, whole characters.
fn shortened(stem: &[u8], bytes_max: usize) -> &[u8] {
    if stem.len() <= bytes_max {
        return stem;
    }
    match std::str::from_utf8(stem) {
        Ok(text) => &stem[..text.floor_char_boundary(bytes_max)],
        Err(_) => &stem[..bytes_max],
    }
}

/// ISO 8601, basic format: `20261120T090000.123456Z`.
fn micros(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "call_01890a5d-ac96-774b-bcce-b302099a8057";

    fn call() -> Tag {
        Tag::Call(ID.parse().expect("a test's id"))
    }

    #[test]
    fn displaced_files_keep_their_own_beginning() {
        let at = Timestamp::from_micros(1_795_165_200_123_456);
        let check = |name: &str, tag, nth, expected: &str| {
            assert_eq!(String::from_utf8_lossy(&displaced(name.as_bytes(), tag, nth)), expected);
        };
        check("order.json", call(), 1, &format!("order.{ID}.json"));
        check("order.json", call(), 2, &format!("order.{ID}.2.json"));
        check("order.json", Tag::Rejected(at), 1, "order.rejected-20261120T090000.123456Z.json");
        check("order.json", Tag::Earlier(at), 1, "order.earlier-20261120T090000.123456Z.json");
        check("a.json.json", call(), 1, &format!("a.json.{ID}.json"));
    }

    #[test]
    fn long_names_are_shortened_to_fit_with_their_problem_file() {
        let long = format!("{}.json", "é".repeat(125));
        assert_eq!(long.len(), 255);
        let name = displaced(long.as_bytes(), call(), 12);
        assert!(problem(&name).len() <= 255 && name.ends_with(b".12.json"));
        assert!(std::str::from_utf8(&name).is_ok(), "whole characters only");
        assert!(problem(&name).starts_with(&name), "a displaced name has room for its problem file");
        let bytes = [&[0xff; 250][..], b".json"].concat();
        assert!(displaced(&bytes, call(), 1).len() <= 242);
    }

    #[test]
    fn problem_files_of_long_names_differ() {
        assert_eq!(problem(b"order.json"), b"order.json.problem.json");
        assert_eq!(problem(&[b'a'; 242]).len(), 255);
        let long = |last: char| problem(format!("{}{last}.json", "a".repeat(249)).as_bytes());
        assert!(long('b').len() <= 255);
        assert_ne!(long('b'), long('c'));
    }
}
