//! Sending what is in the table: one thread of hyper connections, one thread of SQLite.
//!
//! Whatever goes wrong ends the run.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc as queue};

use crate::store::{Claimed, Floor, Sent};

/// Calls claimed and not yet finished.
const OPEN_MAX: usize = 1_024;

type Work = Arc<Mutex<queue::Receiver<Claimed>>>;

/// Sends every call and returns when all their ends are stored.
pub(crate) fn deliver(floor: Floor, upstream: SocketAddr, connections: usize) -> Result<()> {
    let (work, claimed) = queue::channel(2 * OPEN_MAX);
    let (done, finished) = mpsc::channel();
    let store = thread::spawn(move || keep_books(floor, &work, &finished));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let claimed = Arc::new(Mutex::new(claimed));
    runtime.block_on(async {
        let clients: Vec<_> =
            (0..connections).map(|_| tokio::spawn(send_all(upstream, Arc::clone(&claimed), done.clone()))).collect();
        for client in clients {
            client.await??;
        }
        anyhow::Ok(())
    })?;
    store.join().map_err(|_| anyhow!("the store's thread broke down"))?
}

/// Claims while there is room, and stores all ends that have come meanwhile in one commit.
fn keep_books(mut floor: Floor, work: &queue::Sender<Claimed>, finished: &mpsc::Receiver<Sent>) -> Result<()> {
    let mut open = 0;
    let mut done = 0;
    let mut all_claimed = false;
    while done < floor.calls {
        if !all_claimed && open < OPEN_MAX {
            let claimed = floor.claim()?;
            all_claimed = claimed.is_empty();
            open += claimed.len();
            for call in claimed {
                work.blocking_send(call).context("nobody sends any more")?;
            }
        }
        let first = finished.recv().context("nobody sends any more")?;
        let sent: Vec<Sent> = std::iter::once(first).chain(finished.try_iter()).collect();
        floor.finish(&sent)?;
        open -= sent.len();
        done += u32::try_from(sent.len())?;
    }
    Ok(())
}

async fn send_all(upstream: SocketAddr, claimed: Work, done: mpsc::Sender<Sent>) -> Result<()> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut client, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    loop {
        let next = claimed.lock().await.recv().await;
        let Some(call) = next else { return Ok(()) };
        let status = send(&mut client, &upstream, &call).await?;
        done.send(Sent { id: call.id, status }).context("the store has ended")?;
    }
}

async fn send(client: &mut SendRequest<Full<Bytes>>, upstream: &SocketAddr, call: &Claimed) -> Result<u16> {
    let request = Request::post(format!("/floor?n={}", call.id))
        .header("host", upstream.to_string())
        .header("content-type", "application/json")
        .body(Full::new(call.body.clone()))?;
    client.ready().await?;
    let answer = client.send_request(request).await?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await?;
    Ok(status)
}
