//! A message must end where both parsers say that it ends (CVE-2023-51764, CVE-2023-51765, CVE-2023-51766).

use torwart_tests::{Client, Gateway, PolicyFile, Postfix, PostfixRole, Upstream};

/// What one server or another took for the end of a message.
const FALSE_ENDS: [&[u8]; 17] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n\n.\r\n",
    b"\n\n.\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\0\r\n",
    b"\n\r.\r\n",
    b"\r\n.\x0b\n",
];

fn smuggle(end: &[u8]) -> Vec<u8> {
    let mut content = b"Subject: outer\r\n\r\nouter".to_vec();
    content.extend_from_slice(end);
    content.extend_from_slice(
        b"MAIL FROM:<evil@sender.example>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\n\
          Subject: smuggled\r\n\r\nsmuggled\r\n.\r\n",
    );
    content
}

/// Sends it, and tells the reply to it; the session must be in step afterwards.
fn send(client: &mut Client, content: &[u8]) -> u16 {
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(354, "DATA");
    client.send(content);
    let code = client.reply().code;
    client.ask(250, "NOOP");
    code
}

fn outer_and_smuggled(mailbox: &Postfix) -> (usize, usize) {
    let senders = |name: &str| mailbox.count(&["qmgr", &format!("from=<{name}@sender.example>"), "size="]);
    (senders("anna"), senders("evil"))
}

/// After this, whatever was to come to the mailbox is in its log.
fn flush(gateway: &Gateway, mailbox: &Postfix) {
    assert_eq!(gateway.client().mail("last@sender.example", &["last@example.org"], b"\r\n").code, 250);
    mailbox.log(&["to=<last@example.org>", "delivered to maildir"]);
}

#[test]
fn this_postfix_alone_can_be_smuggled_through() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let mut client = Client::greeted(mailbox.endpoint);
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(354, "DATA");
    client.send(smuggle(b"\r\n.\n"));
    mailbox.log(&["to=<victim@example.org>", "delivered to maildir"]);
}

#[test]
fn no_false_end_smuggles_a_message_into_a_postfix() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let gateway = Gateway::start(&PolicyFile::to(mailbox.endpoint));
    for end in FALSE_ENDS {
        let code = send(&mut gateway.client(), &smuggle(end));
        assert_eq!(code, 550, "{:?}", end.escape_ascii().to_string());
    }
    flush(&gateway, &mailbox);
    assert_eq!(outer_and_smuggled(&mailbox), (0, 0));
}

#[test]
fn normalising_makes_one_message_of_it_or_none() {
    let mailbox = Postfix::start(&PostfixRole::Mailbox);
    let gateway = Gateway::builder()
        .flag("--bare-newline", "normalize")
        .start(&PolicyFile::to(mailbox.endpoint).text());
    let codes = FALSE_ENDS.map(|end| send(&mut gateway.client(), &smuggle(end)));
    assert!(codes.iter().all(|code| matches!(code, 250 | 550)), "{codes:?}");
    assert_eq!(codes[..3], [250; 3], "bare line feeds are what normalising is for");
    flush(&gateway, &mailbox);
    let accepted = codes.iter().filter(|code| **code == 250).count();
    assert_eq!(outer_and_smuggled(&mailbox), (accepted, 0));
}

#[test]
fn every_split_of_a_false_end_is_the_same() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    for end in FALSE_ENDS {
        for cut in 1..end.len() {
            let mut client = gateway.client();
            client.ask(250, "MAIL FROM:<anna@sender.example>");
            client.ask(250, "RCPT TO:<bert@example.org>");
            client.ask(354, "DATA");
            client.send(b"outer");
            client.send(&end[..cut]);
            client.send(&end[cut..]);
            client.send(b"rest\r\n.\r\n");
            client.expect(550);
        }
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_command_ends_with_both_octets_only() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    // One command with a line feed in it, or a bad line: never two good ones.
    client.send("MAIL FROM:<anna@sender.example>\nRCPT TO:<bert@example.org>\r\n");
    let reply = client.reply();
    assert!(reply.code >= 500, "{reply}");
    let reply = client.command("DATA");
    assert!(reply.code >= 500, "{reply}");
}
