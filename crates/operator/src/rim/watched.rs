//! What the API server holds, kept up to date by watches. Each is listed again where a watch broke; until every first
//! list is complete there is no [`Cluster`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{Config, Error as WatchError, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use torwart_api::Kind;

use super::objects::{self, SeenPod};
use super::pauses::pauses;
use crate::names::{CA_LABEL, POLICY_LABELS};
use crate::values::{Cluster, Seen, SeenService};

/// Objects of one page of a first list: some MB at most.
const PAGE: u32 = 500;

/// The same of ConfigMaps, of which each may have a megabyte.
const CONFIG_MAPS_PAGE: u32 = 20;

/// In seconds: how long one watch lasts. It is resumed, not listed again; one that broke without a word is found out a
/// little later (`run::READ_LIMIT`).
pub(super) const WATCH_LASTS: u32 = 60;

/// By namespace (empty if it has none) and name.
type Key = (String, String);

/// The watches; dropped, they end.
pub(super) struct Watched {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<Changes>,
    _tasks: JoinSet<()>,
}

/// How many times something changed: told at every step, compared to know what a step was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What policy is made of. The rest are statuses, most of which we wrote ourselves.
    pub(super) of_policy: u64,
}

#[derive(Debug, Default)]
struct State {
    gateways: Kept<Arc<Seen>>,
    domains: Kept<Arc<Seen>>,
    namespaces: Kept<BTreeMap<String, String>>,
    services: Kept<SeenService>,
    authorities: Kept<String>,
    pods: Kept<SeenPod>,
    /// The resourceVersions of what is published.
    versions: Kept<String>,
}

/// The objects of one kind.
#[derive(Debug)]
struct Kept<V> {
    there: BTreeMap<Key, V>,
    /// A list that is not complete yet.
    listed: BTreeMap<Key, V>,
    complete: bool,
}

/// Which part of the state.
type Part<V> = fn(&mut State) -> &mut Kept<V>;

impl Watched {
    /// Begins to watch. `gateway` names ours; `pods` is the label selector of verdict pods in `namespace`.
    pub(super) fn start(client: &Client, namespace: &str, gateway: &str, pods: &str) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (told, changed) = watch::channel(Changes::default());
        let told = Arc::new(told);
        let mut tasks = JoinSet::new();
        let everything = || Config::default().page_size(PAGE).timeout(WATCH_LASTS);

        let kind = Kind::MailGateway;
        let api = Api::<DynamicObject>::all_with(client.clone(), &objects::resource(kind));
        let one = everything().fields(&format!("metadata.name={gateway}"));
        let read = move |object| Some(Arc::new(objects::seen(kind, object)));
        tasks.spawn(follow("MailGateways", watcher(api, one), read, |s| &mut s.gateways, &state, &told));

        let kind = Kind::MailDomain;
        let api = Api::<DynamicObject>::all_with(client.clone(), &objects::resource(kind));
        let ours = gateway.to_owned();
        let read = move |object: DynamicObject| {
            (objects::gateway_of(&object) == ours).then(|| Arc::new(objects::seen(kind, object)))
        };
        tasks.spawn(follow(
            "MailDomains",
            watcher(api, everything()),
            read,
            |s| &mut s.domains,
            &state,
            &told,
        ));

        let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
        let read = |object: PartialObjectMeta<Namespace>| Some(object.metadata.labels.unwrap_or_default());
        let stream = watcher(api, everything());
        tasks.spawn(follow("Namespaces", stream, read, |s| &mut s.namespaces, &state, &told));

        let api = Api::<Service>::all(client.clone());
        let read = |object| Some(objects::service(object));
        tasks.spawn(follow("Services", watcher(api, everything()), read, |s| &mut s.services, &state, &told));

        let api = Api::<ConfigMap>::all(client.clone());
        let labelled = everything().page_size(CONFIG_MAPS_PAGE).labels(&format!("{CA_LABEL}=true"));
        tasks.spawn(follow(
            "ConfigMaps",
            watcher(api, labelled),
            objects::authority,
            |s| &mut s.authorities,
            &state,
            &told,
        ));

        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        let stream = watcher(api, everything().labels(pods));
        tasks.spawn(follow("Pods", stream, objects::pod, |s| &mut s.pods, &state, &told));

