use torwart_tests::{DnsServer, endpoint};

use super::*;

/// A pod's, as the kubelet writes it.
const POD: &str = "search mail.svc.cluster.test svc.cluster.test cluster.test\noptions ndots:5\n";
/// A machine's.
const MACHINE: &str = "search example.test office.test\n";
const LIMIT: Duration = Duration::from_secs(10);

const HOSTS_FILE: &str = "\
127.0.0.1 localhost
::1 localhost
192.0.2.77 alias alias.mail.svc.cluster.test
2001:db8::78 six
192.0.2.79 # nobody
not-an-address wrong
";

const ZONE: &[(&str, &str, &str)] = &[
    ("redis.mail.svc.cluster.test.", "A", "192.0.2.1"),
    ("redis.", "A", "192.0.2.99"),
    ("postfix.office.svc.cluster.test.", "A", "192.0.2.2"),
    ("mx.example.test.", "A", "192.0.2.3"),
    ("mx.example.test.", "AAAA", "2001:db8::3"),
    ("mx.example.test.cluster.test.", "TXT", "no address"),
    ("six.example.test.", "AAAA", "2001:db8::4"),
    ("alias.example.test.", "CNAME", "mx.example.test."),
    ("far.example.test.", "CNAME", "alias.example.test."),
    ("host.example.test.", "A", "192.0.2.5"),
    ("host.office.test.", "A", "192.0.2.6"),
    ("only.office.test.", "A", "192.0.2.7"),
    ("two.labels.", "A", "192.0.2.8"),
    ("two.labels.example.test.", "A", "192.0.2.9"),
    ("broken.example.test.", "SERVFAIL", ""),
    ("broken.office.test.", "A", "192.0.2.10"),
    ("192.0.2.1.mail.svc.cluster.test.", "A", "192.0.2.98"),
    ("silent.", "SILENT", ""),
];

fn mk(server: &DnsServer, options: &str, remember: Remember, limit: Duration) -> SystemNames {
    let files = Files {
        hosts: Ok(HOSTS_FILE.into()),
        resolv_conf: Ok(format!("nameserver {}\n{options}", server.address().ip()).into()),
        port: server.address().port(),
    };
    SystemNames::from_files(files, remember, limit)
}

