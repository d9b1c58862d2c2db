//! DNS lists of client addresses, asked (RFC 5782). What the answers mean is in `torwart_policy::dns_lists`.
//!
//! ```text
//!   follow(policy) --> one Watched for each list: its query key, and what its probes say
//!   watch          --> probes at once and on a timer; reads keys again
//!   ask            --> all wanted lists at the same time, within one budget --> Vec<ListFinding>
//! ```
//!
//! A list is asked from its first good probe on, so that one which lists everything harms nobody. A query key stands in
//! the name that is asked for, and nowhere else: `SecretZone` is the only type that has it.

mod key;
mod probe;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;
use torwart_core::CheckOutcome;
use torwart_policy::dns_lists::{DnsList, ListFinding, ListWord, reversed};

use self::key::SecretZone;
use self::probe::{Change, Probes};
use crate::dns::{Failure, Found, Name, RData, RecordType, Resolver};
use crate::metrics::CheckMetrics;

/// The gateway's DNS lists.
pub struct Lists {
    resolver: Resolver,
    /// `--secrets-dir`
    secrets: Option<PathBuf>,
    metrics: CheckMetrics,
    watched: RwLock<Vec<Arc<Watched>>>,
    /// Wakes whoever probes: there are other lists, or none any more.
    changed: Arc<Notify>,
}

/// One list, and how it does.
struct Watched {
    list: DnsList,
    /// `dns_list/NAME`
    check: Arc<str>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    /// With its key. An error says why there is none; it is for people.
    zone: Option<Result<SecretZone, String>>,
    probes: Probes,
    /// When the next probe is due; at once if `None`.
    next: Option<Instant>,
}

/// What a probe may take.
const PROBE_BUDGET: Duration = Duration::from_secs(3);
/// A reason is for a log line, not for reading.
const LONGEST_REASON: usize = 200;

// === impl Lists ===

impl Lists {
    pub fn new(resolver: Resolver, secrets: Option<PathBuf>, metrics: CheckMetrics) -> Arc<Self> {
        Arc::new(Self { resolver, secrets, metrics, watched: RwLock::default(), changed: Arc::default() })
    }

    /// Goes by these lists from now on. One that is asked as before keeps what is known of it.
    pub fn follow(&self, lists: &[DnsList]) {
        let mut watched = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *watched);
        for list in lists {
            let same = before.iter().find(|known| known.is_asked_as(list));
            let state = same.map(|known| known.state().clone()).unwrap_or_default();
            watched.push(Arc::new(Watched {
                list: list.clone(),
                check: format!("dns_list/{}", list.name).into(),
                state: Mutex::new(state),
            }));
        }
        for gone in before.iter().filter(|known| lists.iter().all(|list| list.name != known.list.name)) {
            self.metrics.dns_list_gone(&gone.list.name);
        }
        drop(watched);
        if before.is_empty() && !lists.is_empty() {
            self.resolver.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        self.changed.notify_one();
    }

