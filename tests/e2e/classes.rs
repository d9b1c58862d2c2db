//! Delivery classes: a transaction goes one way. Who is to go another way hears 452 after the verdict about it, and the
//! sender brings it again.

use std::net::SocketAddr;

use serde_json::Value;
use torwart_tests::{Brand, Client, Gateway, MailServer, PolicyFile, Reply, Upstream, eventually, swaks};

/// Another MailDomain, with its own lines of `spec`.
fn document(domain: &str, upstream: SocketAddr, spec: &[&str]) -> String {
    let (name, host, port) = (domain.replace('.', "-"), upstream.ip(), upstream.port());
    let spec: String = spec.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: {name}, namespace: mail}}\nspec:\n\
         \x20 gatewayRef: {{name: default}}\n  domains: [{domain}]\n{spec}\
         \x20 route: {{upstreams: [{{host: \"{host}\", port: {port}, maxConnections: 50}}]}}\n"
    )
}

fn also(mut policy: PolicyFile, domain: &str, upstream: SocketAddr, spec: &[&str]) -> PolicyFile {
    policy.more.push_str(&document(domain, upstream, spec));
    policy
}

const OFF: &str = "greylisting: {mode: Off}";

#[track_caller]
fn rcpt(client: &mut Client, to: &str, code: u16, enhanced: &str) -> Reply {
    let reply = client.ask(code, format!("RCPT TO:<{to}>"));
    assert_eq!(reply.enhanced(), enhanced, "{to}: {reply}");
    reply
}

/// Who was in one of the transactions of the log, with the code that each heard.
fn codes(line: &Value) -> Vec<(String, u64)> {
    let recipients = line["recipients"].as_array().unwrap().iter();
    recipients
        .map(|recipient| (recipient["to"].as_str().unwrap().to_owned(), recipient["code"].as_u64().unwrap()))
        .collect()
}

/// One message for two recipients whose mail goes two ways, in the queue of a mail server that people have.
fn both_get_their_mail_once(brand: Brand) {
    let (one, two) = (Upstream::start(), Upstream::start());
    let policy = also(PolicyFile::to(one.endpoint), "example.net", two.endpoint, &[OFF]);
    let gateway = Gateway::start(&policy);
    let sender = MailServer::sender(brand, gateway.smtp);
    let to = "bert@example.org,cora@example.net";
    let sent = swaks(sender.endpoint, "anna@sender.example", to, &["--body", "for both"]);
    assert_eq!(sent.code, 0, "{}", sent.text);

    // The sender's choice which comes first; the other is told to come again.
    let first = gateway.transaction("with both", |line| codes(line).len() == 2);
    let heard: Vec<u64> = codes(&first).iter().map(|(_, code)| *code).collect();
    assert_eq!(heard, [250, 452], "{first}");
    assert_eq!(first["recipients"][1]["reason"], "other_class", "{first}");
    eventually("both have come", || {
        sender.flush();
        one.received().len() + two.received().len() >= 2
    });
    // Nothing is left in its queue that could come once more.
    let delivered = |line: &str| is_delivered(brand, line).then_some(());
    assert_eq!(sender.lines().wait_count(2, "delivered", delivered).len(), 2);
    let second = gateway.transaction("with the other", |line| codes(line).len() == 1);
    assert_eq!(codes(&second)[0].0, codes(&first)[1].0, "{second}");
    sender.flush();
    for (upstream, recipient) in [(&one, "bert@example.org"), (&two, "cora@example.net")] {
        let received = upstream.received();
        let to: Vec<&[String]> = received.iter().map(|mail| mail.to.as_slice()).collect();
        assert_eq!(to, [[recipient]]);
        assert!(String::from_utf8_lossy(&received[0].content).contains("for both"));
    }
    assert_eq!(gateway.transactions().len(), 2);
}

fn is_delivered(brand: Brand, line: &str) -> bool {
    match brand {
        Brand::Postfix => line.contains("status=sent"),
        Brand::Exim => line.contains(" => ") || line.contains(" -> "),
        Brand::OpenSmtpd => line.contains("mta delivery") && line.contains("result=\"Ok\""),
    }
}

#[test]
fn a_postfix_brings_two_classes_one_after_the_other() {
    both_get_their_mail_once(Brand::Postfix);
}

#[test]
fn an_exim_brings_two_classes_one_after_the_other() {
    both_get_their_mail_once(Brand::Exim);
}

#[test]
fn an_opensmtpd_brings_two_classes_one_after_the_other() {
    both_get_their_mail_once(Brand::OpenSmtpd);
}

#[test]
fn domains_with_equal_policy_on_one_upstream_share_a_transaction() {
    let upstream = Upstream::start();
    let mut policy = PolicyFile::to(upstream.endpoint);
    let domains: Vec<String> = (0..20).map(|n| format!("d{n}.example")).collect();
    for domain in &domains {
        policy = also(policy, domain, upstream.endpoint, &[OFF]);
    }
    let gateway = Gateway::start(&policy);
    let to: Vec<String> = domains.iter().map(|domain| format!("bert@{domain}")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).chain(["bert@example.org"]).collect();
    assert_eq!(gateway.client().mail("anna@sender.example", &to, b"\r\n").code, 250);
    let received = upstream.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].to, to);
}

#[test]
fn each_difference_in_the_way_or_in_what_a_message_is_judged_by_is_another_class() {
    let (upstream, elsewhere) = (Upstream::start(), Upstream::start());
    let same = upstream.endpoint;
    let mut policy = PolicyFile::to(same);
    // What differs only before the message's content is seen is no other class.
    policy = also(policy, "same.example", same, &[OFF, "recipients: {exempt: [postmaster]}"]);
    policy = also(policy, "grey.example", same, &["greylisting: {mode: Suspicious, delay: 1h}"]);
    policy = also(policy, "elsewhere.example", elsewhere.endpoint, &[OFF]);
    policy = also(policy, "scored.example", same, &[OFF, "scoring: {rejectAt: 7}"]);
    policy = also(policy, "monitored.example", same, &[OFF, "enforcement: Monitor"]);
    policy = also(policy, "soft.example", same, &[OFF]);
    policy.more = policy.more.trim_end().trim_end_matches('}').to_owned() + ", softBounce: Always}\n";
    let gateway = Gateway::start(&policy);
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(250, "RCPT TO:<bert@same.example>");
    client.ask(250, "RCPT TO:<postmaster@grey.example>");
    for domain in ["elsewhere.example", "scored.example", "monitored.example", "soft.example"] {
        rcpt(&mut client, &format!("bert@{domain}"), 452, "4.5.3");
    }
    // Each alone is welcome.
    for domain in ["elsewhere.example", "scored.example", "monitored.example", "soft.example"] {
        client.ask(250, "RSET");
        client.ask(250, "MAIL FROM:<anna@sender.example>");
        client.ask(250, format!("RCPT TO:<bert@{domain}>"));
    }
}

/// A bound transaction of `example.org`, and another domain that greylists.
fn bound(delay: &str) -> (Upstream, Upstream, Gateway) {
    let (one, two) = (Upstream::start(), Upstream::start());
    let greylisting = format!("greylisting: {{mode: Always, delay: {delay}}}");
    let spec = [greylisting.as_str(), "recipients: {deny: [nobody]}"];
    let policy = also(PolicyFile::to(one.endpoint), "grey.example", two.endpoint, &spec);
    let gateway = Gateway::start(&policy);
    (one, two, gateway)
}

#[test]
fn a_recipient_of_another_class_hears_its_own_verdict_first() {
    let (_one, two, gateway) = bound("1h");
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    rcpt(&mut client, "nobody@grey.example", 550, "5.1.1");
    rcpt(&mut client, "cora@grey.example", 450, "4.2.0");
    rcpt(&mut client, "user@other.example", 550, "5.7.1");
    // Exempt from greylisting, so that only the class stands against it.
    rcpt(&mut client, "postmaster@grey.example", 452, "4.5.3");
    client.ask(354, "DATA");
    assert_eq!(client.try_content(b"\r\n").unwrap().code, 250);
    assert_eq!(two.accepted(), 0);
}

#[test]
fn greylisting_runs_for_a_recipient_of_another_class() {
    let (_one, two, gateway) = bound("1s");
    let attempt = || {
        let mut client = gateway.client();
        client.ask(250, "MAIL FROM:<anna@sender.example>");
        client.ask(250, "RCPT TO:<bert@example.org>");
        client.command("RCPT TO:<cora@grey.example>").code
    };
    assert_eq!(attempt(), 450);
    // It waited while it was tried in the wrong company, and has nothing to wait for when it comes alone.
    eventually("only the class stands against it", || attempt() == 452);
    assert_eq!(gateway.client().mail("anna@sender.example", &["cora@grey.example"], b"\r\n").code, 250);
    assert_eq!(two.received().len(), 1);
}

#[test]
fn the_first_that_the_upstream_accepts_decides_the_class() {
    let (one, two) = (Upstream::start(), Upstream::start());
    one.unknown_recipient("nobody@example.org");
    let policy = PolicyFile::to(one.endpoint).route("softBounce: Never");
    let gateway = Gateway::start(&also(policy, "example.net", two.endpoint, &[OFF]));
    // One by one, and all at once.
    for pipelined in [false, true] {
        let mut client = gateway.client();
        let commands = [
            ("MAIL FROM:<anna@sender.example>", 250),
            ("RCPT TO:<nobody@example.org>", 550),
            ("RCPT TO:<cora@example.net>", 250),
            ("RCPT TO:<bert@example.org>", 452),
            ("RCPT TO:<dora@example.net>", 250),
            ("DATA", 354),
        ];
        if pipelined {
            client.send(commands.map(|(command, _)| format!("{command}\r\n")).concat());
            commands.iter().for_each(|(_, code)| drop(client.expect(*code)));
        } else {
            commands.iter().for_each(|(command, code)| drop(client.ask(*code, command)));
        }
        assert_eq!(client.try_content(b"\r\n").unwrap().code, 250);
    }
    assert!(one.received().is_empty());
    let received = two.received();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|mail| mail.to == ["cora@example.net", "dora@example.net"]));
}
