use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::compile::tests::tenancy::mk_cluster;
use crate::compile::tests::{GATEWAY, NOW, mk_domain_in, mk_inputs};
use crate::compile::{Compilation, compile};
use crate::inputs::{Inputs, Resolutions, ServiceKey, ServiceTarget};
use crate::model::Policy;

const NAMES: [&str; 8] = [
    "x.example",
    "*.x.example",
    "a.x.example",
    "y.example",
    "*.a.x.example",
    "co.uk",
    "b\u{fc}cher.example",
    "z.y.example",
];

/// An object: namespace, number, mail domains, whether by Service, strictness.
type Row = (String, usize, Vec<usize>, bool, bool);

fn mk_rows() -> impl Strategy<Value = Vec<Row>> {
    let domains = proptest::collection::vec(0..NAMES.len(), 1..4);
    proptest::collection::vec(("[abc]", 0usize..4, domains, any::<bool>(), any::<bool>()), 0..9)
}

fn mk_state(rows: &[Row], services: bool, last: Option<&Compilation>, now: i64) -> Inputs {
    let tenants = "{hostname: mx.example.net, tenants: [{namespaces: [a, b], domains: [\"*\"]}]}";
    let mut texts = BTreeMap::new();
    for (namespace, number, domains, service, monitor) in rows {
        let mut domains: Vec<&str> = domains.iter().filter_map(|i| NAMES.get(*i).copied()).collect();
        domains.sort_unstable();
        domains.dedup();
        let more = if *monitor { "  enforcement: Monitor\n  scoring: {tagAt: 2.1}\n" } else { "" };
        let name = format!("d{number}");
        let mut text = mk_domain_in(namespace, &name, &domains, more);
        if *service {
            text = text.replace(&format!("host: mail.{namespace}.svc"), "service: {name: postfix}");
        }
        texts.insert((namespace.clone(), *number), text);
    }
    let gateway = GATEWAY.replace("{hostname: mx.example.net}", tenants);
    let text = texts.values().fold(gateway, |all, one| format!("{all}---\n{one}"));
    let target =
        |namespace: &str| ServiceTarget { host: format!("postfix.{namespace}.svc"), port: 25, address: None };
    let key = |namespace: &str| ServiceKey {
        namespace: namespace.to_owned(),
        name: "postfix".to_owned(),
        port: String::new(),
        lmtp: false,
    };
    let found = ["a", "b"].into_iter().filter(|_| services);
    Inputs {
        tenancy: mk_cluster(&["a", "b", "c"]),
        gateway: Some("default".to_owned()),
        resolutions: Resolutions {
            services: found.map(|namespace| (key(namespace), target(namespace))).collect(),
            ..Resolutions::default()
        },
        now,
        ..mk_inputs(&text, last)
    }
}

fn mk_snapshot(domains: &[(&str, &str)]) -> Arc<Snapshot> {
    let text = domains.iter().fold(GATEWAY.to_owned(), |all, (name, domain)| {
        format!("{all}---\n{}", mk_domain_in("mail", name, &[*domain], ""))
    });
    compile(&mk_inputs(&text, None)).snapshot.unwrap()
}

fn mk_index(snapshot: &Snapshot, chunks: &BTreeMap<Slot, Chunk>) -> Index {
    Index {
        sequence: 7,
        format_version: FORMAT_WRITTEN,
        revision: snapshot.revision.clone(),
        slots: chunks.iter().map(|(slot, chunk)| (*slot, chunk.hash.clone())).collect(),
    }
}

fn by_hash(chunks: BTreeMap<Slot, Chunk>) -> BTreeMap<ChunkHash, Chunk> {
    chunks.into_values().map(|chunk| (chunk.hash.clone(), chunk)).collect()
}

/// As a reader gets it: through bytes and index text.
fn publish(snapshot: &Snapshot) -> Assembled {
    let chunks = chunks(snapshot);
    let index = Index::from_json(&mk_index(snapshot, &chunks).to_json()).unwrap();
    assert_eq!(index, mk_index(snapshot, &chunks));
    let read = chunks
        .into_iter()
        .map(|(slot, chunk)| (slot, Chunk::decompress(&chunk.hash, &chunk.compress()).unwrap()));
    assemble(&index, &by_hash(read.collect()), None).unwrap()
}

