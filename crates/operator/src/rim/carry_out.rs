//! Carries out a plan: slots, then the index, then statuses and Events. Each write begins only while leadership holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, timeout};
use torwart_api::{API_VERSION, Kind, ObjectRef};

use super::leadership::Leadership;
use super::metrics::{End, Metrics, What};
use super::objects;
use super::published::{ConfigMaps, Failure, limited};
use crate::names::FIELD_MANAGER;
use crate::values::{EventWrite, IndexWrite, Published, StatusWrite, Write};

/// Writes under way at one time.
const AT_ONCE: usize = 8;

/// For the Events of one plan, for which nothing else waits longer.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);

/// Statuses of one plan that could not be written, told one by one.
const MOST_TOLD: usize = 3;

/// How long statuses are written although the policy changed or verdict pods told something new meanwhile. What is left
/// is planned again.
const TURN: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    client: Client,
    config_maps: ConfigMaps,
    leadership: Leadership,
    recorder: Recorder,
    metrics: Metrics,
}

/// How far it went.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything is written.
    Done(Published),
    /// What is published is written, and then there was news, so that not all statuses were begun.
    Overtaken(Published),
    /// What is published is written, and some statuses could not be.
    Partly(Published),
    /// Somebody else wrote: what is published now must be read.
    Conflict,
    /// What is published now is not known. Without a reason it is that leadership was over.
    Failed(Option<String>),
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(
        client: Client,
        config_maps: ConfigMaps,
        leadership: Leadership,
        identity: String,
        metrics: Metrics,
    ) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, config_maps, leadership, recorder, metrics }
    }

    /// `published` is what will be, as the plan has it; `is_overtaken` says whether there is news.
    pub(super) async fn carry_out(
        &self,
        writes: Vec<Write>,
        mut published: Published,
        is_overtaken: impl Fn() -> bool,
    ) -> Outcome {
        let (mut slots, mut index, mut statuses, mut events) = (Vec::new(), None, Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Slot(write) => slots.push(write),
                Write::Index(write) => index = Some(write),
                Write::Status(write) => statuses.push(write),
                Write::Event(write) => events.push(write),
            }
        }
        let sequence = index.as_ref().map_or(0, |write: &IndexWrite| write.index.sequence);
        let mut written = stream::iter(slots)
            .map(|write| async move {
                let slot = write.slot;
                (slot, Box::pin(self.guarded(What::Slot, self.config_maps.write_slot(write, sequence))).await)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((slot, version)) = written.next().await {
            let version = match version {
                Ok(version) => version,
                Err(outcome) => return outcome,
            };
            if let Some(there) = published.slots.get_mut(&slot) {
                there.resource_version = version;
            }
        }
        drop(written);
        if let Some(write) = index {
            let version = match Box::pin(self.guarded(What::Index, self.config_maps.write_index(write))).await
            {
                Ok(version) => version,
                Err(outcome) => return outcome,
            };
            if let Some(there) = &mut published.index {
                there.resource_version = version;
            }
            tracing::info!(sequence, "the policy is published");
        }
        // Whatever becomes of the statuses: the next plan counts these as told.
        let told = stream::iter(events).for_each_concurrent(AT_ONCE, |event| self.event(event));
        let _ = timeout(EVENTS_LIMIT, told).await;
        let planned = statuses.len();
        let (begun, failed) = self.statuses(statuses, is_overtaken).await;
        match (failed > 0, begun < planned) {
            (true, _) => Outcome::Partly(published),
            (false, true) => Outcome::Overtaken(published),
            (false, false) => Outcome::Done(published),
        }
    }

    /// `Err` if it is not written.
    async fn guarded<T>(
        &self,
        what: What,
        write: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Outcome> {
        let Some(written) = self.leadership.within(write).await else {
            return Err(Outcome::Failed(None));
        };
        match written {
            Ok(done) => {
                self.metrics.wrote(what, End::Done);
                Ok(done)
            }
            Err(Failure::Conflict) => {
                tracing::info!(?what, "somebody else wrote meanwhile; it is planned again");
                self.metrics.wrote(what, End::Conflict);
                Err(Outcome::Conflict)
            }
            Err(error) => {
                tracing::warn!(?what, %error, "it could not be written; it is planned again");
                self.metrics.wrote(what, End::Failed);
                Err(Outcome::Failed(Some(error.to_string())))
            }
        }
    }

    /// Says how many were begun, and how many of those failed.
    async fn statuses(&self, statuses: Vec<StatusWrite>, is_overtaken: impl Fn() -> bool) -> (usize, usize) {
        let turn_ends = Instant::now() + TURN;
        // One that is refused says nothing of the others; an API server that is away does.
        let is_away = AtomicBool::new(false);
        let go_on = || {
            !is_away.load(Ordering::Relaxed)
                && self.leadership.holds()
                && !(Instant::now() >= turn_ends && is_overtaken())
        };
        let mut writing = stream::iter(statuses)
            .take_while(|_| std::future::ready(go_on()))
            .map(|write| self.status(write))
            .buffer_unordered(AT_ONCE);
        let (mut begun, mut failed) = (0, 0);
        while let Some((object, written)) = writing.next().await {
            begun += 1;
            let Err(error) = written else { continue };
            if failed < MOST_TOLD {
                tracing::warn!(%object, %error, "its status could not be written; it is tried again");
            }
            failed += 1;
            is_away.fetch_or(error.is_of_all(), Ordering::Relaxed);
        }
        if failed > MOST_TOLD {
            tracing::warn!(objects = failed, "statuses that could not be written; they are tried again");
        }
        (begun, failed)
    }

    async fn status(&self, write: StatusWrite) -> (ObjectRef, Result<(), Failure>) {
        let StatusWrite { object, uid, status } = write;
        let resource = objects::resource(object.kind);
        let api: Api<DynamicObject> = match object.kind {
            Kind::MailGateway => Api::all_with(self.client.clone(), &resource),
            Kind::MailDomain => Api::namespaced_with(self.client.clone(), &object.namespace, &resource),
        };
        let body = json!({
            "apiVersion": API_VERSION,
            "kind": object.kind.as_str(),
            // One that was made anew under the same name meanwhile is another.
            "metadata": { "name": object.name, "uid": uid },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let patched = Box::pin(limited(api.patch_status(&object.name, &parameters, &patch)));
        match Box::pin(self.leadership.within(patched)).await.unwrap_or(Err(Failure::Late)) {
            Ok(_) => self.metrics.wrote(What::Status, End::Done),
            // It is gone, and takes its status with it.
            Err(Failure::Conflict) => {}
            Err(Failure::Refused(kube::Error::Api(refused))) if refused.code == 404 => {}
            Err(error) => {
                self.metrics.wrote(What::Status, End::Failed);
                return (object, Err(error));
            }
        }
        (object, Ok(()))
    }

    async fn event(&self, write: EventWrite) {
        if !self.leadership.holds() {
            return;
        }
        let EventWrite { object, uid, is_warning, reason, action, message } = write;
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(message),
            action: action.to_owned(),
            secondary: None,
        };
        let told = self.recorder.publish(&event, &reference(&object, uid)).await;
        if told.is_ok() {
            self.metrics.wrote(What::Event, End::Done);
        } else {
            // The condition says the same, and lasts longer.
            tracing::debug!(%object, reason, "an Event could not be written");
            self.metrics.wrote(What::Event, End::Failed);
        }
    }
}

fn reference(object: &ObjectRef, uid: String) -> ObjectReference {
    let ObjectRef { kind, namespace, name } = object;
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(kind.to_string()),
        name: Some(name.clone()),
        namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
        uid: Some(uid),
        ..ObjectReference::default()
    }
}
