//! Peers that are broken or hostile, against a process that may have 256 MiB beside its own program: bounded memory, the
//! right reply, and nobody else notices.

use std::io::ErrorKind;
use std::net::SocketAddr;

use torwart_tests::{Client, Gateway, GatewayBuilder, PolicyFile, Upstream, client_address};

const MEMORY: u64 = 256 << 20;

fn confined() -> GatewayBuilder {
    // Whoever is still in a transaction at the end is not waited for.
    Gateway::builder().address_space(MEMORY).flag("--drain-timeout", "1s")
}

fn start(upstream: SocketAddr) -> Gateway {
    confined().start(&PolicyFile::to(upstream).text())
}

/// Someone else's mail goes through, and memory stayed within its bound.
fn unharmed(mut gateway: Gateway) {
    let mut other = Client::greeted_from(client_address(500), gateway.smtp);
    assert_eq!(other.mail("well@sender.example", &["bert@example.org"], b"Subject: well\r\n").code, 250);
    let peak = gateway.process().peak_resident();
    assert!(peak < MEMORY / 2, "{} MiB were resident", peak >> 20);
    let (status, lines) = gateway.stop();
    assert!(status.success(), "{status}:\n{}", lines.join("\n"));
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{}", lines.join("\n"));
}

/// Sends as much as the peer takes, in pieces, and tells how much that was.
fn pour(client: &mut Client, piece: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        if client.try_send(piece).is_err() {
            break;
        }
        sent += piece.len();
    }
    sent
}

/// Replies until the connection ends, however it ends.
fn drain(client: &mut Client) -> Vec<u16> {
    let mut codes = Vec::new();
    while let Ok(reply) = client.try_reply() {
        codes.push(reply.code);
    }
    codes
}

#[test]
fn garbage_is_answered_and_then_cut_off() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    let mut seed: u32 = 1;
    let mut garbage = Vec::new();
    for _ in 0..200 {
        for _ in 0..100 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            garbage.push((seed >> 24) as u8);
        }
        garbage.extend_from_slice(b"\r\n");
    }
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    let _ = client.try_send(&garbage);
    let codes = drain(&mut client);
    assert!(codes.iter().all(|code| *code >= 400), "{codes:?}");
    assert_eq!(codes.last(), Some(&421), "{codes:?}");
    assert!(codes.len() <= 22, "{} replies", codes.len());
    unharmed(gateway);
}