/// Everything in a policy that decides, in one order.
fn shown(policy: &Policy) -> String {
    let mut routes: Vec<_> = policy.routes.values().map(|route| format!("{route:?}")).collect();
    routes.sort_unstable();
    let mut domains: Vec<_> =
        policy.domains.iter().map(|(pattern, domain)| format!("{pattern} {domain:?}")).collect();
    domains.sort_unstable();
    let names = NAMES.iter().flat_map(|name| [(*name).to_owned(), name.replace('*', "deep.q")]);
    let found: Vec<_> = names
        .flat_map(|name| [0, 3600, 90_000, 180_000].map(|later| (name.clone(), NOW + later)))
        .map(|(name, now)| format!("{name} {now} {:?}", policy.domains.find(&name, now)))
        .collect();
    let Policy { revision, gateway, domains: table, asks_connections, incomplete, .. } = policy;
    format!(
        "{revision:?}\n{gateway:?}\n{asks_connections} {incomplete} {} {}\n{routes:#?}{domains:#?}{found:#?}",
        table.len(),
        table.held()
    )
}

proptest! {
    #[test]
    fn a_reader_makes_the_operators_policy(
        steps in proptest::collection::vec((mk_rows(), any::<bool>(), 0i64..100_000), 1..4),
    ) {
        let mut now = NOW;
        let mut last: Option<Compilation> = None;
        for (rows, services, later) in steps {
            now += later;
            let compilation = compile(&mk_state(&rows, services, last.as_ref(), now));
            let snapshot = compilation.snapshot.clone().unwrap();
            let Assembled { snapshot: read, problems } = publish(&snapshot);
            prop_assert_eq!(problems, Vec::<String>::new());
            prop_assert_eq!(format!("{read:?}"), format!("{snapshot:?}"));
            // What was read is published as it was: an operator that starts anew writes nothing.
            prop_assert_eq!(chunks(&read), chunks(&snapshot));
            let kept = Snapshot::from_json(&snapshot.to_json().unwrap()).unwrap();
            prop_assert_eq!(chunks(&kept), chunks(&snapshot));

            let ours = shown(&read.compile(&[], now).unwrap());
            prop_assert_eq!(ours, shown(compilation.policy.as_ref().unwrap()));

            // From what it read back an operator goes on as from what it had.
            let again = compile(&mk_state(&rows, false, Some(&Compilation {
                snapshot: Some(Arc::new(read)), ..Compilation::default()
            }), now));
            let straight = compile(&mk_state(&rows, false, Some(&compilation), now));
            prop_assert_eq!(&again.outcomes, &straight.outcomes);
            prop_assert_eq!(&again.snapshot.unwrap().revision, &straight.snapshot.unwrap().revision);
            last = Some(compilation);
        }
    }

    #[test]
    fn hostile_bytes_break_no_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzz::publication(&bytes);
    }

    #[test]
    fn a_damaged_text_breaks_no_reader(cut in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), byte: u8) {
        let mut text = Pieces::of(&mk_snapshot(&[("a", "a.example"), ("b", "*.b.example")])).text().into_bytes();
        crate::fuzz::publication(&text);
        let at = from.index(text.len());
        text[at] = byte;
        crate::fuzz::publication(&text);
        text.truncate(cut.index(text.len()));
        crate::fuzz::publication(&text);
    }

    #[test]
    fn a_wrong_byte_never_becomes_another_text(at in any::<prop::sample::Index>(), change in 1u8..) {
        let snapshot = mk_snapshot(&[("a", "a.example"), ("b", "b.example")]);
        let chunk = chunks(&snapshot).into_values().next().unwrap();
        let mut bytes = chunk.compress();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(read) = Chunk::decompress(&chunk.hash, &bytes) {
            prop_assert_eq!(read, chunk);
        }
    }
}

