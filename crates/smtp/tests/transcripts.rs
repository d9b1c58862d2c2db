//! Runs the dialogues in `tests/transcripts/`. `UPDATE=1` writes what the session says now into the files.
//!
//! Written by hand:
//!
//! - `C:` a line of the client's, CRLF added; `C-:` without. `\r`, `\n`, `\0`, `\xE9`, `\\` are escapes, and `{x*100}`
//!   is a hundred of `x`. Lines that follow each other go out together.
//! - `set:` a limit, `tls`, `normalize` or `hide` (a keyword); `do:` what happens besides (`tls`, `timeout`, `shut down`).
//! - `answer:` what the driver answers to an `ask:`; a `RCPT` question takes one for each recipient.
//! - `#` a comment.
//!
//! Filled in and compared: `S:` the server's lines, `ask:` the questions, `body:` a message that may be passed on,
//! `event:` and `close:`. Every dialogue also runs with the client's bytes one at a time, and with what goes out
//! together cut in two at each place: all of it must give the same `S:`, `body:` and `close:` lines.

#![allow(clippy::panic, clippy::unwrap_used)] // a test from end to end

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use torwart_smtp::{
    BareNewline, Event, ForwardPath, Keyword, Limits, Reply, Session, SessionConfig, TlsOffer,
};

struct Runner {
    session: Session,
    now: Instant,
    pieces: Pieces,
    pending: Vec<u8>,
    body: Vec<u8>,
    answers: VecDeque<String>,
    log: Vec<String>,
    closed: bool,
}

/// How what goes out together arrives.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    Whole,
    Bytes,
    /// In two, cut behind so many bytes.
    CutAt(usize),
}

