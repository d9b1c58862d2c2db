//! A cluster in memory that takes the planner's writes as the API server would.

use std::collections::BTreeMap;

use serde_json::Value;
use torwart_api::{Manifest, yaml};
use torwart_policy::publish::{self, Chunk};
use torwart_proto::v1;

use super::super::*;
use crate::values::{Form, PodReport, PublishedIndex, PublishedSlot, SeenPort, SeenService, ServiceKind};

pub(super) const GATEWAY: &str = "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: default}\nspec: {hostname: mx.example.net}\n";

/// 2026-12-01.
pub(super) const NOW_MS: i64 = 1_796_083_200_000;

pub(super) fn mk_domain(name: &str, domain: &str, more: &str) -> String {
    mk_domain_in("torwart-system", name, domain, "{host: mx.example}", more)
}

pub(super) fn mk_domain_in(namespace: &str, name: &str, domain: &str, upstream: &str, more: &str) -> String {
    format!(
        "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  domains: [\"{domain}\"]\n  route: {{upstreams: [{upstream}]}}\n{more}"
    )
}

pub(super) fn mail_domain(name: &str) -> ObjectRef {
    ObjectRef::domain("torwart-system", name)
}

pub(super) struct World {
    pub(super) planner: Planner,
    pub(super) cluster: Cluster,
    pub(super) published: Published,
    pub(super) pods: Pods,
    pub(super) now_ms: i64,
    pub(super) problems: Vec<String>,
    pub(super) waits: bool,
    pub(super) publish_failure: Option<String>,
    version: u64,
    changed: bool,
}

/// What one step wrote.
#[derive(Debug, Default)]
pub(super) struct Wrote {
    pub(super) slots: usize,
    pub(super) index: bool,
    pub(super) statuses: Vec<ObjectRef>,
    pub(super) events: Vec<EventWrite>,
}

impl World {
    pub(super) fn new(text: &str) -> Self {
        let mut world = Self {
            planner: Planner::new(),
            cluster: Cluster::default(),
            published: Published::default(),
            pods: Pods::default(),
            now_ms: NOW_MS,
            problems: Vec::new(),
            waits: false,
            publish_failure: None,
            version: 1,
            changed: true,
        };
        world.apply(text);
        world.pods.asked_at = NOW_MS / 1000;
        world
    }

    /// `kubectl apply`
    pub(super) fn apply(&mut self, text: &str) {
        let loaded = yaml::load("test.yaml", text);
        assert_eq!(loaded.mistakes, vec![]);
        for document in loaded.documents {
            self.put(document.manifest.unwrap());
        }
    }

    fn put(&mut self, mut manifest: Manifest) {
        let object = manifest.object_ref();
        let old = self.cluster.objects.get(&object).cloned();
        let same_spec = |a: &Manifest, b: &Manifest| match (a, b) {
            (Manifest::MailDomain(a), Manifest::MailDomain(b)) => a.spec == b.spec,
            (Manifest::MailGateway(a), Manifest::MailGateway(b)) => a.spec == b.spec,
            _ => false,
        };
        let generation = match &old {
            Some(old) if matches!(&old.form, Form::Read(old) if same_spec(old, &manifest)) => old.generation,
            Some(old) => old.generation + 1,
            None => 1,
        };
        match &mut manifest {
            Manifest::MailDomain(domain) => domain.metadata.generation = Some(generation),
            Manifest::MailGateway(gateway) => gateway.metadata.generation = Some(generation),
        }
        let uid = self.uid(old.as_deref());
        let status = old.map_or(Value::Null, |old| old.status.clone());
        let form = Form::Read(manifest);
        self.cluster.objects.insert(object.clone(), Arc::new(Seen { object, uid, generation, form, status }));
        self.changed = true;
    }

    fn uid(&mut self, old: Option<&Seen>) -> String {
        self.version += 1;
        old.map_or_else(|| format!("uid-{}", self.version), |old| old.uid.clone())
    }

    pub(super) fn change(&mut self, object: &ObjectRef, change: impl FnOnce(&mut Seen)) {
        let mut seen = (*self.cluster.objects[object]).clone();
        change(&mut seen);
        self.cluster.objects.insert(object.clone(), Arc::new(seen));
        self.changed = true;
    }

    pub(super) fn delete(&mut self, object: &ObjectRef) {
        assert!(self.cluster.objects.remove(object).is_some());
        self.changed = true;
    }

    pub(super) fn service(&mut self, namespace: &str, name: &str, kind: ServiceKind) {
        let ports = vec![SeenPort { name: "smtp".to_owned(), port: 2525, usable: true }];
        self.cluster.services.insert((namespace.to_owned(), name.to_owned()), SeenService { kind, ports });
        self.changed = true;
    }

    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// A pod that runs this sequence.
    pub(super) fn pod(&mut self, name: &str, sequence: u64) {
        self.report(name, sequence, |_| {});
    }

    pub(super) fn report(&mut self, name: &str, sequence: u64, change: impl FnOnce(&mut PodReport)) {
        let policy = Some(v1::PolicyStatus { revision: String::new(), sequence, loaded_at: 0 });
        let status = v1::GetStatusResponse {
            version: "9.9".to_owned(),
            policy,
            formats_read: publish::FORMATS_READ.to_vec(),
            ..v1::GetStatusResponse::default()
        };
        let mut report = PodReport { status, outcomes: BTreeMap::new() };
        change(&mut report);
        self.pods.ready.insert(name.to_owned(), Ok(Arc::new(report)));
    }

