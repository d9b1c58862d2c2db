//! STARTTLS: nothing said in clear may count afterwards.

use torwart_tests::{Certificate, Client, Gateway, GatewayBuilder, PolicyFile, Upstream, eventually, python};

fn with_tls(certificate: &Certificate) -> GatewayBuilder {
    Gateway::builder()
        .flag("--tls-cert", certificate.cert.display())
        .flag("--tls-key", certificate.key.display())
}

#[test]
fn commands_sent_along_with_starttls_end_the_connection() {
    let upstream = Upstream::start();
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = with_tls(&certificate).start(&PolicyFile::to(upstream.endpoint).text());
    for injected in
        ["EHLO evil.example\r\n", "MAIL FROM:<evil@sender.example>\r\nRCPT TO:<bert@example.org>\r\n", "X"]
    {
        let mut client = gateway.client();
        client.send(format!("STARTTLS\r\n{injected}"));
        let replies = client.rest();
        assert!(replies.len() <= 1, "{injected:?}: {replies:?}");
    }
    assert_eq!(upstream.accepted(), 0);
}

const RENEWAL: &str = r#"
import smtplib, ssl, sys
host, port, ca = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with smtplib.SMTP(host, port, local_hostname="client.sender.example", timeout=30) as smtp:
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = False
    smtp.starttls(context=context)
    assert smtp.ehlo()[0] == 250
"#;

/// A client that says MAIL, then STARTTLS, then goes on as if nothing had been forgotten.
const FORGOTTEN: &str = r#"
import smtplib, ssl, sys
host, port = sys.argv[1], int(sys.argv[2])
context = ssl._create_unverified_context()
smtp = smtplib.SMTP(host, port, local_hostname="client.sender.example", timeout=30)
smtp.ehlo()
code, text = smtp.docmd("STARTTLS")
assert code == 220, text
smtp.sock = context.wrap_socket(smtp.sock)
smtp.file = None
code, text = smtp.docmd("MAIL FROM:<anna@sender.example>")
assert code == 503, (code, text)
code, text = smtp.ehlo()
assert code == 250 and b"STARTTLS" not in text, text
code, text = smtp.docmd("STARTTLS")
assert code >= 500, (code, text)
"#;

#[test]
fn the_session_after_starttls_is_a_new_one() {
    let upstream = Upstream::start();
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = with_tls(&certificate).start(&PolicyFile::to(upstream.endpoint).text());
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let ran = python(FORGOTTEN, &[&host, &port]);
    assert_eq!(ran.code, 0, "{}", ran.text);
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let upstream = Upstream::start();
    let certificate = Certificate::new(&[PolicyFile::HOSTNAME]);
    let gateway = with_tls(&certificate).start(&PolicyFile::to(upstream.endpoint).text());
    let (host, port) = (gateway.smtp.ip().to_string(), gateway.smtp.port().to_string());
    let cert = certificate.cert.display().to_string();
    let first = python(RENEWAL, &[&host, &port, &cert]);
    assert_eq!(first.code, 0, "{}", first.text);
    certificate.renew(&[PolicyFile::HOSTNAME]);
    // The client trusts the new one only, so success is the proof.
    eventually("the new certificate is used", || python(RENEWAL, &[&host, &port, &cert]).code == 0);
}

#[test]
fn without_a_certificate_starttls_is_not_offered() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    let offered = client.ask(250, "EHLO client.sender.example");
    assert!(!offered.lines.iter().any(|line| line == "STARTTLS"), "{offered}");
    let reply = client.command("STARTTLS");
    assert!(!reply.is_positive(), "{reply}");
}
