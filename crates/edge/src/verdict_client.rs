//! The verdict over gRPC: a [`Verdicts`] that spreads its questions over all addresses of the verdict.
//!
//! ```text
//!   urls -> addresses (looked up every 5 s) -> backends: balancer + one HTTP/2 channel each
//!                                                 ^ take           | how it ended
//!   question -> limit -> ask: a backend, a time slice -> answer, or the next backend
//! ```
//!
//! Whatever fails here is [`Unavailable`], and 451 for the client: nothing is made up. A question is put to a second
//! backend only if the first surely did not act, or if it has no effect.

mod addresses;
mod backends;
mod balancer;
mod call;
mod message;
mod metrics;
mod routes;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tonic::{Request, Response, Status};
use torwart_core::{
    BoxFuture, ConnectionAnswer, ConnectionQuestion, Delivery, MessageAnswer, MessageBody, MessageQuestion,
    RecipientsAnswer, RecipientsQuestion, Route, RouteDigest, Unavailable, Verdicts,
};
use torwart_proto::channel::ChannelSettings;
use torwart_proto::tls::ClientTls;
use torwart_proto::{trace, v1};
use tracing::Span;

use self::addresses::Addresses;
use self::backends::{Backends, Client};
use self::balancer::{Choice, Effect, Ejection, End, Target};
pub use self::call::RECIPIENTS_BUDGET;
use self::call::{Call, Failure};
use self::metrics::{ClientMetrics, FailureKind};
use self::routes::Routes;
use crate::resolve::{Remember, Resolve, SystemResolver};

pub use self::url::{InvalidVerdictUrl, Scheme, VerdictUrl};

/// How the verdict is reached. [`ClientSettings::new`] holds the defaults.
#[derive(Clone)]
pub struct ClientSettings {
    /// `--verdict`: all addresses of all of them are used.
    pub urls: Vec<VerdictUrl>,
    /// `--verdict-ca`, `--verdict-cert`, `--verdict-key`. Must be there if a URL is `https`.
    pub tls: Option<Arc<ClientTls>>,
    /// Questions under way at one time; more are answered with [`Unavailable`] at once.
    pub max_calls: usize,
    /// How long a question without effect waits for one backend while others could be asked, and how long any must
    /// have waited before giving it up speaks against the backend.
    pub slice: Duration,
    /// How often names are looked up.
    pub refresh: Duration,
    /// How long a backend is left alone after three failures in a row; twice as long each further time...
    pub ejection: Duration,
    /// ... but never longer than this.
    pub longest_ejection: Duration,
    pub channel: ChannelSettings,
    /// Instead of the system's.
    pub resolver: Option<Arc<dyn Resolve>>,
}

/// Why the client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("--verdict: no URL is given")]
    NoUrl,
    #[error("--verdict {0}: https needs a certificate authority to trust: give --verdict-ca")]
    NoTls(VerdictUrl),
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Asks the verdict over gRPC. Dropping it ends the look-ups and closes all channels.
pub struct VerdictClient {
    backends: Arc<Backends>,
    calls: Semaphore,
    /// Messages under way: as many as calls, and none of theirs.
    messages: Semaphore,
    routes: Routes,
    metrics: Arc<ClientMetrics>,
    _addresses: Addresses,
}

/// One try's share of a question.
struct Asked {
    left: Duration,
}

/// A report is lost unless it is said to have arrived, whoever drops it.
struct Report<'a> {
    metrics: &'a ClientMetrics,
    arrived: bool,
}

/// `max_calls`: a verdict answers within a few milliseconds, so this many wait only while all of them hang; at about
/// 8 KiB each that is 64 MiB.
const MAX_CALLS: usize = 8192;
/// Answers take milliseconds. The budget for DNS is 3 s, but questions without effect need none.
const SLICE: Duration = Duration::from_secs(1);
/// CoreDNS answers for a headless service with a TTL of 5 s (30 s at most as kubeadm sets it up).
const REFRESH: Duration = Duration::from_secs(5);
/// A pod that is restarted is back within seconds; one that stays away is tried every half minute.
const EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// How long a question waits for the first look-up after the start: less than the banner does.
const FIRST_LOOKUP: Duration = Duration::from_millis(1500);
/// For one look-up: less than `REFRESH`, so that a name server which is silent is noticed before the next.
const RESOLVE: Duration = Duration::from_secs(4);

// === impl ClientSettings ===

impl ClientSettings {
    pub fn new(urls: Vec<VerdictUrl>) -> Self {
        Self {
            urls,
            tls: None,
            max_calls: MAX_CALLS,
            slice: SLICE,
            refresh: REFRESH,
            ejection: EJECTION,
            longest_ejection: LONGEST_EJECTION,
            channel: ChannelSettings::default(),
            resolver: None,
        }
    }
}

// === impl VerdictClient ===

