//! A verdict's side: what the operator published, verified and compiled, from the first to the next.
//!
//! ```text
//!   index --watch--> Reader (pure): load it? --lacking slots--> Publication --verify, compile--> Loaded --> News
//!                        ^                                            |
//!                        +---- in force ------------------------------+  on a thread of its own
//! ```
//!
//! Whatever is missing, broken, older or in a newer format: what was in force stays.

mod decide;
mod fetch;
mod publication;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use kube::Client;
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::DefaultBackoff;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use self::decide::{Found, Next, Reader, Step, Trouble, Wanted};
use self::fetch::ConfigMaps;

pub use self::publication::{InvalidFile, Loaded, Publication};

/// Whose policy it is: `kube:NAMESPACE/GATEWAY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the operator publishes: its own.
    pub namespace: String,
    pub gateway: String,
}

/// What a follower tells.
#[derive(Debug)]
pub enum News {
    /// To be put in force.
    Loaded(Loaded),
    /// What was in force stays.
    Kept {
        /// For people: what is wrong, and what to do.
        why: String,
        /// What is published is wrong, rather than not there or out of reach.
        is_of_policy: bool,
    },
    /// What was wrong is right again, and the policy still the same.
    Well,
}

/// What hears of [`News`]. Called off the runtime's threads when there is something to be put in force.
pub type Listener = Arc<dyn Fn(News) + Send + Sync>;

/// Follows one policy.
pub struct Follower {
    maps: ConfigMaps,
    reader: Reader,
    /// What is in force, for those of the next publication's objects that can't be taken.
    last: Option<Loaded>,
    listener: Listener,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    backoff: DefaultBackoff,
    told: Option<(String, Instant)>,
}

/// After this time the index is listed again, whatever the watch says: a safety net that costs one small answer.
const WATCH_AGE: Duration = Duration::from_secs(60);
/// Between an index that was overtaken and the next look.
const OVERTAKEN: Duration = Duration::from_millis(50);
/// The same trouble is told again after this time.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// `DefaultBackoff` goes from 0.8 s to 30 s, made for clients that ask for whole lists. This is one small object, and a
/// verdict that starts has nothing to answer by until it has it.
const HASTE: u32 = 3;

/// A client by what the process has: `KUBECONFIG`, or the files of a pod's ServiceAccount. Connects to nothing yet.
///
/// # Errors
/// If it has neither, or they can't be used; for people.
pub async fn client() -> Result<Client, String> {
    let config = crate::client::config().await.map_err(|error| match error {
        // Outside of a cluster people mean their own file.
        error if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => {
            format!("neither in a pod with a ServiceAccount, nor a usable KUBECONFIG: {error}")
        }
        error => error.to_string(),
    })?;
    crate::client::connect(config).map_err(|error| error.to_string())
}

// === impl Follower ===

impl Follower {
    /// Goes on from `last`, which is in force. `clock` tells Unix seconds.
    pub fn new(
        client: Client,
        source: &Source,
        last: Option<Loaded>,
        clock: Arc<dyn Fn() -> i64 + Send + Sync>,
        listener: Listener,
    ) -> Self {
        Self {
            maps: ConfigMaps::new(client, source),
            reader: Reader::new(last.as_ref().map(|last| Arc::clone(&last.publication))),
            last,
            listener,
            clock,
            backoff: DefaultBackoff::default(),
            told: None,
        }
    }

