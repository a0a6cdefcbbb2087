//! Figures of several rounds, and the table they are shown in: median, minimum, maximum, and ratios of like rounds.
//!
//! A ratio is taken within a round and only then summed up, because the machine drifts between rounds.

use std::fmt;

use serde_json::{Map, Value, json};

/// What a scenario came to: rows of figures, columns of those who are compared.
#[derive(Debug, Default)]
pub(super) struct Table {
    title: String,
    subjects: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    unit: &'static str,
    /// By subject, then by round.
    values: Vec<Vec<f64>>,
}

impl Table {
    pub(super) fn new(title: String, subjects: &[&'static str]) -> Self {
        Self { title, subjects: subjects.to_vec(), rows: Vec::new() }
    }

    /// Adds the figure of one round.
    pub(super) fn note(&mut self, subject: &str, name: &str, unit: &'static str, value: f64) {
        let place = self.subjects.iter().position(|known| *known == subject).expect("a subject of this table");
        let row = match self.rows.iter().position(|row| row.name == name) {
            Some(row) => row,
            None => {
                self.rows.push(Row { name: name.to_owned(), unit, values: vec![Vec::new(); self.subjects.len()] });
                self.rows.len() - 1
            }
        };
        self.rows[row].values[place].push(value);
    }

    pub(super) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let subjects: Map<String, Value> = self
                .subjects
                .iter()
                .zip(&row.values)
                .map(|(name, values)| ((*name).to_owned(), json!(values)))
                .collect();
            json!({ "name": row.name, "unit": row.unit, "rounds": subjects })
        });
        json!({ "title": self.title, "figures": rows.collect::<Vec<_>>() })
    }
}

impl Row {
    /// The first subject's rounds over the second's.
    fn ratios(&self) -> Option<Vec<f64>> {
        let [first, second] = &self.values[..] else { return None };
        let comparable = !first.is_empty() && first.len() == second.len();
        comparable.then(|| first.iter().zip(second).map(|(first, second)| first / second).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_ratio = self.subjects.len() == 2;
        write!(f, "{}\n  {:<34}{:<9}", self.title, "", "")?;
        for subject in &self.subjects {
            write!(f, "{subject:>30}")?;
        }
        writeln!(f, "{:>26}", if with_ratio { "ratio" } else { "" })?;
        for row in &self.rows {
            write!(f, "  {:<34}{:<9}", row.name, row.unit)?;
            for values in &row.values {
                write!(f, "{:>30}", shown(values))?;
            }
            writeln!(f, "{:>26}", row.ratios().map_or_else(String::new, |ratios| shown(&ratios)))?;
        }
        Ok(())
    }
}

/// `median [min-max]`; nothing for no rounds, the value alone for one.
fn shown(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match &sorted[..] {
        [] => "-".to_owned(),
        [only] => number(*only),
        [min, .., max] => format!("{} [{}-{}]", number(median(&sorted)), number(*min), number(*max)),
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

/// With three or more digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_medians_spans_and_the_ratio_of_like_rounds() {
        let mut table = Table::new("two".to_owned(), &["ours", "floor"]);
        for (ours, floor) in [(10.0, 40.0), (30.0, 60.0), (20.0, 20.0)] {
            table.note("floor", "rate", "calls/s", floor);
            table.note("ours", "rate", "calls/s", ours);
        }
        let text = table.to_string();
        let words: Vec<&str> = text.lines().nth(2).unwrap_or_default().split_whitespace().collect();
        let expected = ["rate", "calls/s", "20.0", "[10.0-30.0]", "40.0", "[20.0-60.0]", "0.50", "[0.25-1.00]"];
        assert_eq!(words, expected);
        assert_eq!(table.to_json()["figures"][0]["rounds"]["ours"], json!([10.0, 30.0, 20.0]));
    }

    #[test]
    fn an_even_number_of_rounds_has_its_median_between_two() {
        assert_eq!(shown(&[4.0, 1.0, 2.0, 3.0]), "2.50 [1.00-4.00]");
        assert_eq!((shown(&[]), shown(&[12_345.6])), ("-".to_owned(), "12346".to_owned()));
    }
}
