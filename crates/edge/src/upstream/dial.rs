//! From an upstream's name to a connection that is ready for MAIL.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use torwart_core::{ClientIdentity, DeliveryResult, Host, Reason, Reply, TlsMode, Upstream};
use torwart_proto::trace::{attribute, current_child, fail};
use torwart_smtp::{Stage, StartTlsMode};

use super::connection::{Connection, Heard, handshake};
use super::identity::{introduce, proxy_header};
use super::metrics::{FailureKind, UpstreamMetrics};
use super::pool::{Gate, PoolKey};
use super::reply_table::{Judgement, judge};
use super::setback::{Fault, Setback};
use super::stream::Stream;
use super::tls::{TlsConfigs, TlsSetupError, server_name};
use super::{ClientFacts, UpstreamSettings};
use crate::resolve::{Remember, Resolve, SystemResolver};
use crate::trace;

/// Opens connections.
#[derive(Debug)]
pub(super) struct Dialer {
    resolver: SystemResolver,
    tls: TlsConfigs,
    settings: UpstreamSettings,
    metrics: Arc<UpstreamMetrics>,
}

/// One try at one address.
struct Attempt<'a> {
    gate: &'a Gate,
    key: &'a PoolKey,
    client: &'a ClientFacts,
    host: &'a Host,
    address: SocketAddr,
    deadline: Instant,
}

/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;
/// TCP keepalive: notices a peer that vanished while its answer is waited for.
const KEEPALIVE: Duration = Duration::from_secs(60);

// === impl Dialer ===

impl Dialer {
    /// Reads the system's resolver configuration (search list, `/etc/hosts`). Without one, names fail when used.
    pub(super) fn new(settings: UpstreamSettings, metrics: Arc<UpstreamMetrics>) -> Self {
        let resolver = SystemResolver::new(Remember::Ttl, settings.resolve);
        Self { resolver, tls: TlsConfigs::new(), settings, metrics }
    }

    /// Tries all addresses of `upstream`, those that failed lately last. The error is the last address's, and the
    /// upstream is one to be tried last for a while.
    pub(super) async fn dial(
        &self,
        gate: &Gate,
        key: &PoolKey,
        client: &ClientFacts,
        upstream: &Upstream,
        deadline: Instant,
    ) -> Result<Box<Connection>, Setback> {
        let span = current_child(trace::CONNECT);
        let dialed = self.dial_all(gate, key, client, upstream, deadline).await;
        if let Err(setback) = &dialed {
            attribute(&span, trace::FAILURE, setback.failure.map_or("refused", FailureKind::as_str));
            fail(&span, "not connected");
            // Whoever was told of the client may have spoken of the client.
            let of_the_client =
                key.identity != ClientIdentity::None && setback.reason != Reason::UpstreamUnreachable;
            if setback.failure != Some(FailureKind::Tls) && !of_the_client {
                gate.not_opened(Instant::now() + self.settings.ejection);
            }
        }
        dialed
    }

    async fn dial_all(
        &self,
        gate: &Gate,
        key: &PoolKey,
        client: &ClientFacts,
        upstream: &Upstream,
        deadline: Instant,
    ) -> Result<Box<Connection>, Setback> {
        let mut addresses = self.addresses(upstream, deadline).await?;
        gate.order(&mut addresses, Instant::now());
        let mut last = Setback::unreachable(FailureKind::Dns, format!("{} has no address", upstream.host));
        for address in addresses {
            let attempt = Attempt { gate, key, client, host: &upstream.host, address, deadline };
            match self.open(&attempt).await {
                Ok(connection) => return Ok(connection),
                Err(setback) => {
                    tracing::debug!(upstream = %gate.name, %address, why = ?setback.upstream_reply, "not opened");
                    last = setback;
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    async fn addresses(&self, upstream: &Upstream, deadline: Instant) -> Result<Vec<SocketAddr>, Setback> {
        let name = match &upstream.host {
            Host::Address(ip) => return Ok(vec![SocketAddr::new(*ip, upstream.port)]),
            Host::Name(name) => name,
        };
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, upstream.port)]);
        }
        let failed =
            |detail: String| Setback::unreachable(FailureKind::Dns, format!("resolving {name}: {detail}"));
        let found = timeout_at(deadline.into(), self.resolver.addresses(name))
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(failed)?;
        Ok(found.into_iter().take(ADDRESSES).map(|ip| SocketAddr::new(ip, upstream.port)).collect())
    }

    /// With Opportunistic TLS, a failed handshake is followed by a second connection in clear text, and for some
    /// minutes only that is made.
    async fn open(&self, attempt: &Attempt<'_>) -> Result<Box<Connection>, Setback> {
        let Attempt { gate, key, address, .. } = *attempt;
        let now = Instant::now();
        let start_tls = match key.tls.mode {
            _ if key.tls.implicit => StartTlsMode::Never,
            TlsMode::Disabled => StartTlsMode::Never,
            TlsMode::Opportunistic if gate.is_clear_text(address, now) => StartTlsMode::Never,
            TlsMode::Opportunistic => StartTlsMode::IfOffered,
            TlsMode::Required => StartTlsMode::Required,
        };
        match self.open_once(attempt, start_tls).await {
            Err(setback)
                if start_tls == StartTlsMode::IfOffered && setback.failure == Some(FailureKind::Tls) =>
            {
                tracing::warn!(upstream = %gate.name, %address, why = ?setback.upstream_reply,
                    "STARTTLS failed, clear text is used for a while");
                self.metrics.failed(FailureKind::Tls);
                gate.clear_text(address, now + self.settings.clear_text);
                self.open_once(attempt, StartTlsMode::Never).await
            }
            result => result,
        }
    }

