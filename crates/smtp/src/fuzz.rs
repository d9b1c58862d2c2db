//! What the fuzz targets call: each feeds hostile bytes to one parser or machine and asserts what must always hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{
    BareNewline, Client, ClientConfig, ClientEvent, CloseReason, Command, DataFault, DataReader, DataWriter,
    Dialect, Event, ForwardPath, HeaderEditor, HeaderFault, HeaderScanner, Limits, Line, MailParameters,
    Progress, Removals, Reply, ReplyFault, ReplyParser, ReversePath, Session, SessionConfig, StartTlsMode,
    TlsOffer, take_line,
};

/// One command line: nothing is taken for a line end but CRLF, and a path that is accepted is clean and reads back as
/// it was written.
pub fn command_line(data: &[u8]) {
    const LIMIT: usize = 512;
    let whole = take_line(data, LIMIT);
    for cut in 0..data.len().min(LIMIT + 1) {
        let part = take_line(data.get(..cut).unwrap_or_default(), LIMIT);
        assert!(part == Line::Incomplete || part == whole);
    }
    if let Line::Complete(line) = whole {
        assert!(line.len() + 2 <= LIMIT && !line.contains(&b'\n'));
    }
    let (_, command) = Command::parse(data);
    match command {
        Ok(Command::Mail(mail)) => {
            assert!(mail.smtputf8 || mail.sender.as_str().is_ascii());
            assert_clean(mail.sender.as_str());
            let again = format!("<{}>", mail.sender.as_str());
            assert_eq!(ReversePath::parse(again.as_bytes()), Ok((mail.sender, &b""[..])));
        }
        Ok(Command::Rcpt(recipient)) => {
            assert_clean(recipient.as_str());
            let again = format!("<{}>", recipient.as_str());
            assert_eq!(ForwardPath::parse(again.as_bytes()), Ok((recipient, &b""[..])));
        }
        Ok(Command::Ehlo(name) | Command::Helo(name)) => {
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()))
        }
        Ok(_) | Err(_) => {}
    }
}

fn assert_clean(path: &str) {
    assert!(!path.chars().any(char::is_control));
}

/// Message data: the pieces it comes in make no difference, and what is written for the next server ends where it
/// ends, for the strictest and for the laxest reader.
pub fn message_data(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let size = 1 + usize::from(choice >> 1) % 17;
    for newline in [BareNewline::Reject, BareNewline::Normalize] {
        let (message, faults) = read_data(newline, data, data.len());
        assert_eq!(read_data(newline, data, size), (message.clone(), faults.clone()));
        assert_eq!(scan_header(&message, message.len()), scan_header(&message, size));
        if faults.iter().all(|fault| *fault == DataFault::Nul) {
            rewrite(message, size);
        }
        let (message, faults) = read_chunks(newline, data, data.len());
        assert_eq!(read_chunks(newline, data, size), (message.clone(), faults.clone()));
        assert!(newline == BareNewline::Reject || faults.is_empty());
        if faults.iter().all(|fault| *fault == DataFault::Nul) {
            assert!(message.is_empty() || message.ends_with(b"\r\n"));
            rewrite(message, size);
        }
    }
}

/// The same bytes as chunks of `size`.
fn read_chunks(newline: BareNewline, data: &[u8], size: usize) -> (Vec<u8>, Vec<DataFault>) {
    let mut reader = DataReader::of_chunks(newline);
    let (mut message, mut faults) = (Vec::new(), Vec::new());
    for mut piece in data.chunks(size.max(1)) {
        while !piece.is_empty() {
            let (taken, progress) = reader.read(piece, &mut message);
            piece = piece.get(taken..).unwrap_or_default();
            match progress {
                Progress::More => assert!(piece.is_empty()),
                Progress::Fault(fault) => faults.push(fault),
                Progress::End => unreachable!("a chunk does not end the message"),
            }
        }
    }
    faults.extend(reader.end(&mut message).err());
    (message, faults)
}

fn read_data(newline: BareNewline, data: &[u8], size: usize) -> (Vec<u8>, Vec<DataFault>) {
    let mut reader = DataReader::new(newline);
    let (mut message, mut faults) = (Vec::new(), Vec::new());
    for mut piece in data.chunks(size.max(1)) {
        while !piece.is_empty() {
            let before = message.len();
            let (taken, progress) = reader.read(piece, &mut message);
            assert!(taken <= piece.len() && message.len() - before <= 2 * taken + 2);
            piece = piece.get(taken..).unwrap_or_default();
            match progress {
                Progress::More => assert!(piece.is_empty()),
                Progress::Fault(fault) => faults.push(fault),
                Progress::End => {
                    assert_eq!(reader.read(b"x", &mut message), (0, Progress::End));
                    return (message, faults);
                }
            }
        }
    }
    (message, faults)
}

