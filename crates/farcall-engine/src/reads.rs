//! Reading what is stored, for everybody but the engine's own loop.
//!
//! A few readers are shared; each read runs on a blocking thread with one of them to itself, so a slow read holds up
//! nobody but its caller.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::dispatcher::Standing;
use farcall_core::id::CallId;
use farcall_core::steady::SteadyClock;
use farcall_store::port::{Legible, ListAsk, Listed, ReadError, Reader};
use farcall_store::record::{AttemptRecord, CallRecord, OutcomeRecord, RequestRecord, ResponseRecord};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock;
use crate::config::{Config, Live};
use crate::document::{self, Document, Routing};
use crate::handle::CallView;
use crate::trace::TraceContext;

/// The readers, and what it takes to show what they read.
pub(crate) struct Reads {
    readers: Mutex<Vec<Box<dyn Reader>>>,
    free: Arc<Semaphore>,
    config: Live,
    steady: SteadyClock,
}

/// What a call's record does not tell of it.
#[derive(Debug)]
pub(crate) struct Own {
    headers: Vec<(String, String)>,
    trace: Option<TraceContext>,
}

/// A reader on loan. It goes back even when whoever asked has gone away meanwhile, or the read panics.
struct Lent {
    reads: Arc<Reads>,
    reader: Option<Box<dyn Reader>>,
    /// Given back after the reader is.
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reads").field("free", &self.free.available_permits()).finish_non_exhaustive()
    }
}

impl Reads {
    pub(crate) fn new(readers: Vec<Box<dyn Reader>>, config: Live, steady: SteadyClock) -> Self {
        let free = Arc::new(Semaphore::new(readers.len()));
        Self { readers: Mutex::new(readers), free, config, steady }
    }

    /// Runs `read` with a reader of its own on a blocking thread.
    pub(crate) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut dyn Reader) -> T + Send + 'static,
    ) -> T {
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        let lent = Lent { reads: Arc::clone(self), reader: self.lock().pop(), _permit: permit };
        let task = tokio::task::spawn_blocking(move || {
            let mut lent = lent;
            read(lent.reader.as_deref_mut().expect("a permit stands for a reader"))
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels, and it polls nobody again.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// A call with its answer, without why it waits.
    pub(crate) async fn call_view(self: &Arc<Self>, id: CallId) -> Result<Option<CallView>, ReadError> {
        let (config, steady) = (self.config.now(), self.steady);
        self.with(move |reader| {
            let Some(record) = reader.call(id)? else { return Ok(None) };
            // Of one whose document is damaged everything else can still be told.
            let stored = reader.requests(&[id])?.found.pop().flatten();
            let trace = stored.as_ref().and_then(|stored| TraceContext::from_text(stored.trace.as_deref()?));
            let request = stored.map(|stored| stored.document).unwrap_or_default();
            let response = if record.progress.state.is_end() { reader.response(id)? } else { None };
            Ok(Some(CallView { trace, ..view(steady, record, stored_headers(&config, &request), response) }))
        })
        .await
    }

    /// A call that has just become durable, as [`Reads::call_view`] would tell of it then.
    pub(crate) fn new_call(&self, record: CallRecord, standing: Standing, own: Own) -> CallView {
        let mut view = CallView { trace: own.trace, ..view(self.steady, record, own.headers, None) };
        view.stand(Some(standing));
        view
    }

    /// A page of calls without their answers and why they wait, and where the next one begins.
    pub(crate) async fn list(self: &Arc<Self>, ask: ListAsk) -> Result<(Vec<CallView>, Option<u64>), ReadError> {
        let (config, steady) = (self.config.now(), self.steady);
        self.with(move |reader| {
            let Listed { calls, next } = reader.list(&ask)?;
            let ids: Vec<CallId> = calls.iter().map(|call| call.id).collect();
            let requests = reader.requests(&ids)?.found.into_iter();
            let views = calls.into_iter().zip(requests).map(|(record, request)| {
                let request = request.map(|stored| stored.document).unwrap_or_default();
                view(steady, record, stored_headers(&config, &request), None)
            });
            Ok((views.collect(), next))
        })
        .await
    }

    pub(crate) async fn attempts(self: &Arc<Self>, id: CallId) -> Result<Option<Vec<AttemptRecord>>, ReadError> {
        self.with(move |reader| {
            if reader.call(id)?.is_none() {
                return Ok(None);
            }
            reader.attempts(id).map(Some)
        })
        .await
    }

    pub(crate) async fn states(self: &Arc<Self>, ids: Vec<CallId>) -> Result<Vec<Option<State>>, ReadError> {
        let state = |call: CallRecord| call.progress.state;
        self.with(move |reader| ids.iter().map(|&id| Ok(reader.call(id)?.map(state))).collect()).await
    }

    pub(crate) async fn outcomes(
        self: &Arc<Self>,
        ids: Vec<CallId>,
        bytes_max: usize,
    ) -> Result<Vec<Option<OutcomeRecord>>, ReadError> {
        self.with(move |reader| reader.outcomes(&ids, bytes_max).into_iter().collect()).await
    }

    /// A call and its document; one that was pruned since the call was read is empty.
    pub(crate) async fn call_and_request(
        self: &Arc<Self>,
        id: CallId,
    ) -> Result<Option<(CallRecord, RequestRecord)>, ReadError> {
        self.with(move |reader| {
            let Some(record) = reader.call(id)? else { return Ok(None) };
            let Legible { mut found, mut damaged } = reader.requests(&[id])?;
            match damaged.pop() {
                Some(damaged) => Err(ReadError { what: "a request", source: damaged.what.into() }),
                None => {
                    let none = RequestRecord { via: record.via, document: Bytes::new(), trace: None };
                    Ok(Some((record, found.pop().flatten().unwrap_or(none))))
                }
            }
        })
        .await
    }

    /// A call and its answer.
    pub(crate) async fn outcome(
        self: &Arc<Self>,
        id: CallId,
    ) -> Result<Option<(CallRecord, Option<ResponseRecord>)>, ReadError> {
        self.with(move |reader| {
            let Some(record) = reader.call(id)? else { return Ok(None) };
            Ok(Some((record, reader.response(id)?)))
        })
        .await
    }

    pub(crate) async fn free_bytes(self: &Arc<Self>) -> Result<u64, ReadError> {
        self.with(|reader| reader.free_bytes()).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Document> for Own {
    fn from(document: &Document) -> Self {
        Self { headers: masked(document), trace: document.trace.as_deref().cloned() }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.reads.lock().extend(self.reader.take());
    }
}

fn view(
    steady: SteadyClock,
    record: CallRecord,
    request_headers: Vec<(String, String)>,
    response: Option<ResponseRecord>,
) -> CallView {
    let now = clock::now();
    let next_at = record.progress.ready_at.map(|at| steady.instant(at)).filter(|&at| at > now.instant);
    CallView {
        wait_reason: None,
        next_at: next_at.map(|at| now.timestamp_of(at)),
        request_headers,
        record,
        response,
        trace: None,
    }
}

fn stored_headers(config: &Config, request: &Bytes) -> Vec<(String, String)> {
    document::parse(request, &Routing::from(config)).map_or_else(|_| Vec::new(), |document| masked(&document))
}

/// The call's own headers as users may read them back: values that carry rights are masked.
fn masked(document: &Document) -> Vec<(String, String)> {
    document
        .headers
        .iter()
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), if is_secret(name.as_str()) { "***".to_owned() } else { text })
        })
        .collect()
}

