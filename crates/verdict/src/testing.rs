//! Policies, peers and stores for the tests of engine and server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Registry, TextEncoder};
use tokio_util::sync::CancellationToken;
use torwart_core::{
    BoxFuture, ClassDigest, ClientIdentity, Delivery, DeliveryResult, Envelope, Host, Id, Mailbox, Peer,
    Protocol, RecipientsQuestion, Revision, Route, RouteDigest, SoftBounce, TlsMode, Upstream, UpstreamTls,
};
use torwart_policy::domains::DomainPattern;
use torwart_policy::greylist::Judged;
use torwart_policy::model::{
    DnsListsCheck, Domain, Enforcement, Gateway, GreylistMode, Greylisting, RecipientLists, Scoring,
    SenderLists,
};
use torwart_policy::{DomainTable, Policy, RangeTable};

use crate::store::{Call, Revocation, Stats, Store, StoreError};

/// When the clocks of tests start.
pub(crate) const START: i64 = 1_800_000_000;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const CLIENT: &str = "192.0.2.7";
pub(crate) const NEIGHBOUR: &str = "192.0.2.200";
pub(crate) const STRANGER: &str = "198.51.100.1";
pub(crate) const ANNA: &str = "anna@sender.example";
pub(crate) const BOB: &str = "bob@example.org";

pub(crate) fn mk_route(n: u8) -> Arc<Route> {
    Arc::new(Route {
        digest: RouteDigest([n; 16]),
        protocol: Protocol::Smtp,
        upstreams: vec![Upstream {
            host: Host::Name("upstream.example".into()),
            port: 25,
            priority: 0,
            weight: 1,
            max_connections: 20,
        }],
        tls: UpstreamTls { mode: TlsMode::Opportunistic, implicit: false, server_name: None, ca: None },
        client_identity: ClientIdentity::None,
        soft_bounce: SoftBounce::UntilFirstDelivery,
    })
}

pub(crate) fn mk_domain(route: RouteDigest) -> Domain {
    Domain {
        object: "mail/example-org".into(),
        enforcement: Enforcement::Enforce,
        route,
        class: ClassDigest([2; 16]),
        greylisting: Greylisting {
            mode: GreylistMode::Suspicious,
            delay: Duration::from_secs(300),
            retry_window: Duration::from_secs(48 * 3600),
            pass_ttl: Duration::from_secs(36 * 24 * 3600),
            auto_pass_after: 3,
            prefix_ipv4: 24,
            prefix_ipv6: 64,
            pool_identity: true,
            exempt_recipients: vec!["postmaster".into()],
            accept_on_store_failure: true,
        },
        ranges: RangeTable::default(),
        senders: SenderLists::default(),
        recipients: RecipientLists::default(),
        dns_lists: DnsListsCheck { enabled: true, enforcement: Enforcement::Enforce, only: Vec::new() },
        scoring: Scoring { tag_at: 4.0, greylist_at: 2.0, reject_at: 10.0 },
        message_size: 1 << 20,
        max_recipients: 100,
    }
}

pub(crate) fn mk_policy(
    revision: &str,
    route: u8,
    change: impl FnOnce(&mut Domain, &mut Gateway),
) -> Arc<Policy> {
    let route = mk_route(route);
    let mut domain = mk_domain(route.digest);
    let mut gateway = Gateway {
        hostname: "mx.example.net".into(),
        postmaster: None,
        enforcement: Enforcement::Enforce,
        removal_grace: Duration::from_secs(86400),
        greet_delay: Duration::ZERO,
        ranges: RangeTable::default(),
        senders: SenderLists::default(),
        dns_lists: Vec::new(),
    };
    change(&mut domain, &mut gateway);
    let known = [(DomainPattern::parse("example.org").unwrap(), Arc::new(domain))];
    Arc::new(Policy {
        revision: Revision(revision.into()),
        gateway,
        domains: DomainTable::new(known, [], []),
        routes: HashMap::from([(route.digest, route)]),
        asks_connections: false,
        incomplete: false,
    })
}

pub(crate) fn mk_peer(client: &str) -> Arc<Peer> {
    Arc::new(Peer {
        session: Id::from_u128(1),
        address: (client.parse::<IpAddr>().unwrap(), 4025).into(),
        helo: Some("mx.sender.example".into()),
        tls: None,
        early_talker: false,
    })
}

pub(crate) fn mk_mailbox(text: &str) -> Mailbox {
    let (local, domain) = text.rsplit_once('@').unwrap();
    Mailbox::new(local, domain)
}

