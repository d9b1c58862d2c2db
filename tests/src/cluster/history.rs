//! What was published, version by version.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http::{Method, Request};
use kube::core::WatchEvent;
use serde_json::Value;

use super::{Api, Kind};
use crate::PATIENCE;

/// An index as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    pub resource_version: String,
    pub sequence: u64,
    pub revision: String,
    /// Slot, as in `3f`, to the hash of its chunk.
    pub slots: BTreeMap<String, String>,
}

/// Every version of one index since the start, and whether a reader ever missed a chunk that the index named.
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    versions: Vec<Index>,
    missing: Vec<String>,
    looks: u64,
    ended: bool,
}

impl Index {
    /// As it is now; `None` if there is none.
    #[track_caller]
    pub fn read(api: &Api, namespace: &str, gateway: &str) -> Option<Self> {
        api.find(Kind::ConfigMap, namespace, &name(gateway)).map(|object| Self::of(&object))
    }

    #[track_caller]
    fn of(object: &Value) -> Self {
        Self::try_of(object).unwrap_or_else(|| panic!("no index: {object}"))
    }

    fn try_of(object: &Value) -> Option<Self> {
        let index: Value = serde_json::from_str(object["data"]["index.json"].as_str()?).ok()?;
        let slots = index["slots"].as_object()?.iter();
        Some(Self {
            resource_version: object["metadata"]["resourceVersion"].as_str()?.to_owned(),
            sequence: index["sequence"].as_u64()?,
            revision: index["revision"].as_str()?.to_owned(),
            slots: slots
                .map(|(slot, hash)| Some((slot.clone(), hash.as_str()?.to_owned())))
                .collect::<Option<_>>()?,
        })
    }
}

fn name(gateway: &str) -> String {
    format!("torwart-policy-{gateway}")
}

impl History {
    pub(super) fn start(api: &Api, namespace: &str, gateway: &str) -> Self {
        let shared = Arc::<Shared>::default();
        {
            let (api, shared) = (api.clone(), Arc::clone(&shared));
            let (namespace, name) = (namespace.to_owned(), name(gateway));
            thread::spawn(move || {
                api.runtime().block_on(watch(&api, &namespace, &name, &shared));
            });
        }
        {
            let (api, shared) = (api.clone(), Arc::clone(&shared));
            let (namespace, gateway) = (namespace.to_owned(), gateway.to_owned());
            thread::spawn(move || look(&api, &namespace, &gateway, &shared));
        }
        Self { shared }
    }

    /// All versions so far.
    pub fn versions(&self) -> Vec<Index> {
        self.shared.state.lock().unwrap().versions.clone()
    }

    /// Waits for a version that `wanted` likes.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Index) -> bool) -> Index {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(found) = state.versions.iter().find(|index| wanted(index)) {
                return found.clone();
            }
            let left = end.checked_duration_since(Instant::now());
            let Some(left) = left else { panic!("never an index: {what}; {:?}", state.versions.last()) };
            state = self.shared.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Sequences only rose, and each chunk was there whenever the index named it. Panics unless that was looked at
    /// at least once.
    #[track_caller]
    pub fn assert_whole(&self) {
        let state = self.shared.state.lock().unwrap();
        for pair in state.versions.windows(2) {
            let [before, after] = pair else { continue };
            assert!(before.sequence < after.sequence, "an older index was swapped in: {before:?}, {after:?}");
        }
        assert!(state.missing.is_empty(), "a reader missed chunks: {:?}", state.missing);
        assert!(state.looks > 0, "nobody looked");
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().ended = true;
    }
}

/// Each change as the API server tells it; when the server goes, from where it was.
async fn watch(api: &Api, namespace: &str, name: &str, shared: &Shared) {
    let mut from = String::from("0");
    while !shared.state.lock().unwrap().ended {
        let path = format!(
            "{}?watch=true&fieldSelector=metadata.name={name}&resourceVersion={from}&timeoutSeconds=60",
            Kind::ConfigMap.collection(namespace)
        );
        let request = Request::get(path).body(Vec::new()).unwrap();
        let Ok(events) = api.client().request_events::<Value>(request).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut events = std::pin::pin!(events);
        loop {
            // So that the end of the test is noticed.
            let next = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
            if shared.state.lock().unwrap().ended {
                return;
            }
            let object = match next {
                Err(_) => continue,
                Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => object,
                Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                    version(&object).clone_into(&mut from);
                    continue;
                }
                Ok(Some(Ok(WatchEvent::Error(_)))) => {
                    // Too old: what is there now will do.
                    from = "0".to_owned();
                    break;
                }
                Ok(Some(Ok(WatchEvent::Bookmark(_)))) => continue,
                Ok(None | Some(Err(_))) => break,
            };
            version(&object).clone_into(&mut from);
            let mut state = shared.state.lock().unwrap();
            let index = Index::of(&object);
            if state.versions.last() != Some(&index) {
                state.versions.push(index);
            }
            drop(state);
            shared.grown.notify_all();
        }
    }
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or("0")
}

/// Reads like a verdict, over and over: the index, then each slot that it names. A chunk may be missing only if the
/// index has become another meanwhile.
fn look(api: &Api, namespace: &str, gateway: &str, shared: &Shared) {
    let read = |name: &str| {
        api.call(Method::GET, &format!("{}/{name}", Kind::ConfigMap.collection(namespace)), None).ok()
    };
    while !shared.state.lock().unwrap().ended {
        thread::park_timeout(Duration::from_millis(5));
        let Some(index) = read(&name(gateway)).and_then(|object| Index::try_of(&object)) else { continue };
        for (slot, hash) in &index.slots {
            let Some(object) = read(&format!("{}-{slot}", name(gateway))) else { continue };
            if object["binaryData"][hash].is_string() {
                shared.state.lock().unwrap().looks += 1;
                continue;
            }
            let Some(again) = read(&name(gateway)).and_then(|object| Index::try_of(&object)) else {
                continue;
            };
            if again.resource_version == index.resource_version {
                let what = format!("slot {slot} lacks {hash} of sequence {}", index.sequence);
                shared.state.lock().unwrap().missing.push(what);
            }
            break;
        }
    }
}
