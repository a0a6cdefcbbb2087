//! W3C Trace Context: the trace that a call belongs to, as whoever sent it says, kept with the call and continued on every
//! attempt of it.
//!
//! What is malformed is ignored, as the recommendation has it: a call is never refused for its trace. Without one a call
//! begins a trace of its own, whose id is the call's. Which upstreams are told is decided where requests are built.

use std::fmt;
use std::sync::Arc;

use farcall_core::id::{AttemptId, CallId};
use http::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Flags that go on: sampled, and that the trace id is random. All others are reserved and not ours to pass on.
const FLAGS: u8 = 0b11;
/// Of later versions only the meaning of this flag is certain.
const SAMPLED: u8 = 0b1;
/// Length of a `traceparent` of version 00; those of later versions may be longer.
const LENGTH: usize = 55;
/// How much of a `tracestate` goes on, in bytes, and how many members it may have.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;
/// A member that is longer goes first when there is not room for all.
const MEMBER_BYTES_LONG: usize = 128;
/// The longest key and the longest value of a member.
const MEMBER_PART_BYTES_MAX: usize = 256;

/// The trace of a call, and where in it the call was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// That of a request; nothing when it has none, or none that is well formed.
    ///
    /// # Example
    /// ```
    /// use farcall_engine::trace::TraceContext;
    ///
    /// let mut headers = http::HeaderMap::new();
    /// let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// headers.insert("traceparent", http::HeaderValue::from_static(parent));
    /// assert_eq!(TraceContext::of_request(&headers).unwrap().to_string(), parent);
    /// headers.append("traceparent", http::HeaderValue::from_static(parent));
    /// assert!(TraceContext::of_request(&headers).is_none(), "of two nobody knows which holds");
    /// ```
    pub fn of_request(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none())?;
        let context = Self::parse(parent.to_str().ok()?)?;
        let states: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
        Some(Self { state: states.and_then(|states| state(&states.join(","))), ..context })
    }

    /// As it was written by [`fmt::Display`].
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (parent, state) = text.split_once('\n').map_or((text, None), |(parent, state)| (parent, Some(state)));
        Some(Self { state: state.map(Box::from), ..Self::parse(parent)? })
    }

    fn parse(text: &str) -> Option<Self> {
        let version = hex(text.get(..2)?)?;
        let is_long_enough = text.len() == LENGTH || (version > 0 && text.as_bytes().get(LENGTH) == Some(&b'-'));
        let hyphens = [2, 35, 52].iter().all(|&at| text.as_bytes().get(at) == Some(&b'-'));
        if !text.is_ascii() || version == 0xff || !is_long_enough || !hyphens {
            return None;
        }
        let (trace_id, parent_id) = (hex(&text[3..35])?, u64::try_from(hex(&text[36..52])?).ok()?);
        let known = if version == 0 { FLAGS } else { SAMPLED };
        let flags = u8::try_from(hex(&text[53..LENGTH])?).ok()? & known;
        (trace_id > 0 && parent_id > 0).then_some(Self { trace_id, parent_id, flags, state: None })
    }

    /// The trace's id.
    pub(crate) const fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The trace of a call that nobody has given one: not sampled by us.
    pub(crate) const fn of_call(call: CallId) -> Self {
        Self { trace_id: call.bits(), parent_id: 1, flags: 0, state: None }
    }

    /// Lets a request tell that it is this attempt, in this trace.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap, attempt: AttemptId) {
        // Any number but 0 that differs between the attempts of a call; the low half of its id is chance.
        let span = (attempt.call.bits() as u64).wrapping_add(u64::from(attempt.number)).max(1);
        headers.insert(TRACEPARENT, parent(self.trace_id, span, self.flags));
        if let Some(state) = self.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok()) {
            headers.insert(TRACESTATE, state);
        }
    }
}

impl fmt::Display for TraceContext {
    /// `traceparent`, and `tracestate` in a line of its own where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, parent_id, flags, state } = self;
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{flags:02x}")?;
        state.as_ref().map_or(Ok(()), |state| write!(f, "\n{state}"))
    }
}

/// What a store keeps of a call's trace, to go on with.
pub(crate) fn understood(stored: Option<&str>) -> Option<Arc<TraceContext>> {
    TraceContext::from_text(stored?).map(Arc::new)
}

/// Lower case only.
fn hex(digits: &str) -> Option<u128> {
    let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

fn parent(trace_id: u128, span: u64, flags: u8) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], &trace_id.to_be_bytes());
    write_hex(&mut text[36..52], &span.to_be_bytes());
    write_hex(&mut text[53..], &[flags]);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens")
}

