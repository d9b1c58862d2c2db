//! DNS block and allow lists, asked of a real unbound.

use std::fs;
use std::net::IpAddr;

use serde_json::Value;
use torwart_tests::{
    Client, DnsServer, Gateway, PolicyFile, Reply, Unbound, Upstream, client_address, endpoint, eventually,
};

const KEY: &str = "s3cretk3y";
/// A list that works has the first and has not 127.0.0.1 (RFC 5782 section 5).
const PROBES: [&str; 2] = ["2.0.0.127.zen.test. A 127.0.0.2", "2.0.0.127.good.test. A 127.0.5.0"];
const LISTS: &str = "dnsLists: [\
    {name: zen, zone: zen.test, responses: [{codes: [127.0.0.2-127.0.0.9], score: 10}, {codes: [127.0.0.10-127.0.0.11], score: 5}]}, \
    {name: good, zone: good.test, kind: Allow, responses: [{codes: [127.0.0.0-127.0.255.254], score: -6}]}]";
const OFF: &str = "{mode: Off}";

fn reversed(client: IpAddr) -> String {
    let text = client.to_string();
    let octets: Vec<&str> = text.rsplit('.').collect();
    octets.join(".")
}

/// With rows such as `(1, "zen.test", "A 127.0.0.2")` for the first client.
fn unbound(rows: &[(u16, &str, &str)]) -> Unbound {
    let mut records: Vec<String> = PROBES.iter().map(|line| (*line).to_owned()).collect();
    for (client, zone, data) in rows {
        records.push(format!("{}.{zone}. {data}", reversed(client_address(*client))));
    }
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    Unbound::start(&["zen.test.", "good.test."], &records)
}

fn policy(upstream: &Upstream, greylisting: &str) -> PolicyFile {
    PolicyFile::to(upstream.endpoint).greylisting(greylisting).gateway(LISTS)
}

fn start(dns: &Unbound, policy: &PolicyFile) -> Gateway {
    let gateway = Gateway::builder().flag("--dns-server", dns.address()).start(&policy.text());
    usable(&gateway, &[("zen", 1.0), ("good", 1.0)]);
    gateway
}

/// Each verdict probes for itself.
fn usable(gateway: &Gateway, lists: &[(&str, f64)]) {
    gateway.wait_metrics("the lists were probed", |metrics| {
        let verdicts = f64::from(u8::try_from(gateway.verdicts()).unwrap());
        lists.iter().all(|(list, wanted)| {
            metrics.sum("torwart_dns_list_usable", &[("list", list)]) == wanted * verdicts
        })
    });
}

fn rcpt_from(gateway: &Gateway, client: u16) -> Reply {
    let mut client = Client::greeted_from(client_address(client), gateway.smtp);
    client.ask(250, "MAIL FROM:<anna@sender.example>");
    client.command("RCPT TO:<bert@example.org>")
}

fn send_from(gateway: &Gateway, client: u16) -> Value {
    let address = client_address(client);
    let reply = Client::greeted_from(address, gateway.smtp).mail(
        "anna@sender.example",
        &["bert@example.org"],
        b"\r\n",
    );
    assert_eq!(reply.code, 250, "{reply}");
    gateway.transaction("from that client", |line| line["client"] == address.to_string())
}

fn check<'l>(line: &'l Value, name: &str) -> &'l Value {
    let checks = line["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {line}"))
}

#[test]
fn a_listed_client_is_refused_and_told_by_which_list() {
    let upstream = Upstream::start();
    let dns = unbound(&[(1, "zen.test", "A 127.0.0.4"), (1, "zen.test", "TXT \"https://zen.test/why\"")]);
    let gateway = start(&dns, &policy(&upstream, OFF));
    let reply = rcpt_from(&gateway, 1);
    assert_eq!((reply.code, reply.enhanced()), (550, "5.7.1"), "{reply}");
    assert!(reply.text().contains("zen"), "{reply}");
    let line = gateway.transaction("the listed one", |line| line["client"] == client_address(1).to_string());
    assert_eq!(line["reason"], "dns_list", "{line}");
    let zen = check(&line, "dns_list/zen");
    assert_eq!((&zen["result"], &zen["score"]), (&"listed".into(), &10.0.into()), "{line}");
    assert_eq!(zen["detail"], "127.0.0.4 https://zen.test/why", "{line}");
    assert_eq!(check(&line, "dns_list/good")["result"], "clean", "{line}");
    assert!(upstream.received().is_empty());
    assert_eq!(gateway.metrics().sum("torwart_verdicts_total", &[("reason", "dns_list")]), 1.0);
}

