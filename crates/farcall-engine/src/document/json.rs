//! One pass over a JSON text: its grammar, its nesting, keys given twice, and where its parts lie.
//!
//! Why not serde_json: it neither refuses duplicate keys at any depth nor lets a body pass as written that it could not
//! itself represent (`1e400`, lone surrogates), and it tells no place of what is grammatical but wrong. The grammar
//! accepted is that of RFC 8259; a property test holds it against serde_json's. Nothing recurses, nothing is copied.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use super::characters::{Characters, decode};

/// How many containers may be open, one within the other; the outermost counts.
pub(super) const NESTING_MAX: usize = 128;
/// Up to this many keys of one object are compared as they come; more are sorted when it closes.
const LINEAR_KEYS_MAX: usize = 16;

/// Room for so many of each is made at once: few calls have more.
const MEMBERS_AT_FIRST: usize = 8;

/// What is wrong with a text, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) at: usize,
    pub(super) problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is not JSON, or not one value.
    Syntax(&'static str),
    TooDeep,
    DuplicateKey(String),
}

/// The inside of a string token, and whether it holds escapes.
#[derive(Debug, Clone, Copy)]
struct Text {
    start: u32,
    end: u32,
    escaped: bool,
}

/// A value inside a text that was scanned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    document: &'a str,
    start: usize,
    end: usize,
}

/// A value with its key; the key of an array's element is empty.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) key_at: usize,
    pub(super) value: Value<'a>,
}

/// What sort of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// Scans a whole text, which must be one value; gives the first members of the outermost container, at most so many.
pub(super) fn scan(document: &str, count_max: usize) -> Result<(Value<'_>, Vec<Member<'_>>), Flaw> {
    let mut scan = Scan::new(document, 0..document.len(), count_max);
    if u32::try_from(document.len()).is_err() {
        return Err(scan.syntax("the document is larger than 4 GiB"));
    }
    scan.skip_space();
    let start = scan.at;
    scan.value()?;
    let end = scan.at;
    scan.skip_space();
    if scan.at < document.len() {
        return Err(scan.syntax("unexpected text after the value"));
    }
    Ok((Value { document, start, end }, scan.children))
}

impl<'a> Value<'a> {
    /// Where it begins, in bytes.
    pub(super) const fn at(&self) -> usize {
        self.start
    }

    pub(super) const fn end(&self) -> usize {
        self.end
    }

    /// As written.
    pub(super) fn raw(&self) -> &'a str {
        &self.document[self.start..self.end]
    }

    pub(super) fn shape(&self) -> Shape {
        match self.document.as_bytes()[self.start] {
            b'{' => Shape::Object,
            b'[' => Shape::Array,
            b'"' => Shape::String,
            b't' | b'f' => Shape::Boolean,
            b'n' => Shape::Null,
            _ => Shape::Number,
        }
    }

    /// The characters of a string; nothing when it is none, or holds a lone surrogate.
    pub(super) fn string(&self) -> Option<Cow<'a, str>> {
        let inside = self.raw().strip_prefix('"')?.strip_suffix('"')?;
        decode(inside, inside.contains('\\'))
    }

    /// The first members of an object, or elements of an array, at most so many; none for other values.
    pub(super) fn children(&self, count_max: usize) -> Vec<Member<'a>> {
        let mut scan = Scan::new(self.document, self.start..self.end, count_max);
        scan.value().expect("it was scanned with its document");
        scan.children
    }
}

struct Scan<'a> {
    document: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Container>,
    /// Keys of the open objects, those of the innermost last.
    keys: Vec<Text>,
    children: Vec<Member<'a>>,
    /// So many of them are kept; a text may hold millions.
    children_max: usize,
    /// Where the child of the outermost container began that is being read.
    child_at: usize,
}

#[derive(Clone, Copy)]
struct Container {
    is_object: bool,
    /// The index of its first key.
    first_key: usize,
}

