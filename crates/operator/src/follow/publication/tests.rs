use super::*;
use torwart_policy::load::{SourceFile, compile_files};
use torwart_policy::publish::{FORMAT_WRITTEN, chunks};

const NOW: i64 = 1_800_000_000;

fn snapshot(domains: &[&str]) -> Arc<Snapshot> {
    let mut text = "{apiVersion: torwart.dev/v1alpha1, kind: MailGateway, metadata: {name: default}, \
                    spec: {hostname: mx.example.net}}\n"
        .to_owned();
    for (count, domain) in domains.iter().enumerate() {
        text.push_str(&format!(
            "---\n{{apiVersion: torwart.dev/v1alpha1, kind: MailDomain, metadata: {{name: d{count}, namespace: mail}}, \
             spec: {{domains: [{domain}], route: {{upstreams: [{{host: 192.0.2.1, port: 25}}]}}}}}}\n"
        ));
    }
    let file = SourceFile { name: "a.yaml".to_owned(), content: Ok(text) };
    compile_files(&[file], None, &[], NOW).compilation.snapshot.unwrap()
}

fn publication(snapshot: &Snapshot) -> Publication {
    let chunks = chunks(snapshot);
    let slots = chunks.iter().map(|(slot, chunk)| (*slot, chunk.hash.clone())).collect();
    let index =
        Index { sequence: 7, format_version: FORMAT_WRITTEN, revision: snapshot.revision.clone(), slots };
    let chunks = chunks.into_values().map(|chunk| (chunk.hash.clone(), chunk.compress().into())).collect();
    Publication { uid: "u".to_owned(), index, chunks }
}

#[test]
fn what_is_kept_for_a_restart_reads_back_and_makes_the_same_policy() {
    let snapshot = snapshot(&["example.org", "other.example"]);
    let loaded = Arc::new(publication(&snapshot)).load(None, NOW).unwrap();
    assert_eq!((loaded.policy.domains.len(), &loaded.policy.revision), (2, &snapshot.revision));
    let read = Loaded::from_file(&loaded.to_file().unwrap(), NOW).unwrap();
    assert_eq!((&read.publication, &read.policy.revision), (&loaded.publication, &snapshot.revision));
    assert_eq!((read.policy.domains.len(), read.publication.sequence()), (2, 7));
}

#[test]
fn a_file_that_is_not_whole_is_no_publication() {
    let text = Arc::new(publication(&snapshot(&["example.org"]))).load(None, NOW).unwrap().to_file().unwrap();
    let kept: Kept = serde_json::from_str(&text).unwrap();
    let without_chunk = Kept { chunks: BTreeMap::new(), ..serde_json::from_str(&text).unwrap() };
    let mut flipped: Kept = serde_json::from_str(&text).unwrap();
    for bytes in flipped.chunks.values_mut() {
        let middle = bytes.0.len() / 2;
        bytes.0[middle] ^= 1;
    }
    let newer = Kept { file_version: FILE_VERSION + 1, ..kept };
    let texts = [
        String::new(),
        "{}".to_owned(),
        text[..text.len() / 2].to_owned(),
        serde_json::to_string(&without_chunk).unwrap(),
        serde_json::to_string(&flipped).unwrap(),
        serde_json::to_string(&newer).unwrap(),
    ];
    for text in texts {
        assert!(Loaded::from_file(&text, NOW).is_err(), "{text}");
    }
}

#[test]
fn a_wrong_byte_or_a_wrong_index_is_refused() {
    let good = publication(&snapshot(&["example.org", "other.example"]));
    for hash in good.chunks.keys() {
        let mut bad = good.clone();
        let bytes: Vec<u8> = bad.chunks[hash].iter().rev().copied().collect();
        bad.chunks.insert(hash.clone(), bytes.into());
        assert!(matches!(Arc::new(bad).load(None, NOW), Err(Trouble::BadChunk { .. })));
    }
    let mut bad = good.clone();
    bad.index.revision = torwart_core::Revision("0".repeat(64).into());
    assert!(matches!(Arc::new(bad).load(None, NOW), Err(Trouble::Unusable { sequence: 7, .. })));
    let mut bad = good.clone();
    bad.index.slots.pop_last();
    assert!(matches!(Arc::new(bad).load(None, NOW), Err(Trouble::Unusable { .. })));
    assert!(Arc::new(good).load(None, NOW).is_ok());
}
