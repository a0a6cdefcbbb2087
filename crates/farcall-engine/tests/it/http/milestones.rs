//! What an attempt tells before it ends, and when.

use std::sync::Arc;

use farcall_engine::clock;
use http::Method;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Recorder, Told, answer, get, post, request, transport};
use crate::upstream::{Step, Upstream, bounded, ok};

#[tokio::test]
async fn sent_is_told_before_the_answer_comes_and_both_lie_in_order() {
    for (method, body) in [(Method::GET, ""), (Method::POST, "order")] {
        let gate = Arc::new(Semaphore::new(0));
        let script = vec![Step::Request, Step::Gate(Arc::clone(&gate)), Step::Drip(ok("hi"))];
        let upstream = Upstream::always(script).await;
        let (transport, recorder) = (transport(), Arc::<Recorder>::default());
        let before = clock::now().instant;
        let request = request(method, upstream.url("/"), body);
        let attempt = transport.execute(request, Some(recorder.clone()), CancellationToken::new());
        let answering = async {
            recorder.until(|told| told.sent.len() == 1).await;
            assert_eq!(recorder.told().first_byte, []);
            gate.add_permits(1);
        };
        let (report, ()) = bounded(async { tokio::join!(attempt, answering) }).await;
        assert_eq!(answer(&report).1, b"hi");

        let Told { sent, first_byte } = recorder.told();
        let ([sent], [first_byte]) = (&sent[..], &first_byte[..]) else { panic!("{sent:?}, {first_byte:?}") };
        assert!(before <= *sent && sent <= first_byte && *first_byte <= clock::now().instant);
        assert_eq!(report.first_byte_at, Some(*first_byte));
    }
}

#[tokio::test]
async fn a_request_that_stands_in_our_buffers_is_not_sent() {
    // A head larger than what is written at once is flushed before the body is taken.
    for head_bytes in [0, 200_000] {
        let gate = Arc::new(Semaphore::new(0));
        let script = vec![Step::Gate(Arc::clone(&gate)), Step::Serve(ok("hi"))];
        let upstream = Upstream::always(script).await;
        let (transport, recorder) = (transport(), Arc::<Recorder>::default());
        // More than all the buffers between the two can hold.
        let mut request = post(upstream.url("/"), vec![b'z'; 64 << 20]);
        request.headers.insert("x-long", "y".repeat(head_bytes).parse().expect("a header value"));
        let attempt = transport.execute(request, Some(recorder.clone()), CancellationToken::new());
        let answering = async {
            upstream.until(|seen| seen.connections == 1).await;
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(recorder.told(), Told::default());
            gate.add_permits(1);
            recorder.until(|told| told.sent.len() == 1).await;
        };
        let (report, ()) = bounded(async { tokio::join!(attempt, answering) }).await;
        assert_eq!(answer(&report).1, b"hi");
        assert_eq!(upstream.arrivals()[0].body.len(), 64 << 20);
    }
}

#[tokio::test]
async fn each_request_on_a_connection_has_milestones_of_its_own() {
    let upstream = Upstream::always(vec![Step::Serve(ok("hi"))]).await;
    let transport = transport();
    let mut last = None;
    for _ in 0..3 {
        let recorder = Arc::<Recorder>::default();
        let attempt = transport.execute(get(upstream.url("/")), Some(recorder.clone()), CancellationToken::new());
        let report = bounded(attempt).await;
        let told = recorder.told();
        assert_eq!((told.sent.len(), told.first_byte.len()), (1, 1));
        assert!(report.first_byte_at > last, "the first byte is this answer's");
        last = report.first_byte_at;
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_upload_that_breaks_was_never_sent() {
    let upstream = Upstream::always(vec![Step::RequestHead, Step::Reset]).await;
    let (transport, recorder) = (transport(), Arc::<Recorder>::default());
    let request = post(upstream.url("/"), vec![0; 64 << 20]);
    let report = bounded(transport.execute(request, Some(recorder.clone()), CancellationToken::new())).await;
    assert_eq!(report.result.error, Some(farcall_core::call::ErrorKind::Reset));
    assert_eq!((recorder.told(), report.first_byte_at), (Told::default(), None));
}