pub(crate) fn mk_envelope(sender: &str) -> Arc<Envelope> {
    let sender = (!sender.is_empty()).then(|| mk_mailbox(sender));
    Arc::new(Envelope { sender, declared_size: None, eight_bit: false, smtputf8: false })
}

/// A store whose calls fail: at once, or once they are released. Or it is slow, and has nothing to say then.
#[derive(Debug)]
pub(crate) struct BrokenStore {
    pub(crate) hangs: AtomicBool,
    /// Milliseconds until it has answered a question.
    pub(crate) slow: AtomicU64,
    pub(crate) released: CancellationToken,
    /// What is wrong with it although it answers, so many times.
    pub(crate) faults: AtomicU64,
}

impl BrokenStore {
    fn answer<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, StoreError>> {
        Box::pin(async {
            if self.hangs.load(Ordering::Relaxed) {
                self.released.cancelled().await;
            }
            Err(StoreError::Io("READONLY".into()))
        })
    }
}

impl Store for BrokenStore {
    fn kind(&self) -> &'static str {
        "broken"
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn check(&self, _: Call) -> BoxFuture<'_, Result<Vec<Judged>, StoreError>> {
        let slow = self.slow.load(Ordering::Relaxed);
        if slow == 0 {
            return self.answer();
        }
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(slow)).await;
            Ok(Vec::new())
        })
    }

    fn deliver(&self, _: Call, _: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer()
    }

    fn give_back(&self, _: Call) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer()
    }

    fn revoke(&self, _: Revocation) -> BoxFuture<'_, Result<(), StoreError>> {
        self.answer()
    }

    fn secret(&self, fresh: [u8; 32]) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        Box::pin(std::future::ready(Ok(fresh)))
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.answer()
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        self.answer()
    }

    fn take_fault(&self) -> Option<StoreError> {
        let one_less = |count: u64| count.checked_sub(1);
        let taken = self.faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.ok().map(|_| StoreError::FileGone)
    }
}

pub(crate) fn mk_broken(hangs: bool) -> Arc<BrokenStore> {
    Arc::new(BrokenStore {
        hangs: AtomicBool::new(hangs),
        slow: AtomicU64::new(0),
        released: CancellationToken::new(),
        faults: AtomicU64::new(0),
    })
}

/// Longer than anything here takes; it only keeps a broken test from waiting for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What `event` comes to.
pub(crate) fn patiently<T>(event: impl Future<Output = T>) -> impl Future<Output = T> {
    // Calls are large futures.
    let event = Box::pin(event);
    async { tokio::time::timeout(PATIENCE, event).await.unwrap() }
}

/// Waits until `holds`.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    patiently(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The value of a metric by its name and labels, as in the text that is scraped.
pub(crate) fn metric(registry: &Registry, series: &str) -> Option<String> {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(ToOwned::to_owned))
}

pub(crate) fn mk_question(client: &str, sender: &str, recipients: &[&str]) -> RecipientsQuestion {
    RecipientsQuestion {
        peer: mk_peer(client),
        transaction: Id::from_u128(2),
        envelope: mk_envelope(sender),
        recipients: recipients.iter().map(|text| mk_mailbox(text)).collect(),
        accepted_before: 0,
    }
}

pub(crate) fn mk_delivery(
    client: &str,
    sender: &str,
    recipients: &[&str],
    result: DeliveryResult,
) -> Delivery {
    Delivery {
        peer: mk_peer(client),
        transaction: Id::from_u128(2),
        envelope: mk_envelope(sender),
        recipients: recipients.iter().map(|text| mk_mailbox(text)).collect(),
        route: RouteDigest([1; 16]),
        score: 0.0,
        result,
        upstream: None,
        upstream_reply: None,
    }
}

/// One MailDomain object, `mail/NAME`, for each name; all have the route `route`.
pub(crate) fn mk_policy_of(revision: &str, names: &[&str], route: u8) -> Arc<Policy> {
    let mut policy = Arc::into_inner(mk_policy(revision, route, |_, _| {})).unwrap();
    let known = names.iter().map(|name| {
        let domain = Domain { object: format!("mail/{name}").into(), ..mk_domain(RouteDigest([route; 16])) };
        (DomainPattern::parse(name).unwrap(), Arc::new(domain))
    });
    policy.domains = DomainTable::new(known, [], []);
    Arc::new(policy)
}
