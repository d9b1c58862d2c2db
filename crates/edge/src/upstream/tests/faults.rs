use tokio::net::TcpListener;

use super::script::{EHLO, OK, Say};
use super::*;

type Row = (&'static str, Script, (&'static str, u16, (u8, u16, u16), Reason), Option<FailureKind>);

fn mk(change: impl FnOnce(&mut Script)) -> Script {
    let mut script = Script::default();
    change(&mut script);
    script
}

/// Each fault at each step.
fn rows() -> Vec<Row> {
    use FailureKind::{Closed, Protocol, Refused, Timeout};
    use Reason::{
        UpstreamDeferred as Deferred, UpstreamOutcomeUnknown as Unknown, UpstreamRejected as Rejected,
        UpstreamUnreachable as Unreachable,
    };
    let text = Say::Text;
    let configuration = |step| (step, 451, (4, 3, 5), Deferred);
    let nonsense = |step| (step, 451, (4, 5, 0), Deferred);
    let broken = |step| (step, 451, (4, 4, 2), Unreachable);
    let down = ("begin", 451, (4, 4, 1), Unreachable);
    let unknown = ("unknown", 451, (4, 4, 2), Unknown);
    vec![
        // banner
        ("banner 554", mk(|s| s.banner = text("554 no\r\n")), configuration("begin"), Some(Refused)),
        (
            "banner 421",
            mk(|s| s.banner = text("421 4.3.2 no\r\n")),
            ("begin", 451, (4, 3, 2), Deferred),
            Some(Refused),
        ),
        ("banner closed", mk(|s| s.banner = Say::Close), down, Some(Closed)),
        ("banner silence", mk(|s| s.banner = Say::Silence), down, Some(Timeout)),
        (
            "banner garbage",
            mk(|s| s.banner = text("SSH-2.0-OpenSSH_9\r\n")),
            nonsense("begin"),
            Some(Protocol),
        ),
        (
            "banner endless line",
            mk(|s| s.banner = Say::Endless("220-aaaaaaaaaaaaaaaa")),
            nonsense("begin"),
            Some(Protocol),
        ),
        (
            "banner endless lines",
            mk(|s| s.banner = Say::Endless("220-aaaa\r\n")),
            nonsense("begin"),
            Some(Protocol),
        ),
        (
            "banner twice",
            mk(|s| s.banner = text("220 a\r\n220 b\r\n250 c\r\n250 d\r\n")),
            nonsense("begin"),
            Some(Protocol),
        ),
        // EHLO
        ("EHLO 550", mk(|s| s.ehlo = text("550 no\r\n")), configuration("begin"), Some(Refused)),
        ("EHLO 421", mk(|s| s.ehlo = text("421 no\r\n")), ("begin", 451, (4, 3, 2), Deferred), Some(Refused)),
        ("EHLO closed", mk(|s| s.ehlo = Say::Close), down, Some(Closed)),
        ("EHLO silence", mk(|s| s.ehlo = Say::Silence), down, Some(Timeout)),
        ("EHLO endless", mk(|s| s.ehlo = Say::Endless("250-X\r\n")), nonsense("begin"), Some(Protocol)),
        // MAIL
        (
            "MAIL 550",
            mk(|s| s.mail = vec![text("550 5.1.8 no\r\n")]),
            ("begin", 550, (5, 1, 8), Rejected),
            None,
        ),
        (
            "MAIL 530",
            mk(|s| s.mail = vec![text("530 5.7.0 TLS first\r\n")]),
            configuration("begin"),
            Some(Refused),
        ),
        (
            "MAIL 451",
            mk(|s| s.mail = vec![text("451 4.7.1 later\r\n")]),
            ("begin", 451, (4, 7, 1), Deferred),
            None,
        ),
        (
            "MAIL 421",
            mk(|s| s.mail = vec![text("421 bye\r\n")]),
            ("begin", 451, (4, 3, 2), Deferred),
            Some(Refused),
        ),
        ("MAIL 354", mk(|s| s.mail = vec![text("354 what\r\n")]), nonsense("begin"), Some(Protocol)),
        ("MAIL closed", mk(|s| s.mail = vec![Say::Close]), broken("begin"), Some(Closed)),
        ("MAIL silence", mk(|s| s.mail = vec![Say::Silence]), broken("begin"), Some(Timeout)),
        // RCPT
        (
            "RCPT 550",
            mk(|s| s.rcpt = vec![("user", text("550 5.1.1 who\r\n"))]),
            ("rcpt", 550, (5, 1, 1), Rejected),
            None,
        ),
        (
            "RCPT 452",
            mk(|s| s.rcpt = vec![("user", text("452 full\r\n"))]),
            ("rcpt", 452, (4, 5, 3), Deferred),
            None,
        ),
        (
            "RCPT 501",
            mk(|s| s.rcpt = vec![("user", text("501 syntax\r\n"))]),
            configuration("begin"),
            Some(Refused),
        ),
        (
            "RCPT 421",
            mk(|s| s.rcpt = vec![("user", text("421 bye\r\n"))]),
            ("begin", 451, (4, 3, 2), Deferred),
            Some(Refused),
        ),
        (
            "RCPT 354",
            mk(|s| s.rcpt = vec![("user", text("354 what\r\n"))]),
            nonsense("begin"),
            Some(Protocol),
        ),
        ("RCPT closed", mk(|s| s.rcpt = vec![("user", Say::Close)]), broken("begin"), Some(Closed)),
        ("RCPT silence", mk(|s| s.rcpt = vec![("user", Say::Silence)]), broken("begin"), Some(Timeout)),
        (
            "RCPT garbage",
            mk(|s| s.rcpt = vec![("user", text("\x00\x01\x02\r\n"))]),
            nonsense("begin"),
            Some(Protocol),
        ),
        // DATA
        ("DATA 550", mk(|s| s.data = text("550 5.7.1 no\r\n")), configuration("data"), Some(Refused)),
        ("DATA 451", mk(|s| s.data = text("451 4.7.1 later\r\n")), configuration("data"), Some(Refused)),
        ("DATA 250", mk(|s| s.data = text("250 ok\r\n")), nonsense("data"), Some(Protocol)),
        (
            "DATA 354 and 250 at once",
            mk(|s| s.data = text("354 go on\r\n250 2.0.0 queued\r\n")),
            nonsense("dot"),
            Some(Protocol),
        ),
        (
            "DATA 354 and 552 at once",
            mk(|s| s.data = text("354 go on\r\n552 5.3.4 large\r\n")),
            ("dot", 552, (5, 3, 4), Rejected),
            None,
        ),
        ("DATA 421", mk(|s| s.data = text("421 bye\r\n")), ("data", 451, (4, 3, 2), Deferred), Some(Refused)),
        ("DATA closed", mk(|s| s.data = Say::Close), broken("data"), Some(Closed)),
        ("DATA silence", mk(|s| s.data = Say::Silence), broken("data"), Some(Timeout)),
        // the final dot
        ("dot 552", mk(|s| s.dot = text("552 5.3.4 large\r\n")), ("dot", 552, (5, 3, 4), Rejected), None),
        ("dot 554", mk(|s| s.dot = text("554 spam\r\n")), ("dot", 554, (5, 0, 0), Rejected), None),
        ("dot 500", mk(|s| s.dot = text("500 what\r\n")), configuration("dot"), Some(Refused)),
        ("dot 556", mk(|s| s.dot = text("556 what\r\n")), configuration("dot"), Some(Refused)),
        ("dot 450", mk(|s| s.dot = text("450 4.7.1 later\r\n")), ("dot", 450, (4, 7, 1), Deferred), None),
        (
            "dot 421",
            mk(|s| s.dot = Say::Last("421 bye\r\n")),
            ("dot", 451, (4, 3, 2), Deferred),
            Some(Refused),
        ),
        ("dot 354", mk(|s| s.dot = text("354 again\r\n")), nonsense("dot"), Some(Protocol)),
        ("dot closed", mk(|s| s.dot = Say::Close), unknown, Some(Closed)),
        ("dot silence", mk(|s| s.dot = Say::Silence), unknown, Some(Timeout)),
        ("dot garbage", mk(|s| s.dot = text("\x00\x01\r\n")), unknown, Some(Protocol)),
        ("dot endless", mk(|s| s.dot = Say::Endless("250-ok\r\n")), unknown, Some(Protocol)),
    ]
}

