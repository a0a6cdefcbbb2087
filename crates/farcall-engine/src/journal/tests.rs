//! The journal on a memory store that fails as told.

use farcall_core::call::State as CallState;
use farcall_core::call::{Source, TenantId, Via};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use farcall_store::memory::{Fault, MemoryStore, Trouble};
use farcall_store::port::{Insert, Store};
use farcall_store::record::{CallRecord, Progress};
use tokio::sync::mpsc;

use super::*;

/// A journal on a store, and what it tells.
struct Bench {
    journal: Journal,
    messages: mpsc::Receiver<Message>,
}

impl Bench {
    fn new(mut store: MemoryStore) -> Self {
        store.take_over().expect("a memory store can be taken over");
        let (sender, messages) = mpsc::channel(64);
        Self { journal: Journal::start(Box::new(store), sender, Histogram::new([])).expect("a thread"), messages }
    }

    fn commit(&self, seq: u64) {
        self.journal.commit(Seq(seq), vec![insert(seq)], 0);
    }

    /// The next that is said of a commit.
    async fn told(&mut self) -> Result<Seq, Box<FailedCommit>> {
        loop {
            match self.messages.recv().await {
                Some(Message::Committed { seq }) => return Ok(seq),
                Some(Message::CommitFailed(failed)) => return Err(failed),
                Some(Message::StoreBroken { .. }) => {}
                other => panic!("told {other:?}"),
            }
        }
    }

    async fn close(self) {
        tokio::task::spawn_blocking(move || self.journal.close()).await.expect("the thread ends");
    }
}

fn insert(number: u64) -> Write {
    let call = CallRecord {
        id: CallId::from_bits(u128::from(number)),
        source: Source::Api,
        via: Via::User,
        upstream: None,
        limit_key: String::new(),
        method: "GET".to_owned(),
        url: String::new(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at: Timestamp::from_micros(0),
        not_before: None,
        deadline: None,
        started_at: None,
        attempts: 0,
        progress: Progress::waiting(CallState::Queued, None),
        cancel_requested: false,
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: None,
        filed: true,
        idempotency: None,
        hop: None,
    };
    Write::Insert(Box::new(Insert { at: Steady::from_micros(0), call, request: bytes::Bytes::new(), trace: None }))
}

/// Until the last turn is told of, alone or with those before it.
async fn until(bench: &mut Bench, last: u64) {
    while bench.told().await.expect("no fault any more") < Seq(last) {}
}

#[tokio::test]
async fn turns_are_durable_in_order_and_those_that_wait_share_a_commit() {
    let store = MemoryStore::new();
    let attached = store.attach();
    let mut bench = Bench::new(store);
    for seq in 1..=50 {
        bench.commit(seq);
    }
    until(&mut bench, 50).await;
    let mut reader = attached.reader().expect("a reader");
    for seq in 1..=50 {
        assert!(reader.call(insert(seq).call().expect("a call")).expect("readable").is_some(), "{seq}");
    }
    bench.close().await;
}

#[tokio::test]
async fn a_turn_that_fails_takes_all_later_ones_with_it_until_the_loop_knows() {
    let mut store = MemoryStore::new();
    store.inject(Fault::Full, 1);
    let mut bench = Bench::new(store);
    bench.commit(1);
    assert_eq!(bench.told().await.expect("the first is durable"), Seq(1));
    bench.commit(2);
    let failed = bench.told().await.expect_err("there is no space");
    assert!(matches!(failed.error, CommitError::Full));
    assert_eq!((failed.seq, failed.writes.len()), (Seq(2), 1));
    bench.commit(3);
    bench.commit(4);
    let returned: Vec<_> = bench.journal.resume().iter().map(Write::call).collect();
    assert_eq!(returned, [insert(3).call(), insert(4).call()]);
    bench.commit(5);
    assert_eq!(bench.told().await.expect("there is space again"), Seq(5));
    bench.close().await;
}

#[tokio::test]
async fn after_a_failure_of_unknown_end_the_store_is_opened_again_and_what_it_kept_is_durable() {
    for (fault, is_kept) in
        [(Fault::Broken(Fate::Kept), true), (Fault::Broken(Fate::Lost), false), (Fault::Panic, false)]
    {
        let mut store = MemoryStore::new();
        store.inject(fault, 0);
        let mut bench = Bench::new(store);
        bench.commit(1);
        let told = bench.told().await;
        assert_eq!(told.is_ok(), is_kept, "{fault:?}");
        bench.journal.resume();
        bench.commit(2);
        assert_eq!(bench.told().await.expect("the store was opened again"), Seq(2));
        bench.close().await;
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_again_is_told_of_and_holds_up_no_close() {
    let store = MemoryStore::new();
    let troubles = store.troubles();
    let mut bench = Bench::new(store);
    troubles.set(Trouble::Broken);
    bench.commit(1);
    for _ in 0..3 {
        let told = bench.messages.recv().await;
        assert!(matches!(told, Some(Message::StoreBroken { .. })), "{told:?}");
    }
    bench.close().await;
}
