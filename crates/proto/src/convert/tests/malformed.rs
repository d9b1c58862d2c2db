//! Requests that are not as the `.proto` files say, and the field that is named.

use torwart_core::{
    BodyPart, ConnectionQuestion, Delivery, MessageAnswer, MessageQuestion, RecipientsQuestion, Route,
};

use super::super::{LONGEST_TEXT, MOST_RECIPIENTS, Malformed, message_begin, to_message_begin};
use crate::v1;
use crate::v1::check_message_request::Part;

fn peer() -> v1::Peer {
    v1::Peer {
        session_id: vec![1; 16],
        address: vec![192, 0, 2, 1],
        port: 4711,
        helo: Some("client.example".to_owned()),
        tls: Some(v1::TlsFacts { version: "TLSv1.3".to_owned(), cipher: "x".to_owned() }),
        early_talker: false,
    }
}

fn mailbox(local: &str, domain: &str) -> v1::Mailbox {
    v1::Mailbox { local: local.to_owned(), domain: domain.to_owned() }
}

fn envelope() -> v1::Envelope {
    let sender = Some(mailbox("a", "sender.example"));
    v1::Envelope { sender, declared_size: Some(1), eight_bit: false, smtputf8: false }
}

fn question() -> v1::CheckRecipientsRequest {
    v1::CheckRecipientsRequest {
        peer: Some(peer()),
        transaction_id: vec![2; 16],
        envelope: Some(envelope()),
        recipients: vec![mailbox("b", "example.org")],
        accepted_before: 0,
    }
}

fn report() -> v1::ReportOutcomeRequest {
    v1::ReportOutcomeRequest {
        peer: Some(peer()),
        transaction_id: vec![2; 16],
        envelope: Some(envelope()),
        recipients: vec![mailbox("b", "example.org")],
        route: vec![3; 16],
        score: 0.5,
        outcome: v1::Outcome::Delivered.into(),
        upstream: Some("mail.example:25".to_owned()),
        refused_recipients: Vec::new(),
        upstream_reply: Some("250 2.0.0 Ok".to_owned()),
    }
}

fn route() -> v1::Route {
    v1::Route {
        digest: vec![3; 16],
        protocol: v1::Protocol::Smtp.into(),
        upstreams: vec![v1::Upstream {
            host: "mail.example".to_owned(),
            port: 25,
            priority: 0,
            weight: 1,
            max_connections: 20,
        }],
        tls: Some(v1::UpstreamTls {
            mode: v1::TlsMode::Required.into(),
            implicit: false,
            server_name: None,
            ca_pem: None,
        }),
        client_identity: v1::ClientIdentity::None.into(),
        soft_bounce: v1::SoftBounce::Never.into(),
    }
}

