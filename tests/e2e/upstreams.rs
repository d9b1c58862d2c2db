//! Mail servers of every kind behind the gateway: LMTP, those that are told who the client is, those that are spoken to
//! with TLS, those that take internationalized mail, and those that know who their recipients are.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use torwart_tests::{
    Authority, Certificate, Client, Dovecot, Gateway, PolicyFile, Postfix, PostfixRole, Reply, Upstream,
    client_address, eventually, swaks,
};

const FROM: &str = "anna@sender.example";
const TO: &str = "bert@example.org";

fn postfix(main: &str) -> Postfix {
    Postfix::start(&PostfixRole::MailboxWith { main: main.to_owned() })
}

/// A gateway before this mail server, whose refusals are believed at once.
fn before(upstream: SocketAddr, route: &str) -> Gateway {
    Gateway::start(&PolicyFile::to(upstream).route("softBounce: Never").route(route))
}

/// What one recipient hears, from a client of this address.
fn recipient(gateway: &Gateway, address: IpAddr) -> Reply {
    let mut client = Client::greeted_from(address, gateway.smtp);
    client.ask(250, format!("MAIL FROM:<{FROM}>"));
    client.command(format!("RCPT TO:<{TO}>"))
}

#[track_caller]
fn assert_misconfigured(reply: &Reply) {
    assert_eq!((reply.code, reply.enhanced()), (451, "4.3.5"), "{reply}");
}

#[track_caller]
fn deliver(gateway: &Gateway, address: IpAddr) {
    let mut client = Client::greeted_from(address, gateway.smtp);
    let reply = client.mail(FROM, &[TO], b"Subject: one\r\n\r\n");
    assert_eq!(reply.code, 250, "{reply}");
}

/// The Received fields on top of the messages in its mailbox.
fn received(postfix: &Postfix, count: usize) -> String {
    eventually("delivered", || postfix.mailbox().len() == count);
    postfix.mailbox().iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect()
}

// === LMTP ===

#[test]
fn lmtp_takes_one_recipient_of_a_transaction_and_its_final_reply_is_ours() {
    let dovecot = Dovecot::start(&["bert", "cora"]);
    let gateway = before(dovecot.lmtp, "protocol: LMTP");
    let mut client = gateway.client();
    client.ask(250, format!("MAIL FROM:<{FROM}>"));
    assert_eq!(client.ask(550, "RCPT TO:<nobody@example.org>").enhanced(), "5.1.1");
    assert_eq!(client.ask(250, "RCPT TO:<bert@example.org>").enhanced(), "2.1.5");
    assert_eq!(client.ask(452, "RCPT TO:<cora@example.org>").enhanced(), "4.5.3");
    client.ask(354, "DATA");
    client.send("Subject: one\r\n\r\n..dots\r\n.\r\n");
    client.expect(250);
    let mails = dovecot.mailbox("bert");
    let text = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(text.contains("with LMTP") && text.ends_with("\n.dots\n"), "{text}");
    assert_eq!((mails.len(), dovecot.mailbox("cora").len()), (1, 0));
    let line = gateway.transaction("the message", |line| line["action"] == "accept");
    let said = line["upstream_reply"].as_str().unwrap();
    assert!(said.starts_with("250 2.0.0 <bert@example.org>") && said.contains("Saved"), "{line}");
    assert_eq!(line["recipients"][2]["reason"], "too_many_recipients", "{line}");
}

#[test]
fn the_recipients_that_lmtp_puts_off_get_their_mail_once() {
    let names = ["bert", "cora", "dora"];
    let dovecot = Dovecot::start(&names);
    let gateway = before(dovecot.lmtp, "protocol: LMTP");
    let sender = Postfix::start(&PostfixRole::Sender { relay: gateway.smtp });
    let to = names.map(|name| format!("{name}@example.org")).join(",");
    assert_eq!(swaks(sender.endpoint, FROM, &to, &["--header", "Subject: for all"]).code, 0);
    for name in names {
        sender.log(&[&format!("to=<{name}@example.org>"), "status=sent"]);
        assert_eq!(dovecot.mailbox(name).len(), 1, "{name}");
    }
    assert_eq!(sender.count(&["status=sent"]), names.len());
    assert_eq!(sender.count(&["status=bounced"]), 0);
}

