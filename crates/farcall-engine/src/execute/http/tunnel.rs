//! A tunnel through a forward proxy (CONNECT, RFC 9110, section 9.3.6): from a connection to the proxy to one that leads
//! to the origin.
//!
//! Nothing of the request is in it, so an attempt that ends here has sent nothing. The proxy's answer is read byte by
//! byte to its end and no further: what follows belongs to the origin.

use farcall_core::call::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::classify::Failure;
use super::outgoing::Origin;
use crate::proxy::Proxy;

/// The longest answer of a proxy to CONNECT.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Asks the proxy for a way to the origin.
///
/// # Errors
/// `connect` when it refuses, breaks off or does not speak HTTP. The status it gives is in the message.
pub(super) async fn open(proxy: &Proxy, origin: &Origin, mut tcp: TcpStream) -> Result<TcpStream, Failure> {
    let failed = |what: &str| Failure::new(ErrorKind::Connect, format!("no tunnel to {origin}: the proxy {what}"));
    let mut request = format!("CONNECT {origin} HTTP/1.1\r\nhost: {origin}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    tcp.write_all(&request).await.map_err(|error| failed(&format!("cannot be written to: {error}")))?;
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_BYTES_MAX {
            return Err(failed("answers without end"));
        }
        answer.push(tcp.read_u8().await.map_err(|error| failed(&format!("closed the connection: {error}")))?);
    }
    match status(&answer) {
        Some(200..=299) => Ok(tcp),
        Some(status) => Err(failed(&format!("answered {status}"))),
        None => Err(failed("does not speak HTTP")),
    }
}

fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.0 ").or_else(|| answer.strip_prefix(b"HTTP/1.1 "))?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
