//! A gateway on loopback, a verdict that answers by the recipient's local part, an upstream that does as it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use torwart_core::{
    Action, BoxFuture, ClassDigest, ClientIdentity, ConnectionAnswer, ConnectionQuestion, Delivery, Greylist,
    Host, Keyword, ListenerTls, Mailbox, MessageAnswer, MessageBody, MessageQuestion, Protocol, Reason,
    RecipientVerdict, RecipientsAnswer, RecipientsQuestion, Reply, Revision, Route, RouteDigest, SoftBounce,
    TlsMode, Unavailable, UnavailableKind, Upstream, UpstreamTls, Verdicts,
};
use torwart_proto::trace::current_child;

use super::held;
use crate::{Edge, MailLog, MailLogOptions, MailLogWriter, Settings};

/// Longer than anything here takes; it only keeps a broken test from waiting for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

// === the verdict ===

/// Answers by the local part: `ok` and `small` are of one class, `other` is of another; `grey`, `deny`, `nodata`,
/// `lost` and `hang` are what they say;
/// `held`'s message is held, and says itself what becomes of it, in its first line: `X: reject`, `defer`, `lost`, `early`,
/// `hang`, `wait` or `tag`.
pub(crate) struct Script {
    routes: HashMap<RouteDigest, Arc<Route>>,
    pub(super) refuse_connection: Option<(Reply, Reason)>,
    pub(super) tls: ListenerTls,
    pub(super) greet_delay: Duration,
    pub(super) hidden: Vec<Keyword>,
    /// Every question about a connection fails.
    pub(super) unavailable: bool,
    pub(super) connections_asked: AtomicU32,
    pub(super) questions: Mutex<Vec<RecipientsQuestion>>,
    /// Messages that were asked about, and heard to their end.
    pub(super) messages: Mutex<Vec<(MessageQuestion, Vec<u8>)>>,
    /// Lets those go on that say `wait`.
    pub(super) go_on: Arc<Notify>,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

const SMALL: u64 = 100;

impl Script {
    pub(crate) fn new(upstreams: &[SocketAddr]) -> (Self, mpsc::UnboundedReceiver<Delivery>) {
        let routes = (1u8..).zip(upstreams).map(|(number, upstream)| {
            let digest = RouteDigest([number; 16]);
            (digest, Arc::new(route(digest, *upstream)))
        });
        let (deliveries, reported) = mpsc::unbounded_channel();
        let script = Self {
            routes: routes.collect(),
            refuse_connection: None,
            tls: ListenerTls::Offer,
            greet_delay: Duration::ZERO,
            hidden: Vec::new(),
            unavailable: false,
            connections_asked: AtomicU32::new(0),
            questions: Mutex::default(),
            messages: Mutex::default(),
            go_on: Arc::default(),
            deliveries,
        };
        (script, reported)
    }

    pub(super) fn change_routes(&mut self, change: impl Fn(&mut Route)) {
        for route in self.routes.values_mut() {
            change(Arc::make_mut(route));
        }
    }