        let api = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), namespace);
        let labels: Vec<String> = POLICY_LABELS.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let read = |object: PartialObjectMeta<ConfigMap>| object.metadata.resource_version;
        let stream = watcher(api, everything().labels(&labels.join(",")));
        tasks.spawn(follow("published ConfigMaps", stream, read, |s| &mut s.versions, &state, &told));

        Self { state, changed, _tasks: tasks }
    }

    /// Told at every change.
    pub(super) fn changes(&self) -> watch::Receiver<Changes> {
        self.changed.clone()
    }

    /// Whether every first list is complete.
    pub(super) fn is_complete(&self) -> bool {
        lock(&self.state).is_complete()
    }

    /// `None` until every first list is complete.
    pub(super) fn cluster(&self) -> Option<Cluster> {
        let state = lock(&self.state);
        let State { gateways, domains, namespaces, services, authorities, .. } = &*state;
        state.is_complete().then(|| Cluster {
            objects: (gateways.there.values().chain(domains.there.values()))
                .map(|seen| (seen.object.clone(), Arc::clone(seen)))
                .collect(),
            namespaces: namespaces
                .there
                .iter()
                .map(|((_, name), labels)| (name.clone(), labels.clone()))
                .collect(),
            services: services.there.clone(),
            authorities: authorities.there.clone(),
        })
    }

    /// The resourceVersion of a ConfigMap that holds policy.
    pub(super) fn version(&self, name: &str) -> Option<String> {
        let state = lock(&self.state);
        state.versions.there.iter().find(|((_, there), _)| there == name).map(|(_, version)| version.clone())
    }

    /// The Ready verdict pods by name.
    pub(super) fn pods(&self) -> BTreeMap<String, SeenPod> {
        lock(&self.state).pods.there.iter().map(|((_, name), pod)| (name.clone(), pod.clone())).collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Applies what a watch tells. `read` says what is kept of an object, and `None` for one that does not concern us.
fn follow<K, V>(
    what: &'static str,
    stream: impl Stream<Item = Result<Event<K>, WatchError>> + Send + 'static,
    read: impl Fn(K) -> Option<V> + Send + 'static,
    part: Part<V>,
    state: &Arc<Mutex<State>>,
    told: &Arc<watch::Sender<Changes>>,
) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource + Clone + Debug + Send + 'static,
    V: Compare + Send + 'static,
{
    let (state, told) = (Arc::clone(state), Arc::clone(told));
    async move {
        let mut stream = Box::pin(StreamBackoff::new(stream, pauses()));
        let mut said = String::new();
        // Endless: after an error it waits and lists again.
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let error = error.to_string();
                    if error != said {
                        tracing::warn!(%error, "{what} can't be watched; it is tried again");
                        said = error;
                    }
                    continue;
                }
            };
            if matches!(event, Event::InitDone) && !said.is_empty() {
                tracing::info!("{what} are watched again");
                said.clear();
            }
            let news = part(&mut lock(&state)).take(event, &read);
            if news > News::None {
                told.send_modify(|changes| changes.of_policy += u64::from(news == News::Policy));
            }
        }
    }
}

/// What an event brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// Of no consequence for policy.
    Status,
    Policy,
}

/// A value that may be seen again.
trait Compare {
    /// What is new in it, against what is kept.
    fn news(&self, before: &Self) -> News;
}

// === impl State ===

impl State {
    fn is_complete(&self) -> bool {
        let Self { gateways, domains, namespaces, services, authorities, pods, versions } = self;
        gateways.complete
            && domains.complete
            && namespaces.complete
            && services.complete
            && authorities.complete
            && pods.complete
            && versions.complete
    }
}

// === impl Kept ===

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self { there: BTreeMap::new(), listed: BTreeMap::new(), complete: false }
    }
}

impl<V: Compare> Kept<V> {
    fn take<K: Resource>(&mut self, event: Event<K>, read: impl Fn(K) -> Option<V>) -> News {
        match event {
            Event::Init => {
                self.listed.clear();
                News::None
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if let Some(value) = read(object) {
                    self.listed.insert(key, value);
                }
                News::None
            }
            Event::InitDone => {
                self.there = std::mem::take(&mut self.listed);
                self.complete = true;
                News::Policy
            }
            Event::Apply(object) => {
                let key = key(&object);
                match read(object) {
                    Some(value) => {
                        let news = self.there.get(&key).map_or(News::Policy, |before| value.news(before));
                        self.there.insert(key, value);
                        news
                    }
                    None => self.remove(&key),
                }
            }
            Event::Delete(object) => self.remove(&key(&object)),
        }
    }

    fn remove(&mut self, key: &Key) -> News {
        if self.there.remove(key).is_some() { News::Policy } else { News::None }
    }
}

fn key(object: &impl Resource) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

// === impl Compare ===

impl Compare for Arc<Seen> {
    /// A new spec is a new generation; a new annotation is none.
    fn news(&self, before: &Self) -> News {
        let is_same = self.uid == before.uid
            && self.generation == before.generation
            && objects::annotations(self) == objects::annotations(before);
        match is_same {
            true if self.status == before.status => News::None,
            true => News::Status,
            false => News::Policy,
        }
    }
}

fn policy_if_different<V: PartialEq>(value: &V, before: &V) -> News {
    if value == before { News::None } else { News::Policy }
}

/// Labels of a Namespace.
impl Compare for BTreeMap<String, String> {
    fn news(&self, before: &Self) -> News {
        policy_if_different(self, before)
    }
}

impl Compare for SeenService {
    fn news(&self, before: &Self) -> News {
        policy_if_different(self, before)
    }
}

/// A certificate, or a resourceVersion.
impl Compare for String {
    fn news(&self, before: &Self) -> News {
        policy_if_different(self, before)
    }
}

impl Compare for SeenPod {
    fn news(&self, before: &Self) -> News {
        policy_if_different(self, before)
    }
}

#[cfg(test)]
mod tests;
