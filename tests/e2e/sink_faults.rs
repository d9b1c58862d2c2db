//! smtp-sink with its fault flags as the upstream: every fault is a 4xx for the sender.

use torwart_tests::{Gateway, PolicyFile, SmtpSink, swaks};

/// `-q` closes without a reply, `-Q` says 421 and closes, `-r` refuses for now, `-f` for good.
const FLAGS: [&str; 4] = ["-q", "-Q", "-r", "-f"];
const STEPS: [&str; 6] = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."];

#[test]
fn every_fault_flag_at_every_step_is_a_deferral() {
    for flag in FLAGS {
        for step in STEPS {
            // EHLO alone refused leads to HELO, which is fine; so both are.
            let steps = if step == "EHLO" { "EHLO,HELO" } else { step };
            let sink = SmtpSink::start(&[flag, steps]);
            let gateway = Gateway::start(&PolicyFile::to(sink.endpoint));
            let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &[]);
            assert_ne!(sent.code, 0, "{flag} {step}:\n{}", sent.text);
            let refused = sent.text.lines().find(|line| line.starts_with("<** "));
            let refused = refused.unwrap_or_else(|| panic!("{flag} {step}:\n{}", sent.text));
            assert!(refused.starts_with("<** 4"), "{flag} {step}: {refused}");
        }
    }
}

#[test]
fn a_sink_without_ehlo_gets_its_mail_by_helo() {
    let sink = SmtpSink::start(&["-e"]);
    let gateway = Gateway::start(&PolicyFile::to(sink.endpoint));
    let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &[]);
    assert_eq!(sent.code, 0, "{}", sent.text);
    assert_eq!(sink.messages().len(), 1);
}

#[test]
fn a_sink_that_refuses_ehlo_gets_its_mail_by_helo() {
    let sink = SmtpSink::start(&["-f", "EHLO"]);
    let gateway = Gateway::start(&PolicyFile::to(sink.endpoint));
    let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &[]);
    assert_eq!(sent.code, 0, "{}", sent.text);
}

#[test]
fn a_slow_sink_gets_its_mail() {
    let sink = SmtpSink::start(&["-w", "1"]);
    let gateway = Gateway::start(&PolicyFile::to(sink.endpoint));
    let sent = swaks(gateway.smtp, "anna@sender.example", "bert@example.org", &[]);
    assert_eq!(sent.code, 0, "{}", sent.text);
}
