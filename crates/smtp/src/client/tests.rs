use proptest::prelude::*;

use super::*;

const EHLO: &str = "250-up\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8bitmime\r\n250-STARTTLS\r\n250-XCLIENT NAME addr\r\n250 X-OTHER\r\n";

fn mk_client(start_tls: StartTlsMode) -> Client {
    Client::new(ClientConfig { hostname: "mx.test".into(), dialect: Dialect::Smtp, start_tls })
}

/// Feeds the bytes one at a time and returns the events; then checks that the whole at once gives the same.
fn events(client: &mut Client, input: &str) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    for byte in input.as_bytes().chunks(1) {
        let (taken, event) = client.receive(byte).unwrap();
        assert_eq!(taken, 1);
        events.extend(event);
    }
    events
}

fn output(client: &mut Client) -> String {
    String::from_utf8(std::mem::take(client.output())).unwrap()
}

fn mk_ready() -> Client {
    let mut client = mk_client(StartTlsMode::Never);
    events(&mut client, "220 up\r\n");
    assert_eq!(events(&mut client, EHLO), [ClientEvent::Ready]);
    output(&mut client);
    client
}

fn reply(stage: Stage, line: &str) -> ClientEvent {
    ClientEvent::Reply { stage, reply: Reply::from_line(line) }
}

#[test]
fn a_message_goes_through() {
    let mut client = mk_client(StartTlsMode::Never);
    assert_eq!(output(&mut client), "");
    assert_eq!(client.stage(), Some(Stage::Banner));
    assert_eq!(events(&mut client, "220-up\r\n220 ESMTP\r\n"), []);
    assert_eq!(output(&mut client), "EHLO mx.test\r\n");
    assert_eq!(events(&mut client, EHLO), [ClientEvent::Ready]);
    assert!(client.can_pipeline());
    client.mail(&MailParameters { sender: "a@b", size: Some(7), eight_bit: true, smtputf8: false });
    client.rcpt("\"c d\"@e");
    client.data();
    assert_eq!(
        output(&mut client),
        "MAIL FROM:<a@b> SIZE=7 BODY=8BITMIME\r\nRCPT TO:<\"c d\"@e>\r\nDATA\r\n"
    );
    assert_eq!(client.outstanding(), 3);
    assert_eq!(
        events(&mut client, "250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 go\r\n"),
        [
            reply(Stage::Mail, "250 2.1.0 OK"),
            reply(Stage::Rcpt, "250 2.1.5 OK"),
            reply(Stage::Data, "354 go")
        ]
    );
    client.body(b"a\r\n.b\r\n");
    client.body(b".");
    client.end_of_data();
    client.quit();
    assert_eq!(output(&mut client), "a\r\n..b\r\n..\r\n.\r\nQUIT\r\n");
    assert_eq!(
        events(&mut client, "250 2.0.0 done\r\n221 bye\r\n"),
        [reply(Stage::Dot, "250 2.0.0 done"), reply(Stage::Quit, "221 bye")]
    );
}

#[test]
fn what_is_not_offered_is_not_said() {
    let mut client = mk_client(StartTlsMode::IfOffered);
    events(&mut client, "220 up\r\n");
    assert_eq!(events(&mut client, "250 up\r\n"), [ClientEvent::Ready]);
    output(&mut client);
    client.mail(&MailParameters { sender: "", size: Some(7), eight_bit: true, smtputf8: false });
    assert_eq!(output(&mut client), "MAIL FROM:<>\r\n");
}

#[test]
fn smtputf8_is_said_where_the_caller_says_so() {
    let mut client = mk_ready();
    client.mail(&MailParameters { sender: "\u{f6}@b", size: None, eight_bit: true, smtputf8: true });
    assert_eq!(output(&mut client), "MAIL FROM:<\u{f6}@b> BODY=8BITMIME SMTPUTF8\r\n");
}

