//! A client that is waited on: when it hangs up while something is done for it alone, that is noticed at once.
//!
//! A client may close its side of the connection once it has sent its request, and most requests are carried out all the
//! same. Those that are passed on are not: whoever has closed its side has gone, and what is done for it is given up.
//! hyper does not look at a connection while it makes an answer, so this looks each time it is asked to flush, which is
//! whenever the connection's task runs.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The client's end of a connection.
pub(crate) trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where it is; nothing for one on this machine's socket.
    fn address(&self) -> Option<IpAddr>;

    /// Ready once it has closed its side, or the connection is broken. What it has sent and nobody has read hides that.
    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Closes the connection, when it is dropped, so that the client cannot take what it has for all there is.
    fn break_off(&self);
}

/// How many things are done on a connection that its client must be there for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attention(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Attending(Attention);

/// A connection that ends with an error when its client leaves while attention is paid to it.
#[derive(Debug)]
pub(crate) struct Attended<S> {
    stream: S,
    attention: Attention,
}

impl Attention {
    /// From now on the client must be there.
    pub(crate) fn pay(&self) -> Attending {
        self.0.fetch_add(1, Ordering::Relaxed);
        Attending(self.clone())
    }

    fn is_paid(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: Client> Attended<S> {
    pub(crate) const fn new(stream: S, attention: Attention) -> Self {
        Self { stream, attention }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    fn check(&self, context: &mut Context<'_>) -> io::Result<()> {
        if self.attention.is_paid() && self.stream.poll_gone(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client has gone"));
        }
        Ok(())
    }
}

impl<S: Client> AsyncRead for Attended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Client> AsyncWrite for Attended<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(self.check(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Client for TcpStream {
    fn address(&self) -> Option<IpAddr> {
        self.peer_addr().ok().map(|address| address.ip().to_canonical())
    }

    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        match ready!(self.poll_peek(context, &mut ReadBuf::new(&mut byte))) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    fn break_off(&self) {
        // Without it an HTTP/1.0 client, which reads to the end, would see an end like any other.
        let _ = sockopt::set_socket_linger(self.as_fd(), Some(Duration::ZERO));
    }
}

impl Client for UnixStream {
    fn address(&self) -> Option<IpAddr> {
        None
    }

    fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let peek = || Ok(rustix::net::recv(self.as_fd(), &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?.1);
        loop {
            if ready!(self.poll_read_ready(context)).is_err() {
                return Poll::Ready(());
            }
            match self.try_io(Interest::READABLE, peek) {
                Ok(1..) => return Poll::Pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    fn break_off(&self) {}
}
