//! Reads what is published, and writes it: 65 ConfigMaps, each against the resourceVersion that it was read with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use torwart_policy::Snapshot;
use torwart_policy::publish::{Chunk, ChunkHash, Index, InvalidIndex, Slot, assemble};

use crate::names::{FIELD_MANAGER, INDEX_KEY, POLICY_LABELS, index_name, slot_name};
use crate::values::{IndexWrite, Published, PublishedIndex, PublishedSlot, SlotWrite};

/// For one request; a slot may be a megabyte.
const LIMIT: Duration = Duration::from_secs(10);

/// The annotation of a slot that says for which index it was written last.
const SEQUENCE: &str = "torwart.dev/sequence";

/// How often it is read again because somebody published meanwhile.
const MOST_READINGS: usize = 3;

/// Slots that are read or written at one time.
const AT_ONCE: usize = 8;

/// The ConfigMaps of one gateway.
#[derive(Clone)]
pub(super) struct ConfigMaps {
    api: Api<ConfigMap>,
    gateway: String,
}

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It is not as it was when it was read.
    #[error("somebody else wrote it meanwhile")]
    Conflict,
    #[error("{0}")]
    Refused(Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Late,
}

// === impl Failure ===

impl Failure {
    /// Whether other requests would fare no better: the API server is away or overwhelmed.
    pub(super) fn is_of_all(&self) -> bool {
        match self {
            Self::Conflict => false,
            Self::Refused(Error::Api(status)) => !(400..500).contains(&status.code) || status.code == 429,
            Self::Refused(_) | Self::Late => true,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if super::is_conflict(&error) { Self::Conflict } else { Self::Refused(error) }
    }
}

pub(super) async fn limited<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(LIMIT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::Late),
    }
}

// === impl ConfigMaps ===