#[test]
fn whoever_is_on_no_list_is_delivered_with_a_score_of_nothing() {
    let upstream = Upstream::start();
    let dns = unbound(&[]);
    let gateway = start(&dns, &policy(&upstream, OFF));
    let line = send_from(&gateway, 2);
    assert_eq!(
        (&line["score"], &check(&line, "dns_list/zen")["result"]),
        (&0.0.into(), &"clean".into()),
        "{line}"
    );
}

#[test]
fn lists_add_up_and_an_allow_list_takes_away() {
    let upstream = Upstream::start();
    let dns = unbound(&[
        (3, "zen.test", "A 127.0.0.2"),
        (3, "good.test", "A 127.0.9.1"),
        // Several answers of one list count once, the heaviest.
        (4, "zen.test", "A 127.0.0.10"),
        (4, "zen.test", "A 127.0.0.11"),
    ]);
    let gateway = start(&dns, &policy(&upstream, OFF));
    assert_eq!(send_from(&gateway, 3)["score"], 4.0);
    assert_eq!(send_from(&gateway, 4)["score"], 5.0);
}

#[test]
fn an_allow_list_spares_the_wait() {
    let upstream = Upstream::start();
    let dns = unbound(&[(5, "good.test", "A 127.0.9.1")]);
    let gateway = start(&dns, &policy(&upstream, "{mode: Suspicious, delay: 1h}"));
    assert_eq!(rcpt_from(&gateway, 6).code, 450);
    let line = send_from(&gateway, 5);
    assert_eq!(line["recipients"][0]["greylist"], "not_suspicious", "{line}");
}

#[test]
fn a_check_that_only_watches_adds_nothing() {
    let upstream = Upstream::start();
    let dns = unbound(&[(7, "zen.test", "A 127.0.0.4")]);
    let policy = policy(&upstream, OFF).domain("checks: {dnsLists: {enforcement: Monitor}}");
    let gateway = start(&dns, &policy);
    let line = send_from(&gateway, 7);
    let zen = check(&line, "dns_list/zen");
    assert_eq!(
        (&zen["result"], &zen["score"], &line["score"]),
        (&"listed".into(), &0.0.into(), &0.0.into()),
        "{line}"
    );
    assert!(zen["detail"].as_str().unwrap().contains("Monitor"), "{line}");
}

#[test]
fn mail_domains_and_ranges_say_which_lists_are_asked() {
    let upstream = Upstream::start();
    let dns = unbound(&[
        (8, "zen.test", "A 127.0.0.4"),
        (9, "zen.test", "A 127.0.0.4"),
        (10, "zen.test", "A 127.0.0.4"),
    ]);
    let ranges = format!(
        "ipRanges: [{{name: ours, cidrs: [{}/32], action: Allow}}, {{name: odd, cidrs: [{}/32], checks: {{dnsLists: {{enabled: false}}}}}}]",
        client_address(8),
        client_address(9),
    );
    let gateway = start(&dns, &policy(&upstream, OFF).gateway(&ranges));
    for client in [8, 9] {
        let line = send_from(&gateway, client);
        assert_eq!(line["checks"], Value::Array(Vec::new()), "{line}");
    }
    assert_eq!(rcpt_from(&gateway, 10).code, 550);
    let only = policy(&upstream, OFF).domain("checks: {dnsLists: {only: [good]}}");
    gateway.replace_policy(&only.text());
    eventually("zen is not asked any more", || rcpt_from(&gateway, 10).code == 250);
}

#[test]
fn explain_says_what_was_heard_live() {
    let upstream = Upstream::start();
    let dns = unbound(&[(11, "zen.test", "A 127.0.0.4"), (12, "zen.test", "A 127.0.0.10")]);
    let gateway = start(&dns, &policy(&upstream, OFF));
    for client in [11, 12, 13] {
        let reply = rcpt_from(&gateway, client);
        let (address, server) = (client_address(client).to_string(), dns.address().to_string());
        let line = gateway.transaction("that one", |line| line["client"] == address);
        let policy = gateway.policy_file().display().to_string();
        let arguments = [
            "explain",
            "--json",
            "--policy",
            &policy,
            "--client",
            &address,
            "--helo",
            "client.sender.example",
            "--from",
            "anna@sender.example",
            "--to",
            "bert@example.org",
            "--dns-server",
            &server,
        ];
        let output = Gateway::command(&arguments).output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(said["code"], reply.code, "{said}");
        assert_eq!(said["score"], line["recipients"][0]["score"], "{said}\n{line}");
        assert_eq!(said["reason"], line["recipients"][0]["reason"], "{said}\n{line}");
        for name in ["dns_list/zen", "dns_list/good"] {
            for field in ["result", "score", "detail"] {
                assert_eq!(check(&said, name)[field], check(&line, name)[field], "{name} {field}");
            }
        }
    }
}

