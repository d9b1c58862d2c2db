//! The operator's one loop: something changed, plan, carry it out.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use prometheus::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use torwart_policy::Snapshot;
use torwart_proto::tls::ClientTls;

use super::ask::{Asker, is_same};
use super::carry_out::{Outcome, Writer};
use super::leadership::{Keeper, Leadership, identity};
use super::metrics::{End, Metrics};
use super::published::ConfigMaps;
use super::watched::{Changes, WATCH_LASTS, Watched};
use crate::names::{index_name, slot_name};
use crate::plan::{Inputs, Plan, Planner};
use crate::values::{Cluster, Pods, Published, Write};

/// What an operator is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ours: the Lease, the ConfigMaps and the verdict pods are there, and its objects are the administrator's.
    pub namespace: String,
    /// The MailGateway that we serve.
    pub gateway: String,
    /// The labels of verdict pods.
    pub verdict_selector: String,
    /// For questions to verdict pods; `None`: they are not encrypted.
    pub tls: Option<Arc<ClientTls>>,
}

/// Why an operator can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the cluster is not known: {0}; run in a pod with a ServiceAccount, or set KUBECONFIG")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the cluster can't be reached with what is configured: {0}")]
    Client(#[from] kube::Error),
    #[error("{0}")]
    Metrics(#[from] prometheus::Error),
}

/// Watches; what is told by [`run`](Self::run) is done.
pub struct Operator {
    settings: Settings,
    client: Client,
    watched: Arc<Watched>,
    metrics: Metrics,
}

/// After a change, how long it must be quiet before a plan is made: changes come in bursts.
const QUIET: Duration = Duration::from_millis(100);

/// How long a plan may wait for quiet.
const MOST_WAIT: Duration = Duration::from_secs(1);

/// How often verdict pods are asked while something waits for them, and else.
const ASK_SOON: Duration = Duration::from_millis(500);
const ASK_SELDOM: Duration = Duration::from_secs(10);

/// After a failure; doubled each time up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a watch may be behind our own writes before that means that somebody else wrote. Doubled while reading
/// again explains nothing (the label of a ConfigMap was taken away, say), up to the second.
const LAG: Duration = Duration::from_secs(3);
const LONGEST_LAG: Duration = Duration::from_secs(300);

/// Silence of the API server before a connection counts as dead: a page of a list takes less, and a watch ends before.
const READ_LIMIT: Duration = Duration::from_secs(WATCH_LASTS as u64 + 15);

// === impl Operator ===

impl Operator {
    /// Connects as the pod's ServiceAccount, or as `KUBECONFIG` says, and begins to watch. The API server need not be
    /// there yet.
    ///
    /// # Errors
    /// If there is no configuration, or none that can be used.
    pub async fn start(settings: Settings, registry: &Registry) -> Result<Self, StartError> {
        let mut config = crate::client::config().await?;
        config.read_timeout = Some(READ_LIMIT);
        config.reset_reader_on_write = true;
        let client = crate::client::connect(config)?;
        let metrics = Metrics::new(registry)?;
        let Settings { namespace, gateway, verdict_selector, .. } = &settings;
        let watched = Arc::new(Watched::start(&client, namespace, gateway, verdict_selector));
        Ok(Self { settings, client, watched, metrics })
    }

    /// Waits until every first list was complete, however long that takes; `false` if the watches ended.
    pub fn becomes_ready(&self) -> impl Future<Output = bool> + Send + 'static {
        let watched = Arc::clone(&self.watched);
        async move {
            let mut changes = watched.changes();
            while !watched.is_complete() {
                if changes.changed().await.is_err() {
                    return false;
                }
            }
            true
        }
    }

    /// Plans and writes whenever this operator holds the Lease, until `stop`. Then the Lease is given up.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { settings, client, watched, metrics } = self;
        let identity = identity();
        let (keeper, leadership) =
            Keeper::new(client.clone(), &settings.namespace, &settings.gateway, identity.clone());
        let stopping = Arc::new(Notify::new());
        let keeping = {
            let stopping = Arc::clone(&stopping);
            tokio::spawn(async move { keeper.keep(stopping.notified()).await })
        };
        let asking = Asking::start(&watched, leadership.clone(), settings.tls.clone());
        let config_maps = ConfigMaps::new(client.clone(), &settings.namespace, &settings.gateway);
        let writer = Writer::new(client, config_maps.clone(), leadership.clone(), identity, metrics.clone());
        let reconciler = Reconciler {
            settings,
            watched,
            leadership,
            config_maps,
            writer,
            asking,
            metrics,
            planner: Planner::new(),
            cluster: None,
            published: None,
            known: None,
            strange_since: None,
            lag: LAG,
            problems: Vec::new(),
        };
        tokio::select! {
            () = reconciler.work() => {}
            () = stop => {}
        }
        stopping.notify_one();
        if keeping.await.is_err() {
            tracing::error!("the task that keeps the Lease failed");
        }
    }
}