#[tokio::test]
async fn a_fault_at_any_step_is_heard_counted_and_ends_the_connection() {
    for (name, script, expected, failure) in rows() {
        let (_server, route) = mk_server(vec![script]).await;
        let world = World::new();
        let limit =
            if name.ends_with("silence") { Duration::from_millis(150) } else { Duration::from_secs(20) };
        let outcome = world.deliver_within(&route, &[RECIPIENT], BODY, limit).await;
        assert_eq!(outcome.heard(), expected, "{name}: {outcome:?}");
        assert_eq!(world.failures(), Vec::from_iter(failure.map(|kind| (kind, 1))), "{name}");
        world.eventually(|world| world.active() == 0).await;
        let kept = matches!(name, "dot 450" | "RCPT 452");
        world.eventually(|world| world.idle() == i64::from(kept)).await;
    }
}

#[tokio::test]
async fn the_clients_text_is_never_the_upstreams() {
    for (name, script, ..) in rows() {
        if name.ends_with("silence") {
            continue;
        }
        let (server, route) = mk_server(vec![script]).await;
        let (text, said) = match World::new().deliver(&route).await {
            Outcome::Begin(refusal) | Outcome::Data(refusal) | Outcome::Body(refusal) => {
                (refusal.reply.text, refusal.upstream_reply.unwrap_or_default())
            }
            Outcome::Final(Final::Refused(refusal) | Final::Unknown(refusal)) => {
                assert_eq!(refusal.upstream, Some(server.address.to_string()), "{name}");
                (refusal.reply.text, refusal.upstream_reply.unwrap_or_default())
            }
            Outcome::Recipients(replies) => {
                (replies[0].client_reply.text.clone(), replies[0].upstream_reply.clone())
            }
            Outcome::Final(Final::Accepted { upstream_reply }) => panic!("{name} passed: {upstream_reply}"),
        };
        assert!(text.contains("ail server") || text.contains("by the mail"), "{name}: {text}");
        assert!(
            !said.is_empty() && said.chars().count() <= 400 && !said.contains(char::is_control),
            "{name}: {said}"
        );
    }
}