/// Two digits for every byte.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// The members of a `tracestate` that is well formed, as far as there is room for them.
fn state(text: &str) -> Option<Box<str>> {
    let mut members: Vec<&str> =
        text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()).collect();
    let keys: std::collections::BTreeSet<&str> = members.iter().filter_map(|member| key(member)).collect();
    if members.is_empty() || members.len() > STATE_MEMBERS_MAX || keys.len() != members.len() {
        return None;
    }
    let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    while length(&members) > STATE_BYTES_MAX + 1 {
        let long = members.iter().rposition(|member| member.len() > MEMBER_BYTES_LONG);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    (!members.is_empty()).then(|| members.join(",").into())
}

/// The key of a member that is well formed.
fn key(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let starts_well = key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_key = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-*/@".contains(&c);
    let is_value = |c: u8| (b' '..=b'~').contains(&c) && c != b'=';
    let fits = |part: &str| (1..=MEMBER_PART_BYTES_MAX).contains(&part.len());
    let is_member = starts_well && fits(key) && fits(value) && key.bytes().all(is_key) && value.bytes().all(is_value);
    is_member.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parent: &str, states: &[&str]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(parent).ok()?);
        for state in states {
            headers.append(TRACESTATE, HeaderValue::from_str(state).ok()?);
        }
        TraceContext::of_request(&headers)
    }

    #[test]
    fn what_is_well_formed_is_read_and_what_is_not_is_ignored() {
        let check = |parent: &str, expected: Option<&str>| {
            assert_eq!(of(parent, &[]).map(|context| context.to_string()).as_deref(), expected, "{parent}");
        };
        check(PARENT, Some(PARENT));
        check(&PARENT.replace("-01", "-ff"), Some(&PARENT.replace("-01", "-03")));
        check(&PARENT.replace("00-4", "cc-4"), Some(PARENT));
        check(&format!("{}-what-comes-later", PARENT.replace("00-4", "cc-4")), Some(PARENT));
        for wrong in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &format!("{}x", PARENT.replace("00-4", "cc-4")),
            &PARENT.replace("00-4", "ff-4"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace("-00f", "_00f"),
            &PARENT.replace("4bf9", "4bg9"),
            &PARENT.replace("4bf9", "+bf9"),
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_state_goes_on_in_its_order_and_a_malformed_one_is_dropped() {
        let check = |states: &[&str], expected: Option<&str>| {
            let context = of(PARENT, states).expect("a trace all the same");
            assert_eq!(context.state.as_deref(), expected, "{states:?}");
            assert_eq!(TraceContext::from_text(&context.to_string()), Some(context));
        };
        check(&["congo=t61,rojo=00f067aa0ba902b7"], Some("congo=t61,rojo=00f067aa0ba902b7"));
        check(&["a=1 , ,b=2", "c@d=3 4"], Some("a=1,b=2,c@d=3 4"));
        for wrong in ["", "a", "A=1", "a=1,a=2", "a=b=c", "_a=1", "a="] {
            check(&[wrong], None);
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        check(&[&many.join(",")], None);
        check(&[&many[..32].join(",")], Some(&many[..32].join(",")));
        let (long, half) = (format!("long={}", "x".repeat(200)), format!("half={}", "y".repeat(100)));
        let rest: Vec<String> = (0..4).map(|n| format!("r{n}={}", "z".repeat(90))).collect();
        let kept = [&half, &rest[0], &rest[1], &rest[2], &rest[3]].map(String::as_str).join(",");
        check(&[&format!("{long},{kept}")], Some(&kept));
    }

    #[test]
    fn attempts_of_a_call_share_a_trace_and_differ_in_it() {
        let call = CallId::from_bits(0x0190_0000_0000_7000_8000_0000_0000_0007);
        let told = |context: &TraceContext, number| {
            let mut headers = HeaderMap::new();
            context.add_to(&mut headers, AttemptId { call, number });
            headers[TRACEPARENT].to_str().expect("ASCII").to_owned()
        };
        let own = TraceContext::of_call(call);
        let expected = |number| format!("00-{:032x}-{:016x}-00", call.bits(), call.bits() as u64 + number);
        assert_eq!([told(&own, 1), told(&own, 2)], [expected(1), expected(2)]);
        let given = of(PARENT, &["a=1"]).expect("a trace");
        assert_eq!(told(&given, 1), format!("{}-{:016x}-01", &PARENT[..35], call.bits() as u64 + 1));
        let mut headers = HeaderMap::new();
        given.add_to(&mut headers, AttemptId { call, number: 1 });
        assert_eq!(headers[TRACESTATE], "a=1");
    }
}
