//! Records to store: the plainest call, one with every field set, and the writes that move a call along.
//!
//! The n-th call has the n-th id; times count in seconds from one origin.

use bytes::Bytes;
use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{ErrorKind, Source, State, TenantId, Via};
use farcall_core::id::CallId;
use farcall_core::steady::Steady;
use farcall_core::time::Timestamp;
use farcall_store::port::{AttemptEnd, Heading, Insert, Settle, Start, Write};
use farcall_store::record::{
    CallRecord, ErrorRecord, FileIdentity, HopRecord, IdempotencyRecord, Progress, ResponseRecord,
};

/// `seconds` after an arbitrary origin.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_795_000_000_000_000 + seconds * 1_000_000)
}

/// `seconds` of steady time after an arbitrary origin, which is another one.
pub(crate) fn steady(seconds: i64) -> Steady {
    Steady::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

/// The id of the n-th call. Ids of different n share no prefix with their order: larger n sort first.
pub(crate) fn id(n: u32) -> CallId {
    CallId::from_bits(u128::MAX - (u128::from(n) << 40))
}

pub(crate) fn progress(state: State) -> Progress {
    Progress {
        state,
        ready_at: None,
        retries: 0,
        requeues: 0,
        throttles: 0,
        deaths: 0,
        orphaned: 0,
        finished_at: state.is_end().then(|| at(900)),
        status: None,
        error: None,
    }
}

/// A queued call of limit key `shop` with nothing optional.
pub(crate) fn call(n: u32) -> CallRecord {
    CallRecord {
        id: id(n),
        source: Source::Api,
        via: Via::Tcp,
        upstream: None,
        limit_key: "shop".to_owned(),
        method: "GET".to_owned(),
        url: "https://shop.example/orders".to_owned(),
        tags: Vec::new(),
        priority: 3,
        tenant: None,
        tenant_id: TenantId::default(),
        cost: 1,
        accepted_at: at(0),
        not_before: None,
        deadline: None,
        started_at: None,
        attempts: 0,
        progress: progress(State::Queued),
        cancel_requested: false,
        has_overrides: false,
        callback_of: None,
        retry_of: None,
        file: None,
        filed: true,
        idempotency: None,
        hop: None,
    }
}

/// A call from a file with every field set, and set to something awkward.
pub(crate) fn full_call(n: u32) -> CallRecord {
    CallRecord {
        source: Source::Inbox,
        via: Via::User,
        upstream: Some("etsy".to_owned()),
        limit_key: "etsy".to_owned(),
        method: "POST".to_owned(),
        url: "https://shop.example/ünï?q='\"%00".to_owned(),
        tags: vec!["a".to_owned(), String::new(), "\"]\u{1f980}".to_owned()],
        priority: 5,
        tenant: Some(String::new()),
        tenant_id: TenantId(u64::MAX),
        cost: u32::MAX,
        not_before: Some(steady(10)),
        deadline: Some(Steady::from_micros(i64::MAX)),
        started_at: Some(Timestamp::from_micros(i64::MIN)),
        attempts: 7,
        progress: Progress {
            state: State::Retrying,
            ready_at: Some(steady(20)),
            retries: 2,
            requeues: 1,
            throttles: 3,
            deaths: 1,
            orphaned: 2,
            finished_at: Some(at(30)),
            status: Some(503),
            error: Some(ErrorRecord { kind: ErrorKind::HttpStatus, message: String::new() }),
        },
        cancel_requested: true,
        has_overrides: true,
        callback_of: Some(id(1_000)),
        retry_of: Some(CallId::from_bits(0)),
        file: Some(FileIdentity {
            name: b"\xff\xfe order'\n;.json".to_vec(),
            device: u64::MAX,
            inode: 1 << 63,
            changed_ns: -1,
        }),
        filed: false,
        idempotency: Some(key(&format!("key of {n}"))),
        hop: Some(hop(n)),
        ..call(n)
    }
}

/// A hop of the n-th call, with something awkward in it.
pub(crate) fn hop(n: u32) -> HopRecord {
    HopRecord {
        url: format!("https://other.example/\"ü?{n}"),
        method: "GET".to_owned(),
        count: n,
        upstream: n.is_multiple_of(2).then(|| "other".to_owned()),
        has_body: n.is_multiple_of(3),
        is_elsewhere: true,
        home_key: "etsy".to_owned(),
    }
}

/// The n-th call, waiting in its lane from this second on.
pub(crate) fn waiting(n: u32, second: i64) -> CallRecord {
    let progress = Progress { ready_at: Some(steady(second)), ..progress(State::Queued) };
    CallRecord { progress, ..call(n) }
}

/// A key of the user's own scope.
pub(crate) fn key(key: &str) -> IdempotencyRecord {
    IdempotencyRecord { scope: String::new(), key: key.to_owned(), digest: [0xa5; 32] }
}

pub(crate) fn response(body: impl Into<Bytes>) -> ResponseRecord {
    let headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
    ResponseRecord { status: 200, headers, body: body.into(), decoded: false }
}

pub(crate) fn insert(call: CallRecord) -> Write {
    insert_with(call, "{}")
}

pub(crate) fn insert_with(call: CallRecord, request: impl Into<Bytes>) -> Write {
    Write::Insert(Box::new(Insert { at: steady(0), call, request: request.into(), trace: None }))
}

/// Inserts a call that belongs to a trace.
pub(crate) fn insert_traced(call: CallRecord, trace: &str) -> Write {
    Write::Insert(Box::new(Insert { at: steady(0), call, request: "{}".into(), trace: Some(trace.to_owned()) }))
}

/// Attempt `number` of the n-th call, started `number` seconds after the origins.
pub(crate) fn start(n: u32, number: u32) -> Write {
    start_at(n, number, i64::from(number))
}

pub(crate) fn start_at(n: u32, number: u32, seconds: i64) -> Write {
    let kind = if number == 1 { AttemptKind::First } else { AttemptKind::Retry };
    let (started_at, granted_at) = (at(seconds), steady(seconds));
    Write::Start(Start { call: id(n), number, kind, started_at, granted_at })
}

pub(crate) fn attempt_end(number: u32) -> AttemptEnd {
    AttemptEnd {
        number,
        outcome: AttemptOutcome::Success,
        status: Some(200),
        proved_at: Some(steady(100)),
        ended_at: at(101),
        error: None,
    }
}

/// Attempt `number` ends, and its call goes to this state.
pub(crate) fn settle(n: u32, number: u32, state: State) -> Write {
    settle_with(n, Some(attempt_end(number)), state, None)
}

pub(crate) fn settle_with(
    n: u32,
    attempt: Option<AttemptEnd>,
    state: State,
    response: Option<ResponseRecord>,
) -> Write {
    Write::Settle(Box::new(Settle {
        at: steady(102),
        call: id(n),
        attempt,
        progress: Some(progress(state)),
        heading: None,
        response,
    }))
}

/// The same, and from now on the call goes elsewhere, or home.
pub(crate) fn headed(write: Write, limit_key: &str, hop: Option<HopRecord>) -> Write {
    let Write::Settle(settle) = write else { panic!("only a settlement says where a call goes: {write:?}") };
    let heading = Some(Heading { limit_key: limit_key.to_owned(), hop });
    Write::Settle(Box::new(Settle { heading, ..*settle }))
}

pub(crate) fn filed(n: u32) -> Write {
    Write::Filed(id(n))
}

/// Ends an attempt alone: where the call stands does not change.
pub(crate) fn settle_attempt(n: u32, number: u32) -> Write {
    let attempt = Some(attempt_end(number));
    Write::Settle(Box::new(Settle {
        at: steady(102),
        call: id(n),
        attempt,
        progress: None,
        heading: None,
        response: None,
    }))
}