fn scan_header(message: &[u8], size: usize) -> (Result<(), HeaderFault>, bool) {
    let mut scanner = HeaderScanner::new(100, 2);
    let result = message.chunks(size.max(1)).try_for_each(|piece| scanner.scan(piece));
    (result, scanner.is_done())
}

fn rewrite(mut message: Vec<u8>, size: usize) {
    let mut writer = DataWriter::new();
    let mut written = Vec::new();
    message.chunks(size).for_each(|piece| writer.write(piece, &mut written));
    writer.end(&mut written);

    let lax: Vec<u8> = written.iter().map(|byte| if *byte == b'\r' { b'\n' } else { *byte }).collect();
    let end = lax.windows(3).position(|window| window == b"\n.\n");
    assert!(end.is_none_or(|end| end + 4 == written.len()));

    if !message.is_empty() && !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    let (again, faults) = read_data(BareNewline::Reject, &written, written.len());
    assert_eq!(again, message);
    assert!(faults.iter().all(|fault| *fault == DataFault::Nul));
}

/// A header that is edited: the pieces it comes in make no difference, nothing is invented or put in another order, and
/// no field that is to go is left for any reader that stops at the first empty line.
pub fn header_edit(data: &[u8]) {
    let Some((&choice, message)) = data.split_first() else {
        return;
    };
    let whole = edit(message, message.len());
    assert_eq!(edit(message, 1 + usize::from(choice) % 17), whole);
    let added = if matches!(message.first(), Some(b' ' | b'\t')) { 2 } else { 0 };
    let mut left = message.iter();
    assert!(whole.iter().skip(added).all(|byte| left.any(|other| other == byte)));
    let mut lines = whole.split_inclusive(|byte| *byte == b'\n');
    let mut header = lines.by_ref().take_while(|line| !matches!(line.first(), Some(b'\r' | b'\n')));
    assert!(header.all(|line| !is_forged(line)) || added > 0);
}

fn edit(message: &[u8], size: usize) -> Vec<u8> {
    let removals = Removals::default().field("X-Torwart-*").authserv_id("mx.example.net");
    let mut editor = HeaderEditor::new(removals);
    let mut kept = Vec::new();
    for piece in message.chunks(size.max(1)) {
        let rest = editor.edit(piece, &mut kept);
        assert!(rest.is_empty() || editor.is_done());
        kept.extend_from_slice(rest);
    }
    editor.finish(&mut kept);
    kept
}

fn is_forged(line: &[u8]) -> bool {
    let plain = b"authentication-results: mx.example.net;";
    let begins = |start: &[u8]| line.get(..start.len()).is_some_and(|part| part.eq_ignore_ascii_case(start));
    begins(plain) || begins(b"x-torwart-id:")
}

/// A hostile upstream: its replies are the same in any pieces, and the client takes all it says without a panic.
pub fn upstream_reply(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let size = 1 + usize::from(choice >> 3) % 17;
    assert_eq!(parse_replies(data, size), parse_replies(data, data.len()));
    assert_eq!(run_client(choice, data, size), run_client(choice, data, data.len()));
}

fn parse_replies(data: &[u8], size: usize) -> (Vec<Reply>, Option<ReplyFault>) {
    let mut parser = ReplyParser::default();
    let mut replies = Vec::new();
    for mut piece in data.chunks(size.max(1)) {
        while !piece.is_empty() {
            match parser.receive(piece) {
                Ok((taken, reply)) => {
                    assert!(taken <= piece.len() && (reply.is_some() || taken == piece.len()));
                    piece = piece.get(taken..).unwrap_or_default();
                    if let Some(reply) = &reply {
                        let mut again = Vec::new();
                        reply.write_to(&mut again);
                        assert!(again.ends_with(b"\r\n"));
                    }
                    replies.extend(reply);
                }
                Err(fault) => return (replies, Some(fault)),
            }
        }
    }
    (replies, None)
}