#[test]
fn http_and_tls_at_the_smtp_port_are_cut_off() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    for words in [
        b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\nAccept: */*\r\nCookie: a\r\nX: y\r\n\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ] {
        let mut client = Client::connect(gateway.smtp);
        client.expect(220);
        client.send(words);
        client.close_write();
        let codes = drain(&mut client);
        assert!(codes.iter().all(|code| *code >= 400), "{codes:?}");
    }
    unharmed(gateway);
}

#[test]
fn an_endless_line_ends_the_session() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    let sent = pour(&mut client, &[b'A'; 64 * 1024], 512 << 20);
    let codes = drain(&mut client);
    assert!(
        sent < 512 << 20 || codes.iter().any(|code| *code >= 400),
        "it took {sent} octets without a word"
    );
    unharmed(gateway);
}

#[test]
fn an_endless_line_in_a_message_takes_no_memory() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.ask(250, "RCPT TO:<bert@example.org>");
    client.ask(354, "DATA");
    pour(&mut client, &[b'A'; 64 * 1024], 60 << 20);
    let _ = client.try_send(b"\r\n.\r\n");
    let codes = drain_one(&mut client);
    assert!(codes.is_none_or(|code| code >= 400), "{codes:?}");
    assert!(upstream.received().is_empty());
    unharmed(gateway);
}

fn drain_one(client: &mut Client) -> Option<u16> {
    client.try_reply().ok().map(|reply| reply.code)
}

#[test]
fn a_message_over_the_announced_size_is_refused_whole() {
    let upstream = Upstream::start();
    let gateway =
        confined().flag("--max-message-size", "1Mi").start(&PolicyFile::to(upstream.endpoint).text());
    let mut client = Client::connect(gateway.smtp);
    client.expect(220);
    let offered = client.ask(250, "EHLO client.sender.example");
    assert!(offered.lines.contains(&format!("SIZE {}", 1 << 20)), "{offered}");
    let reply = client.command(format!("MAIL FROM:<anna@sender.example> SIZE={}", 2 << 20));
    assert_eq!((reply.code, reply.enhanced()), (552, "5.3.4"), "{reply}");
    let line = b"0123456789abcdef0123456789abcdef\r\n";
    let content = line.repeat((5 << 20) / 4 / line.len());
    let reply = client.mail("anna@sender.example", &["bert@example.org"], &content);
    assert_eq!((reply.code, reply.enhanced()), (552, "5.3.4"), "{reply}");
    assert!(upstream.received().is_empty());
    unharmed(gateway);
}

#[test]
fn a_domains_smaller_limit_is_said_at_rcpt_or_at_the_dot() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint).domain("limits: {messageSize: 64Ki}"));
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example> SIZE=70000");
    let reply = client.ask(552, "RCPT TO:<bert@example.org>");
    assert_eq!(reply.enhanced(), "5.3.4", "{reply}");
    client.ask(250, "RSET");
    let reply = client.mail("anna@sender.example", &["bert@example.org"], &b"x\r\n".repeat(30_000));
    assert_eq!((reply.code, reply.enhanced()), (552, "5.3.4"), "{reply}");
    assert_eq!(client.mail("anna@sender.example", &["bert@example.org"], b"small\r\n").code, 250);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn ten_thousand_recipients_are_bounded() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    let mut client = gateway.client();
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    let mut codes = Vec::new();
    'all: for batch in 0..100 {
        let lines: String =
            (0..100).map(|n| format!("RCPT TO:<user{}@example.org>\r\n", batch * 100 + n)).collect();
        if client.try_send(lines.as_bytes()).is_err() {
            break;
        }
        for _ in 0..100 {
            match client.try_reply() {
                Ok(reply) => codes.push(reply.code),
                Err(error) if error.kind() != ErrorKind::WouldBlock => break 'all,
                Err(error) => panic!("silence after {} replies: {error}", codes.len()),
            }
        }
    }
    let accepted = codes.iter().filter(|code| **code == 250).count();
    assert!((1..=1000).contains(&accepted), "{accepted} were accepted");
    assert!(codes.iter().all(|code| *code == 250 || (400..500).contains(code)), "{codes:?}");
    unharmed(gateway);
}

#[test]
fn all_recipients_that_were_accepted_get_the_message() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let mut client = gateway.client();
    let lines: String = (0..300).map(|n| format!("RCPT TO:<user{n}@example.org>\r\n")).collect();
    client.send(format!("MAIL FROM:<anna@sender.example>\r\n{lines}DATA\r\n"));
    client.expect(250);
    let replies: Vec<_> = (0..300).map(|_| client.reply()).collect();
    let accepted = replies.iter().filter(|reply| reply.code == 250).count();
    assert!(accepted >= 100 && replies.iter().all(|reply| matches!(reply.code, 250 | 452)), "{accepted}");
    client.expect(354);
    client.send("Subject: many\r\n\r\n.\r\n");
    client.expect(250);
    let received = upstream.received().remove(0);
    assert_eq!(received.to.len(), accepted);
}

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_out() {
    let upstream = Upstream::start();
    let gateway = confined()
        .flag("--max-connections-per-network", 2000)
        .start(&PolicyFile::to(upstream.endpoint).text());
    let mut silent: Vec<Client> = (0..1000).map(|_| Client::connect(gateway.smtp)).collect();
    // Some stop in the middle of a command, of a transaction, of a message.
    for (n, client) in silent.iter_mut().enumerate() {
        client.expect(220);
        match n % 4 {
            0 => {}
            1 => client.send("EHL"),
            2 => client.send("EHLO client.sender.example\r\nMAIL FROM:<anna@sender.example>\r\n"),
            _ => client.send("EHLO client.sender.example\r\nMAIL FROM:<anna@sender.example>\r\nRCPT TO:<"),
        }
    }
    unharmed(gateway);
}

#[test]
fn half_open_transactions_hold_no_more_than_their_share_of_the_upstream() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    // One less than the upstream's connection limit of the test's policy.
    let mut halves: Vec<Client> = (0..40).map(|_| gateway.client()).collect();
    for client in &mut halves {
        client.ask(250, "MAIL FROM:<anna@sender.example>");
        client.ask(250, "RCPT TO:<bert@example.org>");
        client.ask(354, "DATA");
        client.send("Subject: half a mess");
    }
    unharmed(gateway);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn connections_beyond_the_limits_hear_421() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .flag("--max-connections", 20)
        .flag("--max-connections-per-network", 10)
        .start(&PolicyFile::to(upstream.endpoint).text());
    let mut held: Vec<Client> =
        (0..10).map(|_| Client::greeted_from(client_address(1), gateway.smtp)).collect();
    Client::connect_from(client_address(1), gateway.smtp).expect(421);
    held.extend((0..10).map(|n| Client::greeted_from(client_address(10 + n), gateway.smtp)));
    // At the limit of all, the gateway may also leave the connection unanswered until one is free.
    let mut late = Client::connect_from(client_address(99), gateway.smtp);
    held.clear();
    let reply = late.reply();
    assert!(matches!(reply.code, 220 | 421), "{reply}");
    gateway.wait_metrics("all gone", |metrics| metrics.sum("torwart_smtp_connections", &[]) <= 1.0);
    Client::greeted_from(client_address(1), gateway.smtp);
}

#[test]
fn a_flood_of_commands_is_answered_in_order_or_cut_off() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    for command in
        ["NOOP\r\n", "RSET\r\n", "EHLO client.sender.example\r\n", "VRFY bert\r\n", "HELP\r\n", "QUIT\r\n"]
    {
        let mut client = gateway.client();
        let _ = client.try_send(command.repeat(2000).as_bytes());
        client.close_write();
        let codes = drain(&mut client);
        assert!(!codes.is_empty() && codes.len() <= 2000, "{command}: {}", codes.len());
    }
    unharmed(gateway);
}

#[test]
fn a_reader_that_never_reads_holds_no_memory() {
    let upstream = Upstream::start();
    let gateway = start(upstream.endpoint);
    let mut client = Client::connect(gateway.smtp);
    client.stream().set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    // The replies are never read, so at some point the gateway must stop reading commands.
    let sent = pour(&mut client, &b"EHLO client.sender.example\r\n".repeat(1000), 256 << 20);
    assert!(sent < 256 << 20, "it answers into the void");
    unharmed(gateway);
}

#[test]
fn commands_out_of_order_and_bad_arguments_have_their_replies() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&PolicyFile::to(upstream.endpoint));
    let table: [(&str, &[&str], u16); 13] = [
        ("mail before a greeting", &["MAIL FROM:<a@b.example>"], 503),
        ("rcpt before mail", &["EHLO c.example", "RCPT TO:<bert@example.org>"], 503),
        ("data before rcpt", &["EHLO c.example", "MAIL FROM:<a@b.example>", "DATA"], 503),
        ("a second mail", &["EHLO c.example", "MAIL FROM:<a@b.example>", "MAIL FROM:<a@b.example>"], 503),
        ("no brackets", &["EHLO c.example", "MAIL FROM:a@b.example x"], 501),
        ("an unknown command", &["XYZZY"], 500),
        ("no host name", &["EHLO"], 501),
        ("a parameter nobody knows", &["EHLO c.example", "MAIL FROM:<a@b.example> FOO=BAR"], 555),
        ("a size that is no number", &["EHLO c.example", "MAIL FROM:<a@b.example> SIZE=x"], 501),
        ("a body type nobody knows", &["EHLO c.example", "MAIL FROM:<a@b.example> BODY=9BIT"], 501),
        ("an argument to DATA", &["EHLO c.example", "DATA now"], 501),
        ("AUTH is not offered", &["EHLO c.example", "AUTH PLAIN"], 502),
        ("VRFY says nothing", &["EHLO c.example", "VRFY bert"], 252),
    ];
    for (name, commands, code) in table {
        let mut client = Client::connect(gateway.smtp);
        client.expect(220);
        let last = commands.iter().map(|command| client.command(command)).last().unwrap();
        // 500 to 504 differ in taste between servers; the class must be right and the session alive.
        let same = last.code == code || ((500..=504).contains(&code) && (500..=504).contains(&last.code));
        assert!(same, "{name}: {last}");
        client.ask(250, "NOOP");
    }
}