    async fn open_once(
        &self,
        attempt: &Attempt<'_>,
        start_tls: StartTlsMode,
    ) -> Result<Box<Connection>, Setback> {
        let mut tcp = match self.connect(attempt).await {
            Ok(tcp) => tcp,
            Err(detail) => {
                attempt.gate.failed(attempt.address, Instant::now() + self.settings.ejection);
                return Err(Setback::unreachable(FailureKind::Connect, detail));
            }
        };
        let until = attempt.deadline.min(Instant::now() + self.settings.greeting);
        if let Some(header) = proxy_header(attempt.key.identity, attempt.client, attempt.address) {
            let written = timeout_at(until.into(), tcp.write_all(&header)).await;
            written
                .map_err(|_| Fault::Timeout)
                .and_then(|written| written.map_err(Fault::from))
                .map_err(|fault| fault.on_opening())?;
        }
        let stream = if attempt.key.tls.implicit && attempt.key.tls.mode != TlsMode::Disabled {
            let (config, name) = self.tls_for(attempt).map_err(|error| Fault::from(error).on_opening())?;
            handshake(tcp, config, name, until).await.map_err(|fault| fault.on_opening())?
        } else {
            Stream::Plain(tcp)
        };
        let mut connection = Box::new(Connection::new(stream, attempt.key.clone(), start_tls));
        self.greet(attempt, &mut connection, until).await?;
        Ok(connection)
    }

    async fn connect(&self, attempt: &Attempt<'_>) -> Result<TcpStream, String> {
        let Attempt { address, .. } = *attempt;
        let until = attempt.deadline.min(Instant::now() + self.settings.connect);
        let tcp = timeout_at(until.into(), TcpStream::connect(address))
            .await
            .map_err(|_| format!("connecting to {address}: no answer in time"))?
            .map_err(|error| format!("connecting to {address}: {error}"))?;
        let options = tcp
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE)));
        if let Err(error) = options {
            tracing::debug!(%address, %error, "socket options were not taken");
        }
        Ok(tcp)
    }

    /// Banner, EHLO, STARTTLS and EHLO again; then who the client is, if that is passed on, and EHLO once more.
    async fn greet(
        &self,
        attempt: &Attempt<'_>,
        connection: &mut Connection,
        until: Instant,
    ) -> Result<(), Setback> {
        let identity = attempt.key.identity;
        let mut introduced = matches!(identity, ClientIdentity::None | ClientIdentity::ProxyV2);
        loop {
            connection.flush(until).await.map_err(|fault| fault.on_opening())?;
            match connection.hear(until).await.map_err(|fault| fault.on_opening())? {
                Heard::Ready if introduced => return Ok(()),
                Heard::Ready => {
                    introduce(connection.client(), identity, attempt.client)
                        .map_err(Setback::client_identity)?;
                    introduced = true;
                }
                Heard::StartTls => {
                    let (config, name) =
                        self.tls_for(attempt).map_err(|error| Fault::from(error).on_opening())?;
                    connection.encrypt(config, name, until).await.map_err(|fault| fault.on_opening())?;
                }
                Heard::TlsNotOffered => return Err(not_offered()),
                // Only refusals come as answers, and the answer to XFORWARD; else the greeting waits for `Ready`.
                Heard::Answer(answer) => match judge(answer.stage, answer.code, answer.enhanced) {
                    Judgement::Go if answer.stage == Stage::Xforward => return Ok(()),
                    Judgement::Go => return Err(Fault::Protocol(answer.text).on_opening()),
                    Judgement::Refused(refused) => return Err(Setback::refused(refused, answer)),
                },
            }
        }
    }

    fn tls_for(&self, attempt: &Attempt<'_>) -> Result<TlsParts, TlsSetupError> {
        let tls = &attempt.key.tls;
        Ok((self.tls.get(tls)?, server_name(tls, attempt.host, attempt.address.ip())?))
    }
}

type TlsParts = (Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>);

impl From<TlsSetupError> for Fault {
    fn from(error: TlsSetupError) -> Self {
        Self::Tls(error.to_string())
    }
}

fn not_offered() -> Setback {
    Setback {
        reply: Reply::new(451, (4, 7, 5), "Mail server cannot be reached securely, try again later"),
        reason: Reason::UpstreamTls,
        upstream_reply: Some("(STARTTLS is not offered)".to_owned()),
        try_next: true,
        failure: Some(FailureKind::Tls),
        result: Some(DeliveryResult::Unreachable),
    }
}
