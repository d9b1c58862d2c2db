//! Clients that people use.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use torwart_tests::{
    Brand, Certificate, Client, Gateway, MailServer, PolicyFile, Process, SmtpSink, Upstream, endpoint,
    eventually, python, swaks, tool, wait_listening, without_added_fields,
};

#[test]
fn swaks_is_deferred_first_and_accepted_later() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}"));
    let send =
        || swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &["--body", "hello from swaks"]);
    let first = send();
    // swaks ends with 24 when every recipient was refused.
    assert_eq!(first.code, 24, "{}", first.text);
    assert!(first.text.contains("450 4.2.0"), "{}", first.text);
    eventually("accepted", || send().code == 0);
    assert!(String::from_utf8_lossy(&upstream.wait_received(1)[0].content).contains("hello from swaks"));
}

#[test]
fn swaks_pipelines() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let sent =
        swaks(gateway.smtp, "anna@sender.example", "bert@example.org,cora@example.org", &["--pipeline"]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert_eq!(upstream.wait_received(1)[0].to, ["bert@example.org", "cora@example.org"]);
}

#[test]
fn smtp_source_brings_a_thousand_messages_to_smtp_sink() {
    let sink = SmtpSink::start(&[]);
    let gateway = Gateway::start(&PolicyFile::to(sink.endpoint));
    let count = 1000;
    let server = gateway.smtp.to_string();
    let sent = tool(
        "smtp-source",
        &[
            "-m",
            &count.to_string(),
            "-s",
            "10",
            "-l",
            "5000",
            "-f",
            "list@sender.example",
            "-t",
            "bert@example.org",
            &server,
        ],
    );
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert_eq!(sink.messages().len(), count);
    let metrics =
        gateway.wait_metrics("all counted", |metrics| metrics.sum("torwart_messages_total", &[]) >= 1000.0);
    assert_eq!(metrics.sum("torwart_outcome_unknown_total", &[]), 0.0);
}

const SMTPLIB: &str = r#"
import smtplib, ssl, sys
host, port, tls = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tls"
with smtplib.SMTP(host, port, local_hostname="client.sender.example", timeout=30) as smtp:
    if tls:
        context = ssl.create_default_context(cafile=sys.argv[4])
        context.check_hostname = False
        smtp.starttls(context=context)
        assert smtp.sock.getpeercert()["subjectAltName"] == (("DNS", "mx.example.net"),)
        assert not smtp.has_extn("starttls"), "STARTTLS is offered twice"
    smtp.sendmail("anna@sender.example", ["bert@example.org"], "Subject: by smtplib\n\n.\n..\nend")
"#;