impl ConfigMaps {
    pub(super) fn new(client: Client, namespace: &str, gateway: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), gateway: gateway.to_owned() }
    }

    /// All that is there, and what it comes to.
    ///
    /// Slots that were read while another index was put in place would be of both: then it is read again.
    pub(super) async fn read(&self) -> Result<Published, Failure> {
        let mut before = self.index().await?;
        for _ in 0..MOST_READINGS {
            let slots = self.slots().await?;
            let index = self.index().await?;
            if index == before {
                let mut published = Published { index, slots, snapshot: None };
                published.snapshot = snapshot(&published).await;
                return Ok(published);
            }
            before = index;
        }
        Err(Failure::Conflict)
    }

    async fn index(&self) -> Result<Option<PublishedIndex>, Failure> {
        Ok(limited(self.api.get_opt(&index_name(&self.gateway))).await?.map(read_index))
    }

    async fn slots(&self) -> Result<BTreeMap<Slot, PublishedSlot>, Failure> {
        stream::iter(Slot::all())
            .map(|slot| async move {
                let name = slot_name(&self.gateway, slot);
                let found = limited(self.api.get_opt(&name)).await?;
                Ok::<_, Failure>(found.map(|config_map| (slot, read_slot(config_map))))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// Says the new resourceVersion. It is a new one even if the chunks are as they were, so that whoever planned from
    /// the same one can't write any more: `sequence` is that of the index that follows.
    pub(super) async fn write_slot(&self, write: SlotWrite, sequence: u64) -> Result<String, Failure> {
        let SlotWrite { slot, chunks, against } = write;
        let data = chunks.iter().map(|(hash, bytes)| (hash.0.to_string(), ByteString(bytes.to_vec())));
        let mut config_map = ConfigMap { binary_data: Some(data.collect()), ..ConfigMap::default() };
        config_map.metadata.annotations = Some([(SEQUENCE.to_owned(), sequence.to_string())].into());
        Box::pin(self.put(slot_name(&self.gateway, slot), config_map, against)).await
    }

    /// Says the new resourceVersion.
    pub(super) async fn write_index(&self, write: IndexWrite) -> Result<String, Failure> {
        let IndexWrite { index, against } = write;
        let data = BTreeMap::from([(INDEX_KEY.to_owned(), index.to_json())]);
        let config_map = ConfigMap { data: Some(data), ..ConfigMap::default() };
        Box::pin(self.put(index_name(&self.gateway), config_map, against)).await
    }

    async fn put(
        &self,
        name: String,
        mut config_map: ConfigMap,
        against: Option<String>,
    ) -> Result<String, Failure> {
        let is_new = against.is_none();
        config_map.metadata = ObjectMeta {
            name: Some(name.clone()),
            resource_version: against,
            annotations: config_map.metadata.annotations.take(),
            labels: Some(POLICY_LABELS.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = if is_new {
            limited(self.api.create(&parameters, &config_map)).await?
        } else {
            limited(self.api.replace(&name, &parameters, &config_map)).await?
        };
        Ok(written.metadata.resource_version.unwrap_or_default())
    }
}

fn read_slot(config_map: ConfigMap) -> PublishedSlot {
    let data = config_map.binary_data.unwrap_or_default();
    let chunks = data.into_iter().filter_map(|(key, bytes)| Some((ChunkHash::parse(&key)?, bytes.0.into())));
    PublishedSlot {
        resource_version: config_map.metadata.resource_version.unwrap_or_default(),
        chunks: chunks.collect(),
    }
}

fn read_index(config_map: ConfigMap) -> PublishedIndex {
    let text = config_map.data.as_ref().and_then(|data| data.get(INDEX_KEY));
    let (index, is_newer) = match text.map(|text| Index::from_json(text)) {
        Some(Ok(index)) => (Ok(index), false),
        Some(Err(error)) => (Err(error.to_string()), matches!(error, InvalidIndex::Newer(_))),
        None => (Err(format!("it has no {INDEX_KEY}")), false),
    };
    PublishedIndex {
        resource_version: config_map.metadata.resource_version.unwrap_or_default(),
        index,
        is_newer,
    }
}

impl Published {
    /// Fills in what it came to, as this operator, which leads, knows it: what somebody deleted or broke is no reason to
    /// forget which objects had an older form in force, whose domains left the policy when, and how many there were.
    pub(super) fn recall(&mut self, known: &Arc<Snapshot>) {
        let is_other = match &self.index {
            Some(PublishedIndex { is_newer: true, .. }) => true,
            Some(PublishedIndex { index: Ok(index), .. }) => index.revision != known.revision,
            Some(_) | None => false,
        };
        if self.snapshot.is_none() && !is_other {
            self.snapshot = Some(Arc::clone(known));
        }
    }
}

/// What can't be read is as good as nothing: the objects are still there, and are published anew.
async fn snapshot(published: &Published) -> Option<Arc<Snapshot>> {
    let index = published.index.as_ref()?;
    let index = match &index.index {
        Ok(index) => index.clone(),
        Err(error) => {
            tracing::warn!(error, "the published index can't be read");
            return None;
        }
    };
    let slots = published.slots.clone();
    let read = spawn_blocking(move || {
        let mut chunks = BTreeMap::new();
        for (slot, hash) in &index.slots {
            let bytes = slots.get(slot).and_then(|slot| slot.chunks.get(hash));
            let bytes = bytes.ok_or_else(|| format!("slot {slot} lacks its chunk"))?;
            let chunk = Chunk::decompress(hash, bytes).map_err(|error| format!("slot {slot}: {error}"))?;
            chunks.insert(hash.clone(), chunk);
        }
        assemble(&index, &chunks, None).map_err(|error| error.to_string())
    });
    match read.await {
        Ok(Ok(assembled)) => {
            for problem in &assembled.problems {
                tracing::warn!(problem, "an object that is published can't be read by this release");
            }
            Some(Arc::new(assembled.snapshot))
        }
        Ok(Err(error)) => {
            tracing::warn!(error, "what is published can't be read, and is published anew");
            None
        }
        Err(error) => {
            tracing::error!(%error, "reading what is published failed");
            None
        }
    }
}

#[cfg(test)]
mod tests;
