//! DNS for checks: absolute names, asked of a recursive server, answered from memory where that will do.
//!
//! ```text
//!   ask --> Answers: known, or failed a short while ago -------------------------> at once
//!            | unknown
//!            v
//!       ServersBreaker, ZoneBreaker: nobody answers there ---------------------> at once; tried again unseen
//!            | ask
//!            v
//!       hickory: UDP, then TCP; two tries; cut off where the caller's budget ends
//! ```
//!
//! Hosts that this process connects to are found elsewhere (`torwart_proto::names`), by the system's rules. Here there
//! is no search list, no `/etc/hosts` and no look at what a name means: a query name may hold a key, so no name is
//! ever written to a log, and no error names one.

mod answers;
mod breaker;
mod public;
mod servers;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use tokio::time::{Instant, timeout_at};

use self::answers::Answers;
use self::breaker::{Leave, ServersBreaker, ZoneBreaker};

pub use hickory_resolver::proto::rr::{Name, RData, RecordType};
pub use servers::NameServers;

/// Asks, remembers, and knows whom not to ask. Clones share all of it.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    /// `None`: there is nobody to ask.
    client: Option<TokioResolver>,
    answers: Answers,
    /// By the name of the zone, without a key.
    zones: moka::sync::Cache<Arc<str>, Arc<Mutex<ZoneBreaker>>>,
    servers: Mutex<ServersBreaker>,
    /// [`NameServers::public`]
    warnings: Vec<String>,
}

/// One name and one type of record.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    name: Name,
    kind: RecordType,
}

/// What there is at a name.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of the type that was asked for; aliases were followed.
    pub records: Arc<[RData]>,
    /// False: there is no such name (NXDOMAIN). True without records: there is, but nothing of this type.
    pub exists: bool,
}

/// Why there is no answer. The name that was asked for is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Nobody answered in time.
    TimedOut,
    /// SERVFAIL: the server could not find out.
    ServerFailure,
    /// The server does not want to find out.
    Refused,
    /// No connection to any server.
    Unreachable,
    /// An answer that makes no sense.
    Malformed,
    /// There was no answer for so long that nobody was asked.
    Suspended,
    /// There is no name server.
    NoServers,
}

pub type Answer = Result<Found, Failure>;

/// How long one try may take. Two of them leave some of the 3 s that all checks at RCPT may take together.
const TRY: Duration = Duration::from_millis(1250);
/// After the first.
const MORE_TRIES: usize = 1;
/// Zones that are remembered as silent or not; the least used goes.
const MOST_ZONES: u64 = 10_000;
/// At one time over one TCP connection.
const MOST_ACTIVE: usize = 1024;

// === impl Resolver ===

impl Resolver {
    /// # Errors
    /// Says what the servers lack.
    pub fn new(servers: &NameServers) -> Result<Self, String> {
        let mut builder =
            TokioResolver::builder_with_config(servers.config(), TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TRY;
        options.attempts = MORE_TRIES;
        options.max_active_requests = MOST_ACTIVE;
        // We remember more, and for longer where nothing came.
        options.cache_size = 0;
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self::with(Some(client), servers.public().collect()))
    }

    /// Nobody is asked: every answer is [`Failure::NoServers`].
    pub fn without_servers() -> Self {
        Self::with(None, Vec::new())
    }

    fn with(client: Option<TokioResolver>, warnings: Vec<String>) -> Self {
        Self(Arc::new(Shared {
            client,
            answers: Answers::default(),
            zones: moka::sync::Cache::new(MOST_ZONES),
            servers: Mutex::default(),
            warnings,
        }))
    }

    /// For whoever asks lists: which of the servers these refuse.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    /// What there is at `name`, which is absolute whether it ends in a dot or not. It is `zone`, as it may be shown,
    /// that gets the blame if there is no answer, and is left alone for a while when that happens again and again; then
    /// this answers within microseconds. Never later than `until`.
    pub async fn ask(&self, zone: &str, name: &Name, kind: RecordType, until: Instant) -> Answer {
        let question = Question::new(name, kind);
        let now = Instant::now();
        if let Some(known) = self.0.answers.get(&question, now) {
            return known;
        }
        if self.0.client.is_none() {
            return Err(Failure::NoServers);
        }
        let leave = lock(&self.0.servers).leave(now);
        match leave {
            Leave::Ask => {}
            Leave::Try => {
                self.try_servers();
                return Err(Failure::Suspended);
            }
            Leave::No => return Err(Failure::Suspended),
        }
        let leave = lock(&self.0.zone(zone)).leave(now);
        match leave {
            Leave::Ask => self.look_up(zone, question, until, true).await,
            Leave::Try => {
                let (this, zone) = (self.clone(), Arc::<str>::from(zone));
                // Unseen: nobody's mail waits for what has not answered for so long.
                tokio::spawn(async move {
                    let until = Instant::now() + TRY * 2;
                    let _remembered = this.look_up(&zone, question, until, false).await;
                });
                Err(Failure::Suspended)
            }
            Leave::No => Err(Failure::Suspended),
        }
    }

