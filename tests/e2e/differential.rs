//! The same messages through the gateway and directly, into the mail servers that people have: the same octets arrive,
//! but for the fields that the gateway says it adds.

mod messages;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use torwart_tests::{Brand, Client, Gateway, MailServer, PolicyFile, Reply, Stored, without_added_fields};

use self::messages::{COUNT, Message};

/// A session ends itself after so many transactions.
const SESSION: usize = 100;

/// Sends each to a recipient that its number makes, and tells the codes of the replies.
fn send(to: SocketAddr, way: &str, messages: &[Message]) -> Vec<u16> {
    let mut codes = Vec::new();
    for chunk in messages.chunks(SESSION) {
        let mut client = Client::greeted(to);
        for message in chunk {
            let reply = transaction(&mut client, &recipient(way, codes.len()), &message.content);
            codes.push(reply.code);
        }
        client.ask(221, "QUIT");
    }
    codes
}

fn recipient(way: &str, n: usize) -> String {
    format!("{way}{n}@example.org")
}

fn transaction(client: &mut Client, to: &str, content: &[u8]) -> Reply {
    client.ask(250, "MAIL FROM:<anna@sender.example> BODY=8BITMIME");
    client.ask(250, format!("RCPT TO:<{to}>"));
    client.ask(354, "DATA");
    client.try_content(content).unwrap_or_else(|error| panic!("no reply: {error}"))
}

/// Where the two differ first, with what stands around there.
fn difference(through: &[u8], directly: &[u8]) -> String {
    let same = through.iter().zip(directly).take_while(|(a, b)| a == b).count();
    let around = |text: &[u8]| {
        let from = same.saturating_sub(60);
        text[from..text.len().min(same + 60)].escape_ascii().to_string()
    };
    format!(
        "{} and {} octets, the first {same} are the same\nthrough:  {}\ndirectly: {}",
        through.len(),
        directly.len(),
        around(through),
        around(directly)
    )
}

fn the_same_arrives(brand: Brand) {
    let server = MailServer::mailbox(brand);
    let gateway = Gateway::start(&PolicyFile::to(server.endpoint));
    let messages = messages::all();
    assert_eq!(messages.len(), COUNT);
    let (directly, through) = std::thread::scope(|scope| {
        let directly = scope.spawn(|| send(server.endpoint, "direct", &messages));
        let through = scope.spawn(|| send(gateway.smtp, "through", &messages));
        (directly.join().unwrap(), through.join().unwrap())
    });
    let taken: Vec<usize> = (0..COUNT).filter(|n| directly[*n] == 250).collect();
    for (n, message) in messages.iter().enumerate() {
        let expected = if accepts_behind_us(brand).contains(&&*message.what) { 250 } else { directly[n] };
        assert_eq!(through[n], expected, "{}", message.what);
    }
    let refused: Vec<&str> =
        (0..COUNT).filter(|n| directly[*n] != 250).map(|n| messages[n].what.as_str()).collect();
    assert_eq!(refused, refuses(brand));

    let count = directly.iter().chain(&through).filter(|code| **code == 250).count();
    let stored = server.wait_messages(count);
    assert_eq!(stored.len(), count);
    let stored: BTreeMap<String, Stored> =
        stored.into_iter().map(|message| (message.recipient(), message)).collect();
    let mut differences = Vec::new();
    let mut untouched = 0;
    for n in taken {
        let Message { what, content, forged } = &messages[n];
        let through = stored[&recipient("through", n)].without_trace();
        let directly = stored[&recipient("direct", n)].without_trace();
        let ours = without_added_fields(through);
        assert_ne!(ours.len(), through.len(), "{what}: our Received is missing");
        let expected = without_first(directly, &forged.replace("\r\n", "\n"));
        if ours != expected {
            differences.push((what.as_str(), difference(ours, &expected)));
        }
        let sent: Vec<u8> = content.iter().copied().filter(|octet| *octet != b'\r').collect();
        untouched += usize::from(sent == directly);
    }
    let whats: Vec<&str> = differences.iter().map(|(what, _)| *what).collect();
    assert_eq!(whats, differs(brand), "{differences:#?}");
    // Otherwise it is the comparison that is blind.
    assert!(untouched > COUNT * 3 / 4, "{brand:?} stored only {untouched} messages as they were");
}

fn without_first(text: &[u8], part: &str) -> Vec<u8> {
    let at = text.windows(part.len().max(1)).position(|window| window == part.as_bytes());
    at.map_or_else(|| text.to_vec(), |at| [&text[..at], &text[at + part.len()..]].concat())
}

/// What the mail server itself refuses, as "not RFC 2822 compliant".
fn refuses(brand: Brand) -> &'static [&'static str] {
    match brand {
        Brand::Postfix | Brand::Exim => &[],
        Brand::OpenSmtpd => &[
            "a body without the empty line above it",
            "a first line of nothing but blanks",
            "a message that begins with a dot",
            "a line in the header that is no field",
        ],
    }
}

/// What it refuses as having no header, and has one with the fields that we add.
fn accepts_behind_us(brand: Brand) -> &'static [&'static str] {
    match brand {
        Brand::Postfix | Brand::Exim => &[],
        Brand::OpenSmtpd => &["a first line of nothing but blanks"],
    }
}

/// What depends on which field the message's first line comes to stand below: the mail server's own, or ours.
fn differs(brand: Brand) -> &'static [&'static str] {
    match brand {
        // It makes an `X-Mailbox-Line` of it; below our fields it is the end of the header.
        Brand::Postfix => &["a From line of a mailbox"],
        Brand::Exim => &[],
        // It lets the line continue its own Received; ours are closed with an empty line.
        Brand::OpenSmtpd => &["a first line that begins with a blank"],
    }
}

#[test]
fn the_same_octets_arrive_at_a_postfix() {
    the_same_arrives(Brand::Postfix);
}

#[test]
fn the_same_octets_arrive_at_an_exim() {
    the_same_arrives(Brand::Exim);
}

#[test]
fn the_same_octets_arrive_at_an_opensmtpd() {
    the_same_arrives(Brand::OpenSmtpd);
}

#[test]
fn what_no_mail_may_contain_arrives_nowhere() {
    let server = MailServer::mailbox(Brand::Exim);
    let gateway = Gateway::start(&PolicyFile::to(server.endpoint));
    let mut client = gateway.client();
    let bad: [&[u8]; 6] = [
        b"Subject: x\r\n\r\na\0b\r\n",
        b"Subject: \0\r\n\r\n",
        b"Subject: x\r\n\r\na\nb\r\n",
        b"Subject: x\r\n\r\na\rb\r\n",
        b"Subject: x\n\r\n",
        b"Subject: x\r\n\r\na\r\r\n",
    ];
    for content in bad {
        let reply = transaction(&mut client, "bert@example.org", content);
        assert_eq!((reply.code, reply.enhanced()), (550, "5.5.2"), "{}", content.escape_ascii());
    }
    assert_eq!(transaction(&mut client, "last@example.org", b"\r\n").code, 250);
    let stored = server.wait_messages(1);
    assert_eq!(stored.iter().map(Stored::recipient).collect::<Vec<_>>(), ["last@example.org"]);
}