#[test]
fn every_transcript_is_what_the_session_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the transcripts are gone");
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (whole, longest) = run(&text, Pieces::Whole);
        assert!(longest < 10_000, "{name}: too long to be cut at each place");
        for pieces in std::iter::once(Pieces::Bytes).chain((1..longest).map(Pieces::CutAt)) {
            let (log, _) = run(&text, pieces);
            assert_eq!(visible(&log), visible(&whole), "{name}: {pieces:?}");
        }
        if whole.join("\n") == text.trim_end() {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, whole.join("\n") + "\n").unwrap();
        } else {
            failures.push(format!("--- {name}, now:\n{}", whole.join("\n")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn visible(log: &[String]) -> Vec<&String> {
    log.iter().filter(|line| ["S:", "body:", "close:"].iter().any(|start| line.starts_with(start))).collect()
}

/// The dialogue as it went, and how many bytes went out together at most.
fn run(text: &str, pieces: Pieces) -> (Vec<String>, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let mut runner = Runner::new(&lines, pieces);
    let mut group = Vec::new();
    let mut longest = 0;
    let mut greeted = false;
    for (i, line) in lines.iter().enumerate() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if !greeted && !matches!(word, "#" | "set:" | "") {
            greeted = true;
            runner.drain();
        }
        match word {
            "#" | "set:" | "" => runner.log.push((*line).to_owned()),
            "C:" | "C-:" => {
                runner.log.push((*line).to_owned());
                group.extend(unescape(rest));
                if word == "C:" {
                    group.extend(b"\r\n");
                }
                if !lines.get(i + 1).is_some_and(|next| next.starts_with("C")) {
                    longest = longest.max(group.len());
                    runner.feed(&std::mem::take(&mut group));
                }
            }
            "do:" => {
                runner.log.push((*line).to_owned());
                runner.act(rest);
            }
            "S:" | "ask:" | "answer:" | "body:" | "event:" | "close:" => {}
            _ => panic!("what is {line:?}?"),
        }
    }
    assert!(runner.answers.is_empty(), "answers left: {:?}", runner.answers);
    (runner.log, longest)
}

impl Runner {
    fn new(lines: &[&str], pieces: Pieces) -> Self {
        let mut limits = Limits::default();
        let mut bare_newline = BareNewline::Reject;
        let mut tls = TlsOffer::Unavailable;
        let mut hidden = Vec::new();
        for setting in lines.iter().filter_map(|line| line.strip_prefix("set: ")) {
            let (name, value) = setting.split_once(' ').unwrap_or((setting, "0"));
            match name {
                "hide" => hidden.push(keyword(value)),
                "normalize" => bare_newline = BareNewline::Normalize,
                "tls" if value == "required" => tls = TlsOffer::Required,
                "tls" => tls = TlsOffer::Offered,
                "command_line" => limits.command_line = value.parse().unwrap(),
                "endless_line" => limits.endless_line = value.parse().unwrap(),
                "header_size" => limits.header_size = value.parse().unwrap(),
                "message_size" => limits.message_size = value.parse().unwrap(),
                "recipients" => limits.recipients = value.parse().unwrap(),
                "errors" => limits.errors = value.parse().unwrap(),
                "idle_commands" => limits.idle_commands = value.parse().unwrap(),
                "transactions" => limits.transactions = value.parse().unwrap(),
                "received_fields" => limits.received_fields = value.parse().unwrap(),
                _ => panic!("what is {setting:?}?"),
            }
        }
        #[allow(clippy::disallowed_methods)] // an origin for times, nothing else
        let now = Instant::now();
        let config = SessionConfig { hostname: "mx.test".into(), limits, bare_newline };
        let mut session = Session::new(Arc::new(config), now);
        hidden.into_iter().for_each(|keyword| session.hide(keyword));
        session.greet(tls);
        let answers =
            lines.iter().filter_map(|line| line.strip_prefix("answer: ")).map(str::to_owned).collect();
        Self {
            session,
            now,
            pieces,
            pending: Vec::new(),
            body: Vec::new(),
            answers,
            log: Vec::new(),
            closed: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        match self.pieces {
            Pieces::Whole => self.arrive(bytes),
            Pieces::Bytes => bytes.chunks(1).for_each(|byte| self.arrive(byte)),
            Pieces::CutAt(place) => {
                let (first, second) = bytes.split_at(place.min(bytes.len()));
                self.arrive(first);
                self.arrive(second);
            }
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.turn();
    }

    fn turn(&mut self) {
        while !self.closed {
            let (taken, event) = self.session.receive(self.now, &self.pending, &mut self.body);
            self.pending.drain(..taken);
            self.drain();
            match event {
                None => break,
                Some(event) => self.handle(event),
            }
        }
        self.drain();
    }

    fn act(&mut self, what: &str) {
        match what {
            "tls" => self.session.tls_established(self.now),
            "timeout" => {
                let event = self.session.handle_timeout(self.session.deadline());
                self.drain();
                self.handle(event);
            }
            "shut down" => {
                self.session.shut_down();
            }
            _ => panic!("what is {what:?}?"),
        }
        self.turn();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Recipients(paths) => {
                let names: Vec<_> = paths.iter().map(ForwardPath::as_str).collect();
                self.log.push(format!("ask: RCPT {}", names.join(" ")));
                let replies = paths.iter().map(|_| Reply::from_line(&self.answer())).collect();
                self.session.answer_recipients(self.now, replies);
            }
            Event::Data => {
                self.log.push("ask: DATA".to_owned());
                let answer = self.answer();
                if answer == "354" {
                    self.session.start_data(self.now);
                } else {
                    self.session.refuse_data(self.now, &Reply::from_line(&answer));
                }
            }
            Event::EndOfMessage { result, size } => {
                let body = std::mem::take(&mut self.body);
                let reply = match result {
                    Ok(()) => {
                        assert_eq!(body.len() as u64, size);
                        self.log.push(format!("body: {}", body.escape_ascii()));
                        self.log.push("ask: message".to_owned());
                        Reply::from_line(&self.answer())
                    }
                    Err(violation) => {
                        self.log.push(format!("event: end of message, {violation:?}"));
                        violation.reply()
                    }
                };
                self.session.finish_message(self.now, &reply);
            }
            Event::MessageSpoiled(violation) => {
                self.body.clear();
                self.log.push(format!("event: spoiled, {violation:?}"));
            }
            Event::StartTls => self.log.push("event: STARTTLS".to_owned()),
            Event::Reset => self.log.push("event: reset".to_owned()),
            Event::Close => {
                let reason = self.session.close_reason().unwrap();
                self.log.push(format!("close: {reason:?}"));
                self.closed = true;
            }
            Event::Body | Event::Flush => {}
        }
    }

    fn answer(&mut self) -> String {
        let answer = self
            .answers
            .pop_front()
            .unwrap_or_else(|| panic!("no answer left after:\n{}", self.log.join("\n")));
        self.log.push(format!("answer: {answer}"));
        answer
    }

    fn drain(&mut self) {
        let output = String::from_utf8(std::mem::take(self.session.output())).unwrap();
        for line in output.split_terminator("\r\n") {
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            self.log.push(format!("S: {line}"));
        }
    }
}

fn keyword(name: &str) -> Keyword {
    match name {
        "PIPELINING" => Keyword::Pipelining,
        "SIZE" => Keyword::Size,
        "8BITMIME" => Keyword::EightBitMime,
        "ENHANCEDSTATUSCODES" => Keyword::EnhancedStatusCodes,
        "SMTPUTF8" => Keyword::SmtpUtf8,
        "CHUNKING" => Keyword::Chunking,
        _ => panic!("what is {name:?}?"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((piece, times, after)) = repetition(rest) {
            bytes.extend(piece.repeat(times).bytes());
            rest = after;
            continue;
        }
        let taken = match rest.as_bytes() {
            [b'\\', b'x', ..] => {
                bytes.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
                4
            }
            [b'\\', escaped, ..] => {
                bytes.push(match escaped {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'0' => 0,
                    b'\\' => b'\\',
                    _ => panic!("what is {rest:?}?"),
                });
                2
            }
            _ => {
                bytes.extend(rest[..first.len_utf8()].bytes());
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    bytes
}

/// `{x*100}` at the front.
fn repetition(text: &str) -> Option<(&str, usize, &str)> {
    let (inner, after) = text.strip_prefix('{')?.split_once('}')?;
    let (piece, times) = inner.rsplit_once('*')?;
    Some((piece, times.parse().ok()?, after))
}