#[tokio::test]
async fn a_refused_recipient_leaves_the_others_their_own_answers() {
    let script = mk(|s| {
        s.rcpt = vec![
            ("unknown", Say::Text("550 5.1.1 who\r\n")),
            ("full", Say::Text("452 4.2.2 full\r\n")),
            ("odd", Say::Text("503 5.5.1 bad sequence\r\n")),
        ];
    });
    let (server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let recipients = ["unknown@example.org", "user@example.org", "full@example.org", "odd@example.org"];
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut relay, replies) =
        world.upstreams.begin(&route, &mk_mail(), &recipients, deadline).await.unwrap();
    let codes: Vec<_> = replies.iter().map(|reply| (reply.accepted, reply.client_reply.code)).collect();
    assert_eq!(codes, [(false, 550), (true, 250), (false, 452), (false, 451)]);
    assert_eq!(replies[0].upstream_reply, "550 5.1.1 who");
    let more = relay.recipients(&["unknown2@example.org", "user2@example.org"], deadline).await.unwrap();
    assert_eq!(more.iter().map(|reply| reply.accepted).collect::<Vec<_>>(), [false, true]);
    relay.data(deadline).await.unwrap();
    relay.body(BODY, None).await.unwrap();
    assert!(matches!(relay.finish(deadline).await, Final::Accepted { .. }));
    assert_eq!(server.seen().messages, [BODY]);
    assert_eq!(world.failures(), [(FailureKind::Refused, 1)]);
    assert_eq!(world.idle(), 0, "a connection that heard a 5xx is not used again");
}

