//! A verdict that is newer than the edge, or broken: what the edge makes of its answers.

use std::time::Duration;

use torwart_core::{
    Action, ClassDigest, ConnectionAnswer, Keyword, ListenerTls, Reason, RecipientVerdict, RecipientsAnswer,
    Reply, Revision, Route, RouteDigest, SoftBounce,
};

use crate::v1;

fn reply(code: u32, class: u32, text: &str) -> v1::Reply {
    v1::Reply { code, enhanced_class: class, enhanced_subject: 7, enhanced_detail: 1, text: text.to_owned() }
}

fn accepted() -> v1::RecipientVerdict {
    v1::RecipientVerdict {
        action: v1::Action::Accept.into(),
        reply: None,
        reason: "accepted".to_owned(),
        monitored: None,
        greylist: Some("passed".to_owned()),
        score: 1.5,
        domain: Some("example.org".to_owned()),
        object: Some("mail/example".to_owned()),
        route: Some(vec![1; 16]),
        delivery_class: Some(vec![2; 16]),
        size_limit: 9,
        deliver_to: None,
        refuse_data: None,
        hold_message: false,
    }
}

fn refused(action: v1::Action, reply: Option<v1::Reply>) -> v1::RecipientVerdict {
    v1::RecipientVerdict { action: action.into(), reply, route: None, delivery_class: None, ..accepted() }
}

fn response(recipients: Vec<v1::RecipientVerdict>) -> v1::CheckRecipientsResponse {
    v1::CheckRecipientsResponse {
        recipients,
        identity: None,
        checks: Vec::new(),
        revision: "r1".to_owned(),
        ask_connections: true,
        rdns: Some("mx.example.net".to_owned()),
    }
}

fn taken(verdict: v1::RecipientVerdict) -> RecipientVerdict {
    let answer = RecipientsAnswer::try_from(response(vec![verdict])).unwrap();
    answer.recipients.into_iter().next().unwrap()
}

#[test]
fn a_domain_without_a_limit_of_its_own_takes_what_the_edge_takes() {
    let verdict = taken(v1::RecipientVerdict { size_limit: 0, ..accepted() });
    assert_eq!(verdict.size_limit, u64::MAX);
    let answer =
        RecipientsAnswer::try_from(response(vec![v1::RecipientVerdict { size_limit: 0, ..accepted() }]));
    assert_eq!(v1::CheckRecipientsResponse::from(&answer.unwrap()).recipients[0].size_limit, 0);
}

