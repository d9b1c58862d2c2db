//! The way to the store, whatever it is made of: commands go in, each to the node that has its keys.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{Cmd, Pipeline, RedisError, RetryMethod, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::store::StoreError;

use super::dial::Access;
use super::failure::classify;
use super::node::{Bells, Node};
use super::options::RedisOptions;
use super::slots::{Range, SlotMap, parse_slots, slot_of};
use super::topology::Way;
use super::url::{RedisUrl, Server, Shape};

/// How often one command is sent: once, after MOVED or ASK, and after NOSCRIPT there.
const MAX_HOPS: usize = 3;

/// How often a Cluster that is well is asked who has which slots. Every MOVED asks at once, so this only finds nodes
/// that left.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The same while a node is not connected: its replica may have taken over.
const LOOK_FOR_REPLACEMENT: Duration = Duration::from_secs(1);

/// At least so long between two looks, however many calls are in trouble.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A node that takes over slots, but has none yet, is kept for so long after it was last named.
const KEEP_NAMED: Duration = Duration::from_secs(60);

/// Nodes of that kind; more are not real.
const MAX_NAMED: usize = 64;

/// One command, and the slot of its keys.
#[derive(Clone)]
pub(super) struct Request {
    slot: u16,
    command: Cmd,
    script: Option<&'static str>,
}

/// Connects by itself, in the background, for as long as it lives.
///
/// A call fails at once while its node is not connected or is left alone after failures; and it never takes longer
/// than `--store-timeout`. Replies are matched to commands by their order on the connection, also those that nobody
/// waits for any more; so a late reply is never taken for another's.
pub(super) struct Link {
    shared: Arc<Shared>,
    /// Of a Cluster.
    watcher: Option<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    access: Arc<Access>,
    bells: Bells,
    map: ArcSwap<SlotMap>,
    /// Why nothing is known of a Cluster.
    unreached: ArcSwap<StoreError>,
    /// Servers that a Cluster's nodes have named, and when.
    named: Mutex<HashMap<Server, Instant>>,
    /// It has been said that the URL is not a Cluster's.
    misfit_told: AtomicBool,
}

/// Where a command goes, and what must go before it.
struct Stop {
    node: Arc<Node>,
    asking: bool,
    load: bool,
}

// === impl Request ===

impl Request {
    /// `key` is one of the command's; of a command without keys, one whose node is meant.
    pub(super) fn new(key: &[u8], command: Cmd) -> Self {
        Self { slot: slot_of(key), command, script: None }
    }

    /// `command` is an `EVALSHA` of this text. A node that does not have it is given it.
    pub(super) fn script(key: &[u8], command: Cmd, text: &'static str) -> Self {
        Self { script: Some(text), ..Self::new(key, command) }
    }
}

// === impl Link ===

impl Link {
    /// Must be called within a runtime. Fails for files that are no good, never because the store is down.
    pub(super) fn open(url: RedisUrl, options: &RedisOptions) -> Result<Arc<Self>, StoreError> {
        let access = Arc::new(Access::new(url, options)?);
        let bells = Bells::new();
        let servers = access.url.servers();
        let first = servers.first().ok_or_else(|| StoreError::Unusable("--store names no server".into()))?;
        let single = |way| SlotMap::single(first.clone(), Node::start(way, &access, &bells));
        let map = match access.url.shape() {
            Shape::Standalone => single(Way::To(first.clone())),
            Shape::Sentinel(name) => single(Way::sentinels(servers, name)),
            Shape::Cluster => SlotMap::unknown(),
        };
        let is_cluster = access.url.is_cluster();
        let unreached = StoreError::Disconnected("no node of the Cluster has been reached yet".into());
        let shared = Arc::new(Shared {
            access,
            bells,
            map: ArcSwap::from_pointee(map),
            unreached: ArcSwap::from_pointee(unreached),
            named: Mutex::default(),
            misfit_told: AtomicBool::new(false),
        });
        let watcher = is_cluster.then(|| tokio::spawn(watch_slots(Arc::clone(&shared))).abort_handle());
        Ok(Arc::new(Self { shared, watcher }))
    }