impl VerdictClient {
    /// Must be called inside a tokio runtime. Nothing is connected yet, and no name looked up: that the verdict is not
    /// there is no reason not to start.
    pub fn start(settings: ClientSettings, registry: &Registry) -> Result<Arc<Self>, ClientError> {
        let ClientSettings {
            urls,
            tls,
            max_calls,
            slice,
            refresh,
            ejection,
            longest_ejection,
            channel,
            resolver,
        } = settings;
        if urls.is_empty() {
            return Err(ClientError::NoUrl);
        }
        let has_tls = tls.is_some();
        if let Some(url) = urls.iter().find(|url| url.scheme == Scheme::Https && !has_tls) {
            return Err(ClientError::NoTls(url.clone()));
        }
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(ClientError::Randomness)?;
        let metrics = Arc::new(ClientMetrics::new(registry)?);
        let backends = Arc::new(Backends::new(
            tls,
            channel,
            slice,
            Ejection { first: ejection, longest: longest_ejection },
            u64::from_ne_bytes(seed),
            Arc::clone(&metrics),
        ));
        let resolver = resolver.unwrap_or_else(|| Arc::new(SystemResolver::new(Remember::Nothing, RESOLVE)));
        let addresses = Addresses::watch(&urls, has_tls, refresh, &resolver, &backends, &metrics);
        Ok(Arc::new(Self {
            backends,
            calls: Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS)),
            messages: Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS)),
            routes: Routes::new(),
            metrics,
            _addresses: addresses,
        }))
    }

    /// Puts one question, to as many backends as its kind allows, within its budget. `send` puts it to one; `read`
    /// makes sense of what came. Gives the answer, and whose it was.
    async fn ask<Wire, Answer, Sent>(
        &self,
        call: Call,
        prefer: Option<Target>,
        send: impl Fn(Client, Asked) -> Sent,
        read: impl Fn(Wire) -> Result<Answer, Failure>,
    ) -> Result<(Answer, Target), Unavailable>
    where
        Sent: Future<Output = Result<Response<Wire>, Status>>,
    {
        let Ok(_permit) = self.calls.try_acquire() else {
            let failure = Failure::new(FailureKind::Limit, "too many questions under way at this edge");
            return Err(self.complain(call, &failure, None));
        };
        let began = Instant::now();
        let deadline = began + call.budget();
        let answer = self.ask_until(call, deadline, prefer, send, read).await;
        self.metrics.took(call, began.elapsed());
        answer
    }

    async fn ask_until<Wire, Answer, Sent>(
        &self,
        call: Call,
        deadline: Instant,
        prefer: Option<Target>,
        send: impl Fn(Client, Asked) -> Sent,
        read: impl Fn(Wire) -> Result<Answer, Failure>,
    ) -> Result<(Answer, Target), Unavailable>
    where
        Sent: Future<Output = Result<Response<Wire>, Status>>,
    {
        // in time or not: if nobody is known then, that is what is said
        let _ = timeout_at((Instant::now() + FIRST_LOOKUP).min(deadline).into(), self.backends.known()).await;
        let mut tried: Vec<Target> = Vec::new();
        let mut left = call.retries();
        loop {
            let choice = Choice { effect: call.effect(), tried: &tried, prefer };
            let Some((ticket, client)) = self.backends.take(choice) else {
                let failure = Failure::new(FailureKind::NoBackend, "no address of the verdict is known");
                return Err(self.complain(call, &failure, None));
            };
            let target = ticket.target();
            tried.push(target);
            let others = if left > 0 { Some(&*tried) } else { None };
            // a call of tonic's is several KiB; boxed once, it is not copied into each future around it
            let left_of_budget = deadline.saturating_duration_since(Instant::now());
            let sent = Box::pin(send(client, Asked { left: left_of_budget }));
            let heard = self.hear(call, others, deadline, sent).await;
            let failure = match heard.and_then(|response| read(response.into_inner())) {
                Ok(answer) => {
                    ticket.end(End::Answered);
                    return Ok((answer, target));
                }
                Err(failure) => failure,
            };
            ticket.end(failure.end(call));
            if failure.is_of_connection() {
                self.backends.look_up_again();
            }
            let unavailable = self.complain(call, &failure, Some(target));
            if left == 0 || !call.may_retry(&failure) || Instant::now() >= deadline {
                return Err(unavailable);
            }
            if !self.backends.has_untried(&tried) {
                // A connection that was just closing is no reason not to ask the same one over a new connection.
                if !failure.is_of_connection() {
                    return Err(unavailable);
                }
                tried.clear();
                if self.backends.has_untried(&[target]) {
                    tried.push(target);
                }
            }
            left -= 1;
            self.metrics.retries.inc();
        }
    }

    /// Waits for one backend until the deadline; or for a time slice, if the question may be put to others than those
    /// that were `tried`.
    async fn hear<Wire>(
        &self,
        call: Call,
        tried: Option<&[Target]>,
        deadline: Instant,
        mut sent: impl Future<Output = Result<Response<Wire>, Status>> + Unpin,
    ) -> Result<Response<Wire>, Failure> {
        let understand = |result: Result<Response<Wire>, Status>| {
            result.map_err(|status| Failure::from_status(call, &status))
        };
        let slice = Instant::now() + self.backends.slice();
        if let (Effect::None, Some(tried), true) = (call.effect(), tried, slice < deadline) {
            if let Ok(result) = timeout_at(slice.into(), &mut sent).await {
                return understand(result);
            }
            if self.backends.has_other(tried) {
                return Err(Failure::timeout());
            }
        }
        match timeout_at(deadline.into(), sent).await {
            Ok(result) => understand(result),
            Err(_) => Err(Failure::timeout()),
        }
    }

    /// Counts a failure, and says so at most once a second for each kind.
    fn complain(&self, call: Call, failure: &Failure, target: Option<Target>) -> Unavailable {
        let unavailable = failure.unavailable(call, target);
        if let Some(kept_back) = self.metrics.failed(failure.kind) {
            tracing::warn!(error = %unavailable, kept_back, "the verdict gave no answer");
        }
        unavailable
    }
}

