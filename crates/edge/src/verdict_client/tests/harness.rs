//! Servers that do as they are told, each in a runtime of its own so that it can be killed; a resolver that is told
//! what to say; questions.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Server as Tonic;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use torwart_core::{
    Action, BodyPart, BoxFuture, ClientIdentity, ConnectionAnswer, ConnectionQuestion, Delivery,
    DeliveryResult, Envelope, Host, Id, ListenerTls, Mailbox, MessageAnswer, MessageQuestion, Peer, Protocol,
    Reason, RecipientVerdict, RecipientsAnswer, RecipientsQuestion, Reply, Revision, Route, RouteDigest,
    SoftBounce, TlsMode, Upstream, UpstreamTls,
};
use torwart_proto::convert::to_message_begin;
use torwart_proto::v1;
use torwart_proto::v1::verdict_service_server::{VerdictService, VerdictServiceServer};

use crate::resolve::Resolve;
use crate::verdict_client::{ClientSettings, VerdictClient, VerdictUrl};

/// Longer than anything here takes; it only keeps a broken test from waiting for ever.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

// === the server ===

/// What a server does with every call.
#[derive(Clone)]
pub(super) enum Behaviour {
    Answer,
    /// Never answers.
    Hang,
    /// Answers when [`Script::release`] is notified.
    Wait,
    Fail(Status),
    /// An answer that does not fit the question.
    Nonsense,
}

#[derive(Clone)]
pub(super) struct Script(Arc<State>);

pub(super) struct State {
    name: String,
    behaviour: Mutex<Behaviour>,
    routes: Mutex<HashMap<Vec<u8>, Route>>,
    /// Calls that came, by method.
    calls: watch::Sender<HashMap<&'static str, usize>>,
    pub(super) release: Notify,
    pub(super) metadata: Mutex<MetadataMap>,
    /// Outcomes that were reported and answered.
    pub(super) reported: AtomicUsize,
}

/// A scripted verdict. Its connections die with it.
pub(super) struct Server {
    pub(super) script: Script,
    pub(super) address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    stop: CancellationToken,
    stopped: watch::Receiver<bool>,
}

impl Script {
    pub(super) fn new(name: &str) -> Self {
        Self(Arc::new(State {
            name: name.to_owned(),
            behaviour: Mutex::new(Behaviour::Answer),
            routes: Mutex::default(),
            calls: watch::Sender::default(),
            release: Notify::new(),
            metadata: Mutex::default(),
            reported: AtomicUsize::new(0),
        }))
    }

    pub(super) fn set(&self, behaviour: Behaviour) {
        *self.0.behaviour.lock().unwrap() = behaviour;
    }

    pub(super) fn knows(&self, route: Route) {
        self.0.routes.lock().unwrap().insert(route.digest.0.to_vec(), route);
    }

    pub(super) fn state(&self) -> &State {
        &self.0
    }

    pub(super) fn calls(&self, method: &str) -> usize {
        self.0.calls.borrow().get(method).copied().unwrap_or(0)
    }

    pub(super) fn all_calls(&self) -> usize {
        self.0.calls.borrow().values().sum()
    }

    /// Waits until so many calls have come.
    pub(super) async fn called(&self, count: usize) {
        let mut calls = self.0.calls.subscribe();
        soon(calls.wait_for(|calls| calls.values().sum::<usize>() >= count)).await.unwrap();
    }

    /// Counts a call and does what is to be done before an answer. True: the answer is to be nonsense.
    async fn begin<T>(&self, method: &'static str, request: &Request<T>) -> Result<bool, Status> {
        *self.0.metadata.lock().unwrap() = request.metadata().clone();
        self.0.calls.send_modify(|calls| *calls.entry(method).or_default() += 1);
        let behaviour = self.0.behaviour.lock().unwrap().clone();
        match behaviour {
            Behaviour::Answer => Ok(false),
            Behaviour::Nonsense => Ok(true),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Wait => {
                self.0.release.notified().await;
                Ok(false)
            }
            Behaviour::Fail(status) => Err(status),
        }
    }
}

