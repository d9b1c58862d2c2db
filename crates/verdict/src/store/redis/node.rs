//! One server that is asked: its connection, which is made again when it is lost, and its breaker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::store::StoreError;

use super::breaker::{Admission, Backoff, Breaker};
use super::dial::Access;
use super::failure::{self, classify, ends_connection, is_unwell};
use super::topology::Way;
use super::url::Server;

/// Calls that wait for one server's answer. At 1 ms a call that is a million calls in a second, more than one server
/// can answer; with a server that hangs it is what its memory here is bounded by.
const MAX_IN_FLIGHT: usize = 1024;

/// Pauses between attempts to connect: short enough not to be noticed after a restart, long enough not to be a
/// burden to a server that is in trouble.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How often Sentinels are asked whether the primary is still the same. Usually the connection ends when it is not;
/// this is for a network that is cut between them and us.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A caller that waited for so long, and then went away, speaks against the server however long its own time limit
/// is: whoever asks for a sender's server has seconds.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Who is told what happens to connections.
#[derive(Clone, Debug)]
pub(super) struct Bells {
    /// Counts connections that were made.
    pub(super) connects: Arc<watch::Sender<u64>>,
    /// Rung when it may be time to look who has which slots.
    pub(super) trouble: Arc<Notify>,
}

/// A task keeps it connected for as long as it lives.
pub(super) struct Node {
    inner: Arc<Inner>,
    keeper: AbortHandle,
}

struct Inner {
    way: Way,
    access: Arc<Access>,
    live: ArcSwapOption<Live>,
    /// Why there is no connection.
    down: ArcSwap<StoreError>,
    breaker: Mutex<Breaker>,
    permits: Semaphore,
    bells: Bells,
    /// The kind of what was last said in the log.
    told: Mutex<Option<&'static str>>,
}

struct Live {
    connection: MultiplexedConnection,
    server: Server,
    /// Told when it is lost or given up.
    ended: Arc<Notify>,
    /// A call was answered well.
    served: AtomicBool,
    /// Calls that nobody waits for any more, since the last answer: their replies are still to come.
    abandoned: AtomicUsize,
}

/// A call that is under way. If its future is dropped, the caller has stopped waiting.
struct UnderWay<'a> {
    inner: &'a Inner,
    live: &'a Arc<Live>,
    admission: Admission,
    since: Instant,
    /// Its success shows that the server is of use.
    is_proof: bool,
    settled: bool,
}

// === impl Bells ===

impl Bells {
    pub(super) fn new() -> Self {
        Self { connects: Arc::new(watch::Sender::new(0)), trouble: Arc::default() }
    }
}

// === impl Node ===

impl Node {
    /// Must be called within a runtime.
    pub(super) fn start(way: Way, access: &Arc<Access>, bells: &Bells) -> Self {
        let inner = Arc::new(Inner {
            way,
            access: Arc::clone(access),
            live: ArcSwapOption::empty(),
            down: ArcSwap::from_pointee(StoreError::Disconnected("not connected yet".into())),
            breaker: Mutex::new(Breaker::new()),
            permits: Semaphore::new(MAX_IN_FLIGHT),
            bells: bells.clone(),
            told: Mutex::default(),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&inner))).abort_handle();
        Self { inner, keeper }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.inner.live.load().is_some()
    }

    /// The server that it is connected to.
    pub(super) fn server(&self) -> Option<Server> {
        self.inner.live.load().as_ref().map(|live| live.server.clone())
    }

    /// Sends the commands in one write. One answer for each, in order; an answer may be an error of the server. Fails
    /// at once while there is no connection or the breaker is open.
    pub(super) async fn exchange(
        &self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        self.ask(commands, deadline, true).await
    }

    /// The same for a question about the Cluster: a node answers it that takes no other command. So it is put to none
    /// that is left alone, and its answer does not speak for the node; silence speaks against it.
    pub(super) async fn inquire(
        &self,
        commands: &Pipeline,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        self.ask(commands, deadline, false).await
    }

    async fn ask(
        &self,
        commands: &Pipeline,
        deadline: Instant,
        is_proof: bool,
    ) -> Result<Vec<Value>, StoreError> {
        let inner = &*self.inner;
        let Some(live) = inner.live.load_full() else {
            return Err(StoreError::clone(&inner.down.load()));
        };
        let _permit = inner.permits.try_acquire().map_err(|_| StoreError::Busy)?;
        let since = Instant::now();
        let admission = {
            let mut breaker = inner.breaker();
            if is_proof { breaker.admit(since.into_std()) } else { breaker.admit_aside() }
        };
        let admission = admission.ok_or(StoreError::BreakerOpen)?;
        let under_way = UnderWay { inner, live: &live, admission, since, is_proof, settled: false };
        let mut connection = live.connection.clone();
        let answers = connection.send_packed_commands(commands, 0, commands.len());
        let result = match timeout_at(deadline, answers).await {
            Ok(Ok(values)) => Ok(values),
            Ok(Err(error)) => Err(classify(&error)),
            Err(_) => Err(StoreError::TimedOut),
        };
        under_way.settle(&result);
        result
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        let connected = self.is_connected();
        f.debug_struct("Node").field("way", &inner.way).field("connected", &connected).finish_non_exhaustive()
    }
}