// === impl Verdicts for VerdictClient ===

impl Verdicts for VerdictClient {
    fn check_connection(
        &self,
        question: ConnectionQuestion,
    ) -> BoxFuture<'_, Result<ConnectionAnswer, Unavailable>> {
        Box::pin(async move {
            let send = |mut client: Client, asked: Asked| {
                let request = asked.request(v1::CheckConnectionRequest::from(&question));
                async move { client.check_connection(request).await }
            };
            let read = |wire| ConnectionAnswer::try_from(wire).map_err(Failure::malformed);
            let (answer, _) = self.ask(Call::CheckConnection, None, send, read).await?;
            Ok(answer)
        })
    }

    fn check_recipients(
        &self,
        question: RecipientsQuestion,
    ) -> BoxFuture<'_, Result<RecipientsAnswer, Unavailable>> {
        Box::pin(async move {
            let send = |mut client: Client, asked: Asked| {
                let request = asked.request(v1::CheckRecipientsRequest::from(&question));
                async move { client.check_recipients(request).await }
            };
            let read = |wire| one_for_each(&question, wire);
            let (answer, by) = self.ask(Call::CheckRecipients, None, send, read).await?;
            self.routes.named(&answer, by);
            Ok(answer)
        })
    }

    fn check_message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> BoxFuture<'_, Result<MessageAnswer, Unavailable>> {
        Box::pin(self.ask_about_message(question, body))
    }

    fn report_delivery(&self, delivery: Delivery) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut report = Report { metrics: &self.metrics, arrived: false };
            let send = |mut client: Client, asked: Asked| {
                let request = asked.request(v1::ReportOutcomeRequest::from(&delivery));
                async move { client.report_outcome(request).await }
            };
            let read = |_: v1::ReportOutcomeResponse| Ok(());
            report.arrived = self.ask(Call::ReportOutcome, None, send, read).await.is_ok();
        })
    }

    fn route(&self, digest: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>> {
        Box::pin(async move {
            let entry = self.routes.entry(digest);
            let fetch = || async {
                let send = |mut client: Client, asked: Asked| {
                    let request = asked.request(v1::GetRouteRequest { digest: digest.0.to_vec() });
                    async move { client.get_route(request).await }
                };
                let read = |wire| the_one_asked_for(digest, wire);
                let (route, _) = self.ask(Call::GetRoute, entry.named_by, send, read).await?;
                Ok(route)
            };
            entry.route.get_or_try_init(fetch).await.cloned()
        })
    }
}

// === impl Asked ===

impl Asked {
    /// The deadline and the trace go along.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.left);
        trace::inject(&Span::current(), request.metadata_mut());
        request
    }
}

// === impl Report ===

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.metrics.reports_lost.inc();
        }
    }
}

fn one_for_each(
    question: &RecipientsQuestion,
    wire: v1::CheckRecipientsResponse,
) -> Result<RecipientsAnswer, Failure> {
    let answer = RecipientsAnswer::try_from(wire).map_err(Failure::malformed)?;
    if answer.recipients.len() == question.recipients.len() {
        return Ok(answer);
    }
    Err(Failure::malformed("recipients: not one verdict for each"))
}

fn the_one_asked_for(digest: RouteDigest, wire: v1::GetRouteResponse) -> Result<Arc<Route>, Failure> {
    let wire = wire.route.ok_or_else(|| Failure::malformed("route: missing"))?;
    let route = Route::try_from(wire).map_err(Failure::malformed)?;
    if route.digest == digest {
        return Ok(Arc::new(route));
    }
    Err(Failure::malformed("route.digest: not the one asked for"))
}

impl fmt::Debug for VerdictClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictClient")
            .field("calls_free", &self.calls.available_permits())
            .finish_non_exhaustive()
    }
}
