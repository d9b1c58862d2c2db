//! The bytes below HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that tells when an HTTP/2 client has begun to speak, and that is closed so that the client hears the last
/// word.
///
/// A client that writes while we close would have its connection reset, and might never read the GOAWAY that says which
/// of its calls were not begun. So the end is said first, and then what still comes is read, and thrown away, until
/// the client closes too: it does as soon as it has read the GOAWAY.
pub(super) struct Wire<S> {
    stream: S,
    /// As far as is counted.
    bytes: usize,
    is_client: Arc<AtomicBool>,
    /// From the moment that the end was said.
    closing: Option<Pin<Box<Sleep>>>,
}

/// The client connection preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// For the client to read what we said last; it takes a round trip.
const CLOSING_LIMIT: Duration = Duration::from_secs(1);
/// What is thrown away at a time.
const WASTE: usize = 4096;

// === impl Wire ===

impl<S> Wire<S> {
    pub(super) fn new(stream: S, is_client: Arc<AtomicBool>) -> Self {
        Self { stream, bytes: 0, is_client, closing: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.bytes < PREFACE {
            self.bytes += buffer.filled().len() - before;
            if self.bytes >= PREFACE {
                self.is_client.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let closing = this.closing.get_or_insert_with(|| Box::pin(sleep(CLOSING_LIMIT)));
        loop {
            if closing.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut waste = [0; WASTE];
            let mut waste = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut this.stream).poll_read(context, &mut waste));
            if read.is_err() || waste.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
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
}