/// Asks verdict pods in a task of its own, so that one that does not answer holds up nothing.
struct Asking {
    pods: watch::Receiver<Pods>,
    soon: Arc<AtomicBool>,
    now: Arc<Notify>,
    task: JoinHandle<()>,
}

/// After a plan.
enum Next {
    /// For something to happen.
    Wait,
    /// Something happened already.
    GoOn,
    /// After a pause: not everything could be written.
    TryAgain,
    /// After a pause, whatever comes meanwhile: the API server takes nothing, or not from us.
    StandOff,
}

/// What the loop knows.
struct Reconciler {
    settings: Settings,
    watched: Arc<Watched>,
    leadership: Leadership,
    config_maps: ConfigMaps,
    writer: Writer,
    asking: Asking,
    metrics: Metrics,
    planner: Planner,
    /// As it was at the last plan.
    cluster: Option<Arc<Cluster>>,
    /// `None`: it must be read first.
    published: Option<Published>,
    /// What was published last while we led.
    known: Option<Arc<Snapshot>>,
    /// Since when the ConfigMaps are not as we know them.
    strange_since: Option<Instant>,
    /// How long they may be.
    lag: Duration,
    /// What was logged last.
    problems: Vec<String>,
}

// === impl Reconciler ===

impl Reconciler {
    async fn work(mut self) {
        let mut changes = self.watched.changes();
        let mut pause = FIRST_PAUSE;
        // When to look again although nothing changed.
        let mut again = Instant::now();
        let mut cluster_changed = true;
        // What was told of when the last plan was made.
        let mut planned = Changes::default();
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        tracing::error!("the watches ended");
                        return;
                    }
                    cluster_changed = true;
                    settle(&mut changes, planned).await;
                }
                () = self.leadership.changed() => {}
                () = self.asking.answered() => {}
                () = sleep_until(again) => {}
            }
            again = Instant::now() + ASK_SELDOM;
            self.metrics.leader.set(i64::from(self.leadership.holds()));
            if !self.leadership.holds() {
                self.published = None;
                self.cluster = None;
                cluster_changed = true;
                continue;
            }
            // Whichever of the branches it was: what is marked as seen here is looked at here.
            cluster_changed |= changes.has_changed().unwrap_or(true);
            // Before the cluster is looked at: what comes between the two is planned once more.
            let seen = *changes.borrow_and_update();
            if cluster_changed || self.cluster.is_none() {
                self.cluster = self.watched.cluster().map(Arc::new);
            }
            let Some(cluster) = self.cluster.clone() else { continue };
            planned = seen;
            let mut answers = self.asking.pods.clone();
            answers.mark_unchanged();
            let is_overtaken =
                || changes.borrow().of_policy != seen.of_policy || answers.has_changed().unwrap_or(false);
            match Box::pin(self.reconcile(&cluster, cluster_changed, is_overtaken)).await {
                Next::Wait => {
                    cluster_changed = false;
                    pause = FIRST_PAUSE;
                }
                Next::GoOn => {
                    cluster_changed = false;
                    again = Instant::now();
                }
                Next::TryAgain => {
                    again = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Next::StandOff => {
                    sleep(pause).await;
                    again = Instant::now();
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if self.strange_since.is_some() {
                again = again.min(Instant::now() + self.lag);
            }
        }
    }

    async fn reconcile(
        &mut self,
        cluster: &Arc<Cluster>,
        cluster_changed: bool,
        is_overtaken: impl Fn() -> bool,
    ) -> Next {
        let began = Instant::now();
        if self.is_strange() {
            tracing::warn!("somebody else changed what is published; it is read and compared again");
            self.published = None;
            self.lag = (self.lag * 2).min(LONGEST_LAG);
        }
        let published = match self.published.take() {
            Some(published) => published,
            None => {
                self.strange_since = None;
                self.planner.forget();
                match self.config_maps.read().await {
                    Ok(mut published) => {
                        if let Some(known) = &self.known {
                            published.recall(known);
                        }
                        published
                    }
                    Err(error) => {
                        tracing::warn!(%error, "what is published can't be read; it is tried again");
                        self.metrics.reconciled(End::Failed);
                        return Next::StandOff;
                    }
                }
            }
        };
        let pods = self.asking.pods.borrow().clone();
        let before = published.clone();
        let Some(plan) = self.plan(cluster, cluster_changed, published, pods.clone(), None).await else {
            self.metrics.reconciled(End::Failed);
            return Next::TryAgain;
        };
        let Plan { writes, published, wait_for_pods, problems } = plan;
        let publishes = writes.iter().any(|write| matches!(write, Write::Index(_)));
        let outcome = self.writer.carry_out(writes, published, &is_overtaken).await;
        if let Outcome::Failed(Some(error)) = &outcome {
            self.tell_of_failure(cluster, before, pods, error.clone(), &is_overtaken).await;
        } else {
            self.tell(problems);
        }
        let (end, next) = match outcome {
            Outcome::Done(published) => {
                self.published = Some(published);
                (End::Done, Next::Wait)
            }
            Outcome::Overtaken(published) => {
                self.published = Some(published);
                (End::Done, Next::GoOn)
            }
            Outcome::Partly(published) => {
                self.published = Some(published);
                (End::Failed, Next::TryAgain)
            }
            Outcome::Conflict => (End::Conflict, Next::TryAgain),
            Outcome::Failed(_) => (End::Failed, Next::StandOff),
        };
        if let Some(snapshot) = self.published.as_ref().and_then(|published| published.snapshot.as_ref()) {
            self.known = Some(Arc::clone(snapshot));
        }
        self.asking.wait(wait_for_pods, publishes);
        if let Some(Ok(index)) = self.published.as_ref().and_then(|p| p.index.as_ref()).map(|i| &i.index) {
            self.metrics.sequence.set(i64::try_from(index.sequence).unwrap_or(i64::MAX));
        }
        self.metrics.reconciled(end);
        self.metrics.reconcile_seconds.observe(began.elapsed().as_secs_f64());
        next
    }

    /// What could not be published is said in the statuses, which may be taken all the same.
    async fn tell_of_failure(
        &mut self,
        cluster: &Arc<Cluster>,
        published: Published,
        pods: Pods,
        error: String,
        is_overtaken: &impl Fn() -> bool,
    ) {
        if let Some(plan) = self.plan(cluster, false, published, pods, Some(error)).await {
            self.tell(plan.problems);
            self.writer.carry_out(plan.writes, plan.published, is_overtaken).await;
        }
    }

    /// Off the runtime's threads: 10,000 objects take a while.
    async fn plan(
        &mut self,
        cluster: &Arc<Cluster>,
        cluster_changed: bool,
        published: Published,
        pods: Pods,
        publish_failure: Option<String>,
    ) -> Option<Plan> {
        let mut planner = std::mem::take(&mut self.planner);
        let cluster = Arc::clone(cluster);
        let (namespace, gateway) = (self.settings.namespace.clone(), self.settings.gateway.clone());
        let planned = spawn_blocking(move || {
            let inputs = Inputs {
                cluster: &cluster,
                cluster_changed,
                published: &published,
                pods: &pods,
                publish_failure: publish_failure.as_deref(),
                operator_namespace: &namespace,
                gateway: &gateway,
            };
            let plan = planner.plan(inputs, Timestamp::now().as_millisecond());
            (planner, plan)
        });
        match planned.await {
            Ok((planner, plan)) => {
                self.planner = planner;
                Some(plan)
            }
            Err(error) => {
                tracing::error!(%error, "planning failed");
                None
            }
        }
    }

    /// Whether the ConfigMaps have been other than what we wrote for longer than a watch is late.
    fn is_strange(&mut self) -> bool {
        let Some(published) = &self.published else { return false };
        let gateway = &self.settings.gateway;
        let index = published.index.iter().map(|index| (index_name(gateway), &index.resource_version));
        let slots =
            published.slots.iter().map(|(slot, there)| (slot_name(gateway, *slot), &there.resource_version));
        let as_known =
            index.chain(slots).all(|(name, version)| self.watched.version(&name).as_ref() == Some(version));
        if as_known {
            self.strange_since = None;
            self.lag = LAG;
            return false;
        }
        self.strange_since.get_or_insert_with(Instant::now).elapsed() >= self.lag
    }

    /// Logs problems once, and once that there are none any more.
    fn tell(&mut self, problems: Vec<String>) {
        if problems == self.problems {
            return;
        }
        for problem in &problems {
            tracing::warn!(problem, "policy");
        }
        if problems.is_empty() {
            tracing::info!("the policy has no problem any more");
        }
        self.problems = problems;
    }
}

