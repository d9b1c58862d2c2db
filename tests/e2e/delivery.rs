//! A sending Postfix with its own queue, the gateway with the policy that the documentation starts with, and the
//! Postfix that the site already had.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;

use torwart_tests::{Gateway, PolicyFile, Postfix, PostfixRole, swaks, without_added_fields};

/// The example, with this test's mail server in it and a delay that a test can wait for.
fn quickstart(mailbox: SocketAddr) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s/examples/quickstart.yaml");
    let text = fs::read_to_string(path).unwrap();
    let mut replaced = [false; 3];
    let lines = text.lines().map(|line| {
        let line = replace_value(line, "host:", &mailbox.ip().to_string(), &mut replaced[0]);
        let line = replace_value(&line, "port:", &mailbox.port().to_string(), &mut replaced[1]);
        replace_value(&line, "delay:", "2s", &mut replaced[2]) + "\n"
    });
    let text = lines.collect();
    assert_eq!(replaced, [true; 3], "host, port and delay are in the example: {text}");
    text
}

/// Changes the value after `key` in a line of YAML, up to a comma, a brace or the end.
fn replace_value(line: &str, key: &str, value: &str, replaced: &mut bool) -> String {
    let comment = line.find('#').unwrap_or(line.len());
    let Some(start) = line[..comment].find(key).map(|at| at + key.len()) else { return line.to_owned() };
    let end = line[start..comment].find([',', '}']).map_or(comment, |length| start + length);
    *replaced = true;
    format!("{} {value}{}", &line[..start], &line[end..])
}

#[test]
fn a_postfix_delivers_through_it_after_one_deferral_exactly_once() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let gateway = Gateway::builder().start(&quickstart(mailbox.endpoint));
    let sender = Postfix::start(&PostfixRole::Sender { relay: gateway.smtp });

    let sent =
        swaks(sender.endpoint, "anna@sender.example", "bert@example.org", &["--header", "Subject: once"]);
    assert_eq!(sent.code, 0, "{}", sent.text);

    let deferral = sender.log(&["to=<bert@example.org>", "status=deferred"]);
    assert!(deferral.contains("450 4.2.0"), "{deferral}");
    assert!(mailbox.mailbox().is_empty());
    let delivery = sender.log(&["to=<bert@example.org>", "status=sent"]);
    assert!(delivery.contains("250 "), "{delivery}");
    mailbox.log(&["to=<bert@example.org>", "delivered to maildir"]);

    let mails = mailbox.mailbox();
    assert_eq!(mails.len(), 1);
    assert_eq!(sender.count(&["to=<bert@example.org>", "status=sent"]), 1);
    let text = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(text.contains("Subject: once"), "{text}");
    assert!(text.contains("X-Torwart-Id: "), "{text}");

    let first = gateway.transaction("deferred", |line| line["action"] == "defer");
    assert_eq!(first["recipients"][0]["greylist"], "new", "{first}");
    let last = gateway.transaction("accepted", |line| line["action"] == "accept");
    assert_eq!(last["recipients"][0]["greylist"], "passed", "{last}");
    assert_eq!(gateway.metrics().sum("torwart_messages_total", &[]), 1.0);
}

#[test]
fn many_messages_through_two_postfixes_all_arrive_once() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let policy = PolicyFile::to(mailbox.endpoint).greylisting("{mode: Always, delay: 2s}");
    let gateway = Gateway::start(&policy);
    let sender = Postfix::start(&PostfixRole::Sender { relay: gateway.smtp });
    let server = sender.endpoint.to_string();
    let count = 100;
    let sent = torwart_tests::tool(
        "smtp-source",
        &[
            "-m",
            &count.to_string(),
            "-s",
            "5",
            "-f",
            "list@sender.example",
            "-t",
            "bert@example.org",
            "-N",
            &server,
        ],
    );
    assert_eq!(sent.code, 0, "{}", sent.text);
    let delivered = |line: &str| {
        let to = line.split_once("to=<")?.1.split_once('>')?.0.to_owned();
        line.contains("delivered to maildir").then_some(to)
    };
    // smtp-source numbers the recipients, with a gap now and then.
    let recipients: HashSet<String> =
        mailbox.lines().wait_count(count, "delivered", delivered).into_iter().collect();
    assert_eq!(recipients.len(), count);
    assert_eq!(mailbox.mailbox().len(), count);
    assert_eq!(sender.count(&["status=bounced"]), 0);
}

#[test]
fn a_recipient_that_the_mail_server_does_not_know_bounces_at_the_sender() {
    let upstream = torwart_tests::Upstream::start();
    upstream.unknown_recipient("nobody@example.org");
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).route("softBounce: Never"));
    let sender = Postfix::start(&PostfixRole::Sender { relay: gateway.smtp });
    assert_eq!(swaks(sender.endpoint, "anna@sender.example", "nobody@example.org", &[]).code, 0);
    let line = sender.log(&["to=<nobody@example.org>", "status=bounced"]);
    assert!(line.contains("550 5.1.1"), "{line}");
}

#[test]
fn what_arrives_is_what_was_sent_with_our_fields_on_top() {
    let upstream = torwart_tests::Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let contents: [&[u8]; 6] = [
        b"",
        b"\r\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n",
        b"no header at all\r\n",
        b"Subject: \xff\xfe\r\n\r\n8 bit \xe4\xf6\xfc\r\n",
        b"Received: from elsewhere by mx.other.example; Mon, 1 Jan 2024 00:00:00 +0000\r\nSubject: x\r\n\r\n\r\n\r\n",
    ];
    let mut client = gateway.client();
    for content in contents {
        assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], content).code, 250);
    }
    for (received, content) in upstream.received().iter().zip(contents) {
        assert_eq!(without_added_fields(&received.content), content);
        let added = &received.content[..received.content.len() - content.len()];
        let added = String::from_utf8_lossy(added);
        assert!(added.starts_with("Received: from client.sender.example"), "{added}");
        assert!(added.contains(PolicyFile::HOSTNAME) && added.contains("\r\nX-Torwart-Id: "), "{added}");
        assert!(added.contains("for <bert@example.org>"), "{added}");
    }
    assert_eq!(upstream.received().len(), contents.len());
}

#[test]
fn the_for_clause_is_absent_when_there_are_several_recipients() {
    let upstream = torwart_tests::Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let to = ["bert@example.org", "cora@example.org"];
    assert_eq!(gateway.client().mail("anna@sender.example", &to, b"\r\n").code, 250);
    let received = upstream.received().remove(0);
    assert_eq!(received.to, to);
    assert!(!String::from_utf8_lossy(&received.content).contains("for <"));
}

#[test]
fn a_message_in_a_loop_is_refused_for_good() {
    let upstream = torwart_tests::Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let field = "Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n";
    let content = field.repeat(51) + "\r\nround and round\r\n";
    let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], content.as_bytes());
    assert_eq!((reply.code, reply.enhanced()), (554, "5.4.6"), "{reply}");
    assert!(upstream.received().is_empty());
}
