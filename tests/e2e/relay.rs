//! Never an open relay.

use torwart_tests::{Client, Gateway, PolicyFile, Upstream};

/// Everything that once opened a relay somewhere. None may reach a mail server.
const FOREIGN: [&str; 32] = [
    "user@other.example",
    "<user@other.example>",
    "user%other.example@example.org",
    "user%other.example%example.org@example.org",
    "user%other.example@mx.example.net",
    "user%other.example@[127.0.0.1]",
    "user%other.example",
    "other.example!user",
    "other.example!user@example.org",
    "example.org!other.example!user@example.org",
    "user@other.example@example.org",
    "user@example.org@other.example",
    "\"user@other.example\"@example.org",
    "\"user@other.example\"",
    "\"user%other.example\"@example.org",
    "\"other.example!user\"@example.org",
    "\"user\"@other.example",
    "user@[127.0.0.1]",
    "user@[203.0.113.1]",
    "user@[IPv6:::1]",
    "user@[example.org]",
    "user@127.0.0.1",
    "user@localhost",
    "user@mx.example.net",
    "user@other.example.",
    "user@example.org.other.example",
    "user@otherexample.org",
    "user@sub.example.org",
    "user@.example.org",
    "user",
    "postmaster@other.example",
    "",
];

/// The source routes go into the path whole (RFC 5321 section 4.1.1.3: dropped, never followed).
const ROUTED: [&str; 4] = [
    "@example.org:user@other.example",
    "@example.org,@example.net:user@other.example",
    "@mx.example.net:user@other.example",
    "@[127.0.0.1]:user@other.example",
];

const SENDERS: [&str; 6] = [
    "anna@sender.example",
    "",
    "root@example.org",
    "anna@mx.example.net",
    "anna@localhost",
    "anna@[127.0.0.1]",
];

fn battery(gateway: &Gateway, upstream: &Upstream) {
    for sender in SENDERS {
        for recipient in FOREIGN.iter().chain(&ROUTED) {
            let mut client = Client::greeted(gateway.smtp);
            let mail = client.command(format!("MAIL FROM:<{sender}>"));
            let reply = client.command(format!("RCPT TO:<{recipient}>"));
            assert!(reply.code >= 500, "<{sender}> ({mail}) to <{recipient}> heard {reply}");
            let data = client.command("DATA");
            assert!(data.code >= 500, "DATA after <{recipient}> heard {data}");
        }
    }
    assert_eq!(upstream.accepted(), 0, "something made it open a connection");
}

#[test]
fn no_recipient_but_a_policys_own_is_accepted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    battery(&gateway, &upstream);
}

#[test]
fn a_trusted_client_range_relays_nothing_either() {
    let upstream = Upstream::start();
    let ranges = "ipRanges: [{name: trusted, cidrs: [\"127.0.0.0/8\"], priority: 1, action: Allow}]";
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).gateway(ranges));
    battery(&gateway, &upstream);
}

#[test]
fn routed_local_parts_have_their_own_reply() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    for recipient in [
        "user%other.example@example.org",
        "other.example!user@example.org",
        "\"user@other.example\"@example.org",
    ] {
        let mut client = gateway.client();
        client.ask(250, "MAIL FROM:<anna@sender.example>");
        let reply = client.ask(553, format!("RCPT TO:<{recipient}>"));
        assert_eq!(reply.enhanced(), "5.1.3", "{reply}");
    }
}

#[test]
fn a_trailing_dot_names_no_other_domain() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    let reply = client.command("RCPT TO:<user@example.org.>");
    assert!(reply.code >= 500, "{reply}");
    assert_eq!(upstream.accepted(), 0);
}

#[test]
fn a_source_route_to_our_own_domain_is_dropped() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let to = ["@relay.example,@example.net:bert@example.org"];
    assert_eq!(gateway.client().mail("anna@sender.example", &to, b"\r\n").code, 250);
    assert_eq!(upstream.received()[0].to, ["bert@example.org"]);
}

#[test]
fn our_own_recipients_are_accepted_in_every_spelling() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::start(&PolicyFile::to(upstream.endpoint).domains(&["example.org", "*.lists.example.org"]));
    let own = [
        "user@example.org",
        "USER@EXAMPLE.ORG",
        "\"us er\"@example.org",
        "a+b@example.org",
        "x@some.lists.example.org",
    ];
    for recipient in own {
        assert_eq!(gateway.client().mail("", &[recipient], b"\r\n").code, 250, "{recipient}");
    }
    let to: Vec<String> = upstream.received().into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(to, own);
}

#[test]
fn the_bare_postmaster_goes_to_the_gateways_postmaster() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    assert_eq!(gateway.client().mail("anna@sender.example", &["Postmaster"], b"\r\n").code, 250);
    assert_eq!(upstream.received()[0].to, ["postmaster@example.org"]);
}
