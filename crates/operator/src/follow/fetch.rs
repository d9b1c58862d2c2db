//! Reading index and slots. Every question has a time limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use tokio::time::timeout;
use torwart_policy::publish::{ChunkHash, Slot};

use super::Source;
use super::decide::{Found, Trouble};
use crate::names::{INDEX_KEY, index_name, slot_name};

/// The ConfigMaps of one policy.
#[derive(Clone)]
pub(super) struct ConfigMaps {
    api: Api<ConfigMap>,
    gateway: String,
}

/// One ConfigMap of at most 1 MiB.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Slots that are asked for side by side. A first start needs 64.
const AT_A_TIME: usize = 8;
/// What the API server is asked to hold a watch for; who hears nothing for that time begins anew.
const WATCH_SECONDS: u32 = 30;

// === impl ConfigMaps ===

impl ConfigMaps {
    pub(super) fn new(client: Client, source: &Source) -> Self {
        Self { api: Api::namespaced(client, &source.namespace), gateway: source.gateway.clone() }
    }

    /// Each state of the index, beginning with the present one. By its name alone, so that rights to this one are enough.
    pub(super) fn watch_index(&self) -> impl Stream<Item = Result<Option<Found>, Trouble>> + Send + use<> {
        let fields = format!("metadata.name={}", index_name(&self.gateway));
        let config = watcher::Config::default().fields(&fields).timeout(WATCH_SECONDS);
        let mut seen = false;
        watcher(self.api.clone(), config)
            .map(move |event| match event {
                Ok(watcher::Event::Init) => {
                    seen = false;
                    Ok(None)
                }
                Ok(watcher::Event::InitApply(map)) => {
                    seen = true;
                    Ok(Some(Some(found(map))))
                }
                Ok(watcher::Event::InitDone) => Ok((!seen).then_some(None)),
                Ok(watcher::Event::Apply(map)) => Ok(Some(Some(found(map)))),
                Ok(watcher::Event::Delete(_)) => Ok(Some(None)),
                Err(error) => Err(unreachable(&error)),
            })
            .try_filter_map(|event| std::future::ready(Ok(event)))
    }

    pub(super) async fn index(&self) -> Result<Option<Found>, Trouble> {
        Ok(self.get(&index_name(&self.gateway)).await?.map(found))
    }

    /// The chunks with these hashes, compressed and as yet unverified.
    pub(super) async fn chunks(
        &self,
        wanted: BTreeMap<Slot, ChunkHash>,
    ) -> Result<BTreeMap<ChunkHash, Arc<[u8]>>, Trouble> {
        let each = stream::iter(wanted).map(|(slot, hash)| self.chunk(slot, hash));
        each.buffer_unordered(AT_A_TIME).try_collect().await
    }

    async fn chunk(&self, slot: Slot, hash: ChunkHash) -> Result<(ChunkHash, Arc<[u8]>), Trouble> {
        let map = self.get(&slot_name(&self.gateway, slot)).await?;
        let bytes = map.and_then(|map| map.binary_data?.remove(&*hash.0));
        match bytes {
            Some(bytes) => Ok((hash, bytes.0.into())),
            None => Err(Trouble::Lacking { slot, hash }),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<ConfigMap>, Trouble> {
        match timeout(ANSWER_LIMIT, self.api.get_opt(name)).await {
            Ok(answer) => answer.map_err(|error| unreachable(&error)),
            Err(_) => Err(Trouble::Unreachable(format!("no answer for {}s", ANSWER_LIMIT.as_secs()))),
        }
    }
}

fn found(map: ConfigMap) -> Found {
    let text = map.data.and_then(|mut data| data.remove(INDEX_KEY));
    Found { uid: map.metadata.uid.unwrap_or_default(), text }
}

/// With all causes: the outermost says least.
fn unreachable(error: &dyn std::error::Error) -> Trouble {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    Trouble::Unreachable(text)
}
