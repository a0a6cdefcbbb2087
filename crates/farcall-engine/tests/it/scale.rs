//! However many calls wait: what a start reads does not grow with them (counted at the store, not timed), and what is
//! forgotten of those that only the store holds is known again when it is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use farcall_core::call::{Source, State, TenantId, Via};
use farcall_core::id::CallId;
use farcall_core::steady::{KeptClock, Steady};
use farcall_core::time::Timestamp;
use farcall_engine::config::{LoadOptions, load};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Engine, Options, SUBMISSIONS_MAX, Submission};
use farcall_store::memory::MemoryStore;
use farcall_store::port::{
    CallsAsk, CommitError, EndedRange, Fate, Granted, GrantsAsk, Insert, Legible, ListAsk, Listed, ReadError, Reader,
    ReopenError, Store, WaitingAsk, WaitingCalls, Write,
};
use farcall_store::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, OutcomeRecord, Progress, Recovery, RequestRecord,
    ResponseRecord,
};

use crate::engine::{OK, Outcome, until};
use crate::upstream::{Step, Upstream};

/// More than one lane has in memory.
const CALLBACKS: u32 = 2_500;

/// What was read so far.
#[derive(Debug, Default)]
struct Tally {
    questions: AtomicU64,
    rows: AtomicU64,
}

/// A store that counts what is read of it.
struct Counted {
    store: MemoryStore,
    tally: Arc<Tally>,
}

struct CountedReader {
    reader: Box<dyn Reader>,
    tally: Arc<Tally>,
}