#[test]
fn a_query_key_is_asked_with_and_stands_in_no_line_of_the_log() {
    let upstream = Upstream::start();
    let secrets = tempfile::tempdir().unwrap();
    fs::write(secrets.path().join("zen.key"), format!("{KEY}\n")).unwrap();
    let client = client_address(14);
    let (probe, listed) =
        (format!("2.0.0.127.{KEY}.zen.test."), format!("{}.{KEY}.zen.test.", reversed(client)));
    let why = format!("see https://zen.test/{KEY}");
    let dns = DnsServer::start(
        endpoint(),
        &[(&probe, "A", "127.0.0.2"), (&listed, "A", "127.0.0.4"), (&listed, "TXT", &why)],
    );
    let lists = "dnsLists: [{name: zen, zone: zen.test, keyFile: zen.key, responses: [{codes: [127.0.0.4], score: 12}]}]";
    let policy = PolicyFile::to(upstream.endpoint).gateway(lists);
    let gateway = Gateway::run_only()
        .flag("--dns-server", dns.address())
        .flag("--secrets-dir", secrets.path().display())
        .flag("--log-level", "trace")
        .start(&policy.text());
    usable(&gateway, &[("zen", 1.0)]);
    assert_eq!(rcpt_from(&gateway, 14).code, 550);
    let line = gateway.transaction("the listed one", |_| true);
    assert_eq!(check(&line, "dns_list/zen")["detail"], "127.0.0.4 see https://zen.test/***", "{line}");
    let (_, metrics) = gateway.get("/metrics");
    let (_, policy) = gateway.get("/policy");
    for text in [metrics, policy, gateway.lines().all().join("\n")] {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[test]
fn without_dns_mail_flows_and_once_that_is_known_nobody_waits() {
    let upstream = Upstream::start();
    let rows = [("2.0.0.127.zen.test.", "A", "127.0.0.2"), ("2.0.0.127.good.test.", "A", "127.0.5.0")];
    let dns = DnsServer::start(endpoint(), &rows);
    let gateway =
        Gateway::run_only().flag("--dns-server", dns.address()).start(&policy(&upstream, OFF).text());
    usable(&gateway, &[("zen", 1.0), ("good", 1.0)]);
    dns.set(&[(".", "SILENT", ""), ("*.", "SILENT", "")]);
    for client in 20..23 {
        let line = send_from(&gateway, client);
        assert_eq!(check(&line, "dns_list/zen")["result"], "error", "{line}");
    }
    let asked = dns.asked().len();
    for client in 23..40 {
        let line = send_from(&gateway, client);
        let detail = check(&line, "dns_list/zen")["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("not asked"), "{line}");
    }
    assert_eq!(dns.asked().len(), asked, "they were left alone");
}

#[test]
fn a_list_that_lists_everything_is_not_asked() {
    let upstream = Upstream::start();
    let dns = DnsServer::start(
        endpoint(),
        &[("*.zen.test.", "A", "127.0.0.2"), ("2.0.0.127.good.test.", "A", "127.0.5.0")],
    );
    let gateway =
        Gateway::builder().flag("--dns-server", dns.address()).start(&policy(&upstream, OFF).text());
    usable(&gateway, &[("zen", 0.0), ("good", 1.0)]);
    gateway.notice("does not work and is not asked");
    let line = send_from(&gateway, 41);
    assert_eq!(check(&line, "dns_list/zen")["result"], "skipped", "{line}");
}

#[test]
fn check_warns_of_a_resolver_that_lists_refuse() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.yaml");
    for (policy, server, warned) in [
        (policy(&upstream, OFF), "8.8.8.8", true),
        (policy(&upstream, OFF), "[2620:fe::fe]:53", true),
        (policy(&upstream, OFF), "192.0.2.53", false),
        (PolicyFile::to(upstream.endpoint), "8.8.8.8", false),
    ] {
        fs::write(&file, policy.text()).unwrap();
        let arguments = ["check", "--policy", &file.display().to_string(), "--dns-server", server];
        let output = Gateway::command(&arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(text.contains("anybody may use"), warned, "{server}: {text}");
    }
}
