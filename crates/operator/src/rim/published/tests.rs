use serde_json::{Value, json};
use torwart_api::Kind;
use torwart_policy::publish::FORMAT_WRITTEN;

use super::super::objects;
use super::*;
use crate::plan::{Inputs, Planner};
use crate::values::{Cluster, Pods};

fn mk_config_map(object: Value) -> ConfigMap {
    serde_json::from_value(object).unwrap()
}

fn mk_index(format: u32) -> String {
    json!({"sequence": 5, "formatVersion": format, "revision": "ab".repeat(32), "slots": {}}).to_string()
}

fn read_text(text: &str) -> PublishedIndex {
    read_index(mk_config_map(json!({
        "metadata": {"resourceVersion": "7"},
        "data": {"index.json": text},
    })))
}

#[test]
fn an_index_is_read_or_says_why_not_and_a_newer_one_is_known_as_such() {
    let good = read_text(&mk_index(FORMAT_WRITTEN));
    assert_eq!(good.resource_version, "7");
    assert_eq!(good.index.unwrap().sequence, 5);
    assert!(!good.is_newer);

    let newer = read_text(&mk_index(FORMAT_WRITTEN + 1));
    assert!(newer.is_newer && newer.index.is_err());
    for broken in ["", "null", "{}", "[", &mk_index(FORMAT_WRITTEN)[1..]] {
        let broken = read_text(broken);
        assert!(!broken.is_newer && broken.index.is_err(), "{broken:?}");
    }
    let empty = read_index(mk_config_map(json!({"metadata": {"resourceVersion": "7"}})));
    assert!(!empty.is_newer && empty.index.unwrap_err().contains("index.json"));
}

#[test]
fn a_slot_is_its_chunks_and_foreign_keys_are_none() {
    let hash = "0123456789abcdef".repeat(4);
    let slot = read_slot(mk_config_map(json!({
        "metadata": {"resourceVersion": "3"},
        "binaryData": {hash.clone(): "AAEC", "README": "AAEC"},
        "data": {"note": "by hand"},
    })));
    assert_eq!(slot.resource_version, "3");
    let chunks: Vec<_> = slot.chunks.iter().map(|(hash, bytes)| (hash.to_string(), &bytes[..])).collect();
    assert_eq!(chunks, [(hash, &[0, 1, 2][..])]);
    assert!(read_slot(mk_config_map(json!({}))).chunks.is_empty());
}

/// What a plan of one MailGateway and one MailDomain leaves.
fn mk_published() -> Published {
    let gateway =
        json!({"metadata": {"name": "default", "generation": 1}, "spec": {"hostname": "mx.example.net"}});
    let route = json!({"upstreams": [{"host": "mx.example"}]});
    let domain = json!({
        "metadata": {"name": "shop", "namespace": "torwart-system", "generation": 1},
        "spec": {"domains": ["shop.example"], "route": route},
    });
    let objects = [(Kind::MailGateway, gateway), (Kind::MailDomain, domain)].map(|(kind, object)| {
        let seen = objects::seen(kind, serde_json::from_value(object).unwrap());
        (seen.object.clone(), Arc::new(seen))
    });
    let inputs = Inputs {
        cluster: &Arc::new(Cluster { objects: objects.into(), ..Cluster::default() }),
        cluster_changed: true,
        published: &Published::default(),
        pods: &Pods { asked_at: 1, ..Pods::default() },
        publish_failure: None,
        operator_namespace: "torwart-system",
        gateway: "default",
    };
    Planner::new().plan(inputs, 1_796_083_200_000).published
}

#[tokio::test]
async fn what_is_whole_is_a_snapshot_and_what_lacks_a_chunk_or_has_another_is_none() {
    let published = mk_published();
    let planned = published.snapshot.clone().unwrap();
    assert_eq!(planned.domains.len(), 1);
    let read = snapshot(&published).await.unwrap();
    assert_eq!((&read.revision, &read.domains), (&planned.revision, &planned.domains));

    for slot in published.slots.keys() {
        let mut broken = published.clone();
        broken.slots.remove(slot);
        assert!(snapshot(&broken).await.is_none(), "without slot {slot}");
        let mut broken = published.clone();
        for chunk in broken.slots.get_mut(slot).unwrap().chunks.values_mut() {
            *chunk = [1, 2, 3].into();
        }
        assert!(snapshot(&broken).await.is_none(), "with junk in slot {slot}");
    }
    assert!(snapshot(&Published::default()).await.is_none());
}

#[test]
fn what_was_deleted_or_broken_is_recalled_and_what_another_published_is_not() {
    let published = mk_published();
    let known = published.snapshot.clone().unwrap();
    let recalled = |index: Option<PublishedIndex>| {
        let mut found = Published { index, snapshot: None, ..published.clone() };
        found.recall(&known);
        found.snapshot.is_some()
    };
    let with = |index: Result<Index, String>| PublishedIndex {
        resource_version: "8".to_owned(),
        index,
        is_newer: false,
    };
    assert!(recalled(None), "deleted");
    assert!(recalled(Some(with(Err("not JSON".to_owned())))), "broken");
    assert!(recalled(published.index.clone()), "a slot is gone");
    assert!(!recalled(Some(read_text(&mk_index(FORMAT_WRITTEN)))), "another revision");
    assert!(!recalled(Some(read_text(&mk_index(FORMAT_WRITTEN + 1)))), "a newer release");
}

#[test]
fn one_refusal_says_nothing_of_the_next_request_and_an_api_server_that_is_away_does() {
    let refused = |code: u16| {
        let status = json!({"status": "Failure", "code": code, "reason": "", "message": ""});
        Failure::from(Error::Api(serde_json::from_value(status).unwrap()))
    };
    let table = [
        (0, true),
        (400, false),
        (403, false),
        (409, false),
        (422, false),
        (429, true),
        (500, true),
        (503, true),
    ];
    for (code, is_of_all) in table {
        assert_eq!(refused(code).is_of_all(), is_of_all, "{code}");
    }
    assert!(Failure::Late.is_of_all());
    assert!(matches!(refused(409), Failure::Conflict));
}
