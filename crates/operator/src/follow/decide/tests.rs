use super::*;
use torwart_core::Revision;

const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const B: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn hash(text: &str) -> ChunkHash {
    ChunkHash(text.into())
}

/// With one chunk in each of the first slots.
fn index(sequence: u64, chunks: &[&str]) -> Index {
    let slots = Slot::all().zip(chunks.iter().map(|text| hash(text))).collect();
    Index { sequence, format_version: 1, revision: Revision(A.into()), slots }
}

fn held(uid: &str, sequence: u64, chunks: &[&str]) -> Arc<Publication> {
    let wanted = Wanted { uid: uid.to_owned(), index: index(sequence, chunks) };
    let fetched = chunks.iter().map(|text| (hash(text), Arc::from(&b"x"[..]))).collect();
    Arc::new(Publication::new(wanted, None, &fetched).unwrap())
}

fn found(uid: &str, text: &str) -> Option<Found> {
    Some(Found { uid: uid.to_owned(), text: Some(text.to_owned()) })
}

fn word(step: &Step) -> &'static str {
    match step {
        Step::Rest => "rest",
        Step::Load(_) => "load",
        Step::Keep(Trouble::Missing { any: true }) => "deleted",
        Step::Keep(Trouble::Missing { any: false }) => "not there yet",
        Step::Keep(Trouble::Broken(_)) => "broken",
        Step::Keep(Trouble::Unusable { .. }) => "unusable",
        Step::Keep(Trouble::Newer(7)) => "newer",
        Step::Keep(Trouble::Older { .. }) => "older",
        Step::Keep(other) => panic!("{other}"),
    }
}

#[test]
fn only_a_readable_index_that_is_newer_or_begins_anew_is_loaded() {
    let (same, other) = (index(5, &[A]).to_json(), index(5, &[B]).to_json());
    let (older, newer) = (index(4, &[B]).to_json(), index(6, &[B]).to_json());
    let format = newer.replace("\"formatVersion\":1", "\"formatVersion\":7");
    assert_ne!(format, newer);
    let table = [
        (None, "deleted", "not there yet"),
        (Some(Found { uid: "u".to_owned(), text: None }), "broken", "broken"),
        (found("u", ""), "broken", "broken"),
        (found("u", &newer[..newer.len() / 2]), "broken", "broken"),
        (found("u", &format), "newer", "newer"),
        (found("u", &same), "rest", "load"),
        (found("u", &newer), "load", "load"),
        (found("u", &older), "older", "load"),
        (found("u", &other), "older", "load"),
        // Made anew: it may count from where it likes.
        (found("v", &same), "load", "load"),
        (found("v", &older), "load", "load"),
        (found("v", &newer), "load", "load"),
        (found("v", "{"), "broken", "broken"),
    ];
    for (found, with, without) in table {
        let reader = Reader::new(Some(held("u", 5, &[A])));
        assert_eq!(word(&reader.found(found.as_ref())), with, "{found:?}");
        assert_eq!(word(&Reader::default().found(found.as_ref())), without, "{found:?}");
    }
}

#[test]
fn only_what_is_not_here_yet_is_fetched() {
    let wanted = Wanted { uid: "u".to_owned(), index: index(6, &[A, B]) };
    let slots = |reader: &Reader| reader.lacking(&wanted).into_values().collect::<Vec<_>>();
    assert_eq!(slots(&Reader::default()), [hash(A), hash(B)]);
    assert_eq!(slots(&Reader::new(Some(held("u", 5, &[A])))), [hash(B)]);
    assert_eq!(slots(&Reader::new(Some(held("u", 5, &[B, A])))), []);
}

#[test]
fn what_is_put_together_is_all_that_the_index_names_and_no_more() {
    let before = held("u", 5, &[A]);
    let wanted = |chunks: &[&str]| Wanted { uid: "u".to_owned(), index: index(6, chunks) };
    let fetched = BTreeMap::from([(hash(B), Arc::from(&b"y"[..]))]);
    let keys = |publication: Publication| publication.chunks.into_keys().collect::<Vec<_>>();
    assert_eq!(keys(Publication::new(wanted(&[A, B]), Some(&before), &fetched).unwrap()), [hash(A), hash(B)]);
    assert_eq!(keys(Publication::new(wanted(&[B]), Some(&before), &fetched).unwrap()), [hash(B)]);
    let lacking = Publication::new(wanted(&[B, A]), None, &fetched).unwrap_err();
    assert_eq!(lacking, Trouble::Lacking { slot: Slot::all().nth(1).unwrap(), hash: hash(A) });
}

#[test]
fn a_reader_that_was_overtaken_looks_again_at_once_but_not_for_ever() {
    let mut reader = Reader::default();
    let wanted = Wanted { uid: "u".to_owned(), index: index(6, &[A]) };
    let lacking = Trouble::Lacking { slot: Slot::all().next().unwrap(), hash: hash(A) };
    let mut next = || reader.failed(wanted.clone(), &lacking);
    for _ in 0..AT_ONCE {
        assert_eq!(next(), Next::AtOnce);
    }
    assert_eq!([next(), next()], [Next::Later; 2]);
    reader.loaded(held("u", 6, &[A]));
    let newer = Wanted { uid: "u".to_owned(), index: index(7, &[B]) };
    assert_eq!(reader.failed(newer, &lacking), Next::AtOnce);
}

#[test]
fn what_can_be_mended_is_tried_again_and_what_can_not_waits_for_another_index() {
    let slot = Slot::all().next().unwrap();
    let unusable = Trouble::Unusable { sequence: 6, why: String::new() };
    for (trouble, next, again) in [
        (Trouble::BadChunk { slot, why: String::new() }, Next::Later, "load"),
        (Trouble::Unreachable(String::new()), Next::Later, "load"),
        (unusable, Next::WhenItChanges, "unusable"),
    ] {
        let mut reader = Reader::new(Some(held("u", 5, &[A])));
        let bad = index(6, &[B]);
        assert_eq!(reader.failed(Wanted { uid: "u".to_owned(), index: bad.clone() }, &trouble), next);
        assert_eq!(word(&reader.found(found("u", &bad.to_json()).as_ref())), again, "{trouble}");
        assert_eq!(word(&reader.found(found("u", &index(7, &[B]).to_json()).as_ref())), "load", "{trouble}");
        assert_eq!(reader.in_force(), Some(&held("u", 5, &[A])), "{trouble}");
    }
}
