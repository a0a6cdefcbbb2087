//! What an attempt reports, whatever others do meanwhile on the connection that it had.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use super::*;
use crate::execute::http::meter::Carrying;

/// An upstream that answers one request and keeps the connection open.
async fn upstream() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await?;
        stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno").await?;
        // Until the client closes it.
        stream.read(&mut request).await
    });
    Ok(address)
}

/// Found by a test of an upstream that is down, on a busy machine: between the end of an exchange and its report another thread took the connection, and began the
/// account of its own request in it. The report said that nothing was sent, its slots were given back, and an upstream
/// with a limit of 200 saw 201 requests.
#[tokio::test]
async fn whoever_takes_the_connection_next_changes_nothing_in_the_report() -> Result<(), Box<dyn std::error::Error>> {
    let url = Url::parse(&format!("http://{}/", upstream().await?))?;
    let transport = Transport::new(&TransportSettings::default())?;
    let request = HttpRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        coding: Coding::Removed,
        content_type: None,
        max_response: 100,
        addresses: Addresses::Any,
        proxy: None,
    };
    let route = Outgoing::prepare(request.clone()).map_err(|failure| failure.message)?.route;
    let wish = Wish { content_type: None, coding: Coding::Removed, body_bytes_max: 100 };
    let (mut progress, started) = (Progress::default(), clock::instant());
    let end = transport.attempt(request, &wish, None, &mut progress).await;
    // The next request on the connection begins before this one has reported.
    let Some(Line::Http1(next)) = transport.pool.reuse(&route, Addresses::Any) else {
        panic!("no connection was kept")
    };
    next.meter().begin(Carrying::HeadOnly, None);
    let report = progress.report(end, &wish, started);
    assert_eq!(report.result.status, Some(503));
    assert_eq!(report.result.bytes_sent, BytesSent::Maybe);
    assert!(report.first_byte_at.is_some());
    Ok(())
}
