//! Every value of `torwart-core` that edge and verdict may send each other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use torwart_core::{
    Action, CheckOutcome, CheckResult, ClassDigest, ClientIdentity, ConnectionAnswer, Delivery,
    DeliveryResult, Envelope, Greylist, Host, Id, Keyword, ListenerTls, Mailbox, MessageAnswer,
    MessageQuestion, Monitored, Peer, Protocol, Reason, RecipientVerdict, RecipientsAnswer,
    RecipientsQuestion, Reply, Revision, Route, RouteDigest, SoftBounce, TlsFacts, TlsMode, Upstream,
    UpstreamTls, canonical_ip,
};

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,40}".prop_map(Arc::from)
}

fn score() -> impl Strategy<Value = f32> {
    prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL
}

fn id() -> impl Strategy<Value = Id> {
    any::<u128>().prop_map(Id::from_u128)
}

pub(super) fn mailbox() -> impl Strategy<Value = Mailbox> {
    let local = prop_oneof!["[a-zA-Z0-9.!%+üß日-]{1,20}", "\"([ -!#-\\[\\]-~ü]|\\\\[ -~]){0,20}\""];
    let domain = prop_oneof!["[a-zA-Z0-9.ü-]{1,30}", Just("[192.0.2.1]".to_owned())];
    prop_oneof![
        9 => (local, domain).prop_map(|(local, domain)| Mailbox::new(local, domain)),
        1 => select(&["Postmaster", "POSTMASTER"][..]).prop_map(|local| Mailbox::new(local, "")),
    ]
}

pub(super) fn peer() -> impl Strategy<Value = Arc<Peer>> {
    let tls = (text(), text()).prop_map(|(version, cipher)| TlsFacts { version, cipher });
    (id(), any::<IpAddr>(), any::<u16>(), option::of(text()), option::of(tls), any::<bool>()).prop_map(
        |(session, ip, port, helo, tls, early_talker)| {
            let address = SocketAddr::new(canonical_ip(ip), port);
            Arc::new(Peer { session, address, helo, tls, early_talker })
        },
    )
}

fn envelope() -> impl Strategy<Value = Arc<Envelope>> {
    (option::of(mailbox()), any::<Option<u64>>(), any::<bool>(), any::<bool>()).prop_map(
        |(sender, declared_size, eight_bit, smtputf8)| {
            Arc::new(Envelope { sender, declared_size, eight_bit, smtputf8 })
        },
    )
}

pub(super) fn recipients_question() -> impl Strategy<Value = RecipientsQuestion> {
    (peer(), id(), envelope(), vec(mailbox(), 1..5), any::<u32>()).prop_map(
        |(peer, transaction, envelope, recipients, accepted_before)| RecipientsQuestion {
            peer,
            transaction,
            envelope,
            recipients,
            accepted_before,
        },
    )
}

pub(super) fn delivery() -> impl Strategy<Value = Delivery> {
    let result = select(
        &[
            DeliveryResult::Delivered,
            DeliveryResult::Deferred,
            DeliveryResult::Rejected,
            DeliveryResult::Unreachable,
            DeliveryResult::Unknown,
        ][..],
    );
    let transaction = (peer(), id(), envelope(), vec(mailbox(), 0..5));
    (transaction, any::<[u8; 16]>(), score(), result, option::of(text()), option::of(text())).prop_map(
        |((peer, transaction, envelope, recipients), route, score, result, upstream, upstream_reply)| {
            Delivery {
                peer,
                transaction,
                envelope,
                recipients,
                route: RouteDigest(route),
                score,
                result,
                upstream,
                upstream_reply,
            }
        },
    )
}

fn reply(class: u16) -> impl Strategy<Value = Reply> {
    let code = prop_oneof![Just(421_u16), 450_u16..=554].prop_filter("class", move |c| c / 100 == class);
    (code, 0_u16..=999, 0_u16..=999, "[ -~]{0,400}")
        .prop_map(move |(code, subject, detail, text)| Reply::new(code, (class as u8, subject, detail), text))
}

fn refusal() -> impl Strategy<Value = Reply> {
    prop_oneof![reply(4), reply(5)]
}

fn reason() -> impl Strategy<Value = Reason> {
    select(&Reason::ALL[..])
}

fn revision() -> impl Strategy<Value = Revision> {
    "[0-9a-f]{64}|".prop_map(|text| Revision(text.into()))
}

pub(super) fn connection_answer() -> impl Strategy<Value = ConnectionAnswer> {
    let tls = select(&[ListenerTls::Offer, ListenerTls::Hide, ListenerTls::Require][..]);
    let hidden = proptest::sample::subsequence(&Keyword::ALL[..], 0..=Keyword::ALL.len());
    let delay = any::<u32>().prop_map(|milliseconds| Duration::from_millis(milliseconds.into()));
    (option::of((refusal(), reason())), tls, delay, hidden, revision(), any::<bool>()).prop_map(
        |(refuse, tls, greet_delay, hidden, revision, ask_connections)| ConnectionAnswer {
            refuse,
            tls,
            greet_delay,
            hidden,
            revision,
            ask_connections,
        },
    )
}

fn check() -> impl Strategy<Value = CheckResult> {
    (text(), select(&CheckOutcome::ALL[..]), score(), text(), any::<u32>()).prop_map(
        |(name, result, score, detail, milliseconds)| CheckResult {
            name,
            result,
            score,
            detail,
            milliseconds,
        },
    )
}

