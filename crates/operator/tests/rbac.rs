//! The shipped rights name the objects that the code names.

use std::collections::BTreeSet;
use std::fs;

use torwart_operator::names;
use torwart_policy::publish::Slot;

/// The gateway that the files are written for.
const GATEWAY: &str = "default";

/// All words of a file that begin so.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let split = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    split.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn the_rights_name_the_index_the_slots_and_the_lease_and_nothing_more() {
    let mut policy: BTreeSet<String> = Slot::all().map(|slot| names::slot_name(GATEWAY, slot)).collect();
    policy.insert(names::index_name(GATEWAY));
    assert_eq!(policy.len(), 65);
    let policy: BTreeSet<&str> = policy.iter().map(String::as_str).collect();
    for (part, named) in [("operator", true), ("verdict", true), ("edge", false)] {
        let path = format!("{}/../../k8s/rbac/{part}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(&path).unwrap();
        let expected = if named { policy.clone() } else { BTreeSet::new() };
        assert_eq!(words(&text, "torwart-policy"), expected, "{path}");
        assert!(!text.contains("secrets"), "{path}");
        assert!(!text.contains('*'), "{path}: a right for everything");
    }
    let operator =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../k8s/rbac/operator.yaml")).unwrap();
    let lease = names::lease_name(GATEWAY);
    assert!(operator.contains(&format!("resourceNames: [{lease}]")), "no right to {lease}");
}
