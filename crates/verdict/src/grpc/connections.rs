//! Accepts connections and serves each, within limits.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use torwart_proto::tls::ServerTls;

use super::gate::Gate;
use super::metrics::{ConnectionRefused, GrpcMetrics};
use super::wire::Wire;

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    gate: Gate,
    tls: Option<Arc<ServerTls>>,
    limits: Limits,
    metrics: Arc<GrpcMetrics>,
    places: Arc<Semaphore>,
    /// One for each connection.
    pub(super) tasks: TaskTracker,
    /// No more calls: what is under way is finished, then connections end.
    pub(super) goaway: CancellationToken,
    /// Connections end now.
    pub(super) cut: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_connections: usize,
    pub(super) max_calls: usize,
    pub(super) silence_limit: Duration,
    pub(super) max_age: Duration,
    pub(super) call_limit: Duration,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has not begun to speak HTTP/2.
    Silent,
    Serving,
    /// It is old: calls under way are finished.
    Leaving,
}

/// A client that is gone without a word is noticed within half a minute.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(10);
/// For the last answers of an old connection to be written.
const WRITING: Duration = Duration::from_secs(5);
/// Streams beyond `max_calls`: calls that are refused, health and status. Without them the client's library would keep
/// a call waiting that should be refused.
const SPARE_STREAMS: usize = 1024;
/// The largest frame and header (RFC 9113 section 4.2: the smallest value that every client can cope with). A message
/// of more comes in several frames.
const FRAME: u32 = 16 * 1024;
/// What a stream may send unread: nearly every question whole.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What a connection may send before its calls have read it. What they have read is theirs: up to a whole message for
/// each call that has a place, whose message may never end until its time limit does.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Connections that can wait at the port: Linux's `net.core.somaxconn`.
const WAITING: usize = 4096;
/// After a failed accept (no file descriptor left), the next one waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// === impl Connections ===

impl Connections {
    pub(super) fn new(
        gate: Gate,
        tls: Option<Arc<ServerTls>>,
        limits: Limits,
        metrics: Arc<GrpcMetrics>,
    ) -> Self {
        Self {
            gate,
            tls,
            places: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            limits,
            metrics,
            tasks: TaskTracker::new(),
            goaway: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts until it is dropped.
    pub(super) async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.begin(stream),
                Err(error) => {
                    tracing::warn!(%error, "the gRPC port can't accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the port. Takes in whoever waits there, since closing it would reset them, and a client whose call was
    /// under way would not know whether it was done.
    pub(super) fn close(self: &Arc<Self>, listener: TcpListener) {
        // Not through tokio, which knows of a connection only after its next look at the system's events.
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..WAITING {
            match listener.accept().and_then(|(stream, _)| non_blocking(stream)) {
                Ok(stream) => self.begin(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of this one client.
                Err(_) => {}
            }
        }
    }

    /// Never waits: whatever a client does, the next one is accepted.
    fn begin(self: &Arc<Self>, stream: TcpStream) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.connection_refused(ConnectionRefused::Limit);
            return;
        };
        self.tasks.spawn(Arc::clone(self).serve(stream, place));
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        let _place = place;
        let _held = self.metrics.connection();
        // Without it an answer may wait for the client's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Box::pin(self.speak(stream)).await };
        // It limits its time itself, and logs what is worth a line.
        match tls.accept(stream).await {
            Ok(stream) => Box::pin(self.speak(stream)).await,
            Err(_) => self.metrics.connection_refused(ConnectionRefused::Tls),
        }
    }

    /// Speaks HTTP/2 until the client leaves, is too old or silent, or the server goes down.
    async fn speak<S: AsyncRead + AsyncWrite + Send + Unpin>(&self, stream: S) {
        let is_client = Arc::new(AtomicBool::new(false));
        let stream = Wire::new(stream, Arc::clone(&is_client));
        let mut connection =
            pin!(self.http().serve_connection(TokioIo::new(stream), self.gate.for_connection()));
        let mut phase = Phase::Silent;
        let mut is_told = false;
        let mut timer = pin!(sleep(self.limits.silence_limit));
        loop {
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return,
                // A client's fault is its own; ours shows in its calls.
                _ended = &mut connection => return,
                () = self.goaway.cancelled(), if !is_told => {
                    is_told = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut timer => {
                    let next = match phase {
                        Phase::Silent if !is_client.load(Ordering::Relaxed) => {
                            self.metrics.connection_refused(ConnectionRefused::Silent);
                            return;
                        }
                        Phase::Silent => {
                            phase = Phase::Serving;
                            spread(self.limits.max_age)
                        }
                        Phase::Serving => {
                            phase = Phase::Leaving;
                            connection.as_mut().graceful_shutdown();
                            self.limits.call_limit.saturating_add(WRITING)
                        }
                        Phase::Leaving => return,
                    };
                    timer.set(sleep(next));
                }
            }
        }
    }

    fn http(&self) -> http2::Builder<TokioExecutor> {
        let streams = self.limits.max_calls.saturating_add(SPARE_STREAMS);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_LIMIT)
            .max_concurrent_streams(u32::try_from(streams).unwrap_or(u32::MAX))
            // An edge whose questions hang gives them all up at once. With the library's limit of 20 that would end
            // the connection, and with it the calls that go on.
            .max_pending_accept_reset_streams(streams)
            .max_frame_size(FRAME)
            .max_header_list_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        http
    }
}

fn non_blocking(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// The time, give or take a tenth: connections that began together do not end together. Without randomness, all of it.
fn spread(time: Duration) -> Duration {
    let mut random = [0; 1];
    if getrandom::fill(&mut random).is_err() {
        return time;
    }
    let [random] = random;
    let (tenth, share) = (time / 10, u32::from(random));
    (time - tenth).saturating_add(tenth / u32::from(u8::MAX) * 2 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most_and_do_differ() {
        let hour = Duration::from_secs(3600);
        let ages: Vec<_> = (0..100).map(|_| spread(hour)).collect();
        assert!(ages.iter().all(|age| *age >= hour * 9 / 10 && *age <= hour * 11 / 10), "{ages:?}");
        assert!(ages.iter().any(|age| *age != ages[0]));
        assert!(spread(Duration::MAX) >= Duration::MAX / 10 * 9);
    }
}