#[tokio::test]
async fn a_relay_with_every_recipient_refused_takes_more() {
    let script = mk(|s| s.rcpt = vec![("unknown", Say::Text("550 5.1.1 who\r\n"))]);
    let (_server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut relay, replies) =
        world.upstreams.begin(&route, &mk_mail(), &["unknown@example.org"], deadline).await.unwrap();
    assert!(!replies[0].accepted);
    assert!(relay.recipients(&[RECIPIENT], deadline).await.unwrap()[0].accepted);
}

#[tokio::test]
async fn after_a_fault_every_step_gives_the_same_error() {
    let script = mk(|s| s.rcpt = vec![("last", Say::Close)]);
    let (_server, route) = mk_server(vec![script]).await;
    let world = World::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut relay, _) = world.begin(&route).await.unwrap();
    let first = relay.recipients(&["last@example.org"], deadline).await.unwrap_err();
    assert_eq!(relay.recipients(&[RECIPIENT], deadline).await.unwrap_err(), first);
    assert_eq!(relay.data(deadline).await.unwrap_err(), first);
    assert_eq!(relay.body(BODY, None).await.unwrap_err(), first);
    assert_eq!(relay.finish(deadline).await, Final::Refused(first));
    assert_eq!(world.failures(), [(FailureKind::Closed, 1)]);
}

#[tokio::test]
async fn an_upstream_without_pipelining_is_asked_one_by_one() {
    let script = mk(|s| s.ehlo = Say::Text("250-mx.example\r\n250 8BITMIME\r\n"));
    let (server, route) = mk_server(vec![script]).await;
    let world = World::new();
    world.deliver_to(&route, &["a@example.org", "b@example.org"], BODY).await.assert_accepted();
    let seen = server.seen();
    assert_eq!(seen.commands[1], "MAIL FROM:<sender@example.com> BODY=8BITMIME");
    for read in &seen.reads {
        assert!(
            read.ends_with(b".\r\n") || read.iter().filter(|byte| **byte == b'\n').count() == 1,
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn a_refusing_upstream_hands_over_to_the_next() {
    let refusing = [
        mk(|s| s.banner = Say::Text("554 no\r\n")),
        mk(|s| s.ehlo = Say::Text("550 no\r\n")),
        mk(|s| s.mail = vec![Say::Text("530 5.7.0 no\r\n")]),
        mk(|s| s.mail = vec![Say::Text("421 bye\r\n")]),
        mk(|s| s.mail = vec![Say::Close]),
        mk(|s| s.rcpt = vec![("user", Say::Text("503 no\r\n"))]),
    ];
    for script in refusing {
        let first = Server::start(vec![script]).await;
        let second = Server::start(vec![Script::default()]).await;
        let third = Upstream { priority: 2, ..mk_upstream(mk_closed_port().await) };
        let upstreams =
            vec![third, Upstream { priority: 1, ..mk_upstream(second.address) }, mk_upstream(first.address)];
        let world = World::new();
        world.deliver(&mk_route(upstreams, mk_tls(TlsMode::Disabled))).await.assert_accepted();
        assert_eq!(first.seen().connections, 1);
        assert_eq!(second.seen().messages, [BODY]);
    }
}

#[tokio::test]
async fn a_5xx_that_is_the_senders_or_the_recipients_stays_with_its_upstream() {
    for script in [
        mk(|s| s.mail = vec![Say::Text("550 no\r\n")]),
        mk(|s| s.mail = vec![Say::Text("450 no\r\n")]),
        mk(|s| s.rcpt = vec![("user", Say::Text("550 no\r\n"))]),
    ] {
        let first = Server::start(vec![script]).await;
        let second = Server::start(vec![Script::default()]).await;
        let upstreams =
            vec![mk_upstream(first.address), Upstream { priority: 1, ..mk_upstream(second.address) }];
        let outcome = World::new().deliver(&mk_route(upstreams, mk_tls(TlsMode::Disabled))).await;
        assert!(outcome.heard().1 >= 450, "{outcome:?}");
        assert_eq!(second.seen().connections, 0);
    }
}

#[tokio::test]
async fn when_all_are_down_it_is_451_4_4_1() {
    let upstreams = vec![mk_upstream(mk_closed_port().await), mk_upstream(mk_closed_port().await)];
    let world = World::new();
    let outcome = world.deliver(&mk_route(upstreams, mk_tls(TlsMode::Opportunistic))).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 4, 1), Reason::UpstreamUnreachable));
    assert_eq!(world.failures(), [(FailureKind::Connect, 2)]);
    assert_eq!((world.active(), world.idle()), (0, 0));
}