    /// Probes for as long as there is somebody else who has this.
    pub fn watch(self: &Arc<Self>) {
        let (weak, changed) = (Arc::downgrade(self), Arc::clone(&self.changed));
        tokio::spawn(async move {
            while let Some(lists) = weak.upgrade() {
                let next = lists.probe_due().await;
                drop(lists);
                let pause = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = changed.notified() => {}
                    () = pause => {}
                }
            }
        });
    }

    /// Probes each list once, unless that was done.
    pub async fn probe_all(&self) {
        self.probe_due().await;
    }

    /// What these lists say of `client`, in their order, all asked at the same time. A list that is not followed is left
    /// out.
    pub async fn ask<'l>(
        &self,
        wanted: impl IntoIterator<Item = &'l str>,
        client: IpAddr,
        until: Instant,
    ) -> Vec<ListFinding> {
        let all = self.all();
        let found = wanted.into_iter().filter_map(|name| all.iter().find(|known| *known.list.name == *name));
        join_all(found.map(|watched| self.ask_one(watched, client, until))).await
    }

    fn all(&self) -> Vec<Arc<Watched>> {
        self.watched.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask_one(&self, watched: &Watched, client: IpAddr, until: Instant) -> ListFinding {
        let began = Instant::now();
        let (result, score, detail) = match watched.zone() {
            Err(why) => (CheckOutcome::Skipped, 0.0, why),
            Ok(zone) => {
                let said = self.listing(watched, &zone, client, until).await;
                self.metrics.took(&watched.check, began.elapsed());
                said
            }
        };
        let milliseconds = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        let DnsList { name, kind, .. } = &watched.list;
        ListFinding {
            list: Arc::clone(name),
            check: Arc::clone(&watched.check),
            kind: *kind,
            result,
            score,
            detail: detail.into(),
            milliseconds,
        }
    }

    async fn listing(
        &self,
        watched: &Watched,
        zone: &SecretZone,
        client: IpAddr,
        until: Instant,
    ) -> (CheckOutcome, f32, String) {
        let failed = |kind: &str, detail: String| {
            self.metrics.failed(&watched.check, kind);
            (CheckOutcome::Error, 0.0, detail)
        };
        let name = zone.name(&reversed(client));
        let found = match self.resolver.ask(zone.shown(), &name, RecordType::A, until).await {
            Ok(found) => found,
            Err(failure) => return failed(failure.as_str(), failure.to_string()),
        };
        let (code, score) = match watched.list.word(&addresses(&found)) {
            ListWord::NotListed => return (CheckOutcome::Clean, 0.0, String::new()),
            ListWord::Error { code } => {
                return failed("error_answer", format!("the answer {code} says nothing of the client"));
            }
            ListWord::Unweighed { code } => {
                return (CheckOutcome::Listed, 0.0, format!("{code}, which no response names"));
            }
            ListWord::Listed { code, score } => (code, score),
        };
        let reason = self.resolver.ask(zone.shown(), &name, RecordType::TXT, until).await;
        let reason = reason.ok().and_then(|found| reason_of(&found, zone));
        let detail = reason.map_or_else(|| code.to_string(), |reason| format!("{code} {reason}"));
        (CheckOutcome::Listed, score, detail)
    }

    /// Probes whatever is due. The moment when the next is; `None` if there are no lists.
    async fn probe_due(&self) -> Option<Instant> {
        let all = self.all();
        let now = Instant::now();
        let due = all.iter().filter(|watched| watched.state().next.is_none_or(|next| next <= now));
        join_all(due.map(|watched| self.probe(watched))).await;
        all.iter().filter_map(|watched| watched.state().next).min()
    }

    async fn probe(&self, watched: &Watched) {
        let list = &watched.list;
        let zone = SecretZone::read(list, self.secrets.as_deref()).await;
        let probed = match &zone {
            Ok(zone) => self.probed(list, zone).await,
            Err(why) => Err(why.clone()),
        };
        let mut state = watched.state();
        state.zone = Some(zone);
        let change = state.probes.take(probed.is_ok());
        state.next = Some(Instant::now() + state.probes.pause());
        // The one that took its place counts by now.
        if self.all().iter().any(|known| std::ptr::eq(&**known, watched)) {
            self.metrics.dns_list_usable(&list.name, state.probes.usable());
        }
        drop(state);
        match (change, probed) {
            (Some(Change::Off), Err(why)) => {
                tracing::error!(list = %list.name, %why, "a DNS list does not work and is not asked");
            }
            (Some(Change::On), _) => tracing::info!(list = %list.name, "a DNS list works and is asked"),
            (None, Err(why)) => tracing::debug!(list = %list.name, %why, "a probe of a DNS list failed"),
            (_, Ok(())) => {}
        }
    }

    /// RFC 5782 section 5. An error says what is wrong, for people.
    async fn probed(&self, list: &DnsList, zone: &SecretZone) -> Result<(), String> {
        let until = Instant::now() + PROBE_BUDGET;
        let ask = |client: IpAddr| async move {
            let name = zone.name(&reversed(client));
            let found = self.resolver.ask_afresh(zone.shown(), &name, RecordType::A, until).await;
            found.map(|found| list.word(&addresses(&found)))
        };
        let (listed, not_listed) = tokio::join!(ask(list.probe.listed), ask(list.probe.not_listed));
        probe::judge(&list.probe, listed, not_listed)
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.all().iter().map(|watched| Arc::clone(&watched.list.name)).collect();
        f.debug_struct("Lists").field("names", &names).finish_non_exhaustive()
    }
}

// === impl Watched ===

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_asked_as(&self, list: &DnsList) -> bool {
        let DnsList { name, zone, kind: _, key_file, responses: _, probe } = list;
        let own = &self.list;
        own.name == *name && own.zone == *zone && own.key_file == *key_file && own.probe == *probe
    }

    /// What to ask, or why not to.
    fn zone(&self) -> Result<SecretZone, String> {
        let state = self.state();
        match &state.zone {
            None => Err("not probed yet".to_owned()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(_)) if !state.probes.usable() => Err("it does not work, as its probes show".to_owned()),
            Some(Ok(zone)) => Ok(zone.clone()),
        }
    }
}

fn addresses(found: &Found) -> Vec<IpAddr> {
    found.records.iter().filter_map(RData::ip_addr).collect()
}

/// The list's own words: one line of printable ASCII, bounded, without the key, which some repeat.
fn reason_of(found: &Found, zone: &SecretZone) -> Option<String> {
    let text = found.records.iter().find_map(|data| match data {
        RData::TXT(text) => Some(text.txt_data.concat()),
        _ => None,
    })?;
    let text = zone.redacted(&String::from_utf8_lossy(&text));
    let printable = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    let text: String = printable.take(LONGEST_REASON).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The last word on a probe's failure, in words for people.
fn describe(failure: Failure) -> String {
    failure.to_string()
}

fn parse_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}