#[test]
fn what_an_edge_can_t_carry_out_is_451_for_that_recipient_and_the_others_stand() {
    let defer = v1::Action::Defer;
    let reject = v1::Action::Reject;
    let refuse = |action, code, class, text: &str| refused(action, Some(reply(code, class, text)));
    let detail = |detail| {
        let reply = v1::Reply { enhanced_detail: detail, ..reply(550, 5, "x") };
        refused(reject, Some(reply))
    };
    let to = |local: &str, domain: &str| {
        let deliver_to = v1::Mailbox { local: local.to_owned(), domain: domain.to_owned() };
        v1::RecipientVerdict { deliver_to: Some(deliver_to), ..accepted() }
    };
    let table = [
        ("an action of a newer version", v1::RecipientVerdict { action: 17, ..accepted() }),
        ("no action", v1::RecipientVerdict { action: 0, ..accepted() }),
        ("accept without a route", v1::RecipientVerdict { route: None, ..accepted() }),
        ("accept without a class", v1::RecipientVerdict { delivery_class: None, ..accepted() }),
        ("a route that is no digest", v1::RecipientVerdict { route: Some(vec![1]), ..accepted() }),
        ("a class that is no digest", v1::RecipientVerdict { delivery_class: Some(vec![]), ..accepted() }),
        ("a score that is no number", v1::RecipientVerdict { score: f32::NAN, ..accepted() }),
        (
            "a reply to DATA that is none",
            v1::RecipientVerdict { refuse_data: Some(reply(250, 2, "Ok")), ..accepted() },
        ),
        ("a path that ends early", to("postmaster> X", "example.net")),
        ("a path with a line end", to("postmaster\r\nDATA", "example.net")),
        ("a path without a domain", to("info", "")),
        ("defer without a reply", refused(defer, None)),
        ("reject without a reply", refused(reject, None)),
        ("defer with 5xx", refuse(defer, 550, 5, "x")),
        ("reject with 4xx", refuse(reject, 450, 4, "x")),
        ("reject with 250", refuse(reject, 250, 2, "x")),
        ("defer with 354", refuse(defer, 354, 3, "x")),
        ("defer of another class", refuse(defer, 450, 5, "x")),
        ("reject of another class", refuse(reject, 550, 4, "x")),
        ("a code out of range", refuse(reject, 599, 5, "x")),
        ("a code that is none", refuse(reject, 66_086, 5, "x")),
        ("an enhanced code that is none", detail(1000)),
        ("a text with a line end", refuse(reject, 550, 5, "no\r\n250 yes")),
        ("a text with a bare line feed", refuse(defer, 450, 4, "no\n250 yes")),
        ("a text beyond ASCII", refuse(reject, 550, 5, "später")),
        ("a text with a control character", refuse(reject, 550, 5, "a\u{7f}")),
        ("a text that fits no line", refuse(reject, 550, 5, &"x".repeat(401))),
    ];
    for (what, verdict) in table {
        let answer = RecipientsAnswer::try_from(response(vec![accepted(), verdict, accepted()])).unwrap();
        let [before, broken, after] = answer.recipients.as_slice() else { panic!("{what}") };
        assert_eq!((before.action, after.action), (Action::Accept, Action::Accept), "{what}");
        assert_eq!(
            (broken.action, broken.reason),
            (Action::Defer, Reason::VerdictUnavailable),
            "{what}: {broken:?}"
        );
        let reply = broken.reply.as_ref().unwrap();
        assert_eq!((reply.code, reply.enhanced), (451, (4, 3, 5)), "{what}");
        assert!(broken.route.is_none() && broken.refuse_data.is_none(), "{what}: {broken:?}");
        assert_eq!(broken.object.as_deref(), Some("mail/example"), "{what}");
    }
}

#[test]
fn a_verdict_as_it_should_be_is_taken_whole() {
    let deferred = taken(refused(v1::Action::Defer, Some(reply(421, 4, "Later"))));
    assert_eq!((deferred.action, deferred.reason), (Action::Defer, Reason::Accepted));
    assert_eq!(deferred.reply, Some(Reply::new(421, (4, 7, 1), "Later")));
    let accepted = taken(v1::RecipientVerdict { refuse_data: Some(reply(450, 4, "Later")), ..accepted() });
    assert_eq!(accepted.route, Some(RouteDigest([1; 16])));
    assert_eq!(accepted.class, Some(ClassDigest([2; 16])));
    assert_eq!(accepted.refuse_data, Some(Reply::new(450, (4, 7, 1), "Later")));
}

#[test]
fn a_reply_that_comes_with_accept_is_not_said() {
    let verdict = taken(v1::RecipientVerdict { reply: Some(reply(550, 5, "no")), ..accepted() });
    assert_eq!((verdict.action, verdict.reply), (Action::Accept, None));
}

#[test]
fn words_of_a_newer_version_change_no_verdict() {
    let verdict = taken(v1::RecipientVerdict {
        reason: "phase_of_the_moon".to_owned(),
        greylist: Some("pending".to_owned()),
        monitored: Some(v1::Monitored { action: 17, reason: "score".to_owned() }),
        ..accepted()
    });
    assert_eq!((verdict.action, verdict.reason), (Action::Accept, Reason::Unrecognized));
    assert!(verdict.greylist.is_none() && verdict.monitored.is_none());

    let verdict = taken(v1::RecipientVerdict {
        monitored: Some(v1::Monitored { action: v1::Action::Reject.into(), reason: "moon".to_owned() }),
        ..accepted()
    });
    let monitored = verdict.monitored.unwrap();
    assert_eq!((monitored.action, monitored.reason), (Action::Reject, Reason::Unrecognized));
}