#[tonic::async_trait]
impl VerdictService for Script {
    async fn check_connection(
        &self,
        request: Request<v1::CheckConnectionRequest>,
    ) -> Result<Response<v1::CheckConnectionResponse>, Status> {
        let nonsense = self.begin("connection", &request).await?;
        ConnectionQuestion::try_from(request.into_inner()).unwrap();
        let answer = ConnectionAnswer {
            refuse: None,
            tls: ListenerTls::Offer,
            greet_delay: Duration::ZERO,
            hidden: Vec::new(),
            revision: Revision(self.0.name.as_str().into()),
            ask_connections: false,
        };
        let mut response = v1::CheckConnectionResponse::from(&answer);
        if nonsense {
            response.refuse = Some(v1::Reply { code: 250, ..Default::default() });
        }
        Ok(Response::new(response))
    }

    async fn check_recipients(
        &self,
        request: Request<v1::CheckRecipientsRequest>,
    ) -> Result<Response<v1::CheckRecipientsResponse>, Status> {
        let nonsense = self.begin("recipients", &request).await?;
        let question = RecipientsQuestion::try_from(request.into_inner()).unwrap();
        let recipients = question.recipients.iter().map(|_| self.verdict()).collect();
        let answer = RecipientsAnswer {
            recipients,
            identity: Some(self.0.name.as_str().into()),
            checks: Vec::new(),
            revision: Revision("r1".into()),
            ask_connections: true,
        };
        let mut response = v1::CheckRecipientsResponse::from(&answer);
        if nonsense {
            response.recipients.pop();
        }
        Ok(Response::new(response))
    }

    /// Reads to the end, whatever it does then.
    async fn check_message(
        &self,
        request: Request<Streaming<v1::CheckMessageRequest>>,
    ) -> Result<Response<v1::CheckMessageResponse>, Status> {
        if let Behaviour::Fail(status) = &*self.0.behaviour.lock().unwrap()
            && status.code() == tonic::Code::Unimplemented
        {
            self.0.calls.send_modify(|calls| *calls.entry("message").or_default() += 1);
            return Err(status.clone());
        }
        let nonsense = self.begin("message", &request).await?;
        let mut parts = request.into_inner();
        let question = to_message_begin(parts.message().await?.unwrap()).unwrap();
        let (mut came, mut end) = (0, None);
        while let Some(part) = parts.message().await? {
            match BodyPart::try_from(part).unwrap() {
                BodyPart::Chunk(chunk) => came += chunk.len(),
                BodyPart::End { size } => end = Some(size),
            }
        }
        assert_eq!(end, Some(came as u64));
        let answer = MessageAnswer {
            action: Action::Accept,
            reply: None,
            reason: Reason::Accepted,
            monitored: None,
            score: 0.0,
            checks: question.checks,
            add_fields: Vec::new(),
            remove_fields: Vec::new(),
            remove_authserv_id: None,
            revision: Revision(self.0.name.as_str().into()),
        };
        let mut response = v1::CheckMessageResponse::from(&answer);
        if nonsense {
            response.add_fields = vec!["no field".to_owned()];
        }
        Ok(Response::new(response))
    }

    async fn report_outcome(
        &self,
        request: Request<v1::ReportOutcomeRequest>,
    ) -> Result<Response<v1::ReportOutcomeResponse>, Status> {
        self.begin("report", &request).await?;
        Delivery::try_from(request.into_inner()).unwrap();
        self.0.reported.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::ReportOutcomeResponse {}))
    }

    async fn get_route(
        &self,
        request: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        let nonsense = self.begin("route", &request).await?;
        let routes = self.0.routes.lock().unwrap();
        let Some(route) = routes.get(&request.get_ref().digest) else {
            return Err(Status::not_found("no such route"));
        };
        let mut route = v1::Route::from(route);
        if nonsense {
            route.digest = vec![0xee; 16];
        }
        Ok(Response::new(v1::GetRouteResponse { route: Some(route) }))
    }
}