    fn judge(recipient: &Mailbox) -> RecipientVerdict {
        let (class, size_limit) = match &*recipient.local {
            "other" => (2, u64::MAX),
            "small" => (1, SMALL),
            _ => (1, u64::MAX),
        };
        let refused = match &*recipient.local {
            "grey" => {
                Some((Action::Defer, Reply::new(450, (4, 2, 0), "Come back in 300 s"), Reason::Greylisted))
            }
            "deny" => {
                Some((Action::Reject, Reply::new(550, (5, 7, 1), "Relaying denied"), Reason::UnknownDomain))
            }
            _ => None,
        };
        let (action, reply, reason) = match refused {
            Some((action, reply, reason)) => (action, Some(reply), reason),
            None => (Action::Accept, None, Reason::Accepted),
        };
        RecipientVerdict {
            action,
            reply,
            reason,
            monitored: None,
            greylist: Some(if reason == Reason::Greylisted { Greylist::New } else { Greylist::Passed }),
            score: 1.5,
            domain: Some("example.org".into()),
            object: Some("mail/example-org".into()),
            route: Some(RouteDigest([class; 16])),
            class: Some(ClassDigest([class; 16])),
            size_limit,
            deliver_to: None,
            refuse_data: (&*recipient.local == "nodata").then(|| Reply::new(450, (4, 2, 0), "Not yet")),
            hold_message: &*recipient.local == "held",
        }
    }
}

fn route(digest: RouteDigest, upstream: SocketAddr) -> Route {
    Route {
        digest,
        protocol: Protocol::Smtp,
        upstreams: vec![Upstream {
            host: Host::Address(upstream.ip()),
            port: upstream.port(),
            priority: 0,
            weight: 1,
            max_connections: 20,
        }],
        tls: UpstreamTls { mode: TlsMode::Disabled, implicit: false, server_name: None, ca: None },
        client_identity: ClientIdentity::None,
        soft_bounce: SoftBounce::Never,
    }
}

impl Verdicts for Script {
    fn check_connection(
        &self,
        _: ConnectionQuestion,
    ) -> BoxFuture<'_, Result<ConnectionAnswer, Unavailable>> {
        self.connections_asked.fetch_add(1, Ordering::Relaxed);
        if self.unavailable {
            return Box::pin(async { Err(Unavailable::new(UnavailableKind::Unanswered, "gone")) });
        }
        let answer = ConnectionAnswer {
            refuse: self.refuse_connection.clone(),
            tls: self.tls,
            greet_delay: self.greet_delay,
            hidden: self.hidden.clone(),
            revision: Revision("r1".into()),
            ask_connections: false,
        };
        Box::pin(async { Ok(answer) })
    }

    fn check_recipients(
        &self,
        question: RecipientsQuestion,
    ) -> BoxFuture<'_, Result<RecipientsAnswer, Unavailable>> {
        let named = |name: &str| question.recipients.iter().any(|recipient| &*recipient.local == name);
        if named("lost") {
            return Box::pin(async { Err(Unavailable::new(UnavailableKind::Unanswered, "gone")) });
        }
        if named("hang") {
            return Box::pin(std::future::pending());
        }
        let answer = RecipientsAnswer {
            recipients: question.recipients.iter().map(Self::judge).collect(),
            identity: Some("network:127.0.0.0/24".into()),
            checks: Vec::new(),
            revision: Revision("r1".into()),
            ask_connections: false,
        };
        self.questions.lock().unwrap().push(question);
        Box::pin(async {
            drop(current_child("answering"));
            Ok(answer)
        })
    }

    fn check_message(
        &self,
        question: MessageQuestion,
        body: Box<dyn MessageBody>,
    ) -> BoxFuture<'_, Result<MessageAnswer, Unavailable>> {
        Box::pin(held::answer(self, question, body))
    }

    fn report_delivery(&self, delivery: Delivery) -> BoxFuture<'_, ()> {
        self.deliveries.send(delivery).ok();
        Box::pin(async { drop(current_child("learning")) })
    }

    fn route(&self, digest: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>> {
        let route = self
            .routes
            .get(&digest)
            .cloned()
            .ok_or_else(|| Unavailable::new(UnavailableKind::UnknownRoute, "no such route"));
        Box::pin(async { route })
    }
}

// === the gateway ===

pub(super) struct Gateway {
    pub(super) edge: Arc<Edge>,
    pub(super) script: Arc<Script>,
    pub(super) shutdown: CancellationToken,
    pub(super) running: JoinHandle<()>,
    pub(super) registry: Registry,
    lines: mpsc::UnboundedReceiver<String>,
    reported: mpsc::UnboundedReceiver<Delivery>,
    _writer: MailLogWriter,
}

