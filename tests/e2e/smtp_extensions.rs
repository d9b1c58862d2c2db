//! What EHLO offers, with clients that make use of it: CHUNKING, SMTPUTF8, several certificates, and who is shown less.

use serde_json::Value;
use torwart_tests::{
    Brand, Certificate, Client, Gateway, MailServer, PolicyFile, Postfix, PostfixRole, Upstream,
    client_address, eventually, python, without_added_fields,
};

/// A chunk with its octets.
fn chunk(content: &[u8], last: &str) -> Vec<u8> {
    let mut bytes = format!("BDAT {}{last}\r\n", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// A message in which every octet but CR, LF and NUL occurs, and dots at the starts of lines.
fn content() -> Vec<u8> {
    let mut content = b"Subject: all octets\r\n\r\n.\r\n..\r\n.a\r\n".to_vec();
    for line in 0..200u8 {
        content.extend((1..=255u8).map(|n| n.wrapping_add(line)).filter(|n| !matches!(n, b'\r' | b'\n' | 0)));
        content.extend_from_slice(b"\r\n");
    }
    content
}

// === CHUNKING ===

#[test]
fn an_exim_sends_in_chunks_and_with_data_where_that_is_hidden() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let policy = PolicyFile::to(mailbox.endpoint);
    let gateway = Gateway::start(&policy);
    let exim = MailServer::sender(Brand::Exim, gateway.smtp);
    let content = content();
    let used = |verb: &str| {
        gateway.metrics().sum("torwart_smtp_commands_total", &[("verb", verb), ("class", "2xx")])
    };
    let send = |count: usize| {
        let mut client = Client::greeted(exim.endpoint);
        assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], &content).code, 250);
        eventually("delivered", || mailbox.mailbox().len() == count);
    };
    send(1);
    let chunks = used("bdat");
    assert!(chunks >= 1.0, "{chunks}");
    assert_eq!(used("data"), 0.0);
    let hidden = "ipRanges: [{name: all, cidrs: [0.0.0.0/0], hideKeywords: [CHUNKING]}]";
    gateway.replace_policy(&policy.gateway(hidden).text());
    eventually("hidden", || {
        let mut client = Client::connect(gateway.smtp);
        client.expect(220);
        !client.ask(250, "EHLO client.sender.example").text().contains("CHUNKING")
    });
    send(2);
    assert_eq!((used("bdat"), used("data")), (chunks, 1.0));
    let lines: Vec<u8> = content.split(|byte| *byte == b'\r').collect::<Vec<_>>().concat();
    for message in mailbox.mailbox() {
        assert!(message.ends_with(&lines), "the octets are not those that were sent");
    }
}

#[test]
fn pipelined_chunks_of_any_size_bring_the_same_octets() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let content = content();
    for (count, size) in [(1, 1), (2, 7), (3, 1000), (4, 40_000), (5, content.len())] {
        let mut client = gateway.client();
        let mut all = b"MAIL FROM:<anna@sender.example>\r\nRCPT TO:<bert@example.org>\r\n".to_vec();
        let chunks: Vec<&[u8]> = content.chunks(size).collect();
        for (index, piece) in chunks.iter().enumerate() {
            all.extend(chunk(piece, if index + 1 == chunks.len() { " LAST" } else { "" }));
        }
        // who sends so much at once must read meanwhile, or both wait for each other
        let mut writer = client.stream().try_clone().unwrap();
        let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &all));
        for _ in 0..chunks.len() + 2 {
            client.expect(250);
        }
        sending.join().unwrap().unwrap();
        client.ask(250, "NOOP");
        let received = upstream.wait_received(count);
        assert!(without_added_fields(&received[count - 1].content) == content, "chunks of {size}");
    }
}

#[test]
fn what_a_chunk_holds_is_never_a_command() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let gateway = Gateway::start(&PolicyFile::to(mailbox.endpoint));
    let smuggled = b"Subject: outer\r\n\r\nouter\r\n.\r\nMAIL FROM:<evil@sender.example>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n\
        smuggled\r\n.\r\n";
    let (first, second) = smuggled.split_at(30);
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.send(chunk(first, ""));
    client.expect(250);
    client.send(chunk(second, " LAST"));
    client.expect(250);
    // and where it is refused, it is no command either
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    assert!(client.command("RCPT TO:<nobody@elsewhere.example>").code >= 500);
    client.send(chunk(&smuggled[30..], " LAST"));
    client.expect(554);
    client.ask(250, "RSET");
    assert_eq!(client.mail("last@sender.example", &["last@example.org"], b"\r\n").code, 250);
    mailbox.log(&["to=<last@example.org>", "delivered to maildir"]);
    assert_eq!(mailbox.count(&["qmgr", "from=<anna@sender.example>"]), 1);
    assert_eq!(mailbox.count(&["from=<evil@sender.example>"]), 0);
}