/// RFC 2033 section 4.1.
#[test]
fn an_lmtp_server_gets_lhlo_and_nothing_instead() {
    let lmtp = || {
        let config = ClientConfig {
            hostname: "mx.test".into(),
            dialect: Dialect::Lmtp,
            start_tls: StartTlsMode::Never,
        };
        Client::new(config)
    };
    let mut client = lmtp();
    events(&mut client, "220 up\r\n");
    assert_eq!(output(&mut client), "LHLO mx.test\r\n");
    assert_eq!(events(&mut client, EHLO), [ClientEvent::Ready]);
    client.xclient(&[("ADDR", "192.0.2.1")]);
    events(&mut client, "220 up\r\n");
    assert_eq!(output(&mut client), "XCLIENT ADDR=192.0.2.1\r\nLHLO mx.test\r\n");

    let mut client = lmtp();
    events(&mut client, "220 up\r\n");
    assert_eq!(events(&mut client, "500 what\r\n"), [reply(Stage::Ehlo, "500 what")]);
    assert_eq!(output(&mut client), "LHLO mx.test\r\n");
}

#[test]
fn an_old_server_gets_helo() {
    let mut client = mk_client(StartTlsMode::IfOffered);
    events(&mut client, "220 up\r\n500 what\r\n");
    assert_eq!(output(&mut client), "EHLO mx.test\r\nHELO mx.test\r\n");
    assert_eq!(events(&mut client, "250 up\r\n"), [ClientEvent::Ready]);
    assert_eq!(client.capabilities(), &Capabilities::default());
}

#[test]
fn refusals_while_greeting_are_told() {
    for (banner, wanted) in [
        ("554 5.7.1 no\r\n", reply(Stage::Banner, "554 5.7.1 no")),
        ("421 busy\r\n", reply(Stage::Banner, "421 busy")),
        ("250 what\r\n", reply(Stage::Banner, "250 what")),
        ("220 up\r\n421 busy\r\n", reply(Stage::Ehlo, "421 busy")),
        ("220 up\r\n500 what\r\n550 no\r\n", reply(Stage::Ehlo, "550 no")),
    ] {
        assert_eq!(events(&mut mk_client(StartTlsMode::Never), banner), [wanted], "{banner:?}");
    }
}

#[test]
fn starttls_forgets_what_was_offered_before() {
    let mut client = mk_client(StartTlsMode::Required);
    events(&mut client, "220 up\r\n");
    assert_eq!(events(&mut client, EHLO), []);
    assert_eq!(client.stage(), Some(Stage::StartTls));
    assert_eq!(events(&mut client, "220 go\r\n"), [ClientEvent::StartTls]);
    client.tls_established();
    assert!(client.tls_active() && !client.can_pipeline());
    assert_eq!(output(&mut client), "EHLO mx.test\r\nSTARTTLS\r\nEHLO mx.test\r\n");
    assert_eq!(events(&mut client, "250-up\r\n250 STARTTLS\r\n"), [ClientEvent::Ready]);
    assert_eq!(client.capabilities().size, None);
}

#[test]
fn bytes_behind_the_reply_to_starttls_are_an_injection() {
    let mut client = mk_client(StartTlsMode::IfOffered);
    events(&mut client, "220 up\r\n");
    events(&mut client, EHLO);
    assert_eq!(client.receive(b"220 go\r\n250 injected\r\n"), Err(ClientFault::Injection));

    let mut client = mk_client(StartTlsMode::IfOffered);
    events(&mut client, "220 up\r\n");
    events(&mut client, EHLO);
    assert_eq!(client.receive(b"220 go\r\n"), Ok((8, Some(ClientEvent::StartTls))));
    assert_eq!(client.receive(b""), Ok((0, None)));
    assert_eq!(client.receive(b"2"), Err(ClientFault::Injection));
}

#[test]
fn starttls_that_is_missing_or_refused_matters_where_it_is_required() {
    let mut client = mk_client(StartTlsMode::Required);
    assert_eq!(events(&mut client, "220 up\r\n250 up\r\n"), [ClientEvent::TlsNotOffered]);

    for (mode, wanted) in [
        (StartTlsMode::Required, reply(Stage::StartTls, "454 4.7.0 no")),
        (StartTlsMode::IfOffered, ClientEvent::Ready),
    ] {
        let mut client = mk_client(mode);
        events(&mut client, "220 up\r\n");
        events(&mut client, EHLO);
        assert_eq!(events(&mut client, "454 4.7.0 no\r\n"), [wanted]);
        assert!(!client.tls_active());
    }
}

