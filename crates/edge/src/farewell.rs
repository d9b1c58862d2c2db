//! The last word, so said that it is heard: a socket that is closed with bytes unread resets its peer, and a reset
//! overtakes what was written before.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// RFC 5321 section 3.8 and RFC 3463 (X.7.0): said without looking at anything else.
const TOO_MANY: &[u8] = b"421 4.7.0 Too many connections, come back later\r\n";
/// How long we listen for the client's own end after our last reply.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// What is read and thrown away meanwhile.
const LINGER_BYTES: usize = 64 * 1024;
/// Clients without a session that are waited for at one time. They come on top of `--max-connections`, so they are
/// few; each is there for a round trip as a rule.
const WAITING: usize = 64;

/// Sends clients away for whom there is no room.
#[derive(Clone, Debug)]
pub(crate) struct Farewells {
    room: Arc<Semaphore>,
}

// === impl Farewells ===

impl Farewells {
    /// Says 421 and closes. With too many such clients at once, the rest hear it only if their sockets take it at
    /// once and nothing more comes from them.
    pub(crate) fn too_many<S>(&self, mut stream: S, tasks: &TaskTracker)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return say_at_once(&mut stream);
        };
        tasks.spawn(async move {
            let said = async {
                stream.write_all(TOO_MANY).await?;
                linger(&mut stream).await
            };
            // whether the client hears it is no concern of ours
            let _ = tokio::time::timeout(LINGER, said).await;
            drop((stream, permit));
        });
    }
}

impl Default for Farewells {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(WAITING)) }
    }
}

/// Takes what is there, such as a PROXY header, and writes; neither is waited for.
fn say_at_once<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut context = Context::from_waker(Waker::noop());
    let mut space = [0; 1024];
    // whether the client hears it is no concern of ours
    let _ = Pin::new(&mut *stream).poll_read(&mut context, &mut ReadBuf::new(&mut space));
    let _ = Pin::new(&mut *stream).poll_write(&mut context, TOO_MANY);
}

/// Closes our side and reads until the client closes its own.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut space = [0; 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut space).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_to_be_waited_for_is_told_all_the_same() {
        let farewells = Farewells { room: Arc::new(Semaphore::new(0)) };
        let tasks = TaskTracker::new();
        let (ours, mut theirs) = tokio::io::duplex(100);
        theirs.write_all(b"PROXY TCP4 ").await.unwrap();
        farewells.too_many(ours, &tasks);
        assert!(tasks.is_empty());
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, TOO_MANY);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer_than_two_seconds() {
        let farewells = Farewells::default();
        let tasks = TaskTracker::new();
        let (ours, _theirs) = tokio::io::duplex(4);
        farewells.too_many(ours, &tasks);
        tasks.close();
        let started = tokio::time::Instant::now();
        tasks.wait().await;
        assert_eq!(started.elapsed(), LINGER);
        assert_eq!(farewells.room.available_permits(), WAITING);
    }
}