    /// Sends all at once: what goes to one node is one write, and nodes answer in parallel. One answer for each, in
    /// order.
    pub(super) async fn send(&self, requests: Vec<Request>) -> Vec<Result<Value, StoreError>> {
        let deadline = self.deadline();
        let shared = &*self.shared;
        let map = shared.map.load_full();
        let mut answers: Vec<Option<Result<Value, StoreError>>> = Vec::with_capacity(requests.len());
        let mut groups: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            let Some(node) = map.owner(request.slot) else {
                answers.push(Some(Err(shared.nobody())));
                continue;
            };
            answers.push(None);
            match groups.iter_mut().find(|(known, _)| Arc::ptr_eq(known, node)) {
                Some((_, places)) => places.push(place),
                None => groups.push((Arc::clone(node), vec![place])),
            }
        }
        let requests = &requests;
        let asked = groups.into_iter().map(|(node, places)| async move {
            let members: Vec<&Request> = places.iter().filter_map(|place| requests.get(*place)).collect();
            let answers = shared.ask_node(&node, &members, deadline).await;
            places.into_iter().zip(answers)
        });
        for (place, answer) in join_all(asked).await.into_iter().flatten() {
            if let Some(slot) = answers.get_mut(place) {
                *slot = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(StoreError::Closed))).collect()
    }

    /// The same command to every node that has slots, or had them lately.
    pub(super) async fn call_everywhere(&self, command: Cmd) -> Vec<Result<Value, StoreError>> {
        let deadline = self.deadline();
        let shared = &*self.shared;
        let map = shared.map.load_full();
        let request = Request { slot: 0, command, script: None };
        let members = [&request];
        let asked = map.nodes().map(|node| shared.ask_node(node, &members, deadline));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// A number that changes with each connection that is made.
    pub(super) fn connects(&self) -> watch::Receiver<u64> {
        self.shared.bells.connects.subscribe()
    }

    /// Waits until every node is connected, for as long as that takes.
    pub(super) async fn connected(&self) {
        let mut connects = self.connects();
        while !self.shared.map.load().is_connected() {
            if connects.changed().await.is_err() {
                return;
            }
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.shared.access.options.timeout
    }
}

#[cfg(test)]
impl Link {
    pub(super) async fn call(&self, request: Request) -> Result<Value, StoreError> {
        self.send(vec![request]).await.pop().unwrap_or(Err(StoreError::Closed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.shared.access.url).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn nobody(&self) -> StoreError {
        self.bells.trouble.notify_one();
        match self.map.load().nodes().next() {
            Some(_) => StoreError::ClusterDown("no node has these slots".into()),
            None => StoreError::clone(&self.unreached.load()),
        }
    }

    /// One write to one node; then each command on its own that has to go elsewhere, or again.
    async fn ask_node(
        &self,
        node: &Arc<Node>,
        requests: &[&Request],
        deadline: Instant,
    ) -> Vec<Result<Value, StoreError>> {
        let mut commands = Pipeline::with_capacity(requests.len());
        for request in requests {
            commands.add_command(request.command.clone());
        }
        let values = match node.exchange(&commands, deadline).await {
            Ok(values) => values,
            Err(error) => return requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let answers: Vec<_> = values.into_iter().map(Value::extract_error).collect();
        if answers.iter().all(|answer| answer.is_ok()) {
            return answers.into_iter().map(|answer| answer.map_err(|error| classify(&error))).collect();
        }
        let followed = requests
            .iter()
            .zip(answers)
            .map(|(request, answer)| self.follow(request, Arc::clone(node), answer, deadline));
        join_all(followed).await
    }

    /// To where the answer points, if it points anywhere.
    async fn follow(
        &self,
        request: &Request,
        node: Arc<Node>,
        mut answer: Result<Value, RedisError>,
        deadline: Instant,
    ) -> Result<Value, StoreError> {
        let mut stop = Stop { node, asking: false, load: false };
        for _ in 1..MAX_HOPS {
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            stop = self.next_stop(request, stop, &error).ok_or_else(|| classify(&error))?;
            let commands = stop.commands(request);
            let values = stop.node.exchange(&commands, deadline).await?;
            answer = values.into_iter().next_back().map_or_else(|| Ok(Value::Nil), Value::extract_error);
        }
        answer.map_err(|error| classify(&error))
    }

    fn next_stop(&self, request: &Request, stop: Stop, error: &RedisError) -> Option<Stop> {
        match error.retry_method() {
            RetryMethod::MovedRedirect => {
                self.bells.trouble.notify_one();
                let (server, slot) = self.named(&stop, error)?;
                let node = self.map.load().moved(slot, &server).map(Arc::clone)?;
                Some(Stop { node, asking: false, load: stop.load })
            }
            RetryMethod::AskRedirect => {
                let (server, _) = self.named(&stop, error)?;
                let Some(node) = self.map.load().node(&server).map(Arc::clone) else {
                    self.bells.trouble.notify_one();
                    return None;
                };
                Some(Stop { node, asking: true, load: stop.load })
            }
            _ if classify(error) == StoreError::NoScript && request.script.is_some() && !stop.load => {
                Some(Stop { load: true, ..stop })
            }
            _ => None,
        }
    }

    /// The server that a Cluster's node points at, which is noted.
    fn named(&self, stop: &Stop, error: &RedisError) -> Option<(Server, u16)> {
        if !self.access.url.is_cluster() {
            if !self.misfit_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    store = %self.access.url,
                    "the server is part of a Cluster, and has a part of the keys only: \
                     write redis+cluster:// or rediss+cluster:// in --store"
                );
            }
            return None;
        }
        let (address, slot) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let host = match host {
            "" => stop.node.server()?.host,
            host => host.into(),
        };
        let server = Server { host, port: port.parse().ok()? };
        let mut named = self.names();
        if named.len() < MAX_NAMED || named.contains_key(&server) {
            named.insert(server.clone(), Instant::now());
        }
        Some((server, slot))
    }

    fn names(&self) -> MutexGuard<'_, HashMap<Server, Instant>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new map in force; nodes that stay keep their connections.
    fn set_ranges(&self, ranges: &[Range]) {
        let others: Vec<Server> = {
            let mut named = self.names();
            named.retain(|_, at| at.elapsed() < KEEP_NAMED);
            named.keys().cloned().collect()
        };
        let before = self.map.load_full();
        let map = SlotMap::cluster(ranges, &others, |server| {
            let known = before.node(server).map(Arc::clone);
            let start = || Arc::new(Node::start(Way::To(server.clone()), &self.access, &self.bells));
            Some(known.unwrap_or_else(start))
        });
        self.map.store(Arc::new(map));
    }

    /// Asks nodes, and then the servers of the URL, until one says who has which slots. `turn` makes each question
    /// begin with another: one that is cut off from the rest is not believed for long.
    async fn look(&self, turn: usize) -> Result<Vec<Range>, StoreError> {
        let map = self.map.load_full();
        let connected: Vec<_> = map.nodes().filter(|node| node.is_connected()).collect();
        for place in 0..connected.len() {
            let node = connected.get((turn + place) % connected.len());
            let Some((node, server)) = node.and_then(|node| Some((node, node.server()?))) else { continue };
            let deadline = Instant::now() + self.access.options.timeout;
            let mut question = redis::pipe();
            question.add_command(slots_question());
            if let Ok(values) = node.inquire(&question, deadline).await
                && let Some(ranges) = values.into_iter().next().and_then(|value| ranges_in(value, &server))
            {
                return Ok(ranges);
            }
        }
        let seeds = self.access.url.servers();
        let mut last = None;
        for place in 0..seeds.len() {
            let Some(server) = seeds.get((turn + place) % seeds.len()) else { continue };
            match self.ask_seed(server).await {
                Ok(ranges) => return Ok(ranges),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(StoreError::Closed))
    }

    async fn ask_seed(&self, server: &Server) -> Result<Vec<Range>, StoreError> {
        let (mut connection, _) = self.access.connect(server, Arc::new(Notify::new())).await?;
        let question = slots_question();
        let asked = timeout(self.access.options.timeout, connection.send_packed_command(&question)).await;
        let answer = asked.map_err(|_| StoreError::TimedOut)?.and_then(Value::extract_error);
        let answer = answer.map_err(|error| super::failure::at_connect(server, &error))?;
        ranges_in(answer, server)
            .ok_or_else(|| StoreError::ClusterDown(format!("{server} knows no slots").into()))
    }
}

fn slots_question() -> Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

fn ranges_in(answer: Value, asked: &Server) -> Option<Vec<Range>> {
    parse_slots(answer, asked).filter(|ranges| !ranges.is_empty())
}

/// Keeps the map of a Cluster up to date.
async fn watch_slots(shared: Arc<Shared>) {
    let mut told = None;
    for turn in 0.. {
        match shared.look(turn).await {
            Ok(ranges) => {
                told = None;
                shared.set_ranges(&ranges);
            }
            Err(error) => {
                if told.replace(error.kind()) != Some(error.kind()) {
                    tracing::warn!(store = %shared.access.url, %error, "no node of the greylist store's Cluster answers");
                }
                shared.unreached.store(Arc::new(error));
            }
        }
        sleep(LOOK_PAUSE).await;
        let all_well = shared.map.load().is_connected();
        let limit = if all_well { LOOK_AGAIN } else { LOOK_FOR_REPLACEMENT };
        // Time out or not, it is time to look again.
        let _rung = timeout(limit, shared.bells.trouble.notified()).await;
    }
}

// === impl Stop ===

impl Stop {
    fn commands(&self, request: &Request) -> Pipeline {
        let mut commands = redis::pipe();
        if let (true, Some(text)) = (self.load, request.script) {
            commands.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        if self.asking {
            // Holds for the next command only.
            commands.cmd("ASKING");
        }
        commands.add_command(request.command.clone());
        commands
    }
}

/// All at once, for the few that a call consists of.
pub(super) async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|context| {
        let mut all_ready = true;
        for (future, output) in &mut waiting {
            if let Some(pending) = future {
                match Pin::new(pending).poll(context) {
                    Poll::Ready(ready) => {
                        *output = Some(ready);
                        *future = None;
                    }
                    Poll::Pending => all_ready = false,
                }
            }
        }
        if all_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}
