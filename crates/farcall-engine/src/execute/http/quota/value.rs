//! How quantities are written: numbers, lists of them, numbers with a window, used of a limit, items with parameters.
//!
//! Lenient in form, strict in meaning: what is no number is nothing, and a number too large saturates.

use std::time::Duration;

use farcall_core::time::Timestamp;

use super::Quantity;
use super::moment::{self, Unit};

/// Numbers that one header may list.
const LIST_MAX: usize = 8;

/// One quota of a list with parameters: `"default";r=50;t=30`, or `limit=100, remaining=50, reset=5`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) remaining: u64,
    reset: Option<&'a str>,
}

impl Item<'_> {
    pub(super) fn resets_in(&self, from: Timestamp) -> Option<Duration> {
        moment::until(self.reset?, Unit::Any, from)
    }
}

/// The numbers of a list: `100`, `598.0`, `600,30000`, `100;w=60`, `20:1,100:120`.
pub(super) fn quantities(text: &str) -> Vec<Quantity> {
    let one = |part: &str| {
        let (count, window) = match part.split_once([';', ':']) {
            Some((count, window)) => (count, window_of(window)),
            None => (part, None),
        };
        Some(Quantity { count: number(count)?, window })
    };
    let parts: Option<Vec<Quantity>> = text.split(',').take(LIST_MAX).map(one).collect();
    parts.unwrap_or_default()
}

/// `32/40`, `api-usage=25/5000`: so much was used of so much.
pub(super) fn used_of(text: &str) -> Option<(u64, u64)> {
    let (used, limit) = text.split_once('/')?;
    let used = used.rsplit_once('=').map_or(used, |(_, used)| used);
    let limit = limit.split([',', ';', ' ']).next().unwrap_or_default();
    Some((number(used)?, number(limit)?))
}

/// The items of a list that say what remains; none when the text is no such list.
pub(super) fn items(text: &str) -> Vec<Item<'_>> {
    let mut items: Vec<Item<'_>> = Vec::new();
    let (mut remaining, mut reset) = (None, None);
    let mut put = |remaining: &mut Option<u64>, reset: &mut Option<_>| {
        let reset = reset.take();
        if let Some(remaining) = remaining.take() {
            items.push(Item { remaining, reset });
        }
    };
    for part in parts(text).into_iter().take(LIST_MAX * 8) {
        match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("r" | "remaining", value)) => remaining = number(value),
            Some(("t" | "reset" | "resets", value)) => reset = Some(value),
            Some(_) => {}
            // A name: with it begins the next.
            None => put(&mut remaining, &mut reset),
        }
    }
    put(&mut remaining, &mut reset);
    items
}

/// Cut at commas and semicolons that are not in quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_cut = move |letter: char| {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' | ';' => return !is_quoted,
            _ => {}
        }
        false
    };
    text.split(is_cut).map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn window_of(text: &str) -> Option<Duration> {
    let text = text.trim();
    let seconds = text.strip_prefix("w=").or_else(|| text.strip_prefix("window=")).unwrap_or(text);
    number(seconds).map(Duration::from_secs)
}

/// A whole number that is not negative; what comes behind the point is left out.
fn number(text: &str) -> Option<u64> {
    let text = text.trim().trim_matches('"');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // Only too many digits can fail here.
    Some(whole.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_alone_in_lists_and_with_windows() {
        let check = |text, expected: &[(u64, Option<u64>)]| {
            let expected: Vec<Quantity> = expected
                .iter()
                .map(|&(count, seconds)| Quantity { count, window: seconds.map(Duration::from_secs) })
                .collect();
            assert_eq!(quantities(text), expected, "{text:?}");
        };
        check("598.0", &[(598, None)]);
        check("600, 30000", &[(600, None), (30_000, None)]);
        check("100;w=21600", &[(100, Some(21_600))]);
        check("20:1,100:120", &[(20, Some(1)), (100, Some(120))]);
        check("99999999999999999999999", &[(u64::MAX, None)]);
        for nonsense in ["", "-1", "many", "1,", "unlimited", "1e3", "0x1", "1.x", "٣"] {
            check(nonsense, &[]);
        }
    }

    #[test]
    fn what_was_used_stands_before_a_slash() {
        assert_eq!(used_of("32/40"), Some((32, 40)));
        assert_eq!(used_of("api-usage=25/5000"), Some((25, 5_000)));
        assert_eq!(used_of("api-usage=25/5000, per-app-api-usage=17/250(appName=sample)"), Some((25, 5_000)));
        assert_eq!((used_of("40"), used_of("a/b"), used_of("/")), (None, None, None));
    }

    #[test]
    fn items_have_names_and_parameters() {
        let check = |text, expected: &[(u64, Option<&'static str>)]| {
            let expected: Vec<Item<'_>> =
                expected.iter().map(|&(remaining, reset)| Item { remaining, reset }).collect();
            assert_eq!(items(text), expected, "{text:?}");
        };
        check("\"default\";r=50;t=30", &[(50, Some("30"))]);
        check("\"a,b;r=1\";r=50;t=30, day;r=7", &[(50, Some("30")), (7, None)]);
        check("limit=100, remaining=50, reset=5", &[(50, Some("5"))]);
        check("total=100; remaining=99; resets=41", &[(99, Some("41"))]);
        check("\"a\";q=100;w=60", &[]);
        check("\"\\\";r=1", &[]);
    }
}