impl Script {
    /// With a route if it knows one.
    fn verdict(&self) -> RecipientVerdict {
        let route = self.0.routes.lock().unwrap().values().next().map(|route| route.digest);
        let (action, reply, reason) = match route {
            Some(_) => (Action::Accept, None, Reason::Accepted),
            None => {
                (Action::Defer, Some(Reply::new(450, (4, 2, 0), "Come back in 300 s")), Reason::Greylisted)
            }
        };
        RecipientVerdict {
            action,
            reply,
            reason,
            monitored: None,
            greylist: None,
            score: 0.0,
            domain: None,
            object: None,
            route,
            class: route.map(|digest| torwart_core::ClassDigest(digest.0)),
            size_limit: 1000,
            deliver_to: None,
            refuse_data: None,
            hold_message: false,
        }
    }
}

impl Server {
    /// Named by its number, on a port of its own.
    pub(super) async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    pub(super) async fn start_at(name: &str, address: SocketAddr) -> Self {
        let mut server = Self { script: Script::new(name), address, running: None };
        server.start_again(None).await;
        server
    }

    /// One for each of 127.0.0.1, 127.0.0.2 ..., on one port.
    pub(super) async fn fleet<const N: usize>() -> [Self; N] {
        'ports: loop {
            let mut fleet = Vec::new();
            let mut port = 0;
            for number in 1..=N {
                let ip = Ipv4Addr::new(127, 0, 0, u8::try_from(number).unwrap());
                let mut server = Self {
                    script: Script::new(&number.to_string()),
                    address: (ip, port).into(),
                    running: None,
                };
                if !server.try_start(None).await {
                    continue 'ports; // somebody else has this port there
                }
                port = server.address.port();
                fleet.push(server);
            }
            return fleet.try_into().unwrap_or_else(|_| unreachable!());
        }
    }

    /// On the same port as before. `age`: connections get a GOAWAY after this time.
    pub(super) async fn start_again(&mut self, age: Option<Duration>) {
        assert!(self.try_start(age).await, "{} is taken", self.address);
    }

    async fn try_start(&mut self, age: Option<Duration>) -> bool {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (address, stop, script) = (self.address, CancellationToken::new(), self.script.clone());
        let (ended, stopped) = watch::channel(false);
        let order = stop.clone();
        let bound = runtime.spawn(async move { tokio::net::TcpListener::bind(address).await }).await.unwrap();
        let Ok(listener) = bound else {
            runtime.shutdown_background();
            return false;
        };
        self.address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let mut tonic = Tonic::builder();
            if let Some(age) = age {
                tonic = tonic.max_connection_age(age);
            }
            let router = tonic.add_service(VerdictServiceServer::new(script));
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, order.cancelled()).await.unwrap();
            ended.send_replace(true);
        });
        self.running = Some(Running { runtime, stop, stopped });
        true
    }

    /// Takes no more calls, finishes those under way, and closes its connections with a GOAWAY.
    pub(super) async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.stop.cancel();
        soon(running.stopped.wait_for(|stopped| *stopped)).await.unwrap();
        running.runtime.shutdown_background();
    }

    /// As SIGKILL does. When it returns, its port and its connections are closed.
    pub(super) fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            std::thread::spawn(move || drop(running.runtime)).join().unwrap();
        }
    }

    pub(super) fn url(&self) -> VerdictUrl {
        format!("http://{}", self.address).parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

// === the resolver ===

/// Says what it is told.
pub(super) struct Names {
    answer: Mutex<Result<Vec<IpAddr>, String>>,
    asked: watch::Sender<usize>,
    /// While it is true, no answer comes.
    pub(super) silent: watch::Sender<bool>,
}

impl Names {
    pub(super) fn new(servers: &[&Server]) -> Arc<Self> {
        let names = Self {
            answer: Mutex::new(Ok(Vec::new())),
            asked: watch::Sender::default(),
            silent: watch::Sender::new(false),
        };
        names.say(servers);
        Arc::new(names)
    }

    pub(super) fn say(&self, servers: &[&Server]) {
        *self.answer.lock().unwrap() = Ok(servers.iter().map(|server| server.address.ip()).collect());
    }

    pub(super) fn fail(&self) {
        *self.answer.lock().unwrap() = Err("SERVFAIL".to_owned());
    }

    /// Waits until it was asked twice more: what it says now is known.
    pub(super) async fn asked(&self) {
        let mut asked = self.asked.subscribe();
        let before = *asked.borrow_and_update();
        soon(asked.wait_for(|now| *now >= before + 2)).await.unwrap();
    }
}

impl Resolve for Names {
    fn addresses<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            self.silent.subscribe().wait_for(|silent| !silent).await.unwrap();
            self.asked.send_modify(|asked| *asked += 1);
            self.answer.lock().unwrap().clone()
        })
    }
}