impl Tally {
    fn note(&self, rows: usize) {
        self.questions.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

impl Store for Counted {
    fn take_over(&mut self) -> Result<Recovery, ReadError> {
        let recovery = self.store.take_over()?;
        let Recovery { engaged, lanes, open_attempts, unfiled, .. } = &recovery;
        self.tally.note(engaged.len() + lanes.len() + open_attempts.len() + unfiled.len());
        Ok(recovery)
    }

    fn keep_clock(&mut self, clock: &KeptClock) -> Result<(), ReadError> {
        self.store.keep_clock(clock)
    }

    fn commit(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        self.store.commit(writes)
    }

    fn reopen(&mut self) -> Result<Fate, ReopenError> {
        self.store.reopen()
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        let reader = self.store.reader()?;
        Ok(Box::new(CountedReader { reader, tally: Arc::clone(&self.tally) }))
    }
}

impl CountedReader {
    fn counted<T>(&self, answer: Result<T, ReadError>, rows: impl FnOnce(&T) -> usize) -> Result<T, ReadError> {
        let answer = answer?;
        self.tally.note(rows(&answer));
        Ok(answer)
    }
}

impl Reader for CountedReader {
    fn calls(&mut self, asked: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        let answer = self.reader.calls(asked);
        self.counted(answer, |_| 1)
    }

    fn attempts(&mut self, id: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        let answer = self.reader.attempts(id);
        self.counted(answer, Vec::len)
    }

    fn requests(&mut self, ids: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError> {
        let answer = self.reader.requests(ids);
        self.counted(answer, |requests| requests.found.len())
    }

    fn outcomes(&mut self, ids: &[CallId], bytes_max: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
        let outcomes = self.reader.outcomes(ids, bytes_max);
        self.tally.note(outcomes.len());
        outcomes
    }

    fn response(&mut self, id: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        let answer = self.reader.response(id);
        self.counted(answer, |_| 1)
    }

    fn grants(&mut self, limit_key: &str, asked: &[GrantsAsk]) -> Result<Granted, ReadError> {
        let answer = self.reader.grants(limit_key, asked);
        self.counted(answer, |granted| granted.grants.iter().map(Vec::len).sum())
    }

    fn waiting(&mut self, asked: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError> {
        let answer = self.reader.waiting(asked);
        self.counted(answer, |Legible { found, .. }| {
            found.lanes.iter().map(Vec::len).sum::<usize>() + found.expiring.len()
        })
    }

    fn list(&mut self, ask: &ListAsk) -> Result<Listed, ReadError> {
        let answer = self.reader.list(ask);
        self.counted(answer, |listed| listed.calls.len())
    }

    fn unfiled(&mut self, name: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        let answer = self.reader.unfiled(name);
        self.counted(answer, Vec::len)
    }

    fn ended(&mut self, range: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        self.reader.ended(range)
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        self.reader.free_bytes()
    }

    fn stored_bytes(&mut self) -> Result<u64, ReadError> {
        self.reader.stored_bytes()
    }
}

/// The n-th call that waits.
fn waiting(n: u32, upstream: &Upstream) -> Write {
    let (place, url) = (Steady::from_micros(i64::from(n)), upstream.url("/"));
    let call = CallRecord {
        id: CallId::from_bits(u128::from(n) + 1),
        source: Source::Bulk,
        via: Via::User,
        upstream: Some("shop".to_owned()),
        limit_key: "shop".to_owned(),
        method: "GET".to_owned(),
        url: url.to_string(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at: Timestamp::from_micros(i64::from(n)),
        not_before: None,
        deadline: None,
        started_at: None,
        attempts: 0,
        progress: Progress::waiting(State::Queued, Some(place)),
        has_overrides: false,
        callback_of: None,
        hop: None,
        retry_of: None,
        cancel_requested: false,
        file: None,
        filed: true,
        idempotency: None,
    };
    let request = Bytes::from(format!(r#"{{"url": "{url}"}}"#));
    Write::Insert(Box::new(Insert { at: place, call, request, trace: None }))
}

/// Questions and rows from the start on so many waiting calls to the end of the one that a limit lets through.
async fn read_by_start(calls: u32) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let text = format!("upstreams: {{ shop: {{ base_url: \"{}\", limits: [1/1d] }} }}", upstream.url("/"));
    std::fs::write(dir.path().join("farcall.yml"), text)?;
    let mut store = MemoryStore::new();
    store.take_over()?;
    store.commit(&(0..calls).map(|n| waiting(n, &upstream)).collect::<Vec<_>>())?;
    let tally = Arc::new(Tally::default());
    let config = Arc::new(load(dir.path(), &LoadOptions::default())?.config);
    let counted = Counted { store, tally: Arc::clone(&tally) };
    let launcher = "/proc/self/exe".into();
    let engine = Engine::start(Box::new(counted), Options { directory: dir.path().to_owned(), config, launcher })?;
    until("the first call to end", || async {
        (engine.handle().snapshot().census.calls(State::Succeeded) == 1).then_some(())
    })
    .await;
    engine.handle().drain().await;
    engine.join().await?;
    assert_eq!(upstream.arrivals().len(), 1);
    Ok((tally.questions.load(Ordering::Relaxed), tally.rows.load(Ordering::Relaxed)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_reads_as_much_whether_few_thousand_calls_wait_or_many() -> Outcome {
    let (few, many) = (read_by_start(3_000).await?, read_by_start(30_000).await?);
    assert_eq!(few, many, "questions and rows");
    let (questions, rows) = many;
    assert!(questions <= 24 && rows <= 2 * 2_048, "{questions} questions, {rows} rows");
    Ok(())
}

/// Submits so many calls, made by `text` from their numbers, and waits until so many have ended like this.
async fn all_end(limits: &str, text: impl Fn(u32, &Upstream) -> String, ends: &[(State, u64)]) -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let config = format!("upstreams: {{ shop: {{ base_url: \"{}\", limits: [{limits}] }} }}", upstream.url("/"));
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let engine = crate::engine::start(dir.path(), MemoryStore::new())?;
    let (handle, config) = (engine.handle(), engine.handle().config());
    for batch in (0..CALLBACKS).collect::<Vec<_>>().chunks(SUBMISSIONS_MAX) {
        let submission = |&n: &u32| -> Result<Submission, Box<dyn std::error::Error>> {
            let bytes = Bytes::from(text(n, &upstream));
            let document = Box::new(parse(&bytes, &Routing::from(config.as_ref()))?);
            Ok(Submission {
                document,
                bytes,
                source: Source::Bulk,
                via: Via::User,
                file: None,
                scope: String::new(),
                retry_of: None,
                id: None,
            })
        };
        let answers = handle.submit_many(batch.iter().map(submission).collect::<Result<_, _>>()?).await;
        assert!(answers.iter().all(Result::is_ok));
    }
    until("all ends", || async {
        ends.iter().all(|&(state, count)| handle.snapshot().census.calls(state) == count).then_some(())
    })
    .await;
    engine.handle().drain().await;
    engine.join().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callbacks_of_calls_that_only_the_store_held_are_made() -> Outcome {
    let text = |n: u32, upstream: &Upstream| {
        let (url, back) = (upstream.url(&format!("/{n}")), upstream.url(&format!("/back/{n}")));
        format!(r#"{{"url": "{url}", "callback": {{"url": "{back}"}}}}"#)
    };
    all_end("", text, &[(State::Succeeded, u64::from(CALLBACKS) * 2)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_are_those_of_calls_that_expire_there() -> Outcome {
    let receiver = Upstream::start(|_| vec![Step::Serve(OK.to_vec())]).await;
    let text = |n: u32, upstream: &Upstream| {
        let (url, back) = (upstream.url(&format!("/{n}")), receiver.url(&format!("/back/{n}")));
        format!(r#"{{"url": "{url}", "deadline": "1s", "callback": {{"url": "{back}"}}}}"#)
    };
    // One call was sent in time.
    let all = u64::from(CALLBACKS);
    all_end("1/1d", text, &[(State::Expired, all - 1), (State::Succeeded, all + 1)]).await
}