#[test]
fn a_change_of_one_object_changes_one_slot() {
    let many: Vec<(String, String)> = (0..500).map(|i| (format!("d{i}"), format!("d{i}.example"))).collect();
    let mut many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let before = chunks(&mk_snapshot(&many));
    assert_eq!(before.len(), usize::from(SLOTS));
    many[77].1 = "new.example";
    let after = chunks(&mk_snapshot(&many));
    let changed: Vec<Slot> = Slot::all().filter(|slot| before.get(slot) != after.get(slot)).collect();
    assert_eq!(changed, [Slot::of(&ObjectRef::domain("mail", "d77"))]);
}

#[test]
fn a_chunk_that_is_missing_or_of_another_policy_is_refused() {
    let (one, other) = (mk_snapshot(&[("a", "a.example")]), mk_snapshot(&[("a", "b.example")]));
    let pieces = chunks(&one);
    let index = mk_index(&one, &pieces);
    for slot in pieces.keys() {
        let mut fewer = pieces.clone();
        fewer.remove(slot);
        assert!(assemble(&index, &by_hash(fewer.clone()), None).unwrap_err().0.contains("missing"));
        // An index whose revision does not go with its slots.
        assert!(assemble(&mk_index(&one, &fewer), &by_hash(fewer), None).is_err());
    }
    let wrong = mk_index(&other, &pieces);
    let error = assemble(&wrong, &by_hash(pieces), None).unwrap_err();
    assert!(error.0.contains(&*one.revision.0), "{error}");
}

/// A publication in which one text is another, as a newer release might write it.
fn publish_changed(snapshot: &Snapshot, from: &str, to: &str) -> (Index, BTreeMap<ChunkHash, Chunk>) {
    let pieces = Pieces::of(snapshot);
    let change = |map: BTreeMap<String, String>| {
        map.into_iter().map(|(name, text)| (name, text.replace(from, to))).collect()
    };
    let pieces = Pieces { domains: change(pieces.domains), others: change(pieces.others) };
    let revision = pieces.revision();
    let chunks = pieces.chunks(Slot::of(&snapshot.gateway.object_ref()));
    (Index { revision, ..mk_index(snapshot, &chunks) }, by_hash(chunks))
}

#[test]
fn a_field_that_this_release_does_not_know_is_verified_all_the_same() {
    let snapshot = mk_snapshot(&[("a", "a.example")]);
    for (from, to) in [("\"manifest\":", "\"later\":1.50e3,\"manifest\":"), ("\"removed\"", "\"removed\"")] {
        let (index, chunks) = publish_changed(&snapshot, from, to);
        let read = assemble(&index, &chunks, None).unwrap();
        assert_eq!(read.problems, [""; 0]);
        assert_eq!(read.snapshot.revision, index.revision);
    }
    let mut pieces = Pieces::of(&snapshot);
    pieces.others.insert("aaa".to_owned(), "{}".to_owned());
    pieces.others.insert("zzz".to_owned(), "[1]".to_owned());
    let revision = pieces.revision();
    let chunks = pieces.chunks(Slot::of(&snapshot.gateway.object_ref()));
    let index = Index { revision, ..mk_index(&snapshot, &chunks) };
    assert_eq!(assemble(&index, &by_hash(chunks), None).unwrap().problems, [""; 0]);
}

#[test]
fn an_object_that_this_release_cannot_read_has_its_last_form_or_is_deferred() {
    let last = mk_snapshot(&[("a", "a.example"), ("b", "b.example")]);
    let now = mk_snapshot(&[("a", "a2.example"), ("b", "a.example")]);
    let find = |snapshot: Snapshot, name: &str| {
        let policy = snapshot.compile(&[], NOW).unwrap();
        match policy.domains.find(name, NOW) {
            crate::DomainMatch::Known { domain, .. } => domain.object.to_string(),
            other => format!("{other:?}"),
        }
    };
    let (index, chunks) = publish_changed(
        &now,
        "{\"domains\":[\"a2.example\"]",
        "{\"domains\":[\"a2.example\"],\"enforcement\":\"Later\"",
    );
    let read = assemble(&index, &chunks, None).unwrap();
    assert_eq!(read.problems.len(), 1);
    assert_eq!(find(read.snapshot.clone(), "a2.example"), "Held");
    assert_eq!(find(read.snapshot, "a.example"), "mail/b");
    // Its last form is somebody else's domain by now, so nothing is left of it.
    let read = assemble(&index, &chunks, Some(&last)).unwrap();
    assert_eq!(find(read.snapshot.clone(), "a2.example"), "Held");
    assert_eq!(find(read.snapshot, "a.example"), "mail/b");

    let (index, chunks) =
        publish_changed(&now, "[\"a.example\"]", "[\"a.example\"],\"enforcement\":\"Later\"");
    let read = assemble(&index, &chunks, Some(&last)).unwrap();
    assert!(read.problems[0].contains("its last form holds"), "{:?}", read.problems);
    assert_eq!(find(read.snapshot.clone(), "b.example"), "mail/b");
    assert_eq!(find(read.snapshot, "a2.example"), "mail/a");
}