#[test]
fn results_of_checks_that_are_not_known_are_left_out() {
    let check = |result: &str, score| v1::CheckResult {
        name: "spf".to_owned(),
        result: result.to_owned(),
        score,
        detail: String::new(),
        milliseconds: 3,
    };
    let checks = vec![check("pass", 1.0), check("resonated", 1.0), check("fail", f32::NAN)];
    let answer =
        RecipientsAnswer::try_from(v1::CheckRecipientsResponse { checks, ..response(Vec::new()) }).unwrap();
    let names: Vec<&str> = answer.checks.iter().map(|check| check.result.as_str()).collect();
    assert_eq!(names, ["pass"]);
}

fn connection(refuse: Option<v1::Reply>, tls: i32) -> v1::CheckConnectionResponse {
    v1::CheckConnectionResponse {
        refuse,
        reason: "ip_range".to_owned(),
        tls,
        revision: "r1".to_owned(),
        ask_connections: false,
        greet_delay_milliseconds: 5000,
        hidden_keywords: ["DSN", "pipelining", "CHUNKING", "8BITMIME"].map(str::to_owned).to_vec(),
    }
}

#[test]
fn what_an_edge_can_t_do_at_the_banner_is_left_out() {
    let table =
        [(0, ListenerTls::Offer), (2, ListenerTls::Hide), (3, ListenerTls::Require), (9, ListenerTls::Offer)];
    for (sent, meant) in table {
        let answer = ConnectionAnswer::try_from(connection(None, sent)).unwrap();
        assert_eq!((answer.refuse, answer.tls), (None, meant), "{sent}");
        assert_eq!((answer.revision, answer.ask_connections), (Revision("r1".into()), false));
        assert_eq!(answer.hidden, [Keyword::EightBitMime, Keyword::Chunking]);
        assert_eq!(answer.greet_delay, Duration::from_secs(5));
    }
}

#[test]
fn a_refusal_at_the_banner_that_is_none_makes_the_answer_none() {
    let good = ConnectionAnswer::try_from(connection(Some(reply(554, 5, "No")), 1)).unwrap();
    assert_eq!(good.refuse, Some((Reply::new(554, (5, 7, 1), "No"), Reason::IpRange)));
    for refuse in [reply(220, 2, "Hello"), reply(554, 4, "No"), reply(554, 5, "No\r\n220 Yes")] {
        let malformed = ConnectionAnswer::try_from(connection(Some(refuse), 1)).unwrap_err();
        assert_eq!(malformed.field, "refuse");
    }
}

#[test]
fn a_revision_that_spoils_a_log_makes_the_answer_none() {
    for revision in ["a b".to_owned(), "a\nb".to_owned(), "é".to_owned(), "x".repeat(129)] {
        let response = v1::CheckRecipientsResponse { revision: revision.clone(), ..response(Vec::new()) };
        assert_eq!(RecipientsAnswer::try_from(response).unwrap_err().field, "revision", "{revision}");
        let response = v1::CheckConnectionResponse { revision, ..connection(None, 1) };
        assert_eq!(ConnectionAnswer::try_from(response).unwrap_err().field, "revision");
    }
}

#[test]
fn a_soft_bounce_that_is_not_known_bounces_nothing() {
    let route = |soft_bounce| v1::Route {
        digest: vec![3; 16],
        protocol: v1::Protocol::Lmtp.into(),
        upstreams: vec![v1::Upstream {
            host: "::1".to_owned(),
            port: 24,
            priority: 0,
            weight: 1,
            max_connections: 1,
        }],
        tls: Some(v1::UpstreamTls { mode: 1, implicit: false, server_name: None, ca_pem: None }),
        client_identity: v1::ClientIdentity::None.into(),
        soft_bounce,
    };
    for (sent, meant) in [
        (0, SoftBounce::Always),
        (1, SoftBounce::UntilFirstDelivery),
        (2, SoftBounce::Always),
        (3, SoftBounce::Never),
        (9, SoftBounce::Always),
    ] {
        assert_eq!(Route::try_from(route(sent)).unwrap().soft_bounce, meant, "{sent}");
    }
}