/// authorization, cookie, and whatever ends in -key or -token, but for the idempotency key.
fn is_secret(name: &str) -> bool {
    let by_ending = (name.ends_with("-key") || name.ends_with("-token")) && name != "idempotency-key";
    matches!(name, "authorization" | "proxy-authorization" | "cookie") || by_ending
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use farcall_store::memory::MemoryStore;
    use farcall_store::port::Store;

    use super::*;

    /// With one reader.
    fn reads() -> Arc<Reads> {
        let reader = MemoryStore::new().reader().expect("a store in memory can be read");
        Arc::new(Reads::new(vec![reader], Live::default(), SteadyClock::go_on(None, None, None, clock::now())))
    }

    #[tokio::test]
    async fn a_reader_whose_asker_went_away_is_not_lent_twice() {
        let reads = reads();
        let (go_on, gate) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = reads.with(move |_| {
            let _ = begun.send(());
            gate.recv()
        });
        tokio::select! {
            biased;
            _ = first => panic!("the gate is closed"),
            begun = has_begun => begun.expect("the first read runs"),
        }
        let second = reads.with(|reader| reader.free_bytes());
        tokio::pin!(second);
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(second.as_mut().poll(context).is_pending())).await
        );
        go_on.send(()).expect("the first read still runs");
        assert!(second.await.is_ok());
    }

    #[tokio::test]
    async fn a_reader_comes_back_from_a_read_that_panics() {
        let reads = reads();
        let broken = tokio::spawn({
            let reads = Arc::clone(&reads);
            async move { reads.with(|_| panic!("a bad row")).await }
        });
        assert!(broken.await.is_err_and(|error| error.is_panic()));
        assert!(reads.with(|reader| reader.free_bytes()).await.is_ok());
    }

    #[test]
    fn headers_that_carry_rights_are_masked() {
        for name in ["authorization", "cookie", "x-api-key", "x-auth-token"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["idempotency-key", "accept", "x-keyed", "token"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
