//! Keeps the Lease.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::is_conflict;
use super::lease::{Candidate, LEASE_DURATION, RENEW_DEADLINE, RETRY_PERIOD, Record, Step};
use crate::names::{FIELD_MANAGER, lease_name};

/// For one request about the Lease.
const LIMIT: Duration = Duration::from_secs(5);

/// Until when we may write.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    until: watch::Receiver<Option<Instant>>,
    /// As [`changed`](Self::changed) told it last.
    told: bool,
}

/// What takes, renews and gives up the Lease.
pub(crate) struct Keeper {
    leases: Api<Lease>,
    name: String,
    candidate: Candidate,
    until: watch::Sender<Option<Instant>>,
}

// === impl Leadership ===

impl Leadership {
    /// Whether a write that begins now is ours to make.
    pub(crate) fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Carries out `write` if it can begin and end while leadership holds; `None` if it may not have ended.
    pub(crate) async fn within<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let until = (*self.until.borrow())?;
        if Instant::now() >= until {
            return None;
        }
        timeout_at(until, write).await.ok()
    }

    /// Waits until leadership is gained or lost; a renewal is neither.
    pub(crate) async fn changed(&mut self) {
        loop {
            let until = *self.until.borrow_and_update();
            let until = until.filter(|until| Instant::now() < *until);
            if until.is_some() != self.told {
                self.told = until.is_some();
                return;
            }
            let lapse = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let mut lapse = pin!(lapse);
            tokio::select! {
                told = self.until.changed() => {
                    // Nobody renews any more.
                    if told.is_err() {
                        lapse.await;
                    }
                }
                () = &mut lapse => {}
            }
        }
    }
}

// === impl Keeper ===

impl Keeper {
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        gateway: &str,
        identity: String,
    ) -> (Self, Leadership) {
        let (until, leadership) = watch::channel(None);
        let leases = Api::namespaced(client, namespace);
        let candidate = Candidate::new(identity);
        (
            Self { leases, name: lease_name(gateway), candidate, until },
            Leadership { until: leadership, told: false },
        )
    }

    /// Tries to get the Lease and to keep it, until `stop` is told; then gives it up.
    pub(crate) async fn keep(mut self, stop: impl Future<Output = ()>) {
        let mut said = String::new();
        let work = async {
            loop {
                match timeout(LIMIT, self.step()).await {
                    Ok(Ok(())) => said.clear(),
                    Ok(Err(error)) => tell(&mut said, error.to_string()),
                    Err(_) => tell(&mut said, format!("no answer within {} s", LIMIT.as_secs())),
                }
                sleep(RETRY_PERIOD).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
        let held = self.until.send_replace(None).is_some();
        if held && !matches!(timeout(LIMIT, self.give_up()).await, Ok(Ok(()))) {
            tracing::warn!(
                lease = self.name,
                "the Lease could not be given up; others wait for it to expire"
            );
        }
    }

    async fn step(&mut self) -> Result<(), kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        // What counts is when we asked for it, not when it was granted.
        let now = Instant::now();
        let step = self.candidate.step(found.as_ref().map(read), now);
        let wanted = match &step {
            Step::Wait => {
                self.lost(found.as_ref().map(read).unwrap_or_default().holder.as_str());
                return Ok(());
            }
            Step::Create => self.lease(None, found.as_ref()),
            Step::Renew(record) | Step::Take(record) => self.lease(Some(record), found.as_ref()),
        };
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match step {
            Step::Create => self.leases.create(&parameters, &wanted).await,
            _ => self.leases.replace(&self.name, &parameters, &wanted).await,
        };
        match written {
            Ok(_) => {
                let before = self.until.send_replace(Some(now + RENEW_DEADLINE));
                if before.is_none_or(|until| until < now) {
                    tracing::info!(
                        lease = self.name,
                        identity = self.candidate.identity(),
                        "this operator writes"
                    );
                }
                Ok(())
            }
            // Somebody was faster.
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn lost(&self, holder: &str) {
        if self.until.send_replace(None).is_some() {
            tracing::warn!(lease = self.name, holder, "another operator writes now");
        }
    }

    fn lease(&self, record: Option<&Record>, found: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let ours = record.is_some_and(|record| record.holder == self.candidate.identity());
        let spec = found.and_then(|found| found.spec.clone()).unwrap_or_default();
        let acquired = spec.acquire_time.filter(|_| ours).unwrap_or_else(|| now.clone());
        let transitions = record.map_or(0, |record| record.transitions.saturating_add(i32::from(!ours)));
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: record.map(|record| record.resource_version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.candidate.identity().to_owned()),
                lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
                acquire_time: Some(acquired),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn give_up(&mut self) -> Result<(), kube::Error> {
        let Some(found) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        let record = read(&found);
        if record.holder != self.candidate.identity() {
            return Ok(());
        }
        let mut lease = self.lease(Some(&record), Some(&found));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        tracing::info!(lease = self.name, "the Lease is given up");
        Ok(())
    }
}

fn read(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        duration: Duration::from_secs(
            spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0),
        ),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

/// Says what is wrong once.
fn tell(said: &mut String, error: String) {
    if *said != error {
        tracing::warn!(%error, "the Lease can't be read or renewed");
        *said = error;
    }
}

/// Names this process among the candidates: the pod's name, and what no other process there has.
pub(crate) fn identity() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| "operator".to_owned());
    format!("{host}_{}_{:x}", std::process::id(), Timestamp::now().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leadership() -> (watch::Sender<Option<Instant>>, Leadership) {
        let (sender, until) = watch::channel(None);
        (sender, Leadership { until, told: false })
    }

    async fn changes_within(leadership: &mut Leadership, seconds: u64) -> bool {
        timeout(Duration::from_secs(seconds), leadership.changed()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn gaining_and_lapsing_are_told_and_renewing_is_not() {
        let (renew, mut leadership) = leadership();
        assert!(!changes_within(&mut leadership, 60).await);
        renew.send_replace(Some(Instant::now() + Duration::from_secs(10)));
        assert!(changes_within(&mut leadership, 0).await && leadership.holds());
        for _ in 0..5 {
            assert!(!changes_within(&mut leadership, 8).await && leadership.holds());
            renew.send_replace(Some(Instant::now() + Duration::from_secs(10)));
        }
        assert!(!changes_within(&mut leadership, 9).await);
        assert!(changes_within(&mut leadership, 2).await && !leadership.holds());
        assert!(!changes_within(&mut leadership, 60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_renewing_leads_no_longer_than_was_granted() {
        let (renew, mut leadership) = leadership();
        renew.send_replace(Some(Instant::now() + Duration::from_secs(10)));
        assert!(changes_within(&mut leadership, 0).await);
        drop(renew);
        assert!(!changes_within(&mut leadership, 9).await && leadership.holds());
        assert!(changes_within(&mut leadership, 2).await && !leadership.holds());
        assert!(!changes_within(&mut leadership, 60).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_ends_with_the_leadership_and_none_begins_after_it() {
        let (told, until) = watch::channel(Some(Instant::now() + Duration::from_secs(1)));
        let leadership = Leadership { until, told: true };
        assert_eq!(leadership.within(async { 1 }).await, Some(1));
        assert_eq!(leadership.within(sleep(Duration::from_secs(5))).await, None);
        assert_eq!(leadership.within(async { 1 }).await, None, "it is over by now");
        told.send_replace(None);
        assert_eq!(leadership.within(async { 1 }).await, None);
    }
}
