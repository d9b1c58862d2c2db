//! The client's side of one session as a value: commands are queued, replies come out in their order.
//!
//! ```text
//!  Banner --220--> Ehlo --250--> [StartTls --220--> handshake --> Ehlo] --> Ready --> Mail, Rcpt, Data, Dot, ...
//!                   |  refused: HELO instead                                |   ^
//!                   |  LMTP: LHLO, and nothing instead                      Xclient --220--> Ehlo
//! ```

mod capabilities;

use std::collections::VecDeque;
use std::sync::Arc;

use thiserror::Error;

pub use self::capabilities::Capabilities;
use crate::{DataWriter, Reply, ReplyFault, ReplyParser};

/// The client's side of one SMTP session. It never panics, whatever the server says or in what order it is used.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    parser: ReplyParser,
    output: Vec<u8>,
    /// What the replies to come belong to.
    outstanding: VecDeque<Command>,
    capabilities: Capabilities,
    /// Between 354 and the final dot.
    writer: Option<DataWriter>,
    tls_active: bool,
    /// Between 220 to STARTTLS and the handshake.
    handshake: bool,
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Said in EHLO, HELO and LHLO.
    pub hostname: Arc<str>,
    pub dialect: Dialect,
    pub start_tls: StartTlsMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    #[default]
    Smtp,
    /// RFC 2033: LHLO greets, and DATA ends with one reply for each accepted recipient. This client waits for one, so
    /// it may name no further recipient once one was accepted.
    Lmtp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StartTlsMode {
    #[default]
    Never,
    /// Goes on in the clear where it is not offered, or is refused.
    IfOffered,
    Required,
}

/// What a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Banner,
    /// EHLO, or HELO where EHLO was refused; LHLO.
    Ehlo,
    StartTls,
    Xclient,
    Xforward,
    Mail,
    Rcpt,
    Data,
    /// The end of the message.
    Dot,
    Rset,
    Noop,
    Quit,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The greeting is over and [`Client::capabilities`] are known: after the banner, STARTTLS or XCLIENT.
    Ready,
    /// Shake hands, then call [`Client::tls_established`].
    StartTls,
    /// With [`StartTlsMode::Required`] only.
    TlsNotOffered,
    /// The reply to a command of the driver's, or a refusal while greeting, after which only QUIT makes sense.
    Reply { stage: Stage, reply: Reply },
}

/// The server does not speak SMTP, or not with us. The connection is of no use any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ClientFault {
    #[error(transparent)]
    Reply(#[from] ReplyFault),
    /// A reply that no command asked for: mostly a 421 before closing.
    #[error("a reply that nothing asked for: {0}")]
    Unexpected(Reply),
    /// Bytes between 220 to STARTTLS and the handshake would be taken for words of the encrypted server.
    #[error("bytes behind the reply to STARTTLS")]
    Injection,
}

/// What to say in MAIL.
#[derive(Clone, Copy, Debug)]
pub struct MailParameters<'a> {
    /// Without angle brackets; empty is the null sender.
    pub sender: &'a str,
    /// Octets; said where SIZE is offered.
    pub size: Option<u64>,
    /// `BODY=8BITMIME`; said where 8BITMIME is offered.
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531 section 3.4). The caller has looked whether it is offered: without it the message can't
    /// be sent.
    pub smtputf8: bool,
}

/// A command whose reply is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Hello,
    /// HELO, after EHLO was refused.
    OldHello,
    Other(Stage),
}

/// Room kept for replies to come while a connection is idle.
const KEEP_OUTSTANDING: usize = 8;

// === impl Client ===

