//! Against a scripted server on real sockets: what the client hears, what is counted, what becomes of the connection.

mod bodies;
mod encryption;
mod faults;
mod identity;
mod lmtp;
mod refusals;
mod reuse;
mod script;
mod soft_bounce;
mod trouble;

use std::net::SocketAddr;

use prometheus::Registry;
use torwart_core::{ClientIdentity, Protocol, RouteDigest, SoftBounce, TlsMode, UpstreamTls};

use self::script::{Script, Server};
use super::*;

/// How far a delivery came, and what the client would hear there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Begin(UpstreamRefusal),
    /// No recipient was accepted.
    Recipients(Vec<RelayReply>),
    Data(UpstreamRefusal),
    Body(UpstreamRefusal),
    Final(Final),
}

struct World {
    upstreams: Arc<Upstreams>,
    metrics: Arc<UpstreamMetrics>,
}

const RECIPIENT: &str = "user@example.org";
const BODY: &[u8] = b"Subject: test\r\n\r\nHello\r\n.\r\n..two\r\n";

impl World {
    fn new() -> Self {
        Self::with(UpstreamSettings::default())
    }

    fn with(settings: UpstreamSettings) -> Self {
        let metrics = Arc::new(UpstreamMetrics::new(&Registry::new()).unwrap());
        Self { upstreams: Upstreams::new(settings, metrics.clone()), metrics }
    }

    async fn deliver(&self, route: &Arc<Route>) -> Outcome {
        self.deliver_to(route, &[RECIPIENT], BODY).await
    }

    async fn deliver_to(&self, route: &Arc<Route>, recipients: &[&str], body: &[u8]) -> Outcome {
        self.deliver_within(route, recipients, body, Duration::from_secs(20)).await
    }

    async fn deliver_within(
        &self,
        route: &Arc<Route>,
        recipients: &[&str],
        body: &[u8],
        limit: Duration,
    ) -> Outcome {
        self.deliver_mail(route, &mk_mail(), recipients, body, limit).await
    }

    async fn deliver_mail(
        &self,
        route: &Arc<Route>,
        mail: &MailFacts,
        recipients: &[&str],
        body: &[u8],
        limit: Duration,
    ) -> Outcome {
        let begun = self.upstreams.begin(route, mail, recipients, Instant::now() + limit).await;
        let (mut relay, replies) = match begun {
            Ok(begun) => begun,
            Err(refusal) => return Outcome::Begin(refusal),
        };
        assert_eq!(replies.len(), recipients.len());
        if replies.iter().all(|reply| !reply.accepted) {
            relay.abandon();
            return Outcome::Recipients(replies);
        }
        if let Err(refusal) = relay.data(Instant::now() + limit).await {
            return Outcome::Data(refusal);
        }
        for piece in body.chunks(8192) {
            if let Err(refusal) = relay.body(piece, None).await {
                return Outcome::Body(refusal);
            }
        }
        Outcome::Final(relay.finish(Instant::now() + limit).await)
    }

    async fn begin(&self, route: &Arc<Route>) -> Result<(Relay, Vec<RelayReply>), UpstreamRefusal> {
        self.upstreams.begin(route, &mk_mail(), &[RECIPIENT], Instant::now() + Duration::from_secs(20)).await
    }

    fn idle(&self) -> i64 {
        self.metrics.idle().get()
    }

    fn active(&self) -> i64 {
        self.metrics.active().get()
    }

    fn failures(&self) -> Vec<(FailureKind, u64)> {
        let all = FailureKind::ALL.into_iter().map(|kind| (kind, self.metrics.failures(kind)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// For what background tasks do.
    async fn eventually(&self, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok();
        assert!(came, "never came: idle {} active {}", self.idle(), self.active());
    }
}

impl Outcome {
    fn heard(&self) -> (&'static str, u16, (u8, u16, u16), Reason) {
        let (step, refusal) = match self {
            Self::Begin(refusal) => ("begin", refusal),
            Self::Data(refusal) => ("data", refusal),
            Self::Body(refusal) => ("body", refusal),
            Self::Final(Final::Refused(refusal)) => ("dot", refusal),
            Self::Final(Final::Unknown(refusal)) => ("unknown", refusal),
            Self::Final(Final::Accepted { .. }) => return ("accepted", 250, (2, 0, 0), Reason::Accepted),
            Self::Recipients(replies) => {
                let first = &replies[0];
                return ("rcpt", first.client_reply.code, first.client_reply.enhanced, first.reason);
            }
        };
        (step, refusal.reply.code, refusal.reply.enhanced, refusal.reason)
    }

    #[track_caller]
    fn assert_accepted(&self) {
        assert!(matches!(self, Self::Final(Final::Accepted { .. })), "{self:?}");
    }
}

fn mk_mail() -> MailFacts {
    MailFacts {
        hello: "gateway.example".into(),
        sender: "sender@example.com".into(),
        size: Some(100),
        eight_bit: true,
        smtputf8: false,
        client: mk_client("192.0.2.1:4321"),
    }
}

fn mk_client(address: &str) -> Arc<ClientFacts> {
    let helo = Some("client.example".into());
    Arc::new(ClientFacts { address: address.parse().unwrap(), helo, esmtp: true })
}

fn mk_tls(mode: TlsMode) -> UpstreamTls {
    UpstreamTls { mode, implicit: false, server_name: None, ca: None }
}

fn mk_upstream(address: SocketAddr) -> Upstream {
    Upstream {
        host: Host::Address(address.ip()),
        port: address.port(),
        priority: 0,
        weight: 1,
        max_connections: 20,
    }
}

fn mk_route(upstreams: Vec<Upstream>, tls: UpstreamTls) -> Arc<Route> {
    Arc::new(Route {
        digest: RouteDigest([7; 16]),
        protocol: Protocol::Smtp,
        upstreams,
        tls,
        client_identity: ClientIdentity::None,
        soft_bounce: SoftBounce::Never,
    })
}

/// A server with these scripts, and a route to it.
async fn mk_server(scripts: Vec<Script>) -> (Server, Arc<Route>) {
    let server = Server::start(scripts).await;
    let route = mk_route(vec![mk_upstream(server.address)], mk_tls(TlsMode::Opportunistic));
    (server, route)
}

/// An address where nobody listens.
async fn mk_closed_port() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
