//! The known name nearest to a mistyped one.
//!
//! It only suggests: a mistyped key is an error all the same.

/// Longer names than this are not compared.
const NAME_BYTES_MAX: usize = 64;

/// The candidate that takes the fewest edits, if they are few for its length. Case, and `-` for `_`, are no edits.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > NAME_BYTES_MAX {
        return None;
    }
    let written = plain(written);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, &plain(candidate)), candidate))
        .filter(|(edits, candidate)| *edits <= written.chars().count().max(candidate.len()).div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(from != to);
            let mut edits = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                edits = edits.min(rows[i - 1][j - 1] + 1);
            }
            row.push(edits);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_key_and_nonsense_finds_none() {
        let keys = ["rate_second", "rate_hour", "retry", "wait", "timeout"];
        let check = |written, expected| assert_eq!(nearest(written, keys), expected, "{written}");
        check("rate_sec", Some("rate_second"));
        check("Rate-Hour", Some("rate_hour"));
        check("retries", Some("retry"));
        check("wiat", Some("wait"));
        check("zebra", None);
        check("", None);
    }

    #[test]
    fn keys_of_a_call_are_found_and_long_names_not_compared() {
        let keys = ["base_url", "end_point", "headers", "body", "url"];
        let check = |written, expected| assert_eq!(nearest(written, keys), expected, "{written}");
        check("bas_url", Some("base_url"));
        check("base_ulr", Some("base_url"));
        check("endpoint", Some("end_point"));
        check("Headers", Some("headers"));
        check("header", Some("headers"));
        check("payload", None);
        check(&"x".repeat(1_000_000), None);
    }
}
