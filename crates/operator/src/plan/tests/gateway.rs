use torwart_proto::v1;

use super::*;

fn gateway() -> ObjectRef {
    ObjectRef::gateway("default")
}

fn mk_world(gateway: &str) -> World {
    let mut world = World::new(&format!("{gateway}---\n{}", mk_domain("a", "a.example", "")));
    world.pod("v-0", 0);
    world
}

fn with_list() -> String {
    GATEWAY.replace(
        "hostname: mx.example.net",
        "hostname: mx.example.net, dnsLists: [{name: zen, zone: zen.example, responses: [{codes: [127.0.0.2], score: 5}]}]",
    )
}

#[test]
fn the_gateway_says_what_is_published() {
    let mut world = mk_world(GATEWAY);
    world.settle();
    let status = &world.cluster.objects[&gateway()].status;
    assert_eq!(status["sequence"], world.sequence());
    assert_eq!(status["revision"], *world.published.snapshot.as_ref().unwrap().revision.0);
    assert_eq!(status["mailDomains"], 1);
    for (kind, shown) in [
        ("Accepted", "True Accepted"),
        ("Programmed", "True Programmed"),
        ("ClientIPPreserved", "True Preserved"),
        ("ListsUsable", "True NoLists"),
        ("ReputationClean", "Unknown NoLists"),
    ] {
        assert_eq!(world.shown(&gateway(), kind), shown);
    }
}

#[test]
fn without_a_gateway_nothing_is_accepted_and_with_a_bad_one_neither() {
    let mut world = World::new(&mk_domain("a", "a.example", ""));
    let wrote = world.step();
    assert!(!wrote.index);
    assert_eq!(world.shown(&mail_domain("a"), "Accepted"), "False GatewayNotFound");
    assert!(world.problems[0].contains("no MailGateway called default"), "{:?}", world.problems);
    world.apply(&GATEWAY.replace("mx.example.net", "\"not a name\""));
    let wrote = world.step();
    assert!(!wrote.index);
    assert_eq!(world.shown(&mail_domain("a"), "Accepted"), "False GatewayNotAccepted");
    assert_eq!(world.shown(&gateway(), "Accepted"), "False Invalid");
    world.apply(GATEWAY);
    assert!(world.step().index);
    assert_eq!(world.shown(&mail_domain("a"), "Accepted"), "True Accepted");
}

#[test]
fn a_gateway_that_is_deleted_leaves_its_policy_in_force() {
    let mut world = mk_world(GATEWAY);
    world.settle();
    world.delete(&gateway());
    let wrote = world.step();
    assert!(!wrote.index && wrote.statuses.is_empty(), "{wrote:?}");
    assert!(world.problems[0].contains("stays"), "{:?}", world.problems);
}

#[test]
fn pods_that_do_not_answer_say_nothing() {
    let mut world = mk_world(&with_list());
    world.pods.ready.insert("v-0".to_owned(), Err("connection refused".to_owned()));
    world.step();
    for kind in ["ClientIPPreserved", "ListsUsable", "ReputationClean"] {
        assert_eq!(world.shown(&gateway(), kind), "Unknown NoAnswer");
    }
    let message = world.condition(&gateway(), "ListsUsable").message;
    assert!(message.contains("v-0: connection refused"), "{message}");
}

#[test]
fn clients_with_impossible_addresses_are_told_for_an_hour() {
    let mut world = mk_world(GATEWAY);
    world.settle();
    let (sequence, now) = (world.sequence(), world.now_ms / 1000);
    let suspects = Some(v1::SuspectStatus { count: 7, last_seen: now });
    world.report("v-0", sequence, |report| report.status.suspects = suspects);
    let wrote = world.step();
    assert_eq!(world.shown(&gateway(), "ClientIPPreserved"), "False SuspectAddresses");
    assert_eq!(wrote.events(), ["SuspectAddresses"]);
    world.now_ms += 3_601_000;
    assert_eq!(world.step().events(), Vec::<&str>::new());
    assert_eq!(world.shown(&gateway(), "ClientIPPreserved"), "True Preserved");
}

#[test]
fn lists_are_usable_when_every_pod_can_use_them() {
    let mut world = mk_world(&with_list());
    world.settle();
    assert_eq!(world.shown(&gateway(), "ListsUsable"), "Unknown NotReported");
    assert_eq!(world.shown(&gateway(), "ReputationClean"), "Unknown NotReported");
    let sequence = world.sequence();
    let list = |usable| v1::ListStatus {
        name: "zen".to_owned(),
        usable,
        since: 1_796_000_000,
        detail: "lists everyone".to_owned(),
    };
    world.report("v-0", sequence, |report| report.status.lists = vec![list(true)]);
    world.step();
    assert_eq!(world.shown(&gateway(), "ListsUsable"), "True Usable");
    assert_eq!(world.shown(&gateway(), "ReputationClean"), "True NotListed");
    world.report("v-1", sequence, |report| {
        report.status.lists = vec![list(false)];
        report.status.own_addresses_listed =
            vec![v1::OwnAddressListing { address: "192.0.2.1".to_owned(), list: "zen".to_owned(), since: 1 }];
    });
    let wrote = world.step();
    assert_eq!(world.shown(&gateway(), "ListsUsable"), "False ListUnusable");
    assert_eq!(world.shown(&gateway(), "ReputationClean"), "False OwnAddressListed");
    assert_eq!(wrote.events(), ["ListUnusable", "OwnAddressListed"]);
    let message = world.condition(&gateway(), "ListsUsable").message;
    assert!(message.contains("v-1") && message.contains("lists everyone"), "{message}");
    world.pods.ready.remove("v-1");
    assert_eq!(world.step().events(), ["ListsUsable", "ReputationClean"]);
}
