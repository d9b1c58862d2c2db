use torwart_tests::{DnsServer, endpoint};

use super::*;

const ZONE: &[(&str, &str, &str)] = &[
    ("host.example.", "A", "192.0.2.1"),
    ("host.example.", "A", "192.0.2.2"),
    ("host.example.", "TXT", "some text"),
    ("alias.example.", "CNAME", "host.example."),
    ("host.example.search.test.", "A", "192.0.2.99"),
    ("big.example.", "TRUNCATED", ""),
    ("big.example.", "TXT", "over TCP"),
    ("loop.example.", "CNAME", "pool.example."),
    ("pool.example.", "CNAME", "loop.example."),
    ("*.broken.example.", "SERVFAIL", ""),
    ("*.closed.example.", "REFUSED", ""),
    ("*.silent.example.", "SILENT", ""),
    ("slow.example.", "DELAY", "300"),
    ("slow.example.", "A", "192.0.2.3"),
];
/// Longer than the two tries of any question.
const BUDGET: Duration = Duration::from_secs(20);

fn mk(servers: &[&DnsServer]) -> Resolver {
    let servers: Vec<_> = servers.iter().map(|server| server.address()).collect();
    Resolver::new(&NameServers::choose(&servers).unwrap()).unwrap()
}

async fn ask_within(resolver: &Resolver, name: &str, kind: RecordType, budget: Duration) -> Answer {
    let name = Name::from_ascii(name).unwrap();
    let zone = name.trim_to(2).to_ascii();
    resolver.ask(&zone, &name, kind, Instant::now() + budget).await
}

async fn ask(resolver: &Resolver, name: &str, kind: RecordType) -> Result<Vec<String>, Failure> {
    let found = ask_within(resolver, name, kind, BUDGET).await?;
    let mut texts: Vec<String> = found.records.iter().map(ToString::to_string).collect();
    texts.sort();
    if texts.is_empty() {
        texts.push(if found.exists { "nothing".to_owned() } else { "no such name".to_owned() });
    }
    Ok(texts)
}

#[tokio::test]
async fn names_are_absolute_and_their_records_are_found() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    for (name, kind, wanted) in [
        ("host.example.", RecordType::A, &["192.0.2.1", "192.0.2.2"][..]),
        ("host.example", RecordType::A, &["192.0.2.1", "192.0.2.2"]),
        ("HOST.Example", RecordType::TXT, &["some text"]),
        ("alias.example", RecordType::A, &["192.0.2.1", "192.0.2.2"]),
        ("host.example", RecordType::MX, &["nothing"]),
        ("nobody.example", RecordType::A, &["no such name"]),
        ("host", RecordType::A, &["no such name"]),
    ] {
        assert_eq!(ask(&resolver, name, kind).await.unwrap(), wanted, "{name}");
    }
    assert!(server.asked().iter().all(|name| name.ends_with("example.") || name == "host."));
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let server = DnsServer::start(endpoint(), ZONE);
    assert_eq!(ask(&mk(&[&server]), "big.example", RecordType::TXT).await.unwrap(), ["over TCP"]);
    assert_eq!(server.asked_by_tcp(), ["big.example."]);
}

#[tokio::test]
async fn aliases_that_go_in_a_circle_come_to_an_end() {
    let server = DnsServer::start(endpoint(), ZONE);
    let found = ask_within(&mk(&[&server]), "loop.example", RecordType::A, BUDGET).await;
    assert!(found.is_ok_and(|found| found.records.is_empty()));
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_be_it_good_or_bad() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    for (name, wanted) in [
        ("host.example", Ok("192.0.2.1")),
        ("nobody.example", Ok("no such name")),
        ("a.broken.example", Err(Failure::ServerFailure)),
        ("a.closed.example", Err(Failure::Refused)),
        ("a.silent.example", Err(Failure::TimedOut)),
    ] {
        let first = ask(&resolver, name, RecordType::A).await;
        assert_eq!(
            first.as_ref().map(|texts| texts[0].as_str()).map_err(|failure| *failure),
            wanted,
            "{name}"
        );
        let asked = server.asked().len();
        for again in [name.to_owned(), name.to_uppercase(), format!("{name}.")] {
            assert_eq!(ask(&resolver, &again, RecordType::A).await, first, "{again}");
        }
        assert_eq!(server.asked().len(), asked, "{name}");
    }
}

#[tokio::test]
async fn who_wants_news_gets_them() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    let name = Name::from_ascii("host.example").unwrap();
    assert_eq!(ask(&resolver, "host.example", RecordType::A).await.unwrap().len(), 2);
    server.set(&[("host.example.", "A", "192.0.2.7")]);
    let until = Instant::now() + BUDGET;
    let found = resolver.ask_afresh("example.", &name, RecordType::A, until).await.unwrap();
    assert_eq!(found.records.len(), 1);
    assert_eq!(ask(&resolver, "host.example", RecordType::A).await.unwrap(), ["192.0.2.7"], "kept");
}