#[test]
fn smtplib_sends_with_starttls() {
    let upstream = Upstream::start();
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = Gateway::builder()
        .flag("--tls-cert", certificate.cert.display())
        .flag("--tls-key", certificate.key.display())
        .start(&PolicyFile::to(upstream.endpoint).text());
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let cert = certificate.cert.display().to_string();
    let sent = python(SMTPLIB, &[&host, &port, "tls", &cert]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    let content = String::from_utf8_lossy(&upstream.wait_received(1)[0].content).into_owned();
    assert!(content.ends_with("Subject: by smtplib\r\n\r\n.\r\n..\r\nend\r\n"), "{content}");
    // RFC 3848: ESMTPS is ESMTP with STARTTLS.
    assert!(content.contains("with ESMTPS"), "{content}");
    let line = gateway.transaction("the message", |_| true);
    assert!(line["tls"].to_string().contains("TLSv1.3"), "{line}");
}

#[test]
fn smtplib_sends_in_clear() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let sent = python(SMTPLIB, &[&host, &port, "clear"]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    let content = String::from_utf8_lossy(&upstream.wait_received(1)[0].content).into_owned();
    assert!(content.contains("with ESMTP\r\n") || content.contains("with ESMTP "), "{content}");
}

/// A gateway with a certificate, and the certificate.
fn with_tls(upstream: &Upstream) -> (Gateway, Certificate) {
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = Gateway::builder()
        .flag("--tls-cert", certificate.cert.display())
        .flag("--tls-key", certificate.key.display())
        .start(&PolicyFile::to(upstream.endpoint).text());
    (gateway, certificate)
}

/// What a client sends, and what its server must store, octet by octet: dots, eight bits and a long line.
fn letter() -> Vec<u8> {
    let header = "From: anna@sender.example\r\nTo: bert@example.org\r\nSubject: Grüße\r\n\
        Date: Tue, 24 Nov 2026 20:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n\r\n";
    let body = format!(".\r\n..\r\n.x\r\n \t\r\nä\r\n{}\r\n", "l".repeat(900));
    (header.to_owned() + &body).into_bytes()
}

/// The one message that came, as it was before the gateway.
#[track_caller]
fn came_with_tls(upstream: &Upstream, gateway: &Gateway) -> Vec<u8> {
    let received = upstream.wait_received(1);
    assert_eq!((received.len(), received[0].to.as_slice()), (1, &["bert@example.org".to_owned()][..]));
    let content = &received[0].content;
    // RFC 3848: ESMTPS is ESMTP with STARTTLS.
    assert!(String::from_utf8_lossy(content).contains("with ESMTPS"), "{}", content.escape_ascii());
    let line = gateway.transaction("the message", |line| line["action"] == "accept");
    assert!(line["tls"].to_string().contains("TLSv1.3"), "{line}");
    without_added_fields(content).to_vec()
}

/// A file with these octets, and the folder that keeps it.
fn file(content: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter");
    fs::write(&path, content).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn curl_sends_with_starttls() {
    let upstream = Upstream::start();
    let (gateway, certificate) = with_tls(&upstream);
    let (_folder, path) = file(&letter());
    let (name, port) = (PolicyFile::HOSTNAME, gateway.smtp.port());
    let url = format!("smtp://{name}:{port}/client.sender.example");
    let resolve = format!("{name}:{port}:{}", gateway.smtp.ip());
    let trust = certificate.cert.display().to_string();
    let tls = ["--silent", "--show-error", "--ssl-reqd", "--cacert", &trust, "--resolve", &resolve];
    let mail = ["--mail-from", "anna@sender.example", "--mail-rcpt", "bert@example.org", "-T", &path];
    let sent = tool("curl", &[&tls[..], &["--url", &url], &mail[..]].concat());
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert_eq!(came_with_tls(&upstream, &gateway), letter());
}

#[test]
fn curl_shows_why_it_was_deferred() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1h}"));
    let (_folder, path) = file(&letter());
    let url = format!("smtp://{}", gateway.smtp);
    let mail = ["--mail-from", "anna@sender.example", "--mail-rcpt", "bert@example.org", "-T", &path];
    let sent = tool("curl", &[&["--verbose", "--url", &url], &mail[..]].concat());
    // CURLE_SEND_ERROR: no recipient was accepted.
    assert_eq!(sent.code, 55, "{}", sent.text);
    assert!(sent.text.contains("450 4.2.0"), "{}", sent.text);
}

