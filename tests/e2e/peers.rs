//! The servers around the gateway, each by itself: a test that fails later can then only mean the gateway.

use torwart_tests::{
    Act, Client, HaProxy, Postfix, PostfixRole, Postgrey, SendProxy, SmtpSink, Step, Upstream, swaks,
};

#[test]
fn two_postfixes_hand_over_a_message() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let sender = Postfix::start(&PostfixRole::Sender { relay: mailbox.endpoint });
    let sent = swaks(sender.endpoint, "a@sender.example", "b@example.org", &[]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    sender.log(&["to=<b@example.org>", "status=sent"]);
    mailbox.log(&["to=<b@example.org>", "delivered to maildir"]);
    assert_eq!(mailbox.mailbox().len(), 1);
}

#[test]
fn the_upstream_keeps_every_octet_and_fails_where_it_is_told_to() {
    let upstream = Upstream::start();
    let mut client = Client::greeted(upstream.endpoint);
    let content = b"Subject: x\r\n\r\n.\r\n..a\r\nbare\nfeed\r\n\xff\r\n";
    assert_eq!(client.mail("a@b.example", &["c@example.org"], content).code, 250);
    let received = upstream.received();
    assert_eq!(received[0].content, content);
    assert_eq!(received[0].from, "a@b.example");
    upstream.fail_always(Step::Mail, Act::Say(b"451 4.3.0 no\r\n".to_vec()));
    assert_eq!(Client::greeted(upstream.endpoint).mail("a@b.example", &["c@example.org"], content).code, 451);
    upstream.close();
    assert!(Client::try_connect(upstream.endpoint, None).is_err());
    upstream.open();
    upstream.fail_always(Step::Dot, Act::KeepAndClose);
    let mut client = Client::greeted(upstream.endpoint);
    assert!(client.try_mail("a@b.example", &["c@example.org"], content).is_err());
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn haproxy_passes_a_connection_on() {
    let upstream = Upstream::start();
    let haproxy = HaProxy::start(upstream.endpoint, SendProxy::No);
    let mut client = Client::greeted(haproxy.endpoint);
    assert_eq!(client.mail("a@b.example", &["c@example.org"], b"\r\n").code, 250);
}

#[test]
fn smtp_sink_keeps_what_it_is_sent() {
    let sink = SmtpSink::start(&[]);
    assert_eq!(swaks(sink.endpoint, "a@sender.example", "b@example.org", &[]).code, 0);
    assert_eq!(sink.messages().len(), 1);
}

#[test]
fn a_postfix_with_postgrey_greylists() {
    let postgrey = Postgrey::start();
    let main = format!(
        "relay_domains = example.org\nmynetworks = 192.0.2.1\n\
         smtpd_relay_restrictions = permit_auth_destination, reject\n\
         smtpd_recipient_restrictions = check_policy_service inet:{}\n",
        postgrey.endpoint
    );
    let postfix = Postfix::start(&PostfixRole::Measured { main });
    let mut client = Client::greeted(postfix.endpoint);
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    let reply = client.ask(450, "RCPT TO:<bert@example.org>");
    assert!(reply.text().contains("Greylisted"), "{reply}");
}
