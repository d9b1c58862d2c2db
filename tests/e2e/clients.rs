//! Clients that people use.

use torwart_tests::{Certificate, Gateway, PolicyFile, SmtpSink, Upstream, eventually, python, swaks, tool};

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