/// All that the client writes while the server says `data`. The driver goes on with a transaction, whatever comes.
fn run_client(choice: u8, data: &[u8], size: usize) -> Vec<u8> {
    let start_tls = match choice % 3 {
        0 => StartTlsMode::Never,
        1 => StartTlsMode::IfOffered,
        _ => StartTlsMode::Required,
    };
    let dialect = if choice < 128 { Dialect::Smtp } else { Dialect::Lmtp };
    let mut client = Client::new(ClientConfig { hostname: "mx.test".into(), dialect, start_tls });
    let mut written = Vec::new();
    let mut commands = 0;
    for mut piece in data.chunks(size.max(1)) {
        while !piece.is_empty() {
            let before = client.outstanding();
            let Ok((taken, event)) = client.receive(piece) else {
                return written;
            };
            assert!(taken <= piece.len());
            assert!(client.outstanding() <= before + 1);
            piece = piece.get(taken..).unwrap_or_default();
            match event {
                None => {}
                // The bytes that follow would be an injection if they came with the reply: end here in any case.
                Some(ClientEvent::StartTls) => return written,
                Some(ClientEvent::Ready | ClientEvent::TlsNotOffered | ClientEvent::Reply { .. }) => {
                    say_next(&mut client, &mut commands);
                }
            }
            written.append(client.output());
        }
    }
    written
}

fn say_next(client: &mut Client, commands: &mut u32) {
    if client.in_message() {
        client.body(b".a\r\n");
        client.end_of_data();
        return;
    }
    *commands += 1;
    match *commands % 5 {
        1 => client.xclient(&[("ADDR", "192.0.2.1")]),
        2 => {
            client.mail(&MailParameters { sender: "a@b", size: Some(1), eight_bit: true, smtputf8: false });
            client.rcpt("c@d");
        }
        3 => client.data(),
        4 => client.rset(),
        _ => client.noop(),
    }
}

/// A session: once as a sequence of operations in any order, and once as bytes of a client before a well-behaved
/// driver, where the pieces must make no difference. Both with the bytes as they are and mapped onto words of SMTP.
pub fn session(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    operate(choice, data);
    let size = 1 + usize::from(choice >> 3) % 7;
    for input in [data.to_vec(), to_words(data)] {
        let whole = drive(choice, &input, input.len());
        assert_eq!(drive(choice, &input, size), whole);
    }
}

/// Small limits, so that short inputs reach them.
fn mk_session(choice: u8) -> (Session, Instant) {
    let limits = Limits {
        command_line: 64,
        endless_line: 200,
        header_size: 60,
        message_size: 120,
        recipients: 4,
        batch: 3,
        errors: 6,
        unknown_commands: 3,
        idle_commands: 12,
        transactions: 4,
        received_fields: 2,
        ..Limits::default()
    };
    let bare_newline = if choice & 1 == 0 { BareNewline::Reject } else { BareNewline::Normalize };
    // The origin of all times here; nothing depends on which it is.
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let config = SessionConfig { hostname: "mx.test".into(), limits, bare_newline };
    let mut session = Session::new(Arc::new(config), now);
    session.greet(match choice >> 1 & 3 {
        0 => TlsOffer::Unavailable,
        1 => TlsOffer::Required,
        _ => TlsOffer::Offered,
    });
    (session, now)
}

fn to_words(data: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 32] = [
        b"EHLO a\r\n",
        b"HELO b\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<> SIZE=",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<no@d>\r\n",
        b"RCPT TO:<bad>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b".",
        b"a",
        b"9",
        b" ",
        b": ",
        b"Received: x\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"VRFY a\r\n",
        b"EXPN a\r\n",
        b"HELP\r\n",
        b"STARTTLS\r\n",
        b"WHAT\r\n",
        b"\0",
        b"0123456789012345678901234567890123456789",
        b"QUIT",
        b"MAIL FROM:<",
        b"RCPT TO:<",
        b"@x>\r\n",
        b"GET / ",
    ];
    const CHUNKS: [&[u8]; 8] = [
        b"BDAT 1\r\n",
        b"BDAT 8\r\n",
        b"BDAT 8 LAST\r\n",
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 70 LAST\r\n",
        b"BDAT ",
        b"\xc3\xa9@x> SMTPUTF8\r\n",
    ];
    data.iter()
        .take(2000)
        .flat_map(|byte| match byte.checked_sub(240) {
            Some(above) => CHUNKS.get(usize::from(above % 8)),
            None => WORDS.get(usize::from(byte % 32)),
        })
        .flat_map(|word| word.iter().copied())
        .collect()
}