impl<'a> Scan<'a> {
    fn new(document: &'a str, part: Range<usize>, children_max: usize) -> Self {
        Self {
            document,
            bytes: &document.as_bytes()[..part.end],
            at: part.start,
            open: Vec::with_capacity(MEMBERS_AT_FIRST),
            keys: Vec::with_capacity(MEMBERS_AT_FIRST),
            children: Vec::with_capacity(MEMBERS_AT_FIRST.min(children_max)),
            children_max,
            child_at: part.start,
        }
    }

    /// Reads one value, whatever it holds.
    fn value(&mut self) -> Result<(), Flaw> {
        loop {
            if self.open.len() == 1 {
                self.child_at = self.at;
            }
            if !self.begin_value()? {
                continue;
            }
            if self.close_until_comma()? {
                return Ok(());
            }
        }
    }

    /// Reads a scalar or an empty container whole, and is then true; or the opening of another, up to its first value.
    fn begin_value(&mut self) -> Result<bool, Flaw> {
        match self.peek() {
            Some(b'{') => self.begin_container(true),
            Some(b'[') => self.begin_container(false),
            Some(b'"') => self.string("the text ends inside a string").map(|_| true),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| true),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b']') if self.open.last().is_some_and(|container| !container.is_object) => {
                Err(self.syntax("trailing comma: expected a value"))
            }
            Some(_) => Err(self.syntax("expected a value")),
            None => Err(self.syntax("the text ends where a value was expected")),
        }
    }

    fn begin_container(&mut self, is_object: bool) -> Result<bool, Flaw> {
        if self.open.len() >= NESTING_MAX {
            return Err(Flaw { at: self.at, problem: Problem::TooDeep });
        }
        self.open.push(Container { is_object, first_key: self.keys.len() });
        self.at += 1;
        self.skip_space();
        let close = if is_object { b'}' } else { b']' };
        if self.peek() == Some(close) {
            self.open.pop();
            self.at += 1;
            return Ok(true);
        }
        if is_object {
            self.key()?;
        }
        Ok(false)
    }

    /// After a value: closes what ends here. True when the outermost value has ended, false after a comma.
    fn close_until_comma(&mut self) -> Result<bool, Flaw> {
        loop {
            if self.open.len() == 1 {
                self.end_child();
            }
            let Some(&Container { is_object, first_key }) = self.open.last() else { return Ok(true) };
            self.skip_space();
            match (self.peek(), is_object) {
                (Some(b','), _) => {
                    self.at += 1;
                    self.skip_space();
                    if is_object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                (Some(b'}'), true) => self.check_many_keys(first_key)?,
                (Some(b']'), false) => {}
                (Some(_), true) => return Err(self.syntax("expected `,` or `}`")),
                (Some(_), false) => return Err(self.syntax("expected `,` or `]`")),
                (None, true) => return Err(self.syntax("the text ends inside an object")),
                (None, false) => return Err(self.syntax("the text ends inside an array")),
            }
            self.keys.truncate(first_key);
            self.open.pop();
            self.at += 1;
        }
    }

    fn end_child(&mut self) {
        if self.children.len() >= self.children_max {
            return;
        }
        let value = Value { document: self.document, start: self.child_at, end: self.at };
        let (key, key_at) = match self.open.first() {
            Some(container) if container.is_object => {
                let key = *self.keys.last().expect("a member has a key");
                // A key that is no Unicode text is none of ours; shown as well as it can be.
                let text = decode(self.inside(key), key.escaped).unwrap_or(Cow::Borrowed(self.inside(key)));
                (text, key.start as usize - 1)
            }
            Some(_) | None => (Cow::Borrowed(""), self.child_at),
        };
        self.children.push(Member { key, key_at, value });
    }

    /// Reads a key and its colon, and refuses one that its object has already.
    fn key(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            Some(b'"') => {}
            Some(b'}') => return Err(self.syntax("trailing comma: expected a key")),
            Some(_) => return Err(self.syntax("expected a key in double quotes")),
            None => return Err(self.syntax("the text ends inside an object")),
        }
        let key = self.string("the text ends inside a key")?;
        let first_key = self.open.last().map_or(0, |container| container.first_key);
        let earlier = &self.keys[first_key..];
        if earlier.len() < LINEAR_KEYS_MAX && earlier.iter().any(|&other| self.compare(other, key).is_eq()) {
            return Err(self.duplicate(key));
        }
        self.keys.push(key);
        self.skip_space();
        match self.peek() {
            Some(b':') => self.at += 1,
            Some(_) => return Err(self.syntax("expected `:` after a key")),
            None => return Err(self.syntax("the text ends after a key")),
        }
        self.skip_space();
        Ok(())
    }

    /// Compares the keys of an object that is about to close, when they are many; forgets them.
    fn check_many_keys(&mut self, first_key: usize) -> Result<(), Flaw> {
        if self.keys.len() - first_key <= LINEAR_KEYS_MAX {
            return Ok(());
        }
        // Sorted where they are: there may be millions.
        let mut all = std::mem::take(&mut self.keys);
        let keys = &mut all[first_key..];
        keys.sort_unstable_by(|&a, &b| self.compare(a, b).then(a.start.cmp(&b.start)));
        let duplicate = keys.windows(2).find(|pair| self.compare(pair[0], pair[1]).is_eq()).map(|pair| pair[1]);
        all.truncate(first_key);
        self.keys = all;
        duplicate.map_or(Ok(()), |key| Err(self.duplicate(key)))
    }

    fn compare(&self, a: Text, b: Text) -> Ordering {
        let (left, right) = (self.inside(a), self.inside(b));
        // Bytes of UTF-8 sort like the characters they stand for.
        if a.escaped || b.escaped { Characters(left).cmp(Characters(right)) } else { left.cmp(right) }
    }

    fn inside(&self, text: Text) -> &'a str {
        &self.document[text.start as usize..text.end as usize]
    }

    fn duplicate(&self, key: Text) -> Flaw {
        let name = decode(self.inside(key), key.escaped).unwrap_or(Cow::Borrowed(self.inside(key)));
        Flaw { at: key.start as usize - 1, problem: Problem::DuplicateKey(name.into_owned()) }
    }

    fn string(&mut self, at_end: &'static str) -> Result<Text, Flaw> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.syntax("a control character in a string must be escaped")),
                None => return Err(self.syntax(at_end)),
            }
        }
        self.at += 1;
        let index = |at: usize| u32::try_from(at).expect("the document's length was checked");
        Ok(Text { start: index(start), end: index(self.at - 1), escaped })
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.syntax("expected four hexadecimal digits after `\\u`"));
                    }
                    self.at += 1;
                }
            }
            Some(_) => return Err(self.syntax("unknown escape in a string")),
            None => return Err(self.syntax("the text ends inside a string")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Flaw> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        match self.peek() {
            Some(b'0'..=b'9') => Err(self.syntax("a number must not begin with 0")),
            Some(_) | None => Ok(()),
        }
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(self.syntax("expected a digit")) }
    }

    fn literal(&mut self, word: &'static str) -> Result<bool, Flaw> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax("expected a value"));
        }
        self.at += word.len();
        Ok(true)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn syntax(&self, message: &'static str) -> Flaw {
        Flaw { at: self.at, problem: Problem::Syntax(message) }
    }
}

/// How many bytes from the beginning are neither a quotation mark, a backslash nor a control character.
///
/// Eight at a time: of a byte that is zero, subtracting one from every byte sets the highest bit (Mycroft 1987), and of no
/// byte before the first such one. Bytes of 0x80 and above are masked out.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES * 0x80;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is_control = word.wrapping_sub(ONES * 0x20) & !word;
        let is_special = is_zero(word ^ (ONES * u64::from(b'"'))) | is_zero(word ^ (ONES * u64::from(b'\\')));
        let found = (is_control | is_special) & HIGHS;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let in_rest = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
    bytes.len() - rest.len() + in_rest.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