/// A sink that hands on each line.
struct Lines(mpsc::UnboundedSender<String>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for line in std::str::from_utf8(bytes).unwrap().lines() {
            self.0.send(line.to_owned()).ok();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn mail_log(registry: &Registry) -> (MailLog, MailLogWriter, mpsc::UnboundedReceiver<String>) {
    let (sender, lines) = mpsc::unbounded_channel();
    let (log, writer) = MailLog::start(Lines(sender), MailLogOptions::default(), registry).unwrap();
    (log, writer, lines)
}

impl Gateway {
    pub(super) async fn start(upstreams: &[SocketAddr]) -> Self {
        Self::start_with(upstreams, |_, _| {}).await
    }

    pub(super) async fn start_with(
        upstreams: &[SocketAddr],
        change: impl FnOnce(&mut Settings, &mut Script),
    ) -> Self {
        let mut settings = Settings {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            hostname: "mx.example.net".into(),
            drain_delay: Duration::ZERO,
            ..Settings::default()
        };
        let (mut script, reported) = Script::new(upstreams);
        change(&mut settings, &mut script);
        let registry = Registry::new();
        let (log, writer, lines) = mail_log(&registry);
        let script = Arc::new(script);
        let edge = Edge::bind(settings, Arc::clone(&script) as Arc<dyn Verdicts>, log, &registry).unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&edge).run(shutdown.clone()));
        Self { edge, script, shutdown, running, registry, lines, reported, _writer: writer }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.edge.local_addrs()[0]
    }

    /// A connection on which the banner was read.
    pub(super) async fn client(&self) -> Client<TcpStream> {
        let mut client = Client::new(TcpStream::connect(self.address()).await.unwrap());
        client.expect(220).await;
        client
    }

    /// The next line of the mail log.
    pub(super) async fn line(&mut self) -> serde_json::Value {
        serde_json::from_str(&soon(self.lines.recv()).await.unwrap()).unwrap()
    }

    pub(super) async fn delivery(&mut self) -> Delivery {
        soon(self.reported.recv()).await.unwrap()
    }

    /// Everything that was reported, once all sessions and reports have ended.
    pub(super) async fn all_deliveries(mut self) -> Vec<Delivery> {
        self.stop().await;
        self.reported.close();
        let mut all = Vec::new();
        while let Some(delivery) = self.reported.recv().await {
            all.push(delivery);
        }
        all
    }

    /// Returns when all sessions and reports have ended.
    pub(super) async fn stop(&mut self) {
        self.shutdown.cancel();
        soon(&mut self.running).await.unwrap();
    }

    pub(super) fn no_delivery(&mut self) -> bool {
        self.reported.try_recv().is_err()
    }

    /// Whether the metrics' text has this line.
    pub(super) fn counts(&self, line: &str) -> bool {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        text.lines().any(|found| found == line)
    }
}

// === the client ===

pub(crate) struct Client<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(super) fn into_inner(self) -> S {
        assert!(self.stream.buffer().is_empty(), "more was said than was read");
        self.stream.into_inner()
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads one whole reply, which must have this code.
    pub(crate) async fn expect(&mut self, code: u16) -> String {
        soon(self.expect_patiently(code)).await
    }

    /// One whole reply of one line with one of these codes.
    pub(super) async fn expect_one_of(&mut self, codes: &[u16]) -> String {
        let mut reply = String::new();
        soon(self.stream.read_line(&mut reply)).await.unwrap();
        assert!(codes.iter().any(|code| reply.starts_with(&format!("{code} "))), "{codes:?}, not {reply:?}");
        reply
    }

    /// The same without a time limit.
    pub(super) async fn expect_patiently(&mut self, code: u16) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            self.stream.read_line(&mut reply).await.unwrap();
            let line = &reply[start..];
            assert!(line.starts_with(&code.to_string()), "{code} was expected, not {reply:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }

    pub(crate) async fn say(&mut self, command: &str, code: u16) -> String {
        self.send(&format!("{command}\r\n")).await;
        self.expect(code).await
    }

    /// EHLO, MAIL and these recipients, all accepted.
    pub(crate) async fn begin(&mut self, recipients: &[&str]) {
        self.say("EHLO client.example", 250).await;
        self.say("MAIL FROM:<alice@example.com>", 250).await;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}@example.org>"), 250).await;
        }
    }

    /// Whether nothing comes any more.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match soon(self.stream.read_to_end(&mut rest)).await {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