impl Client {
    /// Waits for the banner.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            parser: ReplyParser::default(),
            output: Vec::new(),
            outstanding: VecDeque::from([Command::Other(Stage::Banner)]),
            capabilities: Capabilities::default(),
            writer: None,
            tls_active: false,
            handshake: false,
        }
    }

    /// As [`Client::new`], on a connection with TLS from its first byte.
    pub fn with_implicit_tls(config: ClientConfig) -> Self {
        Self { tls_active: true, ..Self::new(config) }
    }

    /// Takes bytes from the front of `input`, up to the end of one reply at most, and returns how many and what they
    /// mean. Without an event and with bytes left, call again; with none left, it needs more.
    pub fn receive(&mut self, input: &[u8]) -> Result<(usize, Option<ClientEvent>), ClientFault> {
        if self.handshake {
            return if input.is_empty() { Ok((0, None)) } else { Err(ClientFault::Injection) };
        }
        let (consumed, reply) = self.parser.receive(input)?;
        let Some(reply) = reply else {
            return Ok((consumed, None));
        };
        let Some(command) = self.outstanding.pop_front() else {
            return self.unasked(reply).map(|event| (consumed, Some(event)));
        };
        if self.outstanding.is_empty() {
            self.outstanding.shrink_to(KEEP_OUTSTANDING);
        }
        let event = self.handle(command, reply);
        if self.handshake && consumed < input.len() {
            return Err(ClientFault::Injection);
        }
        Ok((consumed, event))
    }

    /// What is to be written to the server. The driver takes it.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    pub fn mail(&mut self, mail: &MailParameters<'_>) {
        let MailParameters { sender, size, eight_bit, smtputf8 } = *mail;
        self.output.extend_from_slice(b"MAIL FROM:<");
        self.write_text(sender);
        self.output.push(b'>');
        if let Some(size) = size.filter(|_| self.capabilities.size.is_some()) {
            self.write_text(&format!(" SIZE={size}"));
        }
        if eight_bit && self.capabilities.eight_bit {
            self.write_text(" BODY=8BITMIME");
        }
        if smtputf8 {
            self.write_text(" SMTPUTF8");
        }
        self.queue(Stage::Mail);
    }

    /// `path` is without angle brackets.
    pub fn rcpt(&mut self, path: &str) {
        self.output.extend_from_slice(b"RCPT TO:<");
        self.write_text(path);
        self.output.push(b'>');
        self.queue(Stage::Rcpt);
    }

    /// The message may follow once 354 came.
    pub fn data(&mut self) {
        self.command("DATA", Stage::Data);
    }

    /// Stuffs the message's next bytes into the output. Does nothing unless the server said 354.
    pub fn body(&mut self, message: &[u8]) {
        if let Some(writer) = &mut self.writer {
            writer.write(message, &mut self.output);
        }
    }

    /// Ends the message; its reply comes as [`Stage::Dot`]. Does nothing unless the server said 354, nor after it
    /// refused the message before its end: a 4xx or 5xx between 354 and here comes as [`Stage::Dot`] too, then the
    /// connection is of no use any more.
    pub fn end_of_data(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.end(&mut self.output);
            self.outstanding.push_back(Command::Other(Stage::Dot));
        }
    }

    pub fn rset(&mut self) {
        self.command("RSET", Stage::Rset);
    }

    pub fn noop(&mut self) {
        self.command("NOOP", Stage::Noop);
    }

    pub fn quit(&mut self) {
        self.command("QUIT", Stage::Quit);
    }

    /// Tells a Postfix who the client is. 220 starts the session anew: EHLO is said again and [`ClientEvent::Ready`]
    /// comes again. Names are the caller's words (`ADDR`), values are encoded here (RFC 3461 section 4, xtext).
    pub fn xclient(&mut self, attributes: &[(&str, &str)]) {
        self.attributes("XCLIENT", attributes, Stage::Xclient);
    }

    /// The name for the next EHLO: after XCLIENT the session is the client's.
    pub fn introduce_as(&mut self, hostname: Arc<str>) {
        self.config.hostname = hostname;
    }

    /// As [`Client::xclient`], for the server's log only, and without a new session.
    pub fn xforward(&mut self, attributes: &[(&str, &str)]) {
        self.attributes("XFORWARD", attributes, Stage::Xforward);
    }

    /// The handshake is done: EHLO is said again, and what was offered before is forgotten (RFC 3207 section 4.2).
    pub fn tls_established(&mut self) {
        if self.handshake {
            self.handshake = false;
            self.tls_active = true;
            self.hello();
        }
    }

    /// How many replies are to come.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// What the next reply belongs to.
    pub fn stage(&self) -> Option<Stage> {
        self.outstanding.front().map(|command| match command {
            Command::Hello | Command::OldHello => Stage::Ehlo,
            Command::Other(stage) => *stage,
        })
    }

    /// Whether commands may be sent before earlier ones are answered (RFC 2920).
    pub fn can_pipeline(&self) -> bool {
        self.capabilities.pipelining
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub fn tls_active(&self) -> bool {
        self.tls_active
    }

    /// Whether a message is open: 354 came and the dot was not sent.
    pub fn in_message(&self) -> bool {
        self.writer.is_some()
    }

    /// A server may refuse a message before its end. It can't accept it there.
    fn unasked(&mut self, reply: Reply) -> Result<ClientEvent, ClientFault> {
        match self.writer.take() {
            Some(_) if matches!(reply.class(), 4 | 5) => Ok(ClientEvent::Reply { stage: Stage::Dot, reply }),
            _ => Err(ClientFault::Unexpected(reply)),
        }
    }

    fn handle(&mut self, command: Command, reply: Reply) -> Option<ClientEvent> {
        match (command, reply.code) {
            (Command::Other(Stage::Banner), 220) | (Command::Other(Stage::Xclient), 220) => {
                self.hello();
                None
            }
            (Command::Hello, 250) => {
                self.capabilities = Capabilities::parse(&reply);
                self.greeted()
            }
            (Command::OldHello, 250) => self.greeted(),
            // 4xx is no sign of an old server, and there is no older LMTP.
            (Command::Hello, 500..=599) if self.config.dialect == Dialect::Smtp => {
                self.write_text("HELO ");
                self.say_hostname(Command::OldHello);
                None
            }
            (Command::Hello | Command::OldHello, _) => Some(ClientEvent::Reply { stage: Stage::Ehlo, reply }),
            (Command::Other(Stage::StartTls), 220) => {
                self.handshake = true;
                Some(ClientEvent::StartTls)
            }
            (Command::Other(Stage::StartTls), code)
                if code != 421 && self.config.start_tls == StartTlsMode::IfOffered =>
            {
                Some(ClientEvent::Ready)
            }
            (Command::Other(stage), code) => {
                if stage == Stage::Data && code == 354 {
                    self.writer = Some(DataWriter::new());
                }
                Some(ClientEvent::Reply { stage, reply })
            }
        }
    }

    /// EHLO or HELO was accepted.
    fn greeted(&mut self) -> Option<ClientEvent> {
        if self.tls_active || self.config.start_tls == StartTlsMode::Never {
            return Some(ClientEvent::Ready);
        }
        if self.capabilities.starttls {
            self.command("STARTTLS", Stage::StartTls);
            return None;
        }
        match self.config.start_tls {
            StartTlsMode::Required => Some(ClientEvent::TlsNotOffered),
            StartTlsMode::Never | StartTlsMode::IfOffered => Some(ClientEvent::Ready),
        }
    }

    fn hello(&mut self) {
        self.capabilities = Capabilities::default();
        self.write_text(match self.config.dialect {
            Dialect::Smtp => "EHLO ",
            Dialect::Lmtp => "LHLO ",
        });
        self.say_hostname(Command::Hello);
    }

    fn say_hostname(&mut self, command: Command) {
        let hostname = Arc::clone(&self.config.hostname);
        self.write_text(&hostname);
        self.output.extend_from_slice(b"\r\n");
        self.outstanding.push_back(command);
    }

    fn command(&mut self, line: &str, stage: Stage) {
        self.write_text(line);
        self.queue(stage);
    }

    fn attributes(&mut self, verb: &str, attributes: &[(&str, &str)], stage: Stage) {
        self.write_text(verb);
        for (name, value) in attributes {
            self.write_text(&format!(" {name}="));
            for byte in value.bytes() {
                match byte {
                    b'+' | b'=' | ..=b' ' | 127.. => self.write_text(&format!("+{byte:02X}")),
                    _ => self.output.push(byte),
                }
            }
        }
        self.queue(stage);
    }

    fn queue(&mut self, stage: Stage) {
        self.output.extend_from_slice(b"\r\n");
        self.outstanding.push_back(Command::Other(stage));
    }

    /// A control character becomes `?`: whatever text it is given, one command stays one command.
    fn write_text(&mut self, text: &str) {
        self.output.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }));
    }
}

// === impl Stage ===

impl Stage {
    /// A word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Xclient => "xclient",
            Self::Xforward => "xforward",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Dot => "dot",
            Self::Rset => "rset",
            Self::Noop => "noop",
            Self::Quit => "quit",
        }
    }
}

#[cfg(test)]
mod tests;