#[test]
fn xclient_starts_the_session_anew() {
    let mut client = mk_ready();
    assert_eq!(client.capabilities().xclient.as_deref(), Some(&["NAME".to_owned(), "ADDR".to_owned()][..]));
    client.xclient(&[("ADDR", "192.0.2.1"), ("HELO", "a +=b\r\n\u{e9}")]);
    assert_eq!(output(&mut client), "XCLIENT ADDR=192.0.2.1 HELO=a+20+2B+3Db+0D+0A+C3+A9\r\n");
    assert_eq!(events(&mut client, "220 up\r\n"), []);
    assert_eq!(output(&mut client), "EHLO mx.test\r\n");
    assert_eq!(events(&mut client, "250 up\r\n"), [ClientEvent::Ready]);
    client.xforward(&[("NAME", "x")]);
    assert_eq!(events(&mut client, "550 5.7.0 no\r\n"), [reply(Stage::Xforward, "550 5.7.0 no")]);
}

#[test]
fn a_reply_that_nothing_asked_for_is_a_fault() {
    let mut client = mk_ready();
    let unasked = ClientFault::Unexpected(Reply::from_line("421 4.4.2 timeout"));
    assert_eq!(client.receive(b"421 4.4.2 timeout\r\n"), Err(unasked));
    let mut client = mk_ready();
    assert_eq!(client.receive(b"\x16\x03\x01\n"), Err(ClientFault::Reply(ReplyFault::BadByte)));
}

fn mk_in_message() -> Client {
    let mut client = mk_ready();
    client.data();
    assert_eq!(events(&mut client, "354 go\r\n"), [reply(Stage::Data, "354 go")]);
    client.body(b"half");
    output(&mut client);
    client
}

#[test]
fn a_message_may_be_refused_before_its_end_but_not_accepted() {
    let mut client = mk_in_message();
    assert_eq!(events(&mut client, "552 5.3.4 too large\r\n"), [reply(Stage::Dot, "552 5.3.4 too large")]);
    client.body(b"the rest");
    client.end_of_data();
    assert_eq!((output(&mut client), client.outstanding()), (String::new(), 0));

    let mut client = mk_in_message();
    let early = ClientFault::Unexpected(Reply::from_line("250 2.0.0 OK"));
    assert_eq!(client.receive(b"250 2.0.0 OK\r\n"), Err(early));
    client.end_of_data();
    assert_eq!((output(&mut client), client.outstanding()), (String::new(), 0));
}

#[test]
fn a_reply_before_garbage_is_told_first() {
    let mut client = mk_ready();
    client.noop();
    let (taken, event) = client.receive(b"250 OK\r\ngarbage\r\n").unwrap();
    assert_eq!((taken, event), (8, Some(reply(Stage::Noop, "250 OK"))));
    assert_eq!(client.receive(b"garbage\r\n"), Err(ClientFault::Reply(ReplyFault::NoCode)));
}

#[test]
fn an_idle_client_is_small_and_can_be_sent() {
    fn assert_send<T: Send>(_: &T) {}
    let mut client = mk_ready();
    for _ in 0..1000 {
        client.rcpt("a@b");
    }
    output(&mut client);
    events(&mut client, &"250 OK\r\n".repeat(1000));
    assert!(client.outstanding.capacity() <= 2 * KEEP_OUTSTANDING && client.output.capacity() == 0);
    assert!(size_of::<Client>() <= 384, "{}", size_of::<Client>());
    assert_send(&client);
}

#[test]
fn no_message_is_sent_without_354() {
    let mut client = mk_ready();
    client.data();
    output(&mut client);
    for refusal in ["250 OK\r\n", "451 no\r\n"] {
        events(&mut client, refusal);
        client.body(b"a\r\n");
        client.end_of_data();
        assert_eq!((output(&mut client), client.outstanding()), (String::new(), 0));
        client.data();
        output(&mut client);
    }
}

#[test]
fn a_path_cannot_smuggle_a_command() {
    let mut client = mk_ready();
    client.rcpt("a@b>\r\nRCPT TO:<c@d");
    assert_eq!(output(&mut client), "RCPT TO:<a@b>??RCPT TO:<c@d>\r\n");
}

proptest! {
    #[test]
    fn no_server_makes_the_client_panic(input: Vec<u8>) {
        crate::fuzz::upstream_reply(&input);
    }
}