    /// Until it is dropped. At `again` everything is looked at anew, at once.
    pub async fn run(mut self, again: Arc<Notify>) {
        loop {
            let pause = Box::pin(self.watch(&again)).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = again.notified() => self.backoff.reset(),
            }
        }
    }

    /// One watch of the index. Says how long to wait before the next.
    async fn watch(&mut self, again: &Notify) -> Duration {
        let ends = Instant::now() + WATCH_AGE;
        let mut states = pin!(self.maps.watch_index());
        let mut retry: Option<Instant> = None;
        loop {
            // The end also cuts off a first list that hangs.
            let wake = retry.unwrap_or(ends).min(ends);
            let state = tokio::select! {
                biased;
                () = again.notified() => {
                    self.backoff.reset();
                    return Duration::ZERO;
                }
                state = states.next() => match state {
                    Some(state) => newest(state, &mut states),
                    None => return Duration::ZERO,
                },
                () = sleep_until(wake) => match retry.take() {
                    Some(_) => self.maps.index().await,
                    None => return Duration::ZERO,
                },
            };
            let pause = match state {
                Ok(found) => self.take(found).await,
                Err(trouble) => {
                    self.tell(&trouble);
                    return self.pause();
                }
            };
            retry = pause.map(|pause| Instant::now() + pause);
        }
    }

    /// Puts in force what is found, if it should be. `Some`: to be looked at again after that time.
    async fn take(&mut self, mut found: Option<Found>) -> Option<Duration> {
        loop {
            let wanted = match self.reader.found(found.as_ref()) {
                Step::Load(wanted) => wanted,
                Step::Rest => {
                    self.is_well();
                    return None;
                }
                Step::Keep(trouble) => {
                    self.tell(&trouble);
                    return None;
                }
            };
            let trouble = match self.load(wanted.clone()).await {
                Ok(()) => {
                    self.backoff.reset();
                    self.told = None;
                    return None;
                }
                Err(trouble) => trouble,
            };
            match self.reader.failed(wanted, &trouble) {
                Next::AtOnce => sleep(OVERTAKEN).await,
                Next::Later => {
                    self.tell(&trouble);
                    return Some(self.pause());
                }
                Next::WhenItChanges => {
                    self.tell(&trouble);
                    return None;
                }
            }
            found = match self.maps.index().await {
                Ok(found) => found,
                Err(trouble) => {
                    self.tell(&trouble);
                    return Some(self.pause());
                }
            };
        }
    }

    async fn load(&mut self, wanted: Wanted) -> Result<(), Trouble> {
        let sequence = wanted.index.sequence;
        let fetched = self.maps.chunks(self.reader.lacking(&wanted)).await?;
        let before = self.reader.in_force().map(|before| &**before);
        let publication = Arc::new(Publication::new(wanted, before, &fetched)?);
        let (listener, last, now) = (Arc::clone(&self.listener), self.last.clone(), (self.clock)());
        let work = spawn_blocking(move || {
            let loaded = publication.load(last.as_ref().map(|last| &*last.snapshot), now)?;
            listener(News::Loaded(loaded.clone()));
            Ok(loaded)
        });
        let loaded = match work.await {
            Ok(loaded) => loaded?,
            Err(failure) => return Err(Trouble::Unusable { sequence, why: failure.to_string() }),
        };
        self.reader.loaded(Arc::clone(&loaded.publication));
        self.last = Some(loaded);
        Ok(())
    }

    fn pause(&mut self) -> Duration {
        self.backoff.next().unwrap_or(WATCH_AGE) / HASTE
    }

    fn tell(&mut self, trouble: &Trouble) {
        let why = trouble.to_string();
        let known = self.told.as_ref();
        if known.is_some_and(|(text, at)| *text == why && at.elapsed() < TOLD_AGAIN) {
            return;
        }
        (self.listener)(News::Kept { why: why.clone(), is_of_policy: trouble.is_of_policy() });
        self.told = Some((why, Instant::now()));
    }

    fn is_well(&mut self) {
        self.backoff.reset();
        if self.told.take().is_some() {
            (self.listener)(News::Well);
        }
    }
}

/// The last of what is there without waiting: the states in between are over.
fn newest<T>(mut state: T, states: &mut (impl Stream<Item = T> + Unpin)) -> T {
    while let Some(Some(next)) = states.next().now_or_never() {
        state = next;
    }
    state
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kube:{}/{}", self.namespace, self.gateway)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("in_force", &self.reader.in_force()).finish_non_exhaustive()
    }
}
