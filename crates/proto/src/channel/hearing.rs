//! How a connection ended: that is what decides whether a question may be asked again, so nothing of it may be lost.
//!
//! - An HTTP/2 server speaks first of all (RFC 9113 section 3.4: SETTINGS), and ours does so before it reads a request.
//!   So where a connection was closed or reset with nothing on it, nothing was done: it waited in the backlog of a
//!   process that was going down, or its TLS handshake did not satisfy the server.
//! - A server that goes down says which requests it has seen (GOAWAY), and closes. h2 gives a connection up at the first
//!   thing that it cannot write, with that word still unread; so it is let read on.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything through until a write fails. After that writes go nowhere, and the end comes from reading. An end
/// before the first byte from the other side says so.
#[derive(Debug)]
pub(super) struct Hearing<S> {
    inner: S,
    heard: bool,
    is_broken: bool,
}

/// The only thing of an I/O error that h2 passes on besides its kind is its text.
const TEXT: &str = "the connection ended before the server said anything";

/// Looks at one error of a chain.
pub(super) fn is_unheard(error: &(dyn Error + 'static)) -> bool {
    let of_h2 = || error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io);
    let error = error.downcast_ref::<io::Error>().or_else(of_h2);
    error.is_some_and(|error| error.to_string() == TEXT)
}

fn unheard(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, TEXT)
}

// === impl Hearing ===

impl<S> Hearing<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, heard: false, is_broken: false }
    }

    /// A failed write took everything, as far as the writer knows.
    fn written<T>(&mut self, result: io::Result<T>, all: T) -> io::Result<T> {
        result.or_else(|error| {
            tracing::debug!(%error, "nothing more can be written; what the other side said is still read");
            self.is_broken = true;
            Ok(all)
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hearing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        if self.heard {
            return Poll::Ready(result);
        }
        Poll::Ready(match result {
            Err(error) => Err(unheard(error.kind())),
            Ok(()) if buffer.filled().len() == before && buffer.remaining() > 0 => {
                Err(unheard(io::ErrorKind::UnexpectedEof))
            }
            Ok(()) => {
                self.heard |= buffer.filled().len() > before;
                Ok(())
            }
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Hearing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(self.written(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = bytes.iter().map(|slice| slice.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(all));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bytes));
        Poll::Ready(self.written(result, all))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(self.written(result, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tonic::Status;

    use super::Hearing;
    use crate::channel::{ChannelSettings, connect, is_not_done};
    use crate::v1::GetRouteRequest;
    use crate::v1::verdict_service_client::VerdictServiceClient;

    /// An empty SETTINGS frame (RFC 9113 section 6.5).
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    /// How a call ends, to a server that says this, reads so much, and closes or resets.
    async fn call(says: &[u8], reads: usize, resets: bool) -> Status {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = connect(listener.local_addr().unwrap(), None, &ChannelSettings::default());
        let mut client = VerdictServiceClient::new(channel);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            stream.read_exact(&mut vec![0; reads]).await.unwrap();
            if resets {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        };
        let (answer, ()) = tokio::join!(client.get_route(GetRouteRequest::default()), server);
        answer.unwrap_err()
    }

    #[tokio::test]
    async fn a_server_that_ends_the_connection_without_a_word_did_nothing() {
        for resets in [false, true] {
            for reads in [0, 24, 80] {
                let status = call(b"", reads, resets).await;
                assert!(is_not_done(&status), "reads {reads}, resets {resets}: {status:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_last_word_is_read_although_nothing_can_be_written_any_more() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(b"GOAWAY").await.unwrap();
        drop(theirs);
        let mut ours = Hearing::new(ours);
        ours.write_all(b"HEADERS").await.unwrap();
        ours.flush().await.unwrap();
        ours.write_all(b"HEADERS").await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"GOAWAY");
    }

    #[tokio::test]
    async fn a_server_that_spoke_may_have_done_something() {
        for resets in [false, true] {
            let status = call(&SETTINGS, 80, resets).await;
            assert!(!is_not_done(&status), "resets {resets}: {status:?}");
        }
    }
}