#[tokio::test]
async fn a_name_is_resolved_and_one_that_is_not_there_is_down() {
    let server = Server::start(vec![Script::default()]).await;
    let named = |name: &str| Upstream { host: Host::Name(name.into()), ..mk_upstream(server.address) };
    let world =
        World::with(UpstreamSettings { resolve: Duration::from_secs(2), ..UpstreamSettings::default() });
    world.deliver(&mk_route(vec![named("localhost")], mk_tls(TlsMode::Disabled))).await.assert_accepted();
    let outcome =
        world.deliver(&mk_route(vec![named("no-such-host.invalid")], mk_tls(TlsMode::Disabled))).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 4, 1), Reason::UpstreamUnreachable));
    assert_eq!(world.metrics.failures(FailureKind::Dns), 1);
}

/// RFC 6761 section 6.3: the name has one address of each family, and a server is at one of them.
#[tokio::test]
async fn every_address_of_a_name_is_tried_of_either_family() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address).await else {
            assert!(address.starts_with('['), "only IPv6 may be missing");
            eprintln!("SKIPPED: there is no IPv6 here");
            continue;
        };
        let server = Server::serve(listener, vec![Script::default()]);
        let host = Host::Name("mail.localhost".into());
        let upstream = Upstream { host, ..mk_upstream(server.address) };
        let world = World::new();
        world.deliver(&mk_route(vec![upstream], mk_tls(TlsMode::Disabled))).await.assert_accepted();
        assert_eq!(server.seen().messages.len(), 1, "{address}");
    }
}

#[tokio::test]
async fn a_route_without_an_upstream_is_a_fault_of_the_configuration() {
    let outcome = World::new().deliver(&mk_route(Vec::new(), mk_tls(TlsMode::Disabled))).await;
    assert_eq!(outcome.heard(), ("begin", 451, (4, 3, 5), Reason::UpstreamDeferred));
}

const UNSPEAKABLE: (u16, (u8, u16, u16), Reason) = (550, (5, 6, 7), Reason::UpstreamRejected);

/// RFC 6531 section 3.5.
#[tokio::test]
async fn mail_that_needs_smtputf8_is_not_sent_without_it() {
    let (server, route) = mk_server(vec![Script::default()]).await;
    let world = World::new();
    let limit = Duration::from_secs(20);
    let umlaut = MailFacts { sender: "\u{fc}@example.com".into(), ..mk_mail() };
    let declared = MailFacts { smtputf8: true, ..mk_mail() };
    for mail in [umlaut, declared] {
        let outcome = world.deliver_mail(&route, &mail, &[RECIPIENT], BODY, limit).await;
        let (code, enhanced, reason) = UNSPEAKABLE;
        assert_eq!(outcome.heard(), ("begin", code, enhanced, reason), "{mail:?}");
    }
    assert!(!server.seen().commands.iter().any(|command| command.starts_with("MAIL")));

    // Without SMTPUTF8 at MAIL, no path may go beyond ASCII, whatever is offered; the others are none the worse for it.
    let offer = Script { ehlo: Say::Text(EHLO_UTF8), ..Script::default() };
    let rows = [
        (Script::default(), "MAIL FROM:<sender@example.com> SIZE=100 BODY=8BITMIME"),
        (offer, "MAIL FROM:<sender@example.com> SIZE=100"),
    ];
    for (script, mail_line) in rows {
        let (server, route) = mk_server(vec![script]).await;
        let recipients = ["\u{fc}ser@example.org", RECIPIENT];
        let begun = world.upstreams.begin(&route, &mk_mail(), &recipients, Instant::now() + limit).await;
        let (_relay, replies) = begun.unwrap();
        let heard = (replies[0].client_reply.code, replies[0].client_reply.enhanced, replies[0].reason);
        assert_eq!((heard, replies[1].accepted), (UNSPEAKABLE, true));
        let commands = server.seen().commands;
        assert_eq!(commands[1..], [mail_line, "RCPT TO:<user@example.org>"]);
    }
}