/// What a client and the driver see of a session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    output: Vec<u8>,
    /// Those that may be passed on.
    messages: Vec<Vec<u8>>,
    closed: Option<CloseReason>,
}

/// A driver that keeps to the rules, and answers by the recipient's name.
fn drive(choice: u8, input: &[u8], size: usize) -> Trace {
    let (mut session, now) = mk_session(choice);
    let mut trace = Trace::default();
    let mut pending = Vec::new();
    let mut body = Vec::new();
    for piece in input.chunks(size.max(1)) {
        pending.extend_from_slice(piece);
        loop {
            let (taken, event) = session.receive(now, &pending, &mut body);
            assert!(taken <= pending.len());
            pending.drain(..taken);
            trace.output.append(session.output());
            match event {
                None => break,
                Some(Event::Recipients(batch)) => {
                    assert!((1..=3).contains(&batch.len()));
                    session.answer_recipients(now, batch.iter().map(answer).collect());
                }
                Some(Event::Data) => session.start_data(now),
                Some(Event::EndOfMessage { result: Ok(()), size }) => {
                    assert!(size == body.len() as u64 && size <= 120);
                    trace.messages.push(std::mem::take(&mut body));
                    session.finish_message(now, &Reply::new(250, (2, 0, 0), "OK"));
                }
                Some(Event::EndOfMessage { result: Err(violation), .. }) => {
                    body.clear();
                    session.finish_message(now, &violation.reply());
                }
                Some(Event::Close) => {
                    trace.closed = session.close_reason();
                    assert!(trace.closed.is_some());
                    return trace;
                }
                // With bytes to come this becomes an injection; at the end nothing more happens.
                Some(Event::StartTls) => {}
                Some(Event::MessageSpoiled(_) | Event::Reset) => body.clear(),
                Some(Event::Body | Event::Flush) => {}
            }
        }
        assert!(pending.len() < 64);
        trace.output.append(session.output());
    }
    trace
}

fn answer(recipient: &ForwardPath) -> Reply {
    match recipient.as_str() {
        "no@d" => Reply::new(550, (5, 1, 1), "no"),
        text if text.len() > 8 => Reply::new(450, (4, 2, 0), "later"),
        _ => Reply::new(250, (2, 1, 5), "OK"),
    }
}

/// Operations in any order, also such as make no sense: nothing panics, nothing grows, a closed session stays closed.
fn operate(choice: u8, data: &[u8]) {
    let (mut session, mut now) = mk_session(choice);
    let mut pending = Vec::new();
    let mut body = Vec::new();
    let mut rest = data;
    while let Some((&operation, next)) = rest.split_first() {
        rest = next;
        let argument = operation >> 4;
        let closed = session.close_reason();
        match operation & 15 {
            0..=3 => {
                let (bytes, next) = rest.split_at(rest.len().min(usize::from(argument)));
                rest = next;
                pending.extend_from_slice(bytes);
            }
            4..=7 => {
                let (bytes, next) = rest.split_at(rest.len().min(usize::from(argument)));
                rest = next;
                pending.extend(to_words(bytes));
            }
            8 => {
                session.answer_recipients(now, vec![Reply::new(250, (2, 1, 5), "OK"); usize::from(argument)]);
            }
            9 => session.start_data(now),
            10 => session.refuse_data(now, &Reply::new(451, (4, 3, 0), "no")),
            11 => session.finish_message(now, &Reply::new(250, (2, 0, 0), "OK")),
            12 => session.tls_established(now),
            13 => now += Duration::from_secs(60) * u32::from(argument),
            14 if now >= session.deadline() => assert_eq!(session.handle_timeout(now), Event::Close),
            15 if argument == 0 => {
                session.shut_down();
            }
            _ => {}
        }
        let (taken, _) = session.receive(now, &pending, &mut body);
        assert!(taken <= pending.len());
        assert!(body.len() <= 2 * taken + 3);
        pending.drain(..taken);
        body.clear();
        assert!(session.output().len() < 8 * 1024);
        session.output().clear();
        assert!(closed.is_none() || session.close_reason() == closed);
        assert!(session.envelope().is_none_or(|transaction| transaction.accepted <= 4));
        for (_, class, count) in session.take_commands().iter() {
            assert!((2..=5).contains(&class) && count < u8::MAX);
        }
    }
}