#[test]
fn a_dovecot_is_told_the_client_by_xclient() {
    let dovecot = Dovecot::start(&["bert"]);
    let policy = PolicyFile::to(dovecot.lmtp).route("protocol: LMTP").route("clientIdentity: XCLIENT");
    let gateway = Gateway::start(&policy);
    let address = client_address(9);
    deliver(&gateway, address);
    let mails = dovecot.mailbox("bert");
    let text = String::from_utf8_lossy(&mails[0]).into_owned();
    assert!(text.contains(&format!("Received: from client.sender.example ([{address}])")), "{text}");
}

// === client identity ===

#[test]
fn a_postfix_sees_the_client_by_xclient_and_judges_it_by_its_own_rules() {
    let refused = client_address(12);
    let postfix = postfix(&format!(
        "smtpd_authorized_xclient_hosts = 127.0.0.0/8\n\
         smtpd_recipient_restrictions = check_client_access inline:{{{refused}=REJECT}}, permit_mynetworks, reject\n"
    ));
    let gateway = before(postfix.endpoint, "clientIdentity: XCLIENT");
    let addresses = [client_address(10), client_address(11)];
    for address in addresses {
        deliver(&gateway, address);
        postfix.log(&["smtpd", &format!("client=unknown[{address}]")]);
    }
    let text = received(&postfix, 2);
    for address in addresses {
        let field = format!("Received: from client.sender.example (unknown [{address}])");
        assert!(text.contains(&field), "{text}");
    }
    let reply = recipient(&gateway, refused);
    assert_eq!((reply.code, reply.enhanced()), (554, "5.7.1"), "{reply}");
    // None is kept for the next client.
    assert_eq!(gateway.metrics().sum("torwart_upstream_connections", &[("state", "idle")]), 0.0);
}

#[test]
fn an_ipv6_client_is_shown_as_one() {
    let postfix = postfix("inet_protocols = all\nsmtpd_authorized_xclient_hosts = 127.0.0.0/8\n");
    let policy = PolicyFile::to(postfix.endpoint).route("clientIdentity: XCLIENT");
    let gateway = Gateway::builder().flag("--proxy-protocol-from", "127.0.0.0/8").start(&policy.text());
    let mut client = Client::connect(gateway.smtp);
    client.send("PROXY TCP6 2001:db8::7 2001:db8::1 4321 25\r\n");
    client.expect(220);
    client.ask(250, "EHLO client.sender.example");
    assert_eq!(client.mail(FROM, &[TO], b"\r\n").code, 250);
    let text = received(&postfix, 1);
    assert!(text.contains("(unknown [IPv6:2001:db8::7])"), "{text}");
}

#[test]
fn a_postfix_notes_the_client_that_xforward_tells() {
    let postfix = postfix("smtpd_authorized_xforward_hosts = 127.0.0.0/8\n");
    let gateway = before(postfix.endpoint, "clientIdentity: XFORWARD");
    let address = client_address(13);
    deliver(&gateway, address);
    let line = postfix.log(&["smtpd", "client=", &format!("orig_client=unknown[{address}]")]);
    assert!(!line.contains(&format!(" client=unknown[{address}]")), "{line}");
}

#[test]
fn a_postfix_sees_the_client_by_the_proxy_protocol() {
    let postfix = postfix("smtpd_upstream_proxy_protocol = haproxy\n");
    let gateway = before(postfix.endpoint, "clientIdentity: ProxyV2");
    let addresses = [client_address(14), client_address(15)];
    for address in addresses {
        deliver(&gateway, address);
        postfix.log(&["smtpd", &format!("client=unknown[{address}]")]);
    }
    let text = received(&postfix, 2);
    assert!(addresses.iter().all(|address| text.contains(&format!("[{address}])"))), "{text}");
}

#[test]
fn a_postfix_that_is_not_to_be_told_the_client_gets_no_mail_of_it() {
    let plain = Postfix::start(&PostfixRole::Mailbox);
    for identity in ["XCLIENT", "XFORWARD"] {
        let gateway = before(plain.endpoint, &format!("clientIdentity: {identity}"));
        assert_misconfigured(&recipient(&gateway, client_address(16)));
        let line = gateway.transaction("put off", |_| true);
        assert_eq!(line["upstream_reply"], format!("({identity} is not offered)"), "{line}");
    }
    // It takes the header for commands, and a gateway without one for a client that has nothing to say.
    let gateway = before(plain.endpoint, "clientIdentity: ProxyV2");
    assert_eq!(recipient(&gateway, client_address(16)).code, 451);
    assert!(plain.mailbox().is_empty());

    // Another mail server of the same route may be told.
    let told = postfix("smtpd_authorized_xclient_hosts = 127.0.0.0/8\n");
    let policy = PolicyFile::to(plain.endpoint).upstream(told.endpoint).route("clientIdentity: XCLIENT");
    deliver(&Gateway::start(&policy), client_address(16));
    received(&told, 1);
}