    /// All pods run what is published.
    pub(super) fn pods_follow(&mut self) {
        let sequence = self.sequence();
        for report in self.pods.ready.values_mut().filter_map(|report| report.as_mut().ok()) {
            Arc::make_mut(report).status.policy.as_mut().unwrap().sequence = sequence;
        }
    }

    pub(super) fn outcome(&mut self, pod: &str, object: &str, reachable: bool, deferred: u64, at: i64) {
        let report = self.pods.ready.get_mut(pod).unwrap().as_mut().unwrap();
        let outcomes = v1::UpstreamOutcomes {
            object: object.to_owned(),
            reachable,
            since: at,
            last_reported: at,
            last_upstream: "mx.example:25".to_owned(),
            last_reply: "250 2.0.0 ok".to_owned(),
            deferred,
            ..v1::UpstreamOutcomes::default()
        };
        Arc::make_mut(report).outcomes.insert(object.to_owned(), outcomes);
    }

    pub(super) fn sequence(&self) -> u64 {
        publication::present_index(&self.published).map_or(0, |index| index.sequence)
    }

    pub(super) fn plan(&mut self) -> Plan {
        let cluster = Arc::new(self.cluster.clone());
        let inputs = Inputs {
            cluster: &cluster,
            cluster_changed: std::mem::take(&mut self.changed),
            published: &self.published,
            pods: &self.pods,
            publish_failure: self.publish_failure.as_deref(),
            operator_namespace: "torwart-system",
            gateway: "default",
        };
        self.planner.plan(inputs, self.now_ms)
    }

    /// Plans and carries it out.
    pub(super) fn step(&mut self) -> Wrote {
        let plan = self.plan();
        self.problems = plan.problems.clone();
        self.waits = plan.wait_for_pods;
        self.write(plan)
    }

    pub(super) fn write(&mut self, plan: Plan) -> Wrote {
        let mut wrote = Wrote::default();
        let Plan { writes, published: mut after, .. } = plan;
        let mut rank = 0;
        for write in writes {
            self.version += 1;
            let version = self.version.to_string();
            let (next, there) = match &write {
                Write::Slot(slot) => {
                    (1, self.published.slots.get(&slot.slot).map(|slot| &slot.resource_version))
                }
                Write::Index(_) => (2, self.published.index.as_ref().map(|index| &index.resource_version)),
                Write::Status(_) => (3, None),
                Write::Event(_) => (4, None),
            };
            assert!(next >= rank, "out of order");
            rank = next;
            match write {
                Write::Slot(slot) => {
                    assert_eq!(slot.against.as_ref(), there);
                    assert!(slot.chunks.len() <= 2);
                    let size: usize = slot.chunks.values().map(|chunk| chunk.len() * 4 / 3 + 100).sum();
                    assert!(size < 1 << 20);
                    let planned = after.slots.get_mut(&slot.slot).unwrap();
                    assert_eq!(planned.chunks, slot.chunks);
                    planned.resource_version = version;
                    wrote.slots += 1;
                }
                Write::Index(index) => {
                    assert_eq!(index.against.as_ref(), there);
                    after.index.as_mut().unwrap().resource_version = version;
                    wrote.index = true;
                }
                Write::Status(StatusWrite { object, uid: _, status }) => {
                    self.change(&object, |seen| seen.status = status);
                    wrote.statuses.push(object);
                }
                Write::Event(event) => wrote.events.push(event),
            }
        }
        self.published = after;
        wrote
    }

    /// A new operator process: what is published is read from the API server.
    pub(super) fn restart(&mut self) {
        self.planner = Planner::new();
        self.changed = true;
        self.published = read(&self.published);
    }

    /// Until nothing is to be written any more; the pods follow.
    pub(super) fn settle(&mut self) -> Vec<EventWrite> {
        let mut events = Vec::new();
        for _ in 0..6 {
            self.now_ms += 1000;
            self.pods_follow();
            let wrote = self.step();
            let is_quiet = wrote.is_nothing() && !self.waits;
            events.extend(wrote.events);
            if is_quiet {
                return events;
            }
        }
        panic!("it does not settle");
    }

    pub(super) fn condition(&self, object: &ObjectRef, kind: &str) -> Condition {
        let status = &self.cluster.objects[object].status;
        let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap();
        conditions.into_iter().find(|condition| condition.kind == kind).unwrap()
    }

    /// As in `False NotAccepted`.
    pub(super) fn shown(&self, object: &ObjectRef, kind: &str) -> String {
        let condition = self.condition(object, kind);
        format!("{:?} {}", condition.status, condition.reason)
    }
}

/// What a process that knows nothing reads.
fn read(published: &Published) -> Published {
    let index: Option<PublishedIndex> = published.index.clone();
    let slots: BTreeMap<publish::Slot, PublishedSlot> = published.slots.clone();
    let mut chunks = BTreeMap::new();
    for (hash, bytes) in slots.values().flat_map(|slot| &slot.chunks) {
        if let Ok(chunk) = Chunk::decompress(hash, bytes) {
            chunks.insert(hash.clone(), chunk);
        }
    }
    let snapshot = index
        .as_ref()
        .and_then(|index| index.index.as_ref().ok())
        .and_then(|index| publish::assemble(index, &chunks, None).ok())
        .map(|assembled| Arc::new(assembled.snapshot));
    Published { index, slots, snapshot }
}

impl Wrote {
    pub(super) fn is_nothing(&self) -> bool {
        self.slots == 0 && !self.index && self.statuses.is_empty() && self.events.is_empty()
    }

    pub(super) fn events(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.reason).collect()
    }
}