// === SMTPUTF8 ===

const UTF8: &str = r#"
import smtplib, sys
host, port, to = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with smtplib.SMTP(host, port, local_hostname="client.sender.example", timeout=30) as smtp:
    smtp.ehlo()
    assert smtp.has_extn("smtputf8"), smtp.esmtp_features
    smtp.command_encoding = "utf-8"
    options = ["SMTPUTF8", "BODY=8BITMIME"]
    refused = smtp.sendmail("zoë@sender.example", [to], "Subject: grüße\r\n\r\nà bientôt\r\n".encode(), options)
    assert not refused, refused
"#;

#[test]
fn letters_beyond_ascii_arrive_where_the_domain_is_written_in_letters() {
    let upstream = Upstream::start_with(&["PIPELINING", "8BITMIME", "SMTPUTF8"]);
    let policy = PolicyFile::to(upstream.endpoint).domains(&["bücher.example"]);
    let gateway = Gateway::start(&policy);
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    for to in ["jörg@BÜCHER.example", "jörg@xn--bcher-kva.example"] {
        let ran = python(UTF8, &[&host, &port, to]);
        assert_eq!(ran.code, 0, "{}", ran.text);
        let received = upstream.received().pop().unwrap();
        assert_eq!(
            (received.from.as_str(), received.to.as_slice()),
            ("zoë@sender.example", &[to.to_owned()][..])
        );
        assert!(received.mail.contains(" SMTPUTF8"), "{}", received.mail);
        let text = String::from_utf8(received.content).unwrap();
        assert!(text.contains("with UTF8SMTP id") && text.contains(&format!("for <{to}>")), "{text}");
        assert!(text.ends_with("Subject: grüße\r\n\r\nà bientôt\r\n"), "{text}");
        let line = gateway.transaction("logged", |line| line["recipients"][0]["to"] == to);
        assert_eq!(line["from"], "zoë@sender.example");
    }
    let mut client = gateway.client();
    let refused = client.ask(553, "MAIL FROM:<zoë@sender.example>");
    assert_eq!(refused.enhanced(), "5.6.7");
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    assert_eq!(client.ask(553, "RCPT TO:<jörg@bücher.example>").enhanced(), "5.6.7");
}

// === certificates ===

const HANDSHAKE: &str = r#"
import smtplib, ssl, sys
host, port, ca, name = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
smtp = smtplib.SMTP(host, port, local_hostname="client.sender.example", timeout=30)
smtp._host = name
smtp.starttls(context=ssl.create_default_context(cafile=ca))
assert smtp.ehlo()[0] == 250
"#;

#[test]
fn each_name_is_shown_its_own_certificate_and_a_renewed_one_later() {
    let upstream = Upstream::start();
    let (one, two) =
        (Certificate::new(&["mx.one.example"]), Certificate::new(&["mx.two.example", "*.two.example"]));
    let gateway = Gateway::builder()
        .flag("--tls-cert", one.cert.display())
        .flag("--tls-key", one.key.display())
        .flag("--tls-cert", two.cert.display())
        .flag("--tls-key", two.key.display())
        .start(&PolicyFile::to(upstream.endpoint).text());
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let trusts = |certificate: &Certificate, name: &str| {
        python(HANDSHAKE, &[&host, &port, &certificate.cert.display().to_string(), name]).code == 0
    };
    for (certificate, name, shown) in [
        (&one, "mx.one.example", true),
        (&two, "mx.two.example", true),
        (&two, "other.two.example", true),
        (&two, "mx.one.example", false),
        (&one, "mx.two.example", false),
    ] {
        assert_eq!(trusts(certificate, name), shown, "{name}");
    }
    two.renew(&["mx.two.example"]);
    eventually("the second is renewed", || trusts(&two, "mx.two.example"));
    assert!(trusts(&one, "mx.one.example"), "the first is as it was");
}