// === TLS ===

fn with_tls(certificate: &Certificate, more: &str) -> Postfix {
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    let levels = "smtpd_tls_security_level = may\nsmtpd_tls_loglevel = 1\nsmtpd_tls_received_header = yes\n";
    postfix(&format!("{levels}smtpd_tls_chain_files = {key}, {cert}\n{more}"))
}

/// A ConfigMap as it would be in a cluster.
fn config_map(authority: &Authority) -> String {
    let pem = fs::read_to_string(&authority.cert).unwrap();
    let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: mail-ca, namespace: mail, labels: {{torwart.dev/ca: \"true\"}}}}\n\
         data:\n  ca.crt: |\n{lines}"
    )
}

#[test]
fn required_tls_takes_the_authority_of_a_config_map_with_starttls_and_implicitly() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let certificate = ours.issue(&["mailbox.example.org"]);
    for (implicit, wrapper) in [(false, ""), (true, "smtpd_tls_wrappermode = yes\n")] {
        let postfix = with_tls(&certificate, wrapper);
        let tls = |name: &str| {
            format!(
                "tls: {{mode: Required, implicit: {implicit}, serverName: {name}, caRef: {{name: mail-ca}}}}"
            )
        };
        let policy = |name: &str, authority: &Authority| {
            let mut policy = PolicyFile::to(postfix.endpoint).route(&tls(name));
            policy.more = config_map(authority);
            policy
        };
        let gateway = Gateway::start(&policy("mailbox.example.org", &ours));
        deliver(&gateway, client_address(17));
        let text = received(&postfix, 1);
        assert!(text.contains("using TLSv1.3"), "{text}");

        for (name, authority) in [("mailbox.example.org", &theirs), ("other.example.org", &ours)] {
            let gateway = Gateway::start(&policy(name, authority));
            let reply = recipient(&gateway, client_address(17));
            assert_eq!((reply.code, reply.enhanced()), (451, "4.7.5"), "{name}: {reply}");
        }
        assert_eq!(postfix.mailbox().len(), 1);
    }
}

#[test]
fn opportunistic_implicit_tls_takes_any_certificate() {
    let certificate = Certificate::new(&["whatever.example"]);
    let postfix = with_tls(&certificate, "smtpd_tls_wrappermode = yes\n");
    let gateway = before(postfix.endpoint, "tls: {implicit: true}");
    deliver(&gateway, client_address(18));
    assert!(received(&postfix, 1).contains("using TLSv1.3"));
}

/// A key that does not go with the certificate: every handshake fails, and the mail comes in clear.
#[test]
fn opportunistic_tls_falls_back_to_clear_text_before_a_postfix_that_cannot_shake_hands() {
    let (one, two) = (Certificate::new(&["a.example"]), Certificate::new(&["b.example"]));
    let (cert, key) = (one.cert.display(), two.key.display());
    let postfix = postfix(&format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {cert}\nsmtpd_tls_key_file = {key}\n\
         smtpd_tls_mandatory_protocols = >=TLSv1.2\nsmtpd_tls_protocols = >=TLSv1.2\n"
    ));
    let gateway = before(postfix.endpoint, "tls: {mode: Opportunistic}");
    deliver(&gateway, client_address(18));
    assert!(!received(&postfix, 1).contains("using TLS"));
    let required = before(postfix.endpoint, "tls: {mode: Required, serverName: a.example}");
    assert_eq!(recipient(&required, client_address(18)).enhanced(), "4.7.5");
}

// === internationalized mail ===

