//! TLS between edge and verdict, both sides with certificates: who may ask whom, why not, and renewal.

use std::path::Path;

use torwart_tests::{
    Authority, Certificate, Client, Part, PartBuilder, PolicyFile, RedisServer, Upstream, eventually,
};

const SERVER: &str = "torwart-verdict";
const CLIENT: &str = "torwart-edge";

/// An edge, a verdict and what is around them.
struct Pair {
    edge: Part,
    verdict: Part,
    _redis: RedisServer,
    upstream: Upstream,
    _folder: tempfile::TempDir,
}

/// What each side shows and trusts.
struct Sides<'a> {
    server: &'a Certificate,
    client_ca: &'a Path,
    client: Option<&'a Certificate>,
    server_ca: &'a Path,
    server_name: &'a str,
    scheme: &'a str,
}

impl Pair {
    fn start(sides: &Sides) -> Self {
        let upstream = Upstream::start();
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.yaml");
        std::fs::write(&policy, PolicyFile::to(upstream.endpoint).text()).unwrap();
        let verdict = Part::verdict(&policy, &redis.url())
            .flag("--grpc-cert", sides.server.cert.display())
            .flag("--grpc-key", sides.server.key.display())
            .flag("--grpc-client-ca", sides.client_ca.display())
            .flag("--grpc-client-name", CLIENT)
            .start();
        let edge = Part::edge()
            .flag("--hostname", PolicyFile::HOSTNAME)
            .flag("--verdict", format!("{}://{}", sides.scheme, verdict.listen))
            .flag("--verdict-server-name", sides.server_name);
        let tls = |edge: PartBuilder| match sides.client {
            Some(client) => {
                edge.flag("--verdict-cert", client.cert.display()).flag("--verdict-key", client.key.display())
            }
            None => edge,
        };
        let edge = match sides.scheme {
            "https" => tls(edge.flag("--verdict-ca", sides.server_ca.display())),
            _ => edge,
        };
        Self { edge: edge.start(), verdict, _redis: redis, upstream, _folder: folder }
    }

    fn code(&self) -> u16 {
        let mut client = Client::greeted(self.edge.listen);
        client.mail("anna@sender.example", &["bert@example.org"], b"Subject: x\r\n").code
    }

    /// Whether one of them has written this.
    fn said(&self, text: &str) -> bool {
        let said = |part: &Part| part.lines().all().iter().any(|line| line.contains(text));
        said(&self.edge) || said(&self.verdict)
    }
}

#[test]
fn both_sides_with_the_right_certificates_understand_each_other() {
    let authority = Authority::new("cluster");
    let (server, client) = (authority.issue(&[SERVER]), authority.issue(&[CLIENT]));
    let pair = Pair::start(&Sides {
        server: &server,
        client_ca: &authority.cert,
        client: Some(&client),
        server_ca: &authority.cert,
        server_name: SERVER,
        scheme: "https",
    });
    assert_eq!(pair.code(), 250);
    assert_eq!(pair.upstream.received().len(), 1);
}

#[test]
fn a_wrong_certificate_on_either_side_is_451_and_the_log_says_why() {
    let (authority, foreign) = (Authority::new("cluster"), Authority::new("elsewhere"));
    let server = authority.issue(&[SERVER]);
    let client = authority.issue(&[CLIENT]);
    let stranger = authority.issue(&["torwart-stranger"]);
    let forged = foreign.issue(&[CLIENT]);
    let right = || Sides {
        server: &server,
        client_ca: &authority.cert,
        client: Some(&client),
        server_ca: &authority.cert,
        server_name: SERVER,
        scheme: "https",
    };
    let table: [(&str, Sides, &str); 6] = [
        ("the edge trusts another CA", Sides { server_ca: &foreign.cert, ..right() }, "UnknownIssuer"),
        (
            "the edge wants another name",
            Sides { server_name: "other.example", ..right() },
            "not valid for name",
        ),
        ("the client is of another CA", Sides { client: Some(&forged), ..right() }, "UnknownIssuer"),
        ("the client has another name", Sides { client: Some(&stranger), ..right() }, "torwart-stranger"),
        ("the client shows nothing", Sides { client: None, ..right() }, "peer sent no certificates"),
        ("the edge speaks no TLS", Sides { scheme: "http", ..right() }, "received corrupt message"),
    ];
    for (name, sides, why) in table {
        let pair = Pair::start(&sides);
        for _ in 0..3 {
            assert_eq!(pair.code(), 451, "{name}");
        }
        eventually(name, || pair.said(why));
        assert!(pair.edge.metrics().sum("torwart_verdict_client_failures_total", &[]) > 0.0, "{name}");
        assert!(pair.upstream.received().is_empty(), "{name}");
    }
}

#[test]
fn certificates_renewed_on_disk_are_used_without_a_restart_on_both_sides() {
    let (authority, foreign) = (Authority::new("cluster"), Authority::new("elsewhere"));
    // Nothing fits, and is mended by and by.
    let server = foreign.issue(&[SERVER]);
    let client = authority.issue(&["torwart-stranger"]);
    let pair = Pair::start(&Sides {
        server: &server,
        client_ca: &authority.cert,
        client: Some(&client),
        server_ca: &authority.cert,
        server_name: SERVER,
        scheme: "https",
    });
    assert_eq!(pair.code(), 451);
    authority.reissue(&server, &[SERVER]);
    // Now it is the client's name that is wrong.
    eventually("the verdict is trusted, and refuses the stranger", || {
        assert_eq!(pair.code(), 451);
        pair.said("torwart-stranger")
    });
    authority.reissue(&client, &[CLIENT]);
    eventually("mail flows", || pair.code() == 250);
}
