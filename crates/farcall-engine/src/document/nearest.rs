//! The known name that a mistyped one is closest to.
//!
//! It only suggests: a mistyped key is rejected all the same.

/// Longer names than this are not compared.
const NAME_BYTES_MAX: usize = 64;

/// The nearest of the known names, when it is near enough to be what was meant.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let allowed = (name.chars().count() / 3).max(1);
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, letter) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, &other) in b.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && previous == Some(other) && letter == b[column - 1] {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(letter);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_name() {
        let known = ["base_url", "end_point", "headers", "body", "url"];
        let check = |name, expected| assert_eq!(nearest(name, known), expected, "{name}");
        check("bas_url", Some("base_url"));
        check("base_ulr", Some("base_url"));
        check("endpoint", Some("end_point"));
        check("Headers", Some("headers"));
        check("header", Some("headers"));
        check("payload", None);
        check("", None);
        check(&"x".repeat(1_000_000), None);
    }
}
