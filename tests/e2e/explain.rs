//! `torwart explain` says what `torwart run` says: a table of mails, each asked live and offline.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use torwart_tests::{Certificate, Client, Gateway, PolicyFile, Reply, Upstream, endpoint, eventually, root};

/// One mail; its HELO is made from its place in the table, so that its line in the mail log can be found.
struct Mail {
    client: &'static str,
    from: &'static str,
    to: &'static [&'static str],
}

const fn mail(client: &'static str, from: &'static str, to: &'static [&'static str]) -> Mail {
    Mail { client, from, to }
}

/// What was heard live.
struct Live {
    /// To the last command that was answered: banner, MAIL, or DATA and its message.
    last: Reply,
    recipients: Vec<Reply>,
    /// From the mail log, if there was a transaction.
    line: Option<Value>,
}

/// An example with the tests' own mail servers behind it: whoever is accepted shall be delivered.
fn example(name: &str, upstreams: &[Upstream; 2]) -> String {
    let text = fs::read_to_string(root().join("k8s/examples").join(name)).unwrap();
    let mut turn = 0;
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut line = line.replace("tls: {mode: Required}", "tls: {mode: Disabled}");
        if let Some(host) = word_after(&line, "host: ") {
            turn += 1;
            line = line.replace(&host, &format!("host: {}", upstreams[turn % 2].endpoint.ip()));
        }
        if let Some(port) = word_after(&line, "port: ") {
            line = line.replace(&port, &format!("port: {}", upstreams[turn % 2].endpoint.port()));
        }
        lines.push(line);
    }
    assert!(turn > 0, "{name} names no mail server");
    lines.join("\n") + "\n"
}

/// `key` and the word behind it.
fn word_after(line: &str, key: &str) -> Option<String> {
    let at = line.find(key)?;
    let word = line.get(at + key.len()..)?.split([',', '}', ' ']).next()?;
    Some(format!("{key}{word}"))
}

fn explain(policy: &Path, helo: &str, mail: &Mail, more: &[&str]) -> Output {
    let policy = policy.display().to_string();
    let mut arguments =
        vec!["explain", "--policy", &policy, "--client", mail.client, "--helo", helo, "--from", mail.from];
    for to in mail.to {
        arguments.extend(["--to", to]);
    }
    arguments.extend(more);
    Gateway::command(&arguments).output().unwrap()
}

#[track_caller]
fn explained(policy: &Path, helo: &str, mail: &Mail, code: i32) -> Vec<Value> {
    let output = explain(policy, helo, mail, &["--json"]);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    let mut value: Value = serde_json::from_slice(&output.stdout).unwrap();
    match value["recipients"].take() {
        Value::Array(recipients) => recipients,
        _ => vec![value],
    }
}

/// Sends it by way of a PROXY header, to the end: an accepted mail is delivered.
#[track_caller]
fn sent(gateway: &Gateway, helo: &str, mail: &Mail) -> Live {
    let mut client = Client::connect(gateway.smtp);
    let header = match mail.client.contains(':') {
        true => format!("PROXY TCP6 {} 2001:db8::25 4025 25\r\n", mail.client),
        false => format!("PROXY TCP4 {} 192.0.2.25 4025 25\r\n", mail.client),
    };
    client.send(header);
    let banner = client.reply();
    if banner.code != 220 {
        return Live { last: banner, recipients: Vec::new(), line: None };
    }
    client.ask(250, format!("EHLO {helo}"));
    let last = client.command(format!("MAIL FROM:<{}>", mail.from.trim_matches(['<', '>'])));
    if !last.is_positive() {
        return Live { last, recipients: Vec::new(), line: None };
    }
    let recipients: Vec<Reply> = mail.to.iter().map(|to| client.command(format!("RCPT TO:<{to}>"))).collect();
    let mut last = client.command("DATA");
    if last.code == 354 {
        last = client.try_content(b"Subject: x\r\n\r\nx\r\n").unwrap();
    }
    client.ask(221, "QUIT");
    let line = gateway.transaction(helo, |line| line["helo"] == helo);
    Live { last, recipients, line: Some(line) }
}