#[test]
fn internationalized_mail_goes_to_a_mail_server_that_takes_it_and_is_refused_for_another() {
    let wanted = "j\u{f6}rg@example.org";
    for (enabled, codes) in [("yes", [250, 250]), ("no", [550, 550])] {
        let postfix = postfix(&format!("smtputf8_enable = {enabled}\n"));
        let gateway = before(postfix.endpoint, "protocol: SMTP");
        let mut client = gateway.client();
        for (code, to) in codes.into_iter().zip([wanted, TO]) {
            client.ask(250, "MAIL FROM:<\u{fc}@sender.example> SMTPUTF8 BODY=8BITMIME");
            let reply = client.ask(code, format!("RCPT TO:<{to}>"));
            if code == 550 {
                assert_eq!(reply.enhanced(), "5.6.7", "{to}: {reply}");
                client.ask(250, "RSET");
                continue;
            }
            client.ask(354, "DATA");
            client.send("Subject: gr\u{fc}n\r\n\r\n.\r\n");
            client.expect(250);
        }
        if enabled == "yes" {
            let text = received(&postfix, 2);
            assert!(text.contains("Delivered-To: j\u{f6}rg@example.org"), "{text}");
            assert!(text.contains("Return-Path: <\u{fc}@sender.example>"), "{text}");
        }
        assert_eq!(postfix.mailbox().len(), if enabled == "yes" { 2 } else { 0 });
    }
}

// === which upstream, and which recipients ===

#[test]
fn the_next_mail_server_gets_the_mail_while_the_first_is_down_and_all_down_is_451() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gateway = Gateway::start(&PolicyFile::to(first.endpoint).upstream(second.endpoint));
    deliver(&gateway, client_address(20));
    assert_eq!((first.received().len(), second.received().len()), (1, 0));
    first.close();
    deliver(&gateway, client_address(20));
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
    second.close();
    let reply = recipient(&gateway, client_address(20));
    assert_eq!((reply.code, reply.enhanced()), (451, "4.4.1"), "{reply}");
}

#[test]
fn who_is_not_on_the_list_of_recipients_is_refused_without_asking_the_mail_server() {
    let upstream = Upstream::start();
    let accept = "recipients: {accept: [bert@example.org, \"sales*@example.org\"]}";
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always}").domain(accept);
    let gateway = Gateway::start(&policy);
    let mut client = gateway.client();
    client.ask(250, format!("MAIL FROM:<{FROM}>"));
    let reply = client.ask(550, "RCPT TO:<nobody@example.org>");
    assert_eq!(reply.enhanced(), "5.1.1", "{reply}");
    client.ask(450, "RCPT TO:<BERT@example.org>");
    client.ask(450, "RCPT TO:<sales-eu@example.org>");
    let line = {
        client.ask(221, "QUIT");
        gateway.transaction("the transaction", |_| true)
    };
    assert_eq!(line["recipients"][0]["reason"], "recipient_denied", "{line}");
    assert_eq!(upstream.accepted(), 0);
}

/// It is remembered by the edge, and said before greylisting would have its turn.
#[test]
fn who_the_mail_server_does_not_know_is_remembered_and_refused_before_greylisting() {
    let upstream = Upstream::start();
    upstream.unknown_recipient("nobody@example.org");
    let policy =
        PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}").route("softBounce: Never");
    let gateway = Gateway::start(&policy);
    let ask = |address, to: &str| {
        let mut client = Client::greeted_from(address, gateway.smtp);
        client.ask(250, format!("MAIL FROM:<{FROM}>"));
        client.command(format!("RCPT TO:<{to}>"))
    };
    let first = client_address(21);
    assert_eq!(ask(first, "nobody@example.org").code, 450, "nobody knows yet");
    let mut refused = None;
    eventually("the delay is over", || {
        let reply = ask(first, "nobody@example.org");
        let over = reply.code != 450;
        refused = over.then_some(reply);
        over
    });
    let refused = refused.unwrap();
    assert_eq!((refused.code, refused.enhanced()), (550, "5.1.1"), "{refused}");
    let connections = upstream.accepted();
    // Never seen: greylisting would have it come again.
    let other = client_address(22);
    let reply = ask(other, "nobody@example.org");
    assert_eq!((reply.code, reply.enhanced()), (550, "5.1.1"), "{reply}");
    let remembered = |line: &serde_json::Value| line["client"] == other.to_string();
    let line = gateway.transaction("remembered", remembered);
    assert!(line["upstream_reply"].as_str().unwrap().starts_with("(remembered) 550"), "{line}");
    assert_eq!(line["recipients"][0]["greylist"], "new", "{line}");
    assert_eq!(ask(other, "somebody@example.org").code, 450);
    assert_eq!(upstream.accepted(), connections);
}