/// One of a route's servers without it, or out of reach, makes nobody's mail bounce that another may take.
#[tokio::test]
async fn mail_that_needs_smtputf8_goes_to_whoever_takes_it_and_waits_for_who_might() {
    let world = World::new();
    let limit = Duration::from_secs(20);
    let mail = MailFacts { smtputf8: true, ..mk_mail() };
    let without = || vec![Script::default()];
    let with = || vec![Script { ehlo: Say::Text(EHLO_UTF8), ..Script::default() }];
    let (_first, one) = mk_server(without()).await;
    let (_second, other) = mk_server(with()).await;
    let both = |routes: [&Route; 2]| {
        let mut route = routes[0].clone();
        route.upstreams = routes.iter().flat_map(|route| route.upstreams.clone()).collect();
        for (priority, upstream) in (0..).zip(&mut route.upstreams) {
            upstream.priority = priority;
        }
        Arc::new(route)
    };
    world.deliver_mail(&both([&one, &other]), &mail, &[RECIPIENT], BODY, limit).await.assert_accepted();

    let away = mk_route(vec![mk_upstream(mk_closed_port().await)], mk_tls(TlsMode::Opportunistic));
    for route in [both([&one, &away]), both([&away, &one])] {
        let outcome = world.deliver_mail(&route, &mail, &[RECIPIENT], BODY, limit).await;
        let (stage, code, ..) = outcome.heard();
        assert_eq!((stage, code), ("begin", 451));
    }

    // It refuses EHLO, and what it could do is not known.
    let script = Script { ehlo: Say::Text("502 5.5.1 no\r\n"), ..Script::default() };
    let (_old, old) = mk_server(vec![script]).await;
    let outcome = world.deliver_mail(&old, &mail, &[RECIPIENT], BODY, limit).await;
    let (stage, code, ..) = outcome.heard();
    assert_eq!((stage, code), ("begin", 451));
}

#[tokio::test]
async fn mail_that_needs_smtputf8_says_so_where_it_is_offered() {
    let (server, route) = mk_server(vec![Script { ehlo: Say::Text(EHLO_UTF8), ..Script::default() }]).await;
    let world = World::new();
    let limit = Duration::from_secs(20);
    let mail = MailFacts { sender: "\u{fc}@example.com".into(), smtputf8: true, ..mk_mail() };
    world.deliver_mail(&route, &mail, &["\u{fc}ser@example.org"], BODY, limit).await.assert_accepted();
    let commands = server.seen().commands;
    assert_eq!(commands[1], "MAIL FROM:<\u{fc}@example.com> SIZE=100 SMTPUTF8", "8BITMIME is not offered");
    assert_eq!(commands[2], "RCPT TO:<\u{fc}ser@example.org>");
}

const EHLO_UTF8: &str = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 SMTPUTF8\r\n";

#[test]
fn the_scripts_own_replies_are_what_a_server_says() {
    assert!(matches!(OK, Say::Text(text) if text.starts_with("250")));
    assert!(EHLO.lines().all(|line| line.starts_with("250")));
}