#[tokio::test]
async fn a_zone_that_fails_again_and_again_is_left_alone_and_others_are_not() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    for n in 0..3 {
        let name = format!("{n}.broken.example");
        assert_eq!(ask_in(&resolver, "broken", &name).await, Some(Failure::ServerFailure));
    }
    let asked = server.asked().len();
    for n in 3..20 {
        let name = format!("{n}.broken.example");
        assert_eq!(ask_in(&resolver, "broken", &name).await, Some(Failure::Suspended));
    }
    assert_eq!(server.asked().len(), asked);
    assert_eq!(ask_in(&resolver, "good", "host.example").await, None);
    // what is remembered is said all the same
    assert_eq!(ask_in(&resolver, "broken", "0.broken.example").await, Some(Failure::ServerFailure));
    assert_eq!(ask_in(&resolver, "broken", "host.example").await, None);
}

async fn ask_in(resolver: &Resolver, zone: &str, name: &str) -> Option<Failure> {
    let name = Name::from_ascii(name).unwrap();
    resolver.ask(zone, &name, RecordType::A, Instant::now() + BUDGET).await.err()
}

#[tokio::test]
async fn a_zone_that_is_well_again_is_found_out_without_anybody_waiting() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    for n in 0..3 {
        assert!(ask_in(&resolver, "broken", &format!("{n}.broken.example")).await.is_some());
    }
    server.set(&[("*.broken.example.", "A", "127.0.0.2")]);
    // what a pause's end brings about
    lock(&resolver.0.zone("broken")).failed(Instant::now() - Duration::from_secs(60));
    assert_eq!(ask_in(&resolver, "broken", "7.broken.example").await, Some(Failure::Suspended));
    let answered = async {
        while ask_in(&resolver, "broken", "8.broken.example").await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BUDGET, answered).await.unwrap();
    assert_eq!(ask_in(&resolver, "broken", "7.broken.example").await, None, "that answer was kept");
}

#[tokio::test]
async fn dead_servers_are_left_alone_whatever_is_asked() {
    let server = DnsServer::start(endpoint(), &[(".", "SILENT", ""), ("*.", "SILENT", "")]);
    let resolver = mk(&[&server]);
    let all = (0..8).map(|n| ask_in_own_zone(&resolver, format!("{n}.example")));
    assert_eq!(futures_util::future::join_all(all).await, vec![Some(Failure::TimedOut); 8]);
    let left_alone = async {
        let mut names = (0..).map(|n| format!("{n}.another.example"));
        while ask_in_own_zone(&resolver, names.next().unwrap()).await != Some(Failure::Suspended) {}
    };
    tokio::time::timeout(BUDGET, left_alone).await.unwrap();
    assert!(server.asked().contains(&".".to_owned()), "{:?}", server.asked());
}

async fn ask_in_own_zone(resolver: &Resolver, name: String) -> Option<Failure> {
    ask_in(resolver, &name, &name).await
}

#[tokio::test]
async fn silent_domains_do_not_make_servers_look_dead() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    let all = (0..30).map(|n| {
        let (resolver, name) = (resolver.clone(), format!("{n}.silent.example"));
        async move { ask_in_own_zone(&resolver, name).await }
    });
    assert_eq!(futures_util::future::join_all(all).await, vec![Some(Failure::TimedOut); 30]);
    let tried = async {
        while !server.asked().contains(&".".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BUDGET, tried).await.unwrap();
    assert_eq!(ask_in_own_zone(&resolver, "host.example".to_owned()).await, None);
}

#[tokio::test]
async fn one_dead_server_of_two_is_no_failure() {
    let dead = DnsServer::start(endpoint(), &[("*.", "SILENT", "")]);
    let alive = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&dead, &alive]);
    for n in 0..20 {
        let name = format!("{n}.nobody.example");
        assert_eq!(ask(&resolver, &name, RecordType::A).await.unwrap(), ["no such name"]);
    }
}

#[tokio::test]
async fn no_answer_takes_longer_than_the_budget_and_a_short_one_blames_nobody() {
    let server = DnsServer::start(endpoint(), ZONE);
    let resolver = mk(&[&server]);
    let short = Duration::from_millis(20);
    for _ in 0..5 {
        let answer = ask_within(&resolver, "slow.example", RecordType::A, short).await;
        assert_eq!(answer.err(), Some(Failure::TimedOut));
    }
    assert_eq!(ask(&resolver, "slow.example", RecordType::A).await.unwrap(), ["192.0.2.3"]);
}

#[tokio::test]
async fn without_servers_there_is_an_answer_all_the_same() {
    let resolver = Resolver::without_servers();
    assert_eq!(ask(&resolver, "host.example", RecordType::A).await, Err(Failure::NoServers));
}

#[test]
fn nothing_that_is_shown_has_the_name_in_it() {
    for failure in Failure::ALL {
        assert!(!failure.to_string().is_empty() && !failure.as_str().contains(' '));
    }
    let resolver = format!("{:?}", Resolver::without_servers());
    assert_eq!(resolver, "Resolver { usable: false, .. }");
}