/// Connects, waits until the connection is lost, connects again.
async fn keep(inner: Arc<Inner>) {
    let mut backoff = Backoff::new(LEAST_PAUSE, MOST_PAUSE);
    loop {
        let ended = Arc::new(Notify::new());
        match inner.way.connect(&inner.access, &ended).await {
            Ok((connection, server)) => {
                if inner.told().is_none() {
                    tracing::info!(%server, "connected to the greylist store");
                }
                let live = Arc::new(Live::new(connection, server, ended));
                inner.breaker().reconnected(std::time::Instant::now());
                inner.live.store(Some(Arc::clone(&live)));
                inner.bells.connects.send_modify(|count| *count += 1);
                inner.watch(&live).await;
                inner.give_up(&live, StoreError::Disconnected("the connection has ended".into()));
                if live.served.load(Ordering::Relaxed) {
                    backoff.reset();
                }
            }
            Err(error) => {
                inner.tell(&error);
                inner.down.store(Arc::new(error));
                inner.bells.trouble.notify_one();
            }
        }
        sleep(backoff.pause(chance())).await;
    }
}

fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Without chance, pauses are at their shortest.
    let _filled_or_zero = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

// === impl Inner ===

impl Inner {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No call goes to this connection any more; those that are under way may still be answered.
    fn give_up(&self, live: &Arc<Live>, reason: StoreError) {
        let current = Some(Arc::clone(live));
        let before = self.live.compare_and_swap(&current, None);
        // Others may be faster, and the connection that is there now a newer one.
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, live)) {
            self.tell(&reason);
            self.down.store(Arc::new(reason));
            live.ended.notify_one();
            self.bells.trouble.notify_one();
        }
    }

    /// Until the connection has ended, or another server should be asked.
    async fn watch(&self, live: &Live) {
        loop {
            let look = async {
                sleep(LOOK_AGAIN).await;
                self.way.leads_to(&live.server, &self.access).await
            };
            tokio::select! {
                () = live.ended.notified() => return,
                is_right = look => if !is_right {
                    return;
                },
            }
        }
    }

    /// Says once what is wrong, until it is well again or something else is wrong.
    fn tell(&self, error: &StoreError) {
        if self.told().replace(error.kind()) != Some(error.kind()) {
            tracing::warn!(store = %self.access.url, server = %self.way, %error, "no connection to the greylist store");
        }
    }

    /// Says once that the server answers, and refuses what it is asked.
    fn tell_refusal(&self, live: &Live, error: &StoreError) {
        if self.told().replace(error.kind()) != Some(error.kind()) {
            tracing::warn!(server = %live.server, %error, "the greylist store refuses what it is asked");
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, live: &Live) {
        self.breaker().succeeded();
        if !live.served.swap(true, Ordering::Relaxed) && self.told().take().is_some() {
            tracing::info!(server = %live.server, "the greylist store answers again");
        }
    }

    fn failed(&self, live: &Arc<Live>, admission: Admission, error: &StoreError) {
        let opened = self.breaker().failed(admission, std::time::Instant::now(), chance());
        if opened {
            tracing::warn!(server = %live.server, %error, "the greylist store fails and is left alone for a while");
            self.bells.trouble.notify_one();
        }
        // It hangs, or the network between swallows everything: only a new connection can tell.
        let hangs = opened && matches!(error, StoreError::TimedOut | StoreError::Io(_));
        if hangs {
            self.give_up(live, StoreError::BreakerOpen);
        } else if ends_connection(error) {
            self.give_up(live, error.clone());
        }
    }
}