#[track_caller]
fn is_reply(reply: &Reply, explained: &Value, what: &str) {
    assert_eq!(explained["code"], reply.code, "{what}: {reply}\n{explained:#}");
    assert_eq!(explained["enhanced"], reply.enhanced(), "{what}: {reply}\n{explained:#}");
    let text = explained["text"].as_str().unwrap();
    let heard = reply.text();
    let heard = heard.strip_prefix(reply.enhanced()).unwrap().trim_start();
    assert!(heard.starts_with(text) || reply.is_positive(), "{what}: {heard:?} is not {text:?}");
}

/// Asks about each mail live and offline, and gives what was explained.
#[track_caller]
fn agree(policy: &str, code: i32, mails: &[Mail]) -> Vec<Value> {
    let certificate = Certificate::new(&["mx.example.net"]);
    let gateway = Gateway::builder()
        .flag("--proxy-protocol-from", "127.0.0.0/8")
        .flag("--tls-cert", certificate.cert.display())
        .flag("--tls-key", certificate.key.display())
        .start(policy);
    let mut all = Vec::new();
    for (number, mail) in mails.iter().enumerate() {
        let helo = format!("mx.sender-{number}.example");
        let what = format!("{number}: {} {} {:?}", mail.client, mail.from, mail.to);
        // First offline: what live remembers of it must not matter.
        let offline = explained(gateway.policy_file(), &helo, mail, code);
        let live = sent(&gateway, &helo, mail);
        assert_eq!(offline.len(), mail.to.len(), "{what}");
        for (position, explained) in offline.iter().enumerate() {
            let stage = explained["stage"].as_str().unwrap();
            match stage {
                "connection" | "mail" => {
                    assert!(live.line.is_none(), "{what}");
                    is_reply(&live.last, explained, &what);
                    continue;
                }
                "data" => is_reply(&live.last, explained, &what),
                _ => is_reply(&live.recipients[position], explained, &what),
            }
            let line = live.line.as_ref().unwrap_or_else(|| panic!("{what}: no transaction"));
            let logged = &line["recipients"][position];
            let decision = if stage == "data" { line } else { logged };
            for key in ["action", "code", "reason"] {
                assert_eq!(explained[key], decision[key], "{what}: {key}\n{explained:#}\n{line:#}");
            }
            for key in ["domain", "greylist", "score"] {
                assert_eq!(explained[key], logged[key], "{what}: {key}\n{explained:#}\n{line:#}");
            }
            if stage == "recipient" {
                assert_eq!(explained["enhanced"], logged["enhanced"], "{what}\n{line:#}");
            }
            assert_eq!(explained["revision"], line["revision"], "{what}");
            assert_eq!(explained["identity"], line["identity"], "{what}\n{explained:#}\n{line:#}");
        }
        all.extend(offline);
    }
    all
}