/// Waits for a moment of quiet. The echo of our own statuses does not hold up a change of policy.
async fn settle(changes: &mut watch::Receiver<Changes>, planned: Changes) {
    let end = Instant::now() + MOST_WAIT;
    let mut latest = *changes.borrow_and_update();
    let mut quiet = end.min(Instant::now() + QUIET);
    loop {
        match timeout_at(quiet, changes.changed()).await {
            Ok(Ok(())) if Instant::now() < end => {}
            _ => return,
        }
        let now = *changes.borrow_and_update();
        if now.of_policy != latest.of_policy || now.of_policy == planned.of_policy {
            quiet = end.min(Instant::now() + QUIET);
        }
        latest = now;
    }
}

// === impl Asking ===

impl Asking {
    fn start(watched: &Arc<Watched>, leadership: Leadership, tls: Option<Arc<ClientTls>>) -> Self {
        let (answers, pods) = watch::channel(Pods::default());
        let (soon, now) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let task = {
            let (watched, soon, now) = (Arc::clone(watched), Arc::clone(&soon), Arc::clone(&now));
            tokio::spawn(async move {
                let mut asker = Asker::new(tls);
                let mut outcomes_due = Instant::now();
                loop {
                    if !leadership.holds() {
                        // Once we lead again, old answers say nothing.
                        answers.send_if_modified(|pods| std::mem::take(pods).asked_at != 0);
                    } else if watched.is_complete() {
                        let outcomes = outcomes_due <= Instant::now();
                        if outcomes {
                            outcomes_due = Instant::now() + ASK_SELDOM;
                        }
                        let at = Timestamp::now().as_second();
                        let asked = asker.ask(watched.pods(), outcomes, at).await;
                        answers.send_if_modified(|pods| {
                            let is_news = pods.asked_at == 0 || !is_same(&pods.ready, &asked.ready);
                            *pods = asked;
                            is_news
                        });
                    }
                    sleep(ASK_SOON).await;
                    if !soon.load(Ordering::Relaxed) {
                        let _ = tokio::time::timeout(ASK_SELDOM, pin!(now.notified())).await;
                    }
                }
            })
        };
        Self { pods, soon, now, task }
    }

    /// Waits for new answers.
    async fn answered(&mut self) {
        if self.pods.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// How eagerly to ask from now on.
    fn wait(&self, soon: bool, at_once: bool) {
        self.soon.store(soon, Ordering::Relaxed);
        if soon || at_once {
            self.now.notify_one();
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}