    /// As [`Self::ask`], whatever is remembered: for whoever wants to know how things are now.
    pub async fn ask_afresh(&self, zone: &str, name: &Name, kind: RecordType, until: Instant) -> Answer {
        self.look_up(zone, Question::new(name, kind), until, false).await
    }

    /// `accuses`: if nobody answers, the servers are suspected too.
    async fn look_up(&self, zone: &str, question: Question, until: Instant, accuses: bool) -> Answer {
        let Some(client) = &self.0.client else { return Err(Failure::NoServers) };
        let began = Instant::now();
        let looked_up = timeout_at(until, client.lookup(question.name.clone(), question.kind)).await;
        let now = Instant::now();
        let (answer, ttl) = match looked_up {
            Ok(result) => answers::read(result, question.kind),
            // Nobody's fault: there was hardly any time left.
            Err(_) if now.duration_since(began) < TRY => return Err(Failure::TimedOut),
            Err(_) => (Err(Failure::TimedOut), answers::FAILURE),
        };
        self.0.answers.put(question, answer.clone(), ttl, now);
        let zone = self.0.zone(zone);
        match &answer {
            Ok(_) => {
                lock(&self.0.servers).answered();
                lock(&zone).answered();
            }
            Err(Failure::ServerFailure | Failure::Refused | Failure::Malformed) => {
                lock(&self.0.servers).answered();
                lock(&zone).failed(now);
            }
            Err(Failure::TimedOut | Failure::Unreachable | Failure::Suspended | Failure::NoServers) => {
                lock(&zone).failed(now);
                if accuses && lock(&self.0.servers).silent() {
                    self.try_servers();
                }
            }
        }
        answer
    }

    /// Asks for what any server knows, so that domains without servers of their own, which anybody can have, do not make
    /// ours look dead.
    fn try_servers(&self) {
        let this = self.clone();
        tokio::spawn(async move {
            let Some(client) = &this.0.client else { return };
            let until = Instant::now() + TRY * 2;
            let looked_up = timeout_at(until, client.lookup(Name::root(), RecordType::NS)).await;
            let answer = looked_up.map_or(Err(Failure::TimedOut), |it| answers::read(it, RecordType::NS).0);
            let alive = !matches!(answer, Err(Failure::TimedOut | Failure::Unreachable));
            lock(&this.0.servers).tried(alive, Instant::now());
        });
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("usable", &self.0.client.is_some()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn zone(&self, zone: &str) -> Arc<Mutex<ZoneBreaker>> {
        if let Some(known) = self.zones.get(zone) {
            return known;
        }
        self.zones.get_with(zone.into(), Arc::default)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Question ===

impl Question {
    fn new(name: &Name, kind: RecordType) -> Self {
        let mut name = name.to_lowercase();
        name.set_fqdn(true);
        Self { name, kind }
    }
}

// === impl Failure ===

impl Failure {
    pub const ALL: [Self; 7] = [
        Self::TimedOut,
        Self::ServerFailure,
        Self::Refused,
        Self::Unreachable,
        Self::Malformed,
        Self::Suspended,
        Self::NoServers,
    ];

    /// The label `kind` of `torwart_check_failures_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::ServerFailure => "servfail",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Suspended => "suspended",
            Self::NoServers => "no_servers",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no answer in time",
            Self::ServerFailure => "the DNS server could not find out (SERVFAIL)",
            Self::Refused => "the DNS server refused to find out",
            Self::Unreachable => "no connection to a DNS server",
            Self::Malformed => "an answer that makes no sense",
            Self::Suspended => "not asked, since there was no answer for a while",
            Self::NoServers => "there is no DNS server",
        })
    }
}

impl From<&NetError> for Failure {
    fn from(error: &NetError) -> Self {
        match error {
            NetError::Timeout | NetError::Busy => Self::TimedOut,
            NetError::Io(_) | NetError::NoConnections => Self::Unreachable,
            NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Self::Refused,
            NetError::Dns(DnsError::ResponseCode(_)) => Self::ServerFailure,
            _ => Self::Malformed,
        }
    }
}