/// A field, and what spoils it.
type Row<W> = (&'static str, fn(&mut W));

/// Asserts that each spoiled form of `good` is refused, and which field is named.
fn assert_named<W, T>(good: impl Fn() -> W, table: &[Row<W>])
where
    T: TryFrom<W, Error = Malformed>,
{
    assert!(T::try_from(good()).is_ok(), "the unspoiled message must be taken");
    for (i, (field, spoil)) in table.iter().enumerate() {
        let mut message = good();
        spoil(&mut message);
        let Err(malformed) = T::try_from(message) else { panic!("row {i}: {field} was taken") };
        assert_eq!(malformed.field, *field, "row {i}");
        assert!(malformed.to_string().starts_with(&format!("{field}: ")), "{malformed}");
    }
}

fn of(question: &mut v1::CheckRecipientsRequest) -> &mut v1::Peer {
    question.peer.as_mut().unwrap()
}

#[test]
fn a_malformed_question_about_recipients_names_its_field() {
    assert_named::<v1::CheckRecipientsRequest, RecipientsQuestion>(
        question,
        &[
            ("peer", |q| q.peer = None),
            ("peer.session_id", |q| of(q).session_id = vec![1; 15]),
            ("peer.session_id", |q| of(q).session_id.clear()),
            ("peer.address", |q| of(q).address.clear()),
            ("peer.address", |q| of(q).address = vec![1; 5]),
            ("peer.address", |q| of(q).address = vec![1; 17]),
            ("peer.port", |q| of(q).port = 65_536),
            ("peer.helo", |q| of(q).helo = Some("x".repeat(LONGEST_TEXT + 1))),
            ("peer.tls.version", |q| of(q).tls.as_mut().unwrap().version = "x".repeat(LONGEST_TEXT + 1)),
            ("peer.tls.cipher", |q| of(q).tls.as_mut().unwrap().cipher = "x".repeat(LONGEST_TEXT + 1)),
            ("transaction_id", |q| q.transaction_id = vec![2; 17]),
            ("envelope", |q| q.envelope = None),
            ("envelope.sender", |q| q.envelope.as_mut().unwrap().sender = Some(mailbox("a", ""))),
            ("envelope.sender", |q| q.envelope.as_mut().unwrap().sender = Some(mailbox("", "a.example"))),
            ("recipients", |q| q.recipients.clear()),
            ("recipients", |q| q.recipients = vec![mailbox("b", "example.org"); MOST_RECIPIENTS + 1]),
            ("recipients", |q| q.recipients.push(mailbox("", ""))),
            ("recipients", |q| q.recipients.push(mailbox("info", ""))),
            ("recipients", |q| q.recipients.push(mailbox("a\r\nRCPT TO:<b", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("a> <b", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("a>", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("a<", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("a b", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("a", "example.org>"))),
            ("recipients", |q| q.recipients.push(mailbox("a", "example.org> X"))),
            ("recipients", |q| q.recipients.push(mailbox("\"a\" b\"", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("\"a\\\"", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("\"a\0\"", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox("\"", "example.org"))),
            ("recipients", |q| q.recipients.push(mailbox(&"x".repeat(LONGEST_TEXT + 1), "example.org"))),
        ],
    );
}

#[test]
fn a_question_may_name_as_many_recipients_as_a_transaction_has() {
    let mut most = question();
    most.recipients = vec![mailbox("b", "example.org"); MOST_RECIPIENTS];
    assert_eq!(RecipientsQuestion::try_from(most).unwrap().recipients.len(), MOST_RECIPIENTS);
}

#[test]
fn a_malformed_question_about_a_connection_names_its_field() {
    assert_named::<v1::CheckConnectionRequest, ConnectionQuestion>(
        || v1::CheckConnectionRequest { peer: Some(peer()) },
        &[("peer", |q| q.peer = None), ("peer.address", |q| q.peer.as_mut().unwrap().address = vec![1; 3])],
    );
}

#[test]
fn a_malformed_report_names_its_field() {
    assert_named::<v1::ReportOutcomeRequest, Delivery>(
        report,
        &[
            ("peer", |r| r.peer = None),
            ("transaction_id", |r| r.transaction_id.clear()),
            ("envelope", |r| r.envelope = None),
            ("recipients", |r| r.recipients = vec![mailbox("b", "example.org"); MOST_RECIPIENTS + 1]),
            ("route", |r| r.route = vec![3; 32]),
            ("score", |r| r.score = f32::NAN),
            ("score", |r| r.score = f32::INFINITY),
            ("outcome", |r| r.outcome = v1::Outcome::Unspecified.into()),
            ("outcome", |r| r.outcome = 99),
            ("upstream", |r| r.upstream = Some("x".repeat(301))),
            ("upstream_reply", |r| r.upstream_reply = Some("é".repeat(Delivery::LONGEST_REPLY + 1))),
        ],
    );
}

#[test]
fn a_reply_of_an_upstream_that_is_too_long_is_cut_before_it_is_sent() {
    let mut delivery = Delivery::try_from(report()).unwrap();
    delivery.upstream_reply = Some("é".repeat(Delivery::LONGEST_REPLY + 1).into());
    let sent = v1::ReportOutcomeRequest::from(&delivery);
    assert_eq!(sent.upstream_reply, Some("é".repeat(Delivery::LONGEST_REPLY)));
    assert!(Delivery::try_from(sent).is_ok());
}

#[test]
fn a_route_that_can_t_be_gone_names_its_field() {
    assert_named::<v1::Route, Route>(
        route,
        &[
            ("digest", |r| r.digest = vec![3; 15]),
            ("protocol", |r| r.protocol = 0),
            ("protocol", |r| r.protocol = 99),
            ("client_identity", |r| r.client_identity = 0),
            ("client_identity", |r| r.client_identity = 99),
            ("upstreams", |r| r.upstreams.clear()),
            ("upstreams.host", |r| r.upstreams[0].host.clear()),
            ("upstreams.host", |r| r.upstreams[0].host = "a b".to_owned()),
            ("upstreams.host", |r| r.upstreams[0].host = "x".repeat(256)),
            ("upstreams.port", |r| r.upstreams[0].port = 0),
            ("upstreams.port", |r| r.upstreams[0].port = 65_536),
            ("upstreams.weight", |r| r.upstreams[0].weight = 0),
            ("upstreams.max_connections", |r| r.upstreams[0].max_connections = 0),
            ("tls", |r| r.tls = None),
            ("tls.mode", |r| r.tls.as_mut().unwrap().mode = 0),
            ("tls.mode", |r| r.tls.as_mut().unwrap().mode = 99),
            ("tls.server_name", |r| r.tls.as_mut().unwrap().server_name = Some(String::new())),
        ],
    );
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mut mapped = question();
    of(&mut mapped).address = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1];
    let question = RecipientsQuestion::try_from(mapped).unwrap();
    assert_eq!(question.peer.address.to_string(), "192.0.2.1:4711");
}

fn begin() -> v1::MessageBegin {
    v1::MessageBegin {
        peer: Some(peer()),
        transaction_id: vec![2; 16],
        envelope: Some(envelope()),
        recipients: vec![mailbox("b", "example.org")],
        checks: Vec::new(),
    }
}

fn refusal() -> v1::CheckMessageResponse {
    v1::CheckMessageResponse {
        action: v1::Action::Reject.into(),
        reply: Some(v1::Reply {
            code: 550,
            enhanced_class: 5,
            enhanced_subject: 7,
            enhanced_detail: 1,
            text: "no".to_owned(),
        }),
        reason: "score".to_owned(),
        monitored: None,
        score: 12.0,
        checks: Vec::new(),
        add_fields: vec!["X-Torwart-Status: Yes,\r\n score=12".to_owned()],
        remove_fields: vec!["X-Spam-*".to_owned()],
        remove_authserv_id: "mx.example.net".to_owned(),
        revision: "r1".to_owned(),
    }
}

#[test]
fn a_malformed_question_about_a_message_names_its_field() {
    assert_named::<v1::MessageBegin, MessageQuestion>(
        begin,
        &[
            ("peer", |b| b.peer = None),
            ("transaction_id", |b| b.transaction_id = vec![2; 15]),
            ("envelope", |b| b.envelope = None),
            ("recipients", |b| b.recipients.clear()),
            ("recipients", |b| b.recipients = vec![mailbox("b", "example.org"); MOST_RECIPIENTS + 1]),
        ],
    );
}

#[test]
fn the_parts_of_a_message_have_their_order_and_their_size() {
    let part = |part| v1::CheckMessageRequest { part };
    let chunk = |length| part(Some(Part::Chunk(vec![b'x'; length].into())));
    let end = || part(Some(Part::End(v1::MessageEnd { size: 3 })));
    let first = MessageQuestion::try_from(begin()).unwrap();
    assert!(to_message_begin(message_begin(&first)).is_ok());
    for other in [chunk(1), end(), part(None)] {
        assert_eq!(to_message_begin(other).unwrap_err().field, "part");
    }
    assert!(BodyPart::try_from(chunk(BodyPart::LONGEST_CHUNK)).is_ok());
    assert_eq!(BodyPart::try_from(end()), Ok(BodyPart::End { size: 3 }));
    for (other, field) in [
        (chunk(BodyPart::LONGEST_CHUNK + 1), "part.chunk"),
        (message_begin(&first), "part"),
        (part(None), "part"),
    ] {
        assert_eq!(BodyPart::try_from(other).unwrap_err().field, field);
    }
}

#[test]
fn a_word_about_a_message_that_can_t_be_carried_out_names_its_field() {
    assert_named::<v1::CheckMessageResponse, MessageAnswer>(
        refusal,
        &[
            ("action", |a| a.action = 0),
            ("action", |a| a.action = 99),
            ("score", |a| a.score = f32::NAN),
            ("reply", |a| a.reply = None),
            ("reply", |a| a.action = v1::Action::Defer.into()),
            ("reply", |a| a.reply.as_mut().unwrap().text = "a\r\n250 b".to_owned()),
            ("add_fields", |a| a.add_fields = vec!["A: b".to_owned(); 65]),
            ("add_fields", |a| a.add_fields.push(String::new())),
            ("add_fields", |a| a.add_fields.push("no field".to_owned())),
            ("add_fields", |a| a.add_fields.push(": no name".to_owned())),
            ("add_fields", |a| a.add_fields.push("A B: x".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: b\r\n".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: b\r\n \t".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: b\r\n\r\nbody".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: b\r\nB: c".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: b\n c".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: \0".to_owned())),
            ("add_fields", |a| a.add_fields.push("A: \u{fc}".to_owned())),
            ("add_fields", |a| a.add_fields.push(format!("A: {}", "x".repeat(999)))),
            ("add_fields", |a| a.add_fields.push(format!("A: b{}", "\r\n c".repeat(5000)))),
            ("remove_fields", |a| a.remove_fields = vec!["A".to_owned(); 65]),
            ("remove_fields", |a| a.remove_fields.push(String::new())),
            ("remove_fields", |a| a.remove_fields.push("*".to_owned())),
            ("remove_fields", |a| a.remove_fields.push("A:".to_owned())),
            ("remove_fields", |a| a.remove_fields.push("A b".to_owned())),
            ("remove_authserv_id", |a| a.remove_authserv_id = "a\r\nb".to_owned()),
            ("remove_authserv_id", |a| a.remove_authserv_id = "x".repeat(256)),
            ("revision", |a| a.revision = "r 1".to_owned()),
        ],
    );
}
