//! A gateway to which everything happens that the dashboards show.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

use tempfile::TempDir;
use torwart_tests::{
    Act, Authority, Certificate, Client, Metrics, Output, Part, PolicyFile, RedisServer, Step, Target,
    Upstream, address, client_address, endpoint, eventually,
};

/// An edge, two verdicts that serve and one that has no policy, a Redis, and mail servers of different health. Client
/// addresses come by the PROXY protocol, so they can be any.
pub(crate) struct Rig {
    pub(crate) edge: Part,
    verdicts: Vec<Part>,
    redis: RedisServer,
    /// Takes mail.
    _upstream: Upstream,
    /// Takes mail, and never says so.
    _silent: Upstream,
    broken: PathBuf,
    _certificates: (Authority, [Certificate; 3]),
    _folder: TempDir,
    /// Stays connected.
    _guest: Client,
    rounds: u16,
}

/// Refused at the banner.
const BARRED: &str = "203.0.113.7";
/// Nobody on the internet has it.
const PRIVATE: &str = "10.1.2.3";

impl Rig {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with("{mode: Always, delay: 1s}")
    }

    /// With this `greylisting` of example.org.
    #[track_caller]
    pub(crate) fn start_with(greylisting: &str) -> Self {
        let (upstream, silent) = (Upstream::start(), Upstream::start());
        silent.fail_always(Step::Dot, Act::KeepAndClose);
        upstream.unknown_recipient("nobody@example.org");
        let redis = RedisServer::builder().persistent().start();
        let authority = Authority::new("cluster");
        let (server, client) = (authority.issue(&["torwart-verdict"]), authority.issue(&["torwart-edge"]));
        let starttls = Certificate::new(&[PolicyFile::HOSTNAME]);
        let folder = tempfile::tempdir().unwrap();
        let (good, broken) = (folder.path().join("policy.yaml"), folder.path().join("broken.yaml"));
        fs::write(&good, policy(greylisting, &upstream, &silent)).unwrap();
        fs::write(&broken, "kind: [").unwrap();
        let key = folder.path().join("store.key");
        fs::write(&key, fs::read("/proc/sys/kernel/random/uuid").unwrap()).unwrap();
        let verdict = |policy| {
            Part::verdict(policy, &redis.url())
                .flag("--store-key-file", key.display())
                .flag("--store-timeout", "1s")
                .flag("--grpc-cert", server.cert.display())
                .flag("--grpc-key", server.key.display())
                .flag("--grpc-client-ca", authority.cert.display())
        };
        let verdicts = vec![verdict(&good).start(), verdict(&good).start(), verdict(&broken).launch()];
        let edge = Part::edge()
            .flag("--hostname", PolicyFile::HOSTNAME)
            .flag("--verdict-ca", authority.cert.display())
            .flag("--verdict-cert", client.cert.display())
            .flag("--verdict-key", client.key.display())
            .flag("--tls-cert", starttls.cert.display())
            .flag("--tls-key", starttls.key.display())
            .flag("--proxy-protocol-from", format!("{}/32", client_address(0)));
        let edge = verdicts
            .iter()
            .fold(edge, |edge, verdict| edge.flag("--verdict", format!("https://{}", verdict.listen)))
            .start();
        let guest = Client::greeted(edge.listen);
        Self {
            edge,
            verdicts,
            redis,
            _upstream: upstream,
            _silent: silent,
            broken,
            _certificates: (authority, [server, client, starttls]),
            _folder: folder,
            _guest: guest,
            rounds: 0,
        }
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let verdicts = self.verdicts.iter().map(|verdict| ("torwart-verdict", verdict.admin));
        std::iter::once(("torwart-edge-admin", self.edge.admin)).chain(verdicts).collect()
    }

    pub(crate) fn metrics(&self) -> Vec<Metrics> {
        let serving = self.verdicts.iter().take(2).map(Part::metrics);
        std::iter::once(self.edge.metrics()).chain(serving).collect()
    }

    /// Everything that leaves the processes alone.
    #[track_caller]
    pub(crate) fn mail(&mut self) {
        self.rounds += 1;
        let n = self.rounds;
        let host = format!("198.51.{}.9", n % 250);
        let friend = format!("anna{n}@sender.example");
        assert_eq!(self.send(&host, &friend, "bert@example.org"), 450, "new");
        assert_eq!(self.send(&host, &friend, "someone@elsewhere.example"), 550, "no domain of ours");
        assert_eq!(self.send(&host, &friend, "bert@watched.example"), 250, "Monitor");
        assert_eq!(self.send(&host, &friend, "bert@down.example"), 451, "no mail server");
        assert_eq!(self.send(&host, &friend, "bert@silent.example"), 451, "its last reply is lost");
        assert_eq!(self.send(PRIVATE, &friend, "bert@example.org"), 250, "not a sender on the internet");
        eventually("the delay is over", || self.send(&host, &friend, "bert@example.org") == 250);
        self.barred();
        self.probe();
        let mut clumsy = Client::greeted(self.edge.listen);
        clumsy.ask(220, "STARTTLS");
        let _ = clumsy.try_send(b"this is no handshake\r\n");
        clumsy.close_write();
        clumsy.rest();
        let mut stranger = TcpStream::connect(self.verdicts[0].listen).unwrap();
        stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = stranger.shutdown(Shutdown::Write);
    }

    /// One that the policy refuses at the banner.
    #[track_caller]
    pub(crate) fn barred(&self) {
        self.connect(BARRED).expect(554);
    }

    /// Sends nothing.
    #[track_caller]
    pub(crate) fn probe(&self) {
        drop(Client::connect_from(client_address(0), self.edge.listen));
    }

    /// Goes without QUIT.
    #[track_caller]
    pub(crate) fn gone(&self) {
        drop(self.greeted("198.51.253.9"));
    }

    /// The store hangs, a policy stays broken, and file descriptors run out.
    #[track_caller]
    pub(crate) fn trouble(&mut self) {
        self.broken_again();
        self.store_hangs();
        self.descriptors_run_out();
    }

    fn broken_again(&self) {
        let next = self.broken.with_extension("next");
        fs::write(&next, format!("kind: [ # {}\n", self.rounds)).unwrap();
        fs::rename(&next, &self.broken).unwrap();
    }

    #[track_caller]
    pub(crate) fn store_hangs(&self) {
        self.redis.signal("STOP");
        let stranger = format!("cora{}@sender.example", self.rounds);
        let heard = self.send("198.51.251.9", &stranger, "bert@example.org");
        self.redis.signal("CONT");
        assert_eq!(heard, 250, "onStoreFailure: Allow is the default");
    }

    /// In the middle of a transaction: its report has nobody to hear it. What they have counted is gone.
    #[track_caller]
    pub(crate) fn verdicts_die(&mut self) {
        let sender = format!("dora{}@sender.example", self.rounds);
        let mut client = self.greeted("198.51.252.9");
        client.ask(250, format!("MAIL FROM:<{sender}>"));
        client.ask(250, "RCPT TO:<bert@watched.example>");
        self.verdicts[..2].iter_mut().for_each(Part::kill);
        client.ask(354, "DATA");
        assert_eq!(client.try_content(b"Subject: x\r\n").unwrap().code, 250);
        client.ask(250, format!("MAIL FROM:<{sender}>"));
        let reply = client.command("RCPT TO:<bert@watched.example>");
        assert_eq!(reply.enhanced(), "4.3.5", "{reply}");
        self.verdicts[..2].iter_mut().for_each(Part::start_again);
        eventually("mail flows again", || self.send("198.51.252.9", &sender, "bert@watched.example") == 250);
    }

    #[track_caller]
    fn descriptors_run_out(&mut self) {
        let id = self.edge.process().id();
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let limit = |limit: &str| {
            let mut command = std::process::Command::new("prlimit");
            command.args(["--pid", &id.to_string(), &format!("--nofile={limit}:")]);
            let output = Output::of(&mut command);
            assert_eq!(output.code, 0, "{}", output.text);
        };
        let complaints = || {
            let lines = self.edge.lines().all();
            lines.iter().filter(|line| line.contains("a connection could not be accepted")).count()
        };
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
        let before = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let before = before.split_whitespace().next().unwrap();
        let heard = complaints();
        limit(&open.to_string());
        let mut crowd = Vec::new();
        eventually("no descriptor is left", || {
            crowd.extend(Client::try_connect(self.edge.listen, None));
            complaints() > heard
        });
        limit(before);
    }

    fn connect(&self, host: &str) -> Client {
        let mut client = Client::connect_from(client_address(0), self.edge.listen);
        client.send(format!("PROXY TCP4 {host} 192.0.2.1 1000 25\r\n"));
        client
    }

    #[track_caller]
    fn greeted(&self, host: &str) -> Client {
        let mut client = self.connect(host);
        client.expect(220);
        client.ask(250, "EHLO client.sender.example");
        client
    }

    /// One mail from this address; the code that ended it.
    #[track_caller]
    pub(crate) fn send(&self, host: &str, from: &str, to: &str) -> u16 {
        let mut client = self.greeted(host);
        let code = client.mail(from, &[to], b"Subject: x\r\n\r\nHello.\r\n").code;
        client.ask(221, "QUIT");
        code
    }
}

fn policy(greylisting: &str, upstream: &Upstream, silent: &Upstream) -> String {
    let nobody: SocketAddr = endpoint();
    assert!(matches!(address(), IpAddr::V4(_)));
    let watched = PolicyFile::to(upstream.endpoint).domains(&["watched.example"]);
    let watched = watched.greylisting("{mode: Always}").domain("enforcement: Monitor").text();
    let watched = watched.split("---\n").nth(1).unwrap().replace("name: example-org", "name: watched");
    let mut policy = PolicyFile::to(upstream.endpoint)
        .greylisting(greylisting)
        .gateway(&format!("ipRanges: [{{name: barred, cidrs: [{BARRED}/32], priority: 1, action: Reject}}]"))
        .also("down.example", nobody)
        .also("silent.example", silent.endpoint)
        .text();
    policy.push_str("---\n");
    policy.push_str(&watched);
    policy
}