// === the client ===

pub(super) const SLICE: Duration = Duration::from_millis(200);

/// As in production, but in less of a hurry to give up, and quicker to come back.
pub(super) fn settings(servers: &[&Server]) -> ClientSettings {
    let mut settings = ClientSettings::new(servers.iter().map(|server| server.url()).collect());
    settings.slice = SLICE;
    settings.refresh = Duration::from_millis(20);
    settings.ejection = Duration::from_millis(50);
    settings
}

pub(super) fn client(servers: &[&Server]) -> Arc<VerdictClient> {
    start(settings(servers))
}

/// All servers by one name.
pub(super) fn named(names: &Arc<Names>, port: u16) -> ClientSettings {
    let mut settings = settings(&[]);
    settings.urls = vec![format!("dns://verdict:{port}").parse().unwrap()];
    settings.resolver = Some(Arc::clone(names) as Arc<dyn Resolve>);
    settings
}

pub(super) fn start(settings: ClientSettings) -> Arc<VerdictClient> {
    VerdictClient::start(settings, &Registry::new()).unwrap()
}

// === questions ===

fn peer() -> Arc<Peer> {
    Arc::new(Peer {
        session: Id::from_u128(1),
        address: "192.0.2.1:4711".parse().unwrap(),
        helo: Some("client.example".into()),
        tls: None,
        early_talker: false,
    })
}

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope {
        sender: Some(Mailbox::new("a", "sender.example")),
        declared_size: None,
        eight_bit: false,
        smtputf8: false,
    })
}

pub(super) fn connection() -> ConnectionQuestion {
    ConnectionQuestion { peer: peer() }
}

pub(super) fn message() -> MessageQuestion {
    let RecipientsQuestion { peer, transaction, envelope, recipients, accepted_before: _ } = recipients();
    MessageQuestion { peer, transaction, envelope, recipients, checks: Vec::new() }
}

pub(super) fn recipients() -> RecipientsQuestion {
    RecipientsQuestion {
        peer: peer(),
        transaction: Id::from_u128(2),
        envelope: envelope(),
        recipients: vec![Mailbox::new("b", "example.org"), Mailbox::new("c", "example.org")],
        accepted_before: 0,
    }
}

pub(super) fn delivery() -> Delivery {
    Delivery {
        peer: peer(),
        transaction: Id::from_u128(2),
        envelope: envelope(),
        recipients: vec![Mailbox::new("b", "example.org")],
        route: RouteDigest([1; 16]),
        score: 0.0,
        result: DeliveryResult::Delivered,
        upstream: None,
        upstream_reply: None,
    }
}

pub(super) fn route(number: u8) -> Route {
    Route {
        digest: RouteDigest([number; 16]),
        protocol: Protocol::Smtp,
        upstreams: vec![Upstream {
            host: Host::Name("mail.example".into()),
            port: 25,
            priority: 0,
            weight: 1,
            max_connections: 20,
        }],
        tls: UpstreamTls { mode: TlsMode::Disabled, implicit: false, server_name: None, ca: None },
        client_identity: ClientIdentity::None,
        soft_bounce: SoftBounce::Never,
    }
}
