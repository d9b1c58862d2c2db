//! Greylisting as a sender meets it.

use torwart_tests::{Client, Gateway, PolicyFile, Reply, Upstream, client_address, eventually};

const ALWAYS: &str = "{mode: Always, delay: 1h}";

fn rcpt(client: &mut Client, from: &str, to: &str) -> Reply {
    client.ask(250, format!("MAIL FROM:<{from}>"));
    let reply = client.command(format!("RCPT TO:<{to}>"));
    client.ask(250, "RSET");
    reply
}

#[test]
fn postmaster_and_abuse_pass_at_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting(ALWAYS));
    for to in ["postmaster@example.org", "ABUSE@example.org"] {
        assert_eq!(gateway.client().mail("anna@sender.example", &[to], b"\r\n").code, 250, "{to}");
    }
    assert_eq!(rcpt(&mut gateway.client(), "anna@sender.example", "bert@example.org").code, 450);
}

#[test]
fn the_null_sender_is_deferred_at_data_so_that_call_outs_succeed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting(ALWAYS));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    let reply = client.ask(450, "DATA");
    assert_eq!(reply.enhanced(), "4.2.0", "{reply}");
    assert!(upstream.received().is_empty());
}

#[test]
fn an_early_retry_is_deferred_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting(ALWAYS));
    for _ in 0..3 {
        assert_eq!(rcpt(&mut gateway.client(), "anna@sender.example", "bert@example.org").code, 450);
    }
    let metrics = gateway.metrics();
    let count = |outcome| metrics.sum("torwart_greylist_total", &[("outcome", outcome)]);
    assert_eq!((count("new"), count("early"), count("passed")), (1.0, 2.0, 0.0));
}

#[test]
fn sender_recipient_and_network_make_the_triplet() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}"));
    let from = |network| Client::greeted_from(client_address(network), gateway.smtp);
    let passes = |n| rcpt(&mut from(n), "anna@sender.example", "bert@example.org").code == 250;
    eventually("it passes", || passes(1));
    assert_eq!(rcpt(&mut from(2), "anna@sender.example", "bert@example.org").code, 450, "another network");
    assert_eq!(rcpt(&mut from(1), "cora@sender.example", "bert@example.org").code, 450, "another sender");
    assert_eq!(rcpt(&mut from(1), "anna@sender.example", "dora@example.org").code, 450, "another recipient");
    assert!(passes(1), "what passed goes on passing");
}

#[test]
fn one_recipient_whose_time_has_come_takes_the_others_along() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}"));
    eventually("the first passes", || {
        rcpt(&mut gateway.client(), "anna@sender.example", "bert@example.org").code == 250
    });
    let mut client = gateway.client();
    client.send(
        "MAIL FROM:<anna@sender.example>\r\nRCPT TO:<cora@example.org>\r\nRCPT TO:<bert@example.org>\r\n",
    );
    for _ in 0..3 {
        client.expect(250);
    }
}

#[test]
fn monitor_lets_everything_pass_and_says_what_would_have_been() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting(ALWAYS).domain("enforcement: Monitor");
    let gateway = Gateway::start(&policy);
    assert_eq!(gateway.client().mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    let line = gateway.transaction("the message", |_| true);
    assert_eq!(
        (&line["enforced"], &line["recipients"][0]["greylist"]),
        (&false.into(), &"new".into()),
        "{line}"
    );
    let metrics = gateway.metrics();
    let would = metrics.sum("torwart_verdicts_total", &[("reason", "greylisted"), ("enforced", "false")]);
    assert_eq!(would, 1.0, "{}", metrics.text());
    // An open relay it is not, in no mode.
    assert_eq!(rcpt(&mut gateway.client(), "anna@sender.example", "user@other.example").code, 550);
}

#[test]
fn ip_ranges_say_who_waits() {
    let upstream = Upstream::start();
    let (allowed, deferred, refused) = (client_address(1), client_address(2), client_address(3));
    let ranges = format!(
        "ipRanges: [{{name: a, cidrs: [{allowed}/32], priority: 1, action: Allow}}, \
         {{name: d, cidrs: [{deferred}/32], priority: 1, action: Defer}}, \
         {{name: r, cidrs: [{refused}/32], priority: 1, action: Reject}}]"
    );
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting(ALWAYS).gateway(&ranges));
    let mut trusted = Client::greeted_from(allowed, gateway.smtp);
    assert_eq!(trusted.mail("anna@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    let mut waiting = Client::connect_from(deferred, gateway.smtp);
    if waiting.reply().code == 220 {
        waiting.ask(250, "EHLO client.sender.example");
        let reply = rcpt(&mut waiting, "anna@sender.example", "bert@example.org");
        assert!(reply.is_temporary(), "{reply}");
    }
    let mut barred = Client::connect_from(refused, gateway.smtp);
    barred.expect(554);
    barred.expect_close();
    assert_eq!(upstream.received().len(), 1);
}
