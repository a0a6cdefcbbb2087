//! The filer beside a store that cannot read everything.

use bytes::Bytes;
use farcall_core::call::{Source, State, TenantId, Via};
use farcall_core::time::Timestamp;
use farcall_store::port::{
    CallsAsk, EndedRange, Granted, GrantsAsk, Legible, ListAsk, Listed, WaitingAsk, WaitingCalls,
};
use farcall_store::record::{
    AttemptRecord, CallRecord, EndedRecord, FileIdentity, OutcomeRecord, Progress, RequestRecord, ResponseRecord,
};

use super::*;

/// Knows every call as ended, but for one that it cannot read, and one that brings it down.
struct Faulty {
    unreadable: CallId,
    deadly: CallId,
}

impl Reader for Faulty {
    fn calls(&mut self, _: CallsAsk<'_>) -> Result<Vec<CallRecord>, ReadError> {
        Ok(Vec::new())
    }

    fn outcomes(&mut self, ids: &[CallId], _: usize) -> Vec<Result<Option<OutcomeRecord>, ReadError>> {
        let outcome = |&id: &CallId| {
            assert_ne!(id, self.deadly, "a mistake of ours");
            if id == self.unreadable {
                return Err(ReadError { what: "an outcome", source: "a bad row".into() });
            }
            Ok(Some(OutcomeRecord { call: ended(id), document: Bytes::from_static(b"{}"), response: None }))
        };
        ids.iter().map(outcome).collect()
    }

    fn attempts(&mut self, _: CallId) -> Result<Vec<AttemptRecord>, ReadError> {
        Ok(Vec::new())
    }

    fn requests(&mut self, _: &[CallId]) -> Result<Legible<Vec<Option<RequestRecord>>>, ReadError> {
        Ok(Legible::default())
    }

    fn response(&mut self, _: CallId) -> Result<Option<ResponseRecord>, ReadError> {
        Ok(None)
    }

    fn grants(&mut self, _: &str, _: &[GrantsAsk]) -> Result<Granted, ReadError> {
        Ok(Granted::default())
    }

    fn waiting(&mut self, _: WaitingAsk<'_>) -> Result<Legible<WaitingCalls>, ReadError> {
        Ok(Legible::default())
    }

    fn ended(&mut self, _: &EndedRange) -> Result<Vec<EndedRecord>, ReadError> {
        Ok(Vec::new())
    }

    fn list(&mut self, _: &ListAsk) -> Result<Listed, ReadError> {
        Ok(Listed::default())
    }

    fn unfiled(&mut self, _: &[u8]) -> Result<Vec<(CallId, FileIdentity)>, ReadError> {
        Ok(Vec::new())
    }

    fn free_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(u64::MAX)
    }

    fn stored_bytes(&mut self) -> Result<u64, ReadError> {
        Ok(0)
    }
}

fn ended(id: CallId) -> CallRecord {
    let name = format!("{}.json", id.bits()).into_bytes();
    CallRecord {
        id,
        source: Source::Inbox,
        via: Via::User,
        upstream: None,
        limit_key: "http://127.0.0.1".to_owned(),
        method: "GET".to_owned(),
        url: "http://127.0.0.1/".to_owned(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at: Timestamp::from_micros(0),
        not_before: None,
        deadline: None,
        started_at: None,
        attempts: 1,
        progress: Progress::waiting(State::Succeeded, None),
        cancel_requested: false,
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: Some(FileIdentity { name, device: 1, inode: 1, changed_ns: 0 }),
        filed: false,
        idempotency: None,
        hop: None,
    }
}

/// What is left of these calls, 1 being unreadable and 2 deadly, and which were filed.
fn file(numbers: &[u128]) -> (Left, Vec<u128>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (messages, mut told) = mpsc::channel(1);
    let reader = Box::new(Faulty { unreadable: CallId::from_bits(1), deadly: CallId::from_bits(2) });
    let mut filer = Filer { filing: Arc::new(Filing::new(dir.path(), 1)), reader, messages };
    let waiting = |&number: &u128| Waiting { call: CallId::from_bits(number), is_again: false };
    let calls: Vec<Waiting> = numbers.iter().map(waiting).collect();
    let left = filer.file(&calls);
    let filed = match told.try_recv() {
        Ok(Message::Filed { calls }) => calls.iter().map(|call| call.bits()).collect(),
        _ => Vec::new(),
    };
    for number in &filed {
        assert!(dir.path().join("responses").join(format!("{number}.json")).exists());
    }
    (left, filed)
}

#[test]
fn a_call_that_cannot_be_read_holds_up_no_other() {
    let (left, filed) = file(&[1, 3, 4]);
    assert_eq!(left.failed, [CallId::from_bits(1)]);
    assert_eq!(filed, [3, 4]);
}

#[test]
fn a_batch_that_breaks_down_or_cannot_be_read_is_left_whole() {
    for stuck in [1, 2] {
        let (left, filed) = file(&[stuck]);
        assert_eq!(left.failed, [CallId::from_bits(stuck)]);
        assert!(left.error.is_some() && filed.is_empty());
    }
}

#[test]
fn what_failed_waits_and_what_was_not_read_goes_to_the_front() {
    let shared = Shared::default();
    let waiting = |number, is_again| Waiting { call: CallId::from_bits(number), is_again };
    let (stuck, first, second, later) = (waiting(1, false), waiting(2, false), waiting(3, false), waiting(9, false));
    shared.lock().calls.push_back(later);
    let (unread, failed) = (vec![first, second], vec![stuck.call]);
    shared.put_back(&[stuck, first, second], Left { unread, failed, error: Some(FilingError::BrokeDown) });
    assert_eq!(shared.next_batch(), Some(vec![first, second, later]), "and holds up no other");
    assert_eq!(shared.lock().failing, HashSet::from([stuck.call]));
    assert_eq!(shared.next_batch(), Some(vec![waiting(1, true)]), "after a while");
    shared.put_back(&[waiting(1, true)], Left::default());
    assert!(shared.lock().failing.is_empty());
}