// === impl Live ===

impl Live {
    fn new(connection: MultiplexedConnection, server: Server, ended: Arc<Notify>) -> Self {
        let (served, abandoned) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { connection, server, ended, served, abandoned }
    }
}

// === impl UnderWay ===

impl UnderWay<'_> {
    fn settle(mut self, result: &Result<Vec<Value>, StoreError>) {
        self.settled = true;
        if result.is_ok() {
            // Replies come in order.
            self.live.abandoned.store(0, Ordering::Relaxed);
        }
        let trouble = match result {
            Ok(values) => errors_in(values).find_map(|error| failure::trouble_in(&error)),
            Err(error) => Some(error.clone()),
        };
        match trouble {
            Some(error) if is_unwell(&error) => self.inner.failed(self.live, self.admission, &error),
            Some(error) => {
                self.answered();
                if ends_connection(&error) {
                    self.inner.give_up(self.live, error);
                }
            }
            None => {
                match result.iter().flat_map(|values| errors_in(values)).find_map(|error| refusal_in(&error))
                {
                    Some(error) => {
                        self.answered();
                        self.inner.tell_refusal(self.live, &error);
                    }
                    None if self.is_proof => self.inner.succeeded(self.live),
                    None => {}
                }
            }
        }
    }

    fn answered(&self) {
        if self.is_proof {
            self.inner.breaker().succeeded();
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // The caller's own time limit is about ours, and may be over first.
        let long = LONG_WAIT.min(self.inner.access.options.timeout / 2);
        if self.since.elapsed() >= long {
            self.inner.failed(self.live, self.admission, &StoreError::TimedOut);
        } else {
            self.inner.breaker().abandoned(self.admission, std::time::Instant::now());
        }
        if self.live.abandoned.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT {
            self.inner.give_up(self.live, StoreError::TimedOut);
        }
    }
}

fn errors_in(values: &[Value]) -> impl Iterator<Item = RedisError> {
    values.iter().filter_map(|value| match value {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    })
}

/// What only whoever runs the server can mend.
fn refusal_in(reply: &RedisError) -> Option<StoreError> {
    let error = classify(reply);
    matches!(error, StoreError::Auth(_) | StoreError::Io(_)).then_some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::RedisOptions;
    use torwart_tests::{PATIENCE, RedisServer};

    #[tokio::test]
    async fn that_a_node_knows_its_cluster_does_not_make_up_for_commands_that_it_refuses() {
        // Without any slot it answers CLUSTER SLOTS, and nothing else.
        let server = RedisServer::builder().config("cluster-enabled yes").start();
        let url = server.url().replace("redis://", "redis+cluster://").parse().unwrap();
        let access = Arc::new(Access::new(url, &RedisOptions::default()).unwrap());
        let bells = Bells::new();
        let mut connects = bells.connects.subscribe();
        let way = Way::To(access.url.servers()[0].clone());
        let node = Node::start(way, &access, &bells);
        tokio::time::timeout(PATIENCE, connects.wait_for(|count| *count > 0)).await.unwrap().unwrap();
        let mut get = redis::pipe();
        get.cmd("GET").arg("a");
        let mut slots = redis::pipe();
        slots.cmd("CLUSTER").arg("SLOTS");
        let end = Instant::now() + PATIENCE;
        for _ in 0..Breaker::FAILURES {
            assert!(node.inquire(&slots, end).await.is_ok());
            let values = node.exchange(&get, end).await.unwrap();
            let error = errors_in(&values).next().unwrap();
            assert_eq!(classify(&error).kind(), "cluster_down");
        }
        assert_eq!(node.exchange(&get, end).await.unwrap_err(), StoreError::BreakerOpen);
        assert_eq!(node.inquire(&slots, end).await.unwrap_err(), StoreError::BreakerOpen);
    }
}