#[test]
fn msmtp_sends_with_starttls() {
    let upstream = Upstream::start();
    let (gateway, certificate) = with_tls(&upstream);
    // It takes messages with the line ends of its own system.
    let (folder, path) = file(String::from_utf8(letter()).unwrap().replace("\r\n", "\n").as_bytes());
    let settings = folder.path().join("msmtprc");
    let (host, port) = (gateway.smtp.ip(), gateway.smtp.port());
    let (trust, name) = (certificate.cert.display(), PolicyFile::HOSTNAME);
    let text = format!(
        "account default\nhost {host}\nport {port}\ntls on\ntls_starttls on\ntls_trust_file {trust}\n\
         tls_host_override {name}\ndomain client.sender.example\nfrom anna@sender.example\n\
         set_date_header off\nset_msgid_header off\n"
    );
    fs::write(&settings, text).unwrap();
    let script = r#"exec msmtp --file="$1" bert@example.org < "$2""#;
    let sent = tool("sh", &["-c", script, "sh", &settings.display().to_string(), &path]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert_eq!(came_with_tls(&upstream, &gateway), letter());
}

#[test]
fn swaks_sends_with_starttls() {
    let upstream = Upstream::start();
    let (gateway, _certificate) = with_tls(&upstream);
    let more = ["--tls", "--header", "Subject: by swaks", "--body", ".\n..\nend"];
    let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &more);
    assert_eq!(sent.code, 0, "{}", sent.text);
    let content = came_with_tls(&upstream, &gateway);
    // It puts two line ends behind a body.
    assert!(content.ends_with(b"\r\n\r\n.\r\n..\r\nend\r\n\r\n\r\n"), "{}", content.escape_ascii());
}

/// A mail server sends a message out of its queue through the gateway, with STARTTLS.
fn a_mail_server_sends(brand: Brand) {
    let upstream = Upstream::start();
    let (gateway, _certificate) = with_tls(&upstream);
    let sender = MailServer::sender(brand, gateway.smtp);
    let mut client = Client::greeted(sender.endpoint);
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], &letter()).code, 250);
    let content = came_with_tls(&upstream, &gateway);
    // Below what the sender itself added.
    let text = content.escape_ascii();
    assert!(content.starts_with(b"Received: "), "{text}");
    assert!(content.ends_with(&letter()), "{text}");
}

#[test]
fn a_postfix_sends_with_starttls() {
    a_mail_server_sends(Brand::Postfix);
}

#[test]
fn an_exim_sends_with_starttls() {
    a_mail_server_sends(Brand::Exim);
}

#[test]
fn an_opensmtpd_sends_with_starttls() {
    a_mail_server_sends(Brand::OpenSmtpd);
}

/// The aiosmtpd that Debian has, its address, and the folder of its Maildir.
fn aiosmtpd() -> (Process, SocketAddr, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, mailbox) = (endpoint(), folder.path().join("mailbox"));
    // Debian's own Python: its packages are not for another.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", "aiosmtpd", "--nosetuid", "--listen", &endpoint.to_string()]);
    let process = Process::start(command.args(["--class", "aiosmtpd.handlers.Mailbox"]).arg(mailbox));
    wait_listening(endpoint);
    (process, endpoint, folder)
}

#[test]
fn an_aiosmtpd_behind_the_gateway_gets_what_clients_send() {
    let (_process, endpoint, folder) = aiosmtpd();
    let gateway = Gateway::start(&PolicyFile::to(endpoint));
    for n in 0..3 {
        let mail = format!("Subject: number {n}\r\n\r\n.\r\n..\r\nend\r\n");
        let reply = gateway.client().mail("anna@sender.example", &["bert@example.org"], mail.as_bytes());
        assert_eq!(reply.code, 250, "{reply}");
    }
    let to = "bert@example.org,cora@example.org";
    let sent = swaks(gateway.smtp, "anna@sender.example", to, &["--header", "Subject: number 3"]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    let files = fs::read_dir(folder.path().join("mailbox/new")).unwrap();
    let mut mails: Vec<String> =
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    mails.sort_by_key(|mail| mail[mail.find("Subject: number ").unwrap()..].to_owned());
    assert_eq!(mails.len(), 4);
    for mail in &mails[..3] {
        assert!(mail.contains("\n\n.\n..\nend\n"), "{mail}");
        assert!(mail.contains("X-RcptTo: bert@example.org\n"), "{mail}");
    }
    assert!(mails[3].contains("X-RcptTo: bert@example.org, cora@example.org\n"), "{}", mails[3]);
}