fn verdict() -> impl Strategy<Value = RecipientVerdict> {
    let actions = vec![Action::Accept, Action::Defer, Action::Reject];
    let monitored = (select(&[Action::Defer, Action::Reject][..]), reason())
        .prop_map(|(action, reason)| Monitored { action, reason });
    let said = (select(actions), reply(4), reply(5), option::of(refusal()));
    let judged = (reason(), option::of(monitored), option::of(select(&Greylist::ALL[..])), score());
    let named = (option::of(text()), option::of(text()), any::<bool>());
    let digest = any::<[u8; 16]>;
    let way = (digest(), digest(), any::<bool>(), 1u64.., option::of(mailbox()));
    (said, judged, named, way).prop_map(
        |(
            (action, soft, hard, refuse_data),
            (reason, monitored, greylist, score),
            (domain, object, hold_message),
            (route, class, has_way, size_limit, deliver_to),
        )| {
            let has_way = has_way || action == Action::Accept;
            RecipientVerdict {
                action,
                reply: match action {
                    Action::Accept => None,
                    Action::Defer => Some(soft),
                    Action::Reject => Some(hard),
                },
                reason,
                monitored,
                greylist,
                score,
                domain,
                object,
                route: has_way.then_some(RouteDigest(route)),
                class: has_way.then_some(ClassDigest(class)),
                size_limit,
                deliver_to,
                refuse_data: refuse_data.filter(|_| action == Action::Accept),
                hold_message,
            }
        },
    )
}

pub(super) fn recipients_answer() -> impl Strategy<Value = RecipientsAnswer> {
    (vec(verdict(), 0..5), option::of(text()), vec(check(), 0..4), revision(), any::<bool>()).prop_map(
        |(recipients, identity, checks, revision, ask_connections)| RecipientsAnswer {
            recipients,
            identity,
            checks,
            revision,
            ask_connections,
        },
    )
}

pub(super) fn message_question() -> impl Strategy<Value = MessageQuestion> {
    (peer(), id(), envelope(), vec(mailbox(), 1..5), vec(check(), 0..4)).prop_map(
        |(peer, transaction, envelope, recipients, checks)| MessageQuestion {
            peer,
            transaction,
            envelope,
            recipients,
            checks,
        },
    )
}

fn field() -> impl Strategy<Value = Arc<str>> {
    "[!-9;-~]{1,20}:[ -~]{0,40}(\r\n[ \t][!-~][ -~\t]{0,40}){0,2}".prop_map(Arc::from)
}

pub(super) fn message_answer() -> impl Strategy<Value = MessageAnswer> {
    let actions = vec![Action::Accept, Action::Defer, Action::Reject];
    let monitored = (select(&[Action::Defer, Action::Reject][..]), reason())
        .prop_map(|(action, reason)| Monitored { action, reason });
    let said = (select(actions), reply(4), reply(5), reason(), option::of(monitored));
    let name = "[!-)+-9;-~]{1,20}\\*?".prop_map(Arc::from);
    let id = option::of("[a-z0-9.]{1,20}".prop_map(Arc::from));
    let fields = (vec(field(), 0..4), vec(name, 0..4), id);
    (said, score(), vec(check(), 0..4), fields, revision()).prop_map(
        |((action, soft, hard, reason, monitored), score, checks, fields, revision)| {
            let (add_fields, remove_fields, remove_authserv_id) = fields;
            let reply = match action {
                Action::Accept => None,
                Action::Defer => Some(soft),
                Action::Reject => Some(hard),
            };
            MessageAnswer {
                action,
                reply,
                reason,
                monitored,
                score,
                checks,
                add_fields,
                remove_fields,
                remove_authserv_id,
                revision,
            }
        },
    )
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let host = prop_oneof![
        "[g-z][a-z0-9.-]{0,40}".prop_map(|name| Host::Name(name.into())),
        any::<IpAddr>().prop_map(Host::Address),
    ];
    (host, 1..=u16::MAX, any::<u32>(), 1..=u32::MAX, 1..=u32::MAX).prop_map(
        |(host, port, priority, weight, max_connections)| Upstream {
            host,
            port,
            priority,
            weight,
            max_connections,
        },
    )
}

pub(super) fn route() -> impl Strategy<Value = Route> {
    let modes = [TlsMode::Disabled, TlsMode::Opportunistic, TlsMode::Required];
    let identities =
        [ClientIdentity::None, ClientIdentity::Xclient, ClientIdentity::Xforward, ClientIdentity::ProxyV2];
    let bounces = [SoftBounce::UntilFirstDelivery, SoftBounce::Always, SoftBounce::Never];
    let name = "[a-z][a-z0-9.-]{0,40}".prop_map(Arc::from);
    let tls = (select(modes.to_vec()), any::<bool>(), option::of(name), option::of(text()))
        .prop_map(|(mode, implicit, server_name, ca)| UpstreamTls { mode, implicit, server_name, ca });
    let protocol = select(&[Protocol::Smtp, Protocol::Lmtp][..]);
    let kinds = (protocol, select(identities.to_vec()), select(bounces.to_vec()));
    (any::<[u8; 16]>(), kinds, vec(upstream(), 1..4), tls).prop_map(
        |(digest, (protocol, client_identity, soft_bounce), upstreams, tls)| Route {
            digest: RouteDigest(digest),
            protocol,
            upstreams,
            tls,
            client_identity,
            soft_bounce,
        },
    )
}