#[test]
fn an_expired_certificate_is_still_offered_with_an_alarm() {
    let upstream = Upstream::start();
    let expired = Certificate::expired(&[PolicyFile::HOSTNAME]);
    let gateway = Gateway::builder()
        .flag("--tls-cert", expired.cert.display())
        .flag("--tls-key", expired.key.display())
        .start(&PolicyFile::to(upstream.endpoint).text());
    gateway.notice("does not hold now; renew it");
    let until = gateway.metrics().sum("torwart_tls_certificate_not_after_seconds", &[]);
    assert!(until > 0.0 && until < 1.6e9, "{until}");
    // a client that takes any certificate, as most mail servers do, has its TLS
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let script = "import smtplib, ssl, sys\n\
        smtp = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), local_hostname='client.sender.example', timeout=30)\n\
        smtp.starttls(context=ssl._create_unverified_context())\n\
        assert smtp.sendmail('anna@sender.example', ['bert@example.org'], 'Subject: a\\r\\n\\r\\nb\\r\\n') == {}\n";
    let ran = python(script, &[&host, &port]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let line = gateway.transaction("delivered", |line| line["code"] == 250);
    assert!(line["tls"].as_str().unwrap().starts_with("TLSv1.3 "), "{line}");
}

// === who is shown what ===

#[test]
fn tls_is_offered_hidden_or_required_by_the_client_s_range() {
    let upstream = Upstream::start();
    let [offer, hide, require] = [1, 2, 3].map(client_address);
    let ranges = format!(
        "ipRanges: [{{name: a, cidrs: [{offer}], tls: Offer}}, {{name: b, cidrs: [{hide}], tls: Hide}}, \
         {{name: c, cidrs: [{require}], tls: Require, hideKeywords: [SIZE, PIPELINING]}}]"
    );
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = Gateway::builder()
        .flag("--tls-cert", certificate.cert.display())
        .flag("--tls-key", certificate.key.display())
        .start(&PolicyFile::to(upstream.endpoint).gateway(&ranges).text());
    for (from, shown, mail) in
        [(offer, true, 250), (hide, false, 250), (require, true, 530), (client_address(4), true, 250)]
    {
        let mut client = Client::connect_from(from, gateway.smtp);
        client.expect(220);
        let offered = client.ask(250, "EHLO client.sender.example");
        assert_eq!(offered.lines.iter().any(|line| line == "STARTTLS"), shown, "{from}: {offered}");
        assert_eq!(
            offered.lines.iter().any(|line| line == "PIPELINING"),
            from != require,
            "{from}: {offered}"
        );
        client.ask(mail, "MAIL FROM:<anna@sender.example> SIZE=100");
        if !shown {
            assert!(!Client::greeted_from(from, gateway.smtp).command("STARTTLS").is_positive());
        }
    }
    // behind its TLS the client of the third range is served
    let script = "import smtplib, ssl, sys\n\
        smtp = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), 'client.sender.example', 30, (sys.argv[3], 0))\n\
        smtp.starttls(context=ssl._create_unverified_context())\n\
        assert smtp.sendmail('anna@sender.example', ['bert@example.org'], 'Subject: a\\r\\n\\r\\nb\\r\\n') == {}\n";
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let ran = python(script, &[&host, &port, &require.to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.text);
}

#[test]
fn who_does_not_wait_for_the_banner_is_logged_and_served() {
    let upstream = Upstream::start();
    let allowed = client_address(7);
    let policy = PolicyFile::to(upstream.endpoint)
        .gateway("defaults: {checks: {earlyTalker: {greetDelay: 50s}}}")
        .gateway(&format!("ipRanges: [{{name: friends, cidrs: [{allowed}], action: Allow}}]"));
    let gateway = Gateway::start(&policy);
    let early =
        |id: &Value| gateway.transaction("logged", |line| line["from"] == *id)["early_talker"].clone();
    let mut client = Client::connect(gateway.smtp);
    client.send("EHLO client.sender.example\r\n");
    client.expect(220);
    client.expect(250);
    let sent = client.mail("early@sender.example", &["bert@example.org"], b"Subject: a\r\n\r\nb\r\n");
    assert_eq!(sent.code, 250, "it is no reason to refuse: {sent}");
    // friends are not made to wait: a test has less patience than the delay is long
    let mut client = Client::greeted_from(allowed, gateway.smtp);
    assert_eq!(client.mail("friend@sender.example", &["bert@example.org"], b"\r\n").code, 250);
    assert_eq!(
        (early(&"early@sender.example".into()), early(&"friend@sender.example".into())),
        (true.into(), false.into())
    );
}

// === commands for people ===

#[test]
fn the_bare_postmaster_is_the_gateway_s() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let policy = PolicyFile::to(mailbox.endpoint);
    let gateway = Gateway::start(&policy);
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<>");
    client.ask(250, "RCPT TO:<PostMaster>");
    client.ask(354, "DATA");
    client.send("Subject: help\r\n\r\n.\r\n");
    client.expect(250);
    mailbox.log(&["to=<postmaster@example.org>", "delivered to maildir"]);
    // where nobody named one, the mail waits until somebody does
    let none = policy.text().replace("  postmaster: postmaster@example.org\n", "");
    gateway.replace_policy(&none);
    eventually("451", || {
        let mut client = gateway.client();
        client.ask(250, "MAIL FROM:<>");
        client.command("RCPT TO:<Postmaster>").code == 451
    });
}

#[test]
fn help_and_vrfy_are_answered() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    client.ask(214, "HELP");
    client.ask(214, "HELP MAIL");
    client.ask(252, "VRFY bert@example.org");
    client.ask(252, "VRFY nobody@elsewhere.example");
    client.ask(502, "EXPN list");
    client.ask(250, "NOOP");
}
