//! What a run has come to: counts over all upstreams, and the table it ends with.
//!
//! Counts are those since the start of the engine; callbacks are a row of their own.

use farcall_core::call::State;
use farcall_engine::{Overview, UpstreamOverview};
use serde_json::{Map, Value, json};

use crate::print::{Column, Output, Records, Screen};

/// Ends that have a column of their own even when there are none.
const COLUMNS_ALWAYS: [State; 2] = [State::Succeeded, State::Failed];

/// Ended calls of a run by their end, callbacks included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    ended: [u64; State::ALL.len()],
}

impl Tally {
    pub(crate) fn of(overview: &Overview) -> Self {
        let mut tally = Self::default();
        for (state, count) in rows(overview).flat_map(|row| &row.ended) {
            tally.ended[*state as usize] += count;
        }
        tally
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended.iter().sum()
    }

    pub(crate) const fn succeeded(&self) -> u64 {
        self.ended[State::Succeeded as usize]
    }

    pub(crate) const fn cancelled(&self) -> u64 {
        self.ended[State::Cancelled as usize]
    }

    /// Ended otherwise than succeeded or cancelled.
    pub(crate) fn failed(&self) -> u64 {
        self.ended() - self.succeeded() - self.cancelled()
    }
}

/// Prints what each upstream did, on stdout.
pub(crate) fn print(screen: &Screen, overview: &Overview, output: Output) {
    let active: Vec<_> = rows(overview).filter(|row| is_active(row)).collect();
    match output {
        Output::Table if active.is_empty() => {}
        Output::Table => {
            let ends = columns(&active);
            let numbers = ends.iter().map(|state| state.as_str()).chain(["waiting", "attempts", "average", "slowest"]);
            let header: Vec<_> = [Column::text("upstream")].into_iter().chain(numbers.map(Column::number)).collect();
            screen.table(&header, active.iter().map(|row| cells(row, &ends)));
        }
        Output::Json => screen.records(&active.iter().map(|row| record(row)).collect::<Vec<_>>(), Records::Document),
        Output::Ndjson => screen.records(&active.iter().map(|row| record(row)).collect::<Vec<_>>(), Records::Lines),
    }
}

fn rows(overview: &Overview) -> impl Iterator<Item = &UpstreamOverview> {
    overview.upstreams.iter().chain([&overview.callbacks])
}

const fn is_active(row: &UpstreamOverview) -> bool {
    !row.ended.is_empty() || row.attempts > 0 || row.waiting > 0
}

/// The ends that occurred, and those always shown.
fn columns(rows: &[&UpstreamOverview]) -> Vec<State> {
    let occurred = |state: State| rows.iter().any(|row| ended(row, state) > 0);
    let ends = State::ALL.iter().copied().filter(|state| state.is_end());
    ends.filter(|&state| COLUMNS_ALWAYS.contains(&state) || occurred(state)).collect()
}

fn cells(row: &UpstreamOverview, ends: &[State]) -> Vec<String> {
    let waiting = if row.is_paused { format!("{} (paused)", row.waiting) } else { row.waiting.to_string() };
    let counts = ends.iter().map(|&state| ended(row, state).to_string());
    let latency = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), milliseconds);
    [row.name.clone()]
        .into_iter()
        .chain(counts)
        .chain([waiting, row.attempts.to_string(), latency(latency_ms_avg(row)), latency(latency_ms_max(row))])
        .collect()
}

fn record(row: &UpstreamOverview) -> Value {
    let ends: Map<String, Value> = row.ended.iter().map(|(state, count)| (state.to_string(), json!(count))).collect();
    json!({
        "upstream": row.name,
        "ended": ends,
        "waiting": row.waiting,
        "paused": row.is_paused,
        "attempts": row.attempts,
        "latency_ms_avg": latency_ms_avg(row),
        "latency_ms_max": latency_ms_max(row),
    })
}

fn ended(row: &UpstreamOverview, state: State) -> u64 {
    row.ended.iter().filter(|(end, _)| *end == state).map(|(_, count)| count).sum()
}

/// Nothing without an attempt; so for the maximum.
const fn latency_ms_avg(row: &UpstreamOverview) -> Option<u64> {
    row.latency_ms_sum.checked_div(row.attempts)
}

const fn latency_ms_max(row: &UpstreamOverview) -> Option<u64> {
    if row.attempts > 0 { Some(row.latency_ms_max) } else { None }
}

/// `12 ms`, `1.3 s`
fn milliseconds(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms / 100 % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> UpstreamOverview {
        UpstreamOverview {
            name: "shop".into(),
            ended: vec![(State::Succeeded, 7), (State::Expired, 2)],
            attempts: 10,
            waiting: 1,
            latency_ms_sum: 13_000,
            latency_ms_max: 2_345,
            ..UpstreamOverview::default()
        }
    }

    #[test]
    fn every_end_but_two_is_a_failure_also_of_a_callback() {
        let callbacks =
            UpstreamOverview { ended: vec![(State::Failed, 1), (State::Cancelled, 5)], ..UpstreamOverview::default() };
        let tally = Tally::of(&Overview { upstreams: vec![shop()], callbacks, ..Overview::default() });
        assert_eq!((tally.ended(), tally.succeeded(), tally.cancelled(), tally.failed()), (15, 7, 5, 3));
    }

    #[test]
    fn a_row_has_the_ends_that_occurred() {
        let shop = shop();
        let ends = columns(&[&shop]);
        assert_eq!(ends, [State::Succeeded, State::Failed, State::Expired]);
        assert_eq!(cells(&shop, &ends), ["shop", "7", "0", "2", "1", "10", "1.3 s", "2.3 s"]);
    }

    #[test]
    fn upstreams_without_attempts_have_no_latency() {
        let idle = UpstreamOverview { name: "idle".into(), waiting: 3, is_paused: true, ..UpstreamOverview::default() };
        assert_eq!(cells(&idle, &COLUMNS_ALWAYS), ["idle", "0", "0", "3 (paused)", "0", "-", "-"]);
        assert_eq!(record(&idle)["latency_ms_avg"], Value::Null);
    }
}