async fn ask(names: &SystemNames, name: &str) -> Result<Vec<String>, String> {
    let mut found: Vec<String> = names.addresses(name).await?.iter().map(IpAddr::to_string).collect();
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn names_mean_what_the_machine_says_they_mean() {
    let server = DnsServer::start(endpoint(), ZONE);
    for (options, name, wanted) in [
        // Searched before it is taken as it is; with enough dots the other way round.
        (POD, "redis", &["192.0.2.1"][..]),
        (POD, "redis.", &["192.0.2.99"]),
        (POD, "REDIS", &["192.0.2.1"]),
        (POD, "postfix.office", &["192.0.2.2"]),
        (POD, "postfix.office.svc", &["192.0.2.2"]),
        (POD, "postfix.office.svc.cluster.test", &["192.0.2.2"]),
        (POD, "postfix.office.svc.cluster.test.", &["192.0.2.2"]),
        // A name in the search list that is there, but has no address, does not end the search.
        (POD, "mx.example.test", &["192.0.2.3", "2001:db8::3"]),
        (POD, "mx.example.test.", &["192.0.2.3", "2001:db8::3"]),
        (MACHINE, "mx", &["192.0.2.3", "2001:db8::3"]),
        (MACHINE, "six", &["2001:db8::78"]),
        (MACHINE, "six.example.test", &["2001:db8::4"]),
        (MACHINE, "alias.example.test", &["192.0.2.3", "2001:db8::3"]),
        (MACHINE, "far.example.test", &["192.0.2.3", "2001:db8::3"]),
        (MACHINE, "host", &["192.0.2.5"]),
        (MACHINE, "only", &["192.0.2.7"]),
        (MACHINE, "two.labels", &["192.0.2.8"]),
        ("search example.test\noptions ndots:2\n", "two.labels", &["192.0.2.9"]),
        ("domain office.test\n", "host", &["192.0.2.6"]),
        // The last of the two counts.
        ("search example.test\ndomain office.test\n", "host", &["192.0.2.6"]),
        ("", "two.labels", &["192.0.2.8"]),
        // One server that is out of order does not end the search.
        (MACHINE, "broken", &["192.0.2.10"]),
        // The file comes before any search.
        (POD, "alias", &["192.0.2.77"]),
        (POD, "ALIAS", &["192.0.2.77"]),
        (POD, "alias.", &["192.0.2.77"]),
        (POD, "localhost", &["127.0.0.1", "::1"]),
        (POD, "localhost.", &["127.0.0.1", "::1"]),
        // Numbers are no names.
        (POD, "192.0.2.1", &["192.0.2.1"]),
        (POD, "2001:db8::1", &["2001:db8::1"]),
    ] {
        let names = mk(&server, options, Remember::Ttl, LIMIT);
        let found = ask(&names, name).await;
        assert_eq!(found.as_deref(), Ok(wanted.map_strings().as_slice()), "{name} by {options:?}");
    }
}

/// For the table above: what is compared with.
trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for &[&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[tokio::test]
async fn what_the_machine_knows_is_asked_of_nobody() {
    let server = DnsServer::start(endpoint(), ZONE);
    let names = mk(&server, POD, Remember::Nothing, LIMIT);
    for name in ["192.0.2.1", "2001:db8::1", "alias", "six", "localhost", "a.localhost"] {
        assert!(ask(&names, name).await.is_ok(), "{name}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_is_searched_in_the_order_of_the_list() {
    let server = DnsServer::start(endpoint(), ZONE);
    let mut asked = Vec::new();
    for (options, name) in
        [(POD, "nobody"), (POD, "a.b.c.d.e.f"), (MACHINE, "nobody.test"), (POD, "nobody.test.")]
    {
        let names = mk(&server, options, Remember::Nothing, LIMIT);
        let error = ask(&names, name).await.unwrap_err();
        assert!(!error.is_empty());
        let mut new = server.asked();
        new.dedup();
        asked.push(new.split_off(asked.iter().map(Vec::len).sum()));
    }
    assert_eq!(
        asked,
        [
            vec![
                "nobody.mail.svc.cluster.test.",
                "nobody.svc.cluster.test.",
                "nobody.cluster.test.",
                "nobody."
            ],
            vec![
                "a.b.c.d.e.f.",
                "a.b.c.d.e.f.mail.svc.cluster.test.",
                "a.b.c.d.e.f.svc.cluster.test.",
                "a.b.c.d.e.f.cluster.test."
            ],
            vec!["nobody.test.", "nobody.test.example.test.", "nobody.test.office.test."],
            vec!["nobody.test."],
        ]
    );
}

#[tokio::test]
async fn answers_are_remembered_only_for_those_who_want_it() {
    let server = DnsServer::start(endpoint(), ZONE);
    for (remember, times) in [(Remember::Ttl, 2), (Remember::Nothing, 6)] {
        let names = mk(&server, MACHINE, remember, LIMIT);
        let before = server.asked().len();
        for _ in 0..3 {
            ask(&names, "mx.example.test.").await.unwrap();
        }
        assert_eq!(server.asked().len() - before, times, "A and AAAA each, {remember:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_limit() {
    let server = DnsServer::start(endpoint(), ZONE);
    let names = mk(&server, "options timeout:30 attempts:5\n", Remember::Ttl, Duration::from_millis(100));
    assert_eq!(ask(&names, "silent.").await, Err("no answer in time".to_owned()));
}

#[tokio::test]
async fn without_a_usable_resolv_conf_names_fail_and_say_why() {
    for (resolv_conf, why) in [
        (Err("/etc/resolv.conf: No such file or directory".to_owned()), "No such file"),
        (Ok(Vec::new()), "no nameservers"),
        (Ok(b"search example.test\n".to_vec()), "no nameservers"),
        (Ok(b"\xff\xfe\0nameserver".to_vec()), "no nameservers"),
    ] {
        let files = Files { hosts: Ok(Vec::new()), resolv_conf, port: DNS_PORT };
        let names = SystemNames::from_files(files, Remember::Ttl, LIMIT);
        let error = names.sockets("redis", 6379).await.unwrap_err().to_string();
        assert!(error.starts_with("redis: /etc/resolv.conf: ") && error.contains(why), "{error}");
        assert_eq!(ask(&names, "192.0.2.1").await, Ok(vec!["192.0.2.1".to_owned()]));
        assert_eq!(ask(&names, "localhost").await, Ok(vec!["127.0.0.1".to_owned(), "::1".to_owned()]));
    }
}

#[tokio::test]
async fn whatever_is_given_for_a_name_is_answered() {
    let server = DnsServer::start(endpoint(), ZONE);
    let names = mk(&server, MACHINE, Remember::Ttl, LIMIT);
    let long = "a".repeat(300);
    for name in
        ["", ".", "..", "a..b", "-", "[::1]", "mx:25", "m\u{fc}ller", "a b", "\0", "\\", "1.2.3", &long]
    {
        let found = ask(&names, name).await;
        assert!(found.as_ref().is_err() || found.as_ref().is_ok_and(Vec::is_empty), "{name}: {found:?}");
    }
}