// === the upstream ===

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Command(String),
    /// As it came between 354 and the dot, stuffed.
    Message(String),
    /// The connection ended.
    Closed,
}

pub(crate) struct FakeUpstream {
    pub(crate) address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Heard>,
    released: Arc<Notify>,
}

/// What it says to a line (`.` for the dot) in place of 250: a reply, or `close`, or `hang`, or `hold`: 250, but
/// not before [`FakeUpstream::release`].
pub(super) type Answers = fn(&str) -> Option<&'static str>;

impl FakeUpstream {
    pub(super) async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = mpsc::unbounded_channel();
        let released = Arc::new(Notify::new());
        let hold = Arc::clone(&released);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, hold) = (sender.clone(), Arc::clone(&hold));
                tokio::spawn(async move {
                    // a peer that goes away is the end of it
                    let _ = upstream_session(stream, answers, &hold, &sender).await;
                    sender.send(Heard::Closed).ok();
                });
            }
        });
        Self { address, heard, released }
    }

    pub(super) fn release(&self) {
        self.released.notify_one();
    }

    pub(crate) async fn obedient() -> Self {
        Self::start(|_| None).await
    }

    pub(super) async fn next(&mut self) -> Heard {
        soon(self.heard.recv()).await.unwrap()
    }

    /// What has been heard already.
    pub(super) fn try_next(&mut self) -> Result<Heard, mpsc::error::TryRecvError> {
        self.heard.try_recv()
    }

    /// Skips to what begins like this.
    pub(super) async fn hears(&mut self, start: &str) {
        loop {
            match self.next().await {
                Heard::Command(line) if line.starts_with(start) => return,
                Heard::Closed => panic!("closed before {start}"),
                Heard::Command(_) | Heard::Message(_) => {}
            }
        }
    }

    /// Skips to the next whole message.
    pub(super) async fn message(&mut self) -> String {
        loop {
            match self.next().await {
                Heard::Message(text) => return text,
                Heard::Closed => panic!("closed before a message"),
                Heard::Command(_) => {}
            }
        }
    }

    /// Skips to the next whole message on any connection.
    pub(super) async fn any_message(&mut self) -> String {
        loop {
            if let Heard::Message(text) = self.next().await {
                return text;
            }
        }
    }

    /// True if the connection ends without a message.
    pub(super) async fn closes_without_message(&mut self) -> bool {
        loop {
            match self.next().await {
                Heard::Message(_) => return false,
                Heard::Closed => return true,
                Heard::Command(_) => {}
            }
        }
    }
}

async fn upstream_session(
    stream: TcpStream,
    answers: Answers,
    hold: &Notify,
    heard: &mpsc::UnboundedSender<Heard>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut message: Option<String> = None;
    stream.write_all(b"220 upstream.example ESMTP\r\n").await?;
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let command = line.trim_end();
        if let Some(text) = &mut message {
            if command != "." {
                text.push_str(&line);
                continue;
            }
            heard.send(Heard::Message(message.take().unwrap_or_default())).ok();
        } else {
            heard.send(Heard::Command(command.to_owned())).ok();
        }
        let usual = match command.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-upstream.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000",
            "DATA" => "354 go on",
            "." => "250 2.0.0 queued as 42",
            "QUIT" => "221 bye",
            _ => "250 2.0.0 ok",
        };
        let mut reply = answers(command).unwrap_or(usual);
        if reply == "hold" {
            hold.notified().await;
            reply = usual;
        }
        match reply {
            "close" => return Ok(()),
            "hang" => std::future::pending().await,
            _ => stream.write_all(format!("{reply}\r\n").as_bytes()).await?,
        }
        if reply.starts_with("354") {
            message = Some(String::new());
        }
        if command == "QUIT" {
            return Ok(());
        }
    }
}
