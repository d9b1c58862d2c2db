use std::net::Ipv4Addr;

use prometheus::{Registry, TextEncoder};
use torwart_policy::dns_lists::{ListAnswers, ListKind, ListProbe, ListResponse};
use torwart_tests::{DnsServer, endpoint};

use super::*;
use crate::dns::NameServers;

type Row<'a> = (&'a str, &'a str, &'a str);

const KEY: &str = "s3cretk3y";
const BUDGET: Duration = Duration::from_secs(20);

/// Entries of a list that works, and of some clients.
const ZEN: &[Row<'_>] = &[
    ("2.0.0.127.zen.example.", "A", "127.0.0.2"),
    ("10.2.0.192.zen.example.", "A", "127.0.0.4"),
    ("10.2.0.192.zen.example.", "A", "127.0.0.11"),
    ("10.2.0.192.zen.example.", "TXT", "https://zen.example/?ip=192.0.2.10"),
    ("11.2.0.192.zen.example.", "A", "127.0.0.99"),
    ("12.2.0.192.zen.example.", "A", "127.255.255.254"),
    ("13.2.0.192.zen.example.", "SERVFAIL", ""),
    ("14.2.0.192.zen.example.", "SILENT", ""),
    ("15.2.0.192.zen.example.", "A", "127.0.0.2"),
    ("15.2.0.192.zen.example.", "TXT", "\u{1b}[2J line\r\n two \u{fc}"),
    ("16.2.0.192.zen.example.", "A", "192.0.2.80"),
    ("8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.example.", "A", "127.0.0.3"),
];

struct Bench {
    server: DnsServer,
    lists: Arc<Lists>,
    registry: Registry,
    _secrets: tempfile::TempDir,
}

fn mk_list(name: &str, key_file: Option<&str>) -> DnsList {
    let code = |first, last| (Ipv4Addr::new(127, 0, 0, first), Ipv4Addr::new(127, 0, 0, last));
    let response = |codes, score| ListResponse { answers: ListAnswers::Codes(vec![codes]), score };
    DnsList {
        name: name.into(),
        zone: format!("{name}.example").into(),
        kind: ListKind::Block,
        key_file: key_file.map(Into::into),
        responses: vec![response(code(2, 9), 10.0), response(code(10, 11), 7.0)],
        probe: ListProbe::default(),
    }
}

fn mk(rows: &[Row<'_>], lists: &[DnsList]) -> Bench {
    let server = DnsServer::start(endpoint(), rows);
    let registry = Registry::new();
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("list.key"), format!("{KEY}\n")).unwrap();
    let resolver = Resolver::new(&NameServers::choose(&[server.address()]).unwrap()).unwrap();
    let metrics = CheckMetrics::new(&registry).unwrap();
    let made = Lists::new(resolver, Some(secrets.path().to_owned()), metrics);
    made.follow(lists);
    Bench { server, lists: made, registry, _secrets: secrets }
}

