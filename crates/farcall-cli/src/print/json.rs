//! JSON documents of a server laid out anew: nothing but white space between their tokens changes.
//!
//! Parsing them into values would round large numbers, sort keys and lose repeated ones; what an upstream answered is
//! shown as it is. The text must be JSON; of anything else only the length is bounded.

/// How far each level is set in.
const INDENT: &str = "  ";

/// The document on one line.
pub(super) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for token in tokens(text) {
        out.push_str(token);
    }
    out
}

/// The document over lines, for eyes; the lines after the first are set in by at least so many levels.
pub(super) fn pretty(text: &str, depth: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = depth;
    let mut tokens = tokens(text).peekable();
    while let Some(token) = tokens.next() {
        match token {
            "{" | "[" => {
                out.push_str(token);
                if let Some(end) = tokens.next_if(|next| matches!(*next, "}" | "]")) {
                    out.push_str(end);
                } else {
                    depth += 1;
                    begin_line(&mut out, depth);
                }
            }
            "}" | "]" => {
                depth = depth.saturating_sub(1);
                begin_line(&mut out, depth);
                out.push_str(token);
            }
            "," => {
                out.push(',');
                begin_line(&mut out, depth);
            }
            ":" => out.push_str(": "),
            _ => out.push_str(token),
        }
    }
    out
}

fn begin_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str(INDENT);
    }
}

/// Brackets, commas, colons, strings with their quotes, and everything else that stands together.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let first = *rest.as_bytes().first()?;
        let length = match first {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => string_length(rest),
            _ => rest.find(['{', '}', '[', ']', ',', ':', '"', ' ', '\t', '\n', '\r']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// The length of the string that a text begins with, its quotes included.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{ \"b\" : [1.0e400 ,\n12345678901234567890123, {}, [ ]],\"a\":\"x, \\\"y\\\\\" , \"é\":null}";

    #[test]
    fn only_white_space_goes() {
        let expected = "{\"b\":[1.0e400,12345678901234567890123,{},[]],\"a\":\"x, \\\"y\\\\\",\"é\":null}";
        assert_eq!(compact(TEXT), expected);
        assert_eq!(compact(&pretty(TEXT, 0)), expected);
        assert_eq!(compact(" \"a\" "), "\"a\"");
    }

    #[test]
    fn each_member_has_its_line() {
        let expected = "{\n  \"b\": [\n    1.0e400,\n    12345678901234567890123,\n    {},\n    []\n  ],\n  \
             \"a\": \"x, \\\"y\\\\\",\n  \"é\": null\n}";
        assert_eq!(pretty(TEXT, 0), expected);
    }
}
