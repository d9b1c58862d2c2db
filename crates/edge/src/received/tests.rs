use std::time::Duration;

use super::*;

const ID: Id = Id::from_u128(1);

fn trace<'a>() -> Trace<'a> {
    Trace {
        helo: Some("mail.example.com"),
        client: "192.0.2.7".parse().unwrap(),
        hostname: "mx.example.net",
        esmtp: true,
        tls: false,
        smtputf8: false,
        id: ID,
        only_recipient: None,
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_492_800),
    }
}

#[test]
fn the_field_is_that_of_rfc_5321() {
    let recipient = Mailbox::new("bob", "example.org");
    let fields = Trace { only_recipient: Some(&recipient), ..trace() }.received();
    assert_eq!(
        fields,
        "Received: from mail.example.com (unknown [192.0.2.7])\r\n\
         \tby mx.example.net (Torwart) with ESMTP id 00000000000000000000000001\r\n\
         \tfor <bob@example.org>;\r\n\
         \tTue, 24 Nov 2026 04:00:00 +0000\r\n"
    );
}

#[test]
fn the_protocol_is_that_of_rfc_3848() {
    for (esmtp, tls, keyword) in [(false, false, "SMTP"), (true, false, "ESMTP"), (true, true, "ESMTPS")] {
        let fields = Trace { esmtp, tls, ..trace() }.received();
        assert!(fields.contains(&format!(" with {keyword} id ")), "{fields}");
    }
}

#[test]
fn a_message_of_smtputf8_says_so_and_may_name_its_recipient() {
    let recipient = Mailbox::new("\u{7528}\u{6237}", "b\u{fc}cher.example");
    for (tls, smtputf8, keyword) in
        [(false, true, "UTF8SMTP"), (true, true, "UTF8SMTPS"), (true, false, "ESMTPS")]
    {
        let fields = Trace { tls, smtputf8, only_recipient: Some(&recipient), ..trace() }.received();
        assert!(fields.contains(&format!(" with {keyword} id ")), "{fields}");
        assert_eq!(
            fields.contains("\r\n\tfor <\u{7528}\u{6237}@b\u{fc}cher.example>;"),
            smtputf8,
            "{fields}"
        );
        assert_eq!(fields.is_ascii(), !smtputf8);
    }
    let hostile = Mailbox::new("a\u{85}b", "c.example");
    let fields = Trace { smtputf8: true, only_recipient: Some(&hostile), ..trace() }.received();
    assert!(!fields.contains("for <"), "{fields}");
}

#[test]
fn an_ipv6_client_is_an_ipv6_literal() {
    let fields = Trace { client: "2001:db8::1".parse().unwrap(), ..trace() }.received();
    assert!(fields.contains("(unknown [IPv6:2001:db8::1])"), "{fields}");
}

#[test]
fn what_the_client_says_cannot_break_out_of_its_place() {
    let table = [
        ("a\r\nX-Injected: yes", "from a??X-Injected:?yes (unknown"),
        ("a (b) c", "from a??b??c (unknown"),
        ("[192.0.2.1]", "from [192.0.2.1] (unknown"),
        ("[IPv6:2001:db8::1]", "from [IPv6:2001:db8::1] (unknown"),
        ("müller.example", "from m?ller.example (unknown"),
        ("", "from unknown (unknown"),
        ("a;b\\\"c\0", "from a?b??c? (unknown"),
    ];
    for (helo, expected) in table {
        let fields = Trace { helo: Some(helo), ..trace() }.received();
        assert!(fields.contains(expected), "{helo:?}: {fields}");
        assert_eq!(fields.lines().count(), 3, "{helo:?}: {fields}");
    }
}

#[test]
fn no_line_is_longer_than_998_and_no_line_is_empty() {
    let helo = "x".repeat(5000);
    let local = "y".repeat(890);
    let recipient = Mailbox::new(local, "d.example");
    let fields = Trace { helo: Some(&helo), only_recipient: Some(&recipient), ..trace() }.received();
    assert!(fields.contains("for <yyy"), "{fields}");
    for line in fields.split_terminator("\r\n") {
        assert!(!line.is_empty() && line.len() <= 998, "{line}");
    }
}

#[test]
fn a_recipient_that_no_header_can_hold_is_left_out() {
    for recipient in [
        Mailbox::new("\"a\r\nb\"", "example.org"),
        Mailbox::new("ü", "example.org"),
        Mailbox::new("z".repeat(1000), "example.org"),
    ] {
        let fields = Trace { only_recipient: Some(&recipient), ..trace() }.received();
        assert!(!fields.contains(" <"), "{fields}");
    }
}
