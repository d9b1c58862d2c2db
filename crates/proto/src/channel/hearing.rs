//! A connection whose other side has spoken, and whose last word is heard: that is what decides whether a question may
//! be asked again.
//!
//! - An HTTP/2 server speaks first of all (RFC 9113 section 3.4: SETTINGS). It is waited for before any request leaves,
//!   so a connection that nobody answers on has taken none: it waits in the backlog of a process that is going down, its
//!   TLS handshake did not satisfy the server, or a proxy stands before nobody.
//! - A server that goes down says which requests it has seen (GOAWAY), and closes. h2 gives a connection up at the first
//!   thing that it cannot write, with that word still unread; so it is let read on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113 section 4.1: nine octets, of which the fourth is the type; section 6.5: SETTINGS is type 4.
const FRAME_HEAD: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// Room for the server's first words; its SETTINGS are some dozen octets.
const FIRST_WORDS: usize = 256;

/// Passes everything through until a write fails. After that writes go nowhere, and the end comes from reading.
#[derive(Debug)]
pub(super) struct Hearing<S> {
    inner: S,
    /// What the server said while it was waited for; read before anything else.
    heard: Vec<u8>,
    /// How much of the client's preface is sent already, and is still to come from the writer.
    ahead: usize,
    is_broken: bool,
}

// === impl Hearing ===

impl<S: AsyncRead + AsyncWrite + Unpin> Hearing<S> {
    /// Says the client's first words in its place, and waits for the server's.
    pub(super) async fn begin(mut inner: S) -> io::Result<Self> {
        inner.write_all(PREFACE).await?;
        inner.flush().await?;
        let mut heard = Vec::with_capacity(FIRST_WORDS);
        while heard.len() < FRAME_HEAD {
            if inner.read_buf(&mut heard).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if heard.get(FRAME_TYPE) != Some(&SETTINGS) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
        }
        Ok(Self { inner, heard, ahead: PREFACE.len(), is_broken: false })
    }
}

impl<S> Hearing<S> {
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
        if self.heard.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let length = self.heard.len().min(buffer.remaining());
        buffer.put_slice(&self.heard[..length]);
        self.heard.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Hearing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ahead > 0 {
            let length = self.ahead.min(bytes.len());
            self.ahead -= length;
            return Poll::Ready(Ok(length));
        }
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
        if self.ahead > 0 {
            let first = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(cx, first);
        }
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
            for reads in [0, 24] {
                let status = call(b"", reads, resets).await;
                assert!(is_not_done(&status), "reads {reads}, resets {resets}: {status:?}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_but_the_preface_is_sent_before_the_server_speaks() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let server = async {
            let mut preface = [0; super::PREFACE.len()];
            theirs.read_exact(&mut preface).await.unwrap();
            theirs.write_all(&SETTINGS).await.unwrap();
            preface
        };
        let (ours, preface) = tokio::join!(Hearing::begin(ours), server);
        assert_eq!(preface, super::PREFACE);
        // What the writer says first has been said; all else passes, both ways.
        let mut ours = ours.unwrap();
        ours.write_all(&[super::PREFACE, b"more"].concat()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        drop(ours);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!((heard.as_slice(), said.as_slice()), (&SETTINGS[..], &b"more"[..]));
    }

    #[tokio::test]
    async fn the_last_word_is_read_although_nothing_can_be_written_any_more() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(&SETTINGS).await.unwrap();
        let mut ours = Hearing::begin(ours).await.unwrap();
        ours.write_all(super::PREFACE).await.unwrap();
        theirs.write_all(b"GOAWAY").await.unwrap();
        drop(theirs);
        ours.write_all(b"HEADERS").await.unwrap();
        ours.flush().await.unwrap();
        ours.write_all(b"HEADERS").await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [&SETTINGS[..], b"GOAWAY"].concat());
    }

    #[tokio::test]
    async fn a_server_that_spoke_may_have_done_something() {
        for resets in [false, true] {
            let status = call(&SETTINGS, 80, resets).await;
            assert!(!is_not_done(&status), "resets {resets}: {status:?}");
        }
    }
}