impl Bench {
    async fn ask(&self, list: &str, client: &str) -> ListFinding {
        let until = Instant::now() + BUDGET;
        let mut all = self.lists.ask([list], client.parse().unwrap(), until).await;
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    /// Result, score and detail in one line.
    async fn said(&self, list: &str, client: &str) -> String {
        let finding = self.ask(list, client).await;
        format!("{} {} {}", finding.result.as_str(), finding.score, finding.detail).trim_end().to_owned()
    }

    fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    #[track_caller]
    fn assert_metric(&self, line: &str) {
        let metrics = self.metrics();
        assert!(metrics.lines().any(|other| other == line), "{line}:\n{metrics}");
    }

    /// Probes again, as when the time has come.
    async fn probe_again(&self) {
        self.lists.all().iter().for_each(|watched| watched.state().next = None);
        self.lists.probe_all().await;
    }
}

#[tokio::test]
async fn a_list_says_of_a_client_what_its_answers_mean() {
    let bench = mk(ZEN, &[mk_list("zen", None)]);
    bench.lists.probe_all().await;
    for (client, wanted) in [
        ("192.0.2.10", "listed 10 127.0.0.4 https://zen.example/?ip=192.0.2.10"),
        ("::ffff:192.0.2.10", "listed 10 127.0.0.4 https://zen.example/?ip=192.0.2.10"),
        ("192.0.2.1", "clean 0"),
        ("192.0.2.11", "listed 0 127.0.0.99, which no response names"),
        ("192.0.2.12", "error 0 the answer 127.255.255.254 says nothing of the client"),
        ("192.0.2.13", "error 0 the DNS server could not find out (SERVFAIL)"),
        ("192.0.2.14", "error 0 no answer in time"),
        ("192.0.2.15", "listed 10 127.0.0.2 ?[2J line?? two ?"),
        ("192.0.2.16", "error 0 the answer 192.0.2.80 says nothing of the client"),
        ("2001:db8::8", "listed 10 127.0.0.3"),
        ("2001:db8::9", "clean 0"),
    ] {
        assert_eq!(bench.said("zen", client).await, wanted, "{client}");
    }
    for (kind, number) in [("error_answer", 2), ("servfail", 1), ("timeout", 1)] {
        bench.assert_metric(&format!(
            "torwart_check_failures_total{{check=\"dns_list/zen\",kind=\"{kind}\"}} {number}"
        ));
    }
    bench.assert_metric("torwart_check_seconds_count{check=\"dns_list/zen\"} 11");
}

#[tokio::test]
async fn a_reason_is_asked_for_only_if_there_is_something_to_give_a_reason_for() {
    let bench = mk(ZEN, &[mk_list("zen", None)]);
    bench.lists.probe_all().await;
    let before = bench.server.asked().len();
    bench.said("zen", "192.0.2.1").await;
    assert_eq!(bench.server.asked().len(), before + 1);
    bench.said("zen", "192.0.2.10").await;
    assert_eq!(bench.server.asked().len(), before + 3);
}

#[tokio::test]
async fn a_reason_is_no_longer_than_a_line_of_a_log() {
    let long = "x".repeat(255);
    let rows =
        [ZEN, &[("9.2.0.192.zen.example.", "A", "127.0.0.2"), ("9.2.0.192.zen.example.", "TXT", &long)]];
    let bench = mk(&rows.concat(), &[mk_list("zen", None)]);
    bench.lists.probe_all().await;
    assert_eq!(bench.ask("zen", "192.0.2.9").await.detail.len(), "127.0.0.2 ".len() + LONGEST_REASON);
}

#[tokio::test]
async fn a_list_is_not_asked_before_it_has_shown_that_it_works() {
    let bench = mk(ZEN, &[mk_list("zen", None)]);
    assert_eq!(bench.said("zen", "192.0.2.10").await, "skipped 0 not probed yet");
    assert!(bench.server.asked().is_empty());
    bench.lists.probe_all().await;
    bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 1");
    assert!(bench.said("zen", "192.0.2.10").await.starts_with("listed"));
}

#[tokio::test]
async fn a_list_that_lists_everything_is_switched_off_until_it_works_again() {
    let parked: &[Row<'_>] = &[("*.zen.example.", "A", "127.0.0.2")];
    let bench = mk(ZEN, &[mk_list("zen", None)]);
    bench.lists.probe_all().await;
    bench.server.set(parked);
    bench.probe_again().await;
    assert!(bench.said("zen", "192.0.2.20").await.starts_with("listed"), "one wrong answer is not enough");
    bench.probe_again().await;
    bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 0");
    let before = bench.server.asked().len();
    assert_eq!(bench.said("zen", "192.0.2.21").await, "skipped 0 it does not work, as its probes show");
    assert_eq!(bench.server.asked().len(), before, "it is not asked");
    bench.server.set(ZEN);
    bench.probe_again().await;
    assert!(bench.said("zen", "192.0.2.22").await.starts_with("skipped"), "one good answer is not enough");
    bench.probe_again().await;
    bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 1");
    assert_eq!(bench.said("zen", "192.0.2.22").await, "clean 0");
}

#[tokio::test]
async fn lists_that_are_silent_empty_or_refuse_us_are_never_used() {
    for rows in [
        &[("*.zen.example.", "SILENT", "")][..],
        &[("*.zen.example.", "SERVFAIL", "")],
        &[("*.zen.example.", "A", "127.0.0.2")],
        &[("*.zen.example.", "A", "127.255.255.254")],
        &[("*.zen.example.", "A", "192.0.2.80")],
        &[("nobody.example.", "A", "192.0.2.80")],
    ] {
        let bench = mk(rows, &[mk_list("zen", None)]);
        bench.lists.probe_all().await;
        bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 0");
        assert!(bench.said("zen", "192.0.2.10").await.starts_with("skipped"), "{rows:?}");
    }
}

#[tokio::test]
async fn a_list_may_have_probes_of_its_own() {
    let probe =
        ListProbe { listed: "192.0.2.10".parse().unwrap(), not_listed: "2001:db8::9".parse().unwrap() };
    let bench = mk(ZEN, &[DnsList { probe, ..mk_list("zen", None) }]);
    bench.lists.probe_all().await;
    bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 1");
    assert!(bench.server.asked().contains(&"10.2.0.192.zen.example.".to_owned()));
}

#[tokio::test]
async fn a_key_is_asked_with_and_shown_nowhere() {
    let text = format!("see https://zen.example/{KEY}/192.0.2.10");
    let (probe, client) = (format!("2.0.0.127.{KEY}.zen.example."), format!("10.2.0.192.{KEY}.zen.example."));
    let broken = format!("13.2.0.192.{KEY}.zen.example.");
    let rows: &[Row<'_>] = &[
        (&probe, "A", "127.0.0.2"),
        (&client, "A", "127.0.0.2"),
        (&client, "TXT", &text),
        (&broken, "SERVFAIL", ""),
    ];
    let bench = mk(rows, &[mk_list("zen", Some("list.key"))]);
    bench.lists.probe_all().await;
    let said = bench.said("zen", "192.0.2.10").await;
    assert_eq!(said, "listed 10 127.0.0.2 see https://zen.example/***/192.0.2.10");
    let failed = bench.said("zen", "192.0.2.13").await;
    let debug: Vec<String> = bench.lists.all().iter().map(|it| format!("{:?}", it.zone())).collect();
    for text in [said, failed, bench.metrics(), format!("{:?}", bench.lists), debug.concat()] {
        assert!(!text.contains(KEY), "{text}");
    }
    assert!(bench.server.asked().iter().all(|name| name.contains(KEY)), "{:?}", bench.server.asked());
}

#[tokio::test]
async fn a_list_whose_key_is_not_there_is_asked_without_it_never() {
    let bench = mk(ZEN, &[mk_list("zen", Some("other.key"))]);
    bench.lists.probe_all().await;
    let said = bench.said("zen", "192.0.2.10").await;
    assert!(said.starts_with("skipped 0") && said.contains("other.key"), "{said}");
    assert!(bench.server.asked().is_empty());
    bench.assert_metric("torwart_dns_list_usable{list=\"zen\"} 0");
}

#[tokio::test]
async fn all_lists_are_asked_at_the_same_time_within_one_budget() {
    let names: Vec<String> = (0..20).map(|n| format!("slow{n}")).collect();
    let rows: Vec<[String; 2]> = names
        .iter()
        .map(|name| [format!("2.0.0.127.{name}.example."), format!("10.2.0.192.{name}.example.")])
        .collect();
    let rows: Vec<Row<'_>> = rows
        .iter()
        .flat_map(|[probe, client]| [(&**probe, "A", "127.0.0.2"), (&**client, "SILENT", "")])
        .collect();
    let lists: Vec<DnsList> = names.iter().map(|name| mk_list(name, None)).collect();
    let bench = mk(&rows, &lists);
    bench.lists.probe_all().await;
    let until = Instant::now() + Duration::from_millis(100);
    let client = "192.0.2.10".parse().unwrap();
    let wanted = names.iter().map(String::as_str);
    let findings = tokio::time::timeout(BUDGET, bench.lists.ask(wanted, client, until)).await.unwrap();
    assert_eq!(findings.len(), 20);
    assert!(findings.iter().all(|finding| finding.result == CheckOutcome::Error));
    assert_eq!(bench.server.asked().iter().filter(|name| name.starts_with("10.2.0.192.")).count(), 20);
}

#[tokio::test]
async fn another_policy_keeps_what_is_known_of_lists_that_stay() {
    let bench = mk(ZEN, &[mk_list("zen", None), mk_list("other", None)]);
    bench.lists.probe_all().await;
    bench.assert_metric("torwart_dns_list_usable{list=\"other\"} 0");
    let asked = bench.server.asked().len();
    let lighter = DnsList { responses: mk_list("zen", None).responses.split_off(1), ..mk_list("zen", None) };
    bench.lists.follow(&[lighter]);
    bench.lists.probe_all().await;
    assert_eq!(bench.server.asked().len(), asked, "it was probed already");
    assert!(!bench.metrics().contains("other\"} 0"), "{}", bench.metrics());
    assert!(bench.said("zen", "192.0.2.10").await.starts_with("listed 7 127.0.0.11"));
    let until = Instant::now() + BUDGET;
    assert!(bench.lists.ask(["other"], "192.0.2.10".parse().unwrap(), until).await.is_empty());
    // another zone is another list
    bench.lists.follow(&[DnsList { zone: "elsewhere.example".into(), ..mk_list("zen", None) }]);
    assert_eq!(bench.said("zen", "192.0.2.10").await, "skipped 0 not probed yet");
}

#[tokio::test]
async fn watching_probes_new_lists_at_once_and_ends_with_its_owner() {
    let bench = mk(ZEN, &[]);
    bench.lists.watch();
    bench.lists.follow(&[mk_list("zen", None)]);
    let probed = async {
        while !bench.metrics().contains("torwart_dns_list_usable{list=\"zen\"} 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BUDGET, probed).await.unwrap();
    let Bench { lists, .. } = bench;
    let weak = Arc::downgrade(&lists);
    drop(lists);
    let gone = async {
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BUDGET, gone).await.unwrap();
}