#[test]
fn an_upstream_that_is_the_reader_itself_falls_back_or_is_deferred() {
    let mk = |host: &str, domain: &str| {
        let text = mk_domain_in("mail", "a", &[domain], "").replace("mail.mail.svc", host);
        compile(&mk_inputs(&format!("{GATEWAY}---\n{text}"), None)).snapshot.unwrap()
    };
    let (good, bad) = (mk("192.0.2.1", "a.example"), mk("192.0.2.2", "b.example"));
    let listeners = ["192.0.2.2:25".parse().unwrap()];
    let held = bad.clone().compile_after(None, &listeners, NOW).unwrap();
    assert!(held.problems[0].contains("mail would go in circles"), "{:?}", held.problems);
    assert!(matches!(held.policy.domains.find("b.example", NOW), crate::DomainMatch::Held));
    // And if its last form is no better, it comes to an end too.
    let both = bad.clone().compile_after(Some(&mk("192.0.2.2", "c.example")), &listeners, NOW).unwrap();
    assert_eq!((both.policy.domains.len(), both.problems.len()), (0, 2));
    let fell = bad.compile_after(Some(&good), &listeners, NOW).unwrap();
    assert!(matches!(fell.policy.domains.find("a.example", NOW), crate::DomainMatch::Known { .. }));
    assert_eq!(fell.problems.len(), 1);
}

#[test]
fn a_text_that_is_too_long_is_refused_before_it_is_in_memory() {
    let chunk = Chunk::new(" ".repeat(MOST_TEXT + 1));
    assert!(chunk.is_too_long());
    let bytes = chunk.compress();
    assert!(bytes.len() < 100_000);
    assert!(Chunk::decompress(&chunk.hash, &bytes).unwrap_err().0.contains("longer than"));
    let chunk = Chunk::new(" ".repeat(MOST_TEXT));
    assert!(Chunk::decompress(&chunk.hash, &chunk.compress()).is_ok());
}

#[test]
fn an_index_that_is_newer_is_told_from_one_that_is_broken() {
    let snapshot = mk_snapshot(&[("a", "a.example")]);
    let text = mk_index(&snapshot, &chunks(&snapshot)).to_json();
    let newer = text.replace("\"formatVersion\":1", "\"formatVersion\":2").replace("\"slots\"", "\"more\"");
    assert!(matches!(Index::from_json(&newer), Err(InvalidIndex::Newer(2))));
    let more = text.replace("\"formatVersion\":1", "\"formatVersion\":1,\"more\":[]");
    assert!(Index::from_json(&more).is_ok());
    let slot = text.split("\"slots\":{\"").nth(1).unwrap().get(..2).unwrap();
    for broken in [
        "",
        "{}",
        "null",
        &text.replace("\"formatVersion\":1", "\"formatVersion\":0"),
        &text.replace("\"sequence\":7", "\"sequence\":-7"),
        &text.replace(&format!("\"{slot}\":\""), "\"40\":\""),
        &text.replace(&format!("\"{slot}\":\""), "\"+1\":\""),
        &text.replace(&format!("\"{slot}\":\""), &format!("\"{slot}\":\"A")),
    ] {
        assert!(matches!(Index::from_json(broken), Err(InvalidIndex::Broken(_))), "{broken}");
    }
}