fn words(explained: &[Value], key: &str) -> Vec<String> {
    explained.iter().map(|one| one[key].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn live_and_offline_agree_over_the_quickstart() {
    let upstreams = [Upstream::start(), Upstream::start()];
    let explained = agree(
        &example("quickstart.yaml", &upstreams),
        0,
        &[
            mail("192.0.2.1", "bert@partner.example", &["anna@example.org"]),
            mail("192.0.2.1", "bert@partner.example", &["someone@elsewhere.example"]),
            mail("198.51.100.1", "x@y.example", &["postmaster@example.org"]),
            mail("198.51.100.2", "x@y.example", &["Postmaster"]),
            mail("203.0.113.1", "<>", &["anna@example.org"]),
            mail("10.1.2.3", "x@y.example", &["anna@example.org"]),
            mail("2001:db8::7", "x@y.example", &["a%b@example.org", "anna@EXAMPLE.org"]),
        ],
    );
    assert_eq!(
        words(&explained, "action"),
        ["defer", "reject", "accept", "accept", "defer", "accept", "reject", "defer"]
    );
    assert_eq!(
        words(&explained, "step"),
        [
            "greylist",
            "domain",
            "ungreylisted_recipient",
            "exempt_recipient",
            "greylist",
            "suspect_client",
            "routed_local_part",
            "greylist"
        ]
    );
    assert_eq!(explained[4]["stage"], "data", "call-outs with the null sender pass RCPT");
}

#[test]
fn live_and_offline_agree_over_the_other_examples() {
    let upstreams = [Upstream::start(), Upstream::start()];
    agree(
        &example("hmailserver.yaml", &upstreams),
        0,
        &[
            mail("10.10.0.77", "x@y.example", &["anna@example.org"]),
            mail("192.0.2.25", "x@partner.example", &["anna@example.net"]),
            mail("203.0.113.66", "x@y.example", &["anna@example.org"]),
            mail("198.51.100.9", "codes@bank.example", &["anna@example.org"]),
            mail("192.0.2.77", "codes@bank.example", &["anna@example.org"]),
            mail("192.0.2.78", "x@y.example", &["anna@shop.example.com"]),
            mail("192.0.2.79", "x@y.example", &["anna@shop.example.com", "anna@example.org"]),
        ],
    );
    agree(
        &example("tenants.yaml", &upstreams),
        0,
        &[
            mail("198.51.100.20", "probe@hoster.example", &["a@hoster.example"]),
            mail("192.0.2.80", "x@y.example", &["a@deep.acme.example"]),
            mail("192.0.2.81", "x@y.example", &["a@widgets.example"]),
            mail("192.0.3.82", "x@y.example", &["a@red.teams.example"]),
            mail("192.0.4.83", "x@y.example", &["a@blue.teams.example"]),
            // Monitor, Off and a stranger in one mail: two delivery classes.
            mail("192.0.5.84", "x@y.example", &["a@widgets.example", "a@red.teams.example", "a@b.example"]),
        ],
    );
    agree(
        &example("postfix.yaml", &upstreams),
        0,
        &[
            mail("192.0.2.90", "x@y.example", &["support@example.org", "anna@example.org"]),
            mail("192.0.3.91", "bounce-4711@lists.example", &["anna@example.org"]),
        ],
    );
    for (name, to) in [("exchange.yaml", "a@eu.corp.example"), ("cluster.yaml", "a@example.org")] {
        agree(
            &example(name, &upstreams),
            0,
            &[Mail { to: vec![to].leak(), ..mail("192.0.2.95", "x@y.example", &[]) }],
        );
    }
}

fn many_rules(upstream: &Upstream, other: &Upstream) -> PolicyFile {
    PolicyFile::to(upstream.endpoint)
        .greylisting("{mode: Always, delay: 1h}")
        .gateway("ipRanges:")
        .gateway("  - {name: office, cidrs: [192.0.2.0/24], priority: 10, action: Allow}")
        .gateway("  - {name: banned, cidrs: [198.51.100.0/24], priority: 10, action: Reject}")
        .gateway("  - {name: later, cidrs: [203.0.113.0/24], priority: 10, action: Defer}")
        .gateway("  - {name: watched, cidrs: [9.9.0.0/16], priority: 10, action: Check}")
        .gateway("  - {name: sealed, cidrs: [8.8.0.0/16], priority: 10, action: Check, tls: Require}")
        .gateway("senders:")
        .gateway("  deny: [{pattern: \"*@spam.example\"}]")
        .domain("ipRanges:")
        .domain("  - {name: rival, cidrs: [192.0.2.128/25], action: Reject}")
        .domain("  - {name: friend, cidrs: [9.9.9.0/24], action: Allow}")
        .domain(
            "senders: {allow: [{pattern: \"*@partner.example\"}], deny: [{pattern: \"x@noise.example\"}]}",
        )
        .domain("recipients: {deny: [\"gone\"], exempt: [\"sales\"]}")
        .domain("limits: {recipients: 2}")
        .also("example.com", other.endpoint)
}

#[test]
fn live_and_offline_agree_over_ranges_lists_and_limits() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let explained = agree(
        &many_rules(&upstream, &other).text(),
        0,
        &[
            mail("192.0.2.1", "x@y.example", &["a@example.org"]),
            mail("192.0.2.129", "x@y.example", &["a@example.org", "a@example.com"]),
            mail("198.51.100.1", "x@y.example", &["a@example.org"]),
            mail("203.0.113.1", "x@y.example", &["a@example.org"]),
            mail("9.9.9.9", "x@y.example", &["a@example.org"]),
            mail("9.9.8.8", "x@y.example", &["a@example.org"]),
            mail("8.8.8.8", "x@y.example", &["a@example.org"]),
            mail("7.7.7.1", "a@spam.example", &["a@example.org"]),
            mail("7.7.6.1", "b@partner.example", &["a@example.org"]),
            mail("7.7.5.1", "x@noise.example", &["a@example.org"]),
            mail("7.7.4.1", "x@y.example", &["gone@example.org", "sales@example.org"]),
            mail("7.7.3.1", "b@partner.example", &["a@example.org", "b@example.org", "c@example.org"]),
            mail("7.7.2.1", "b@partner.example", &["a@example.org", "a@example.com"]),
            mail("7.7.1.1", "<>", &["sales@example.org", "a@example.org"]),
        ],
    );
    let ranges: Vec<String> = words(&explained, "ip_range");
    assert_eq!(&ranges[..7], ["office", "rival", "office", "banned", "later", "friend", "watched"]);
    let levels = words(&explained, "ip_range_level");
    assert_eq!(&levels[..3], ["gateway", "domain", "gateway"]);
    let reasons: BTreeSet<String> = words(&explained, "reason").into_iter().collect();
    for reason in [
        "accepted",
        "greylisted",
        "ip_range",
        "sender_denied",
        "sender_allowed",
        "recipient_denied",
        "too_many_recipients",
        "other_class",
    ] {
        assert!(reasons.contains(reason), "the table has no {reason}: {reasons:?}");
    }
    let stages: BTreeSet<String> = words(&explained, "stage").into_iter().collect();
    assert_eq!(stages.len(), 4, "{stages:?}");
    let address = upstream.endpoint.to_string();
    assert_eq!(explained[0]["route"]["upstreams"][0]["address"], address.as_str(), "{:#}", explained[0]);
}

#[test]
fn live_and_offline_agree_over_a_policy_with_a_mistake() {
    let upstream = Upstream::start();
    let good = PolicyFile::to(upstream.endpoint).also("example.com", endpoint()).text();
    let at = good.rfind("port: ").unwrap();
    let broken = format!(
        "{}port: 700000{}",
        &good[..at],
        good[at..].split_once('}').map(|(_, rest)| format!("}}{rest}")).unwrap()
    );
    let explained = agree(
        &broken,
        1,
        &[
            mail("192.0.2.1", "x@y.example", &["a@example.org"]),
            mail("192.0.2.2", "x@y.example", &["a@example.com"]),
        ],
    );
    assert_eq!(words(&explained, "action"), ["accept", "defer"]);
    assert_eq!(words(&explained, "reason"), ["accepted", "policy_unavailable"]);
}

#[test]
fn what_a_retry_hears_is_what_is_foretold() {
    let upstream = Upstream::start();
    let policy = PolicyFile::to(upstream.endpoint).greylisting("{mode: Always, delay: 1s}");
    let gateway = Gateway::start(&policy);
    let mail = mail("127.0.0.1", "anna@sender.example", &["bert@example.org"]);
    let explained = explained(gateway.policy_file(), "client.sender.example", &mail, 0).remove(0);
    assert_eq!((&explained["code"], &explained["greylist"]), (&450.into(), &"new".into()), "{explained:#}");
    let retry = &explained["retry"];
    assert_eq!((&retry["after_seconds"], &retry["code"]), (&1.into(), &250.into()), "{explained:#}");
    let send = || gateway.client().mail(mail.from, mail.to, b"\r\n").code;
    assert_eq!(send(), 450);
    eventually("the retry passes", || send() == 250);
    let passed = gateway.transaction("the retry", |line| line["code"] == 250);
    assert_eq!(passed["recipients"][0]["greylist"], retry["greylist"]);
    assert_eq!(passed["recipients"][0]["reason"], retry["reason"]);
}

#[test]
fn what_a_gateway_keeps_is_known_offline_too() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, state) = (folder.path().join("policy.yaml"), folder.path().join("state.json"));
    let both = PolicyFile::to(endpoint()).also("example.com", endpoint());
    let gateway = Gateway::run_only().flag("--policy-state", state.display()).start(&both.text());
    assert!(gateway.stop().0.success());
    let kept = fs::read(&state).unwrap();
    fs::write(&policy, PolicyFile { more: String::new(), ..both }.text()).unwrap();
    let mail = mail("192.0.2.1", "anna@sender.example", &["bert@example.com"]);
    for (more, code, reason) in [
        (&["--policy-state", state.to_str().unwrap()][..], 451, "removed_domain"),
        (&[], 550, "unknown_domain"),
    ] {
        let output = explain(&policy, "mx.sender.example", &mail, &[&["--json"], more].concat());
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&explained["code"], &explained["reason"]),
            (&code.into(), &reason.into()),
            "{explained:#}"
        );
    }
    assert_eq!(fs::read(&state).unwrap(), kept, "it is only read");
    let output = explain(&policy, "mx.sender.example", &mail, &["--policy-state", policy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not what a gateway keeps"));
}

#[test]
fn the_text_tells_the_story_of_a_new_sender() {
    let output = explain(
        &root().join("k8s/examples/quickstart.yaml"),
        "mx.partner.example",
        &mail("192.0.2.1", "bert@partner.example", &["anna@example.org"]),
        &["--rdns", "mx.partner.example", "--dns-server", "192.0.2.53"],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "anna@example.org: defer, 450 4.2.0 Greylisted",
        "MailDomain mail/example-org",
        "greylisting, new: deferred; passes after 5m",
        "network:192.0.2.0/24",
        "after 5m: accept, 250",
        "127.0.0.1:10025",
        "revision",
        "--rdns: without effect",
        "--dns-server: without effect",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours");
}

#[test]
fn a_message_counts_by_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, PolicyFile::to(endpoint()).domain("limits: {messageSize: 64Ki}").text()).unwrap();
    let message = folder.path().join("mail.eml");
    for (size, code) in [(65_536, "250 2.1.5"), (65_537, "552 5.3.4")] {
        fs::write(&message, "x".repeat(size)).unwrap();
        let given = ["--message", message.to_str().unwrap()];
        let output =
            explain(&policy, "x.example", &mail("192.0.2.1", "a@b.example", &["a@example.org"]), &given);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains(code) && text.contains("this policy has no message checks yet"),
            "{size}: {text}"
        );
    }
}

#[test]
fn mistakes_in_a_policy_with_which_nobody_can_be_served_are_all_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    fs::write(&policy, PolicyFile::to(endpoint()).greylisting("{mode: Sometimes}").text()).unwrap();
    let one = mail("192.0.2.1", "a@b.example", &["a@example.org"]);
    let checked = Gateway::command(&["check", "--policy", policy.to_str().unwrap()]).output().unwrap();
    let checked = String::from_utf8(checked.stdout).unwrap();
    let mistake = checked.lines().find(|line| line.contains("greylisting.mode")).unwrap();
    let text = explain(&policy, "x.example", &one, &[]);
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8(text.stdout).unwrap().lines().any(|line| line == mistake), "{mistake}");
    let json = explain(&policy, "x.example", &one, &["--json"]);
    assert_eq!(json.status.code(), Some(1));
    assert!(json.stdout.is_empty());
    assert!(String::from_utf8(json.stderr).unwrap().lines().any(|line| line == mistake), "{mistake}");
}
