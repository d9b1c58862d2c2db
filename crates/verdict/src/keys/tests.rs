use std::collections::HashSet;

use super::*;

const KEY: &[u8] = b"a key of thirty-two bytes or so..";

fn mk_set(key: &[u8], domain: &str, identities: &[Identity], sender: &str, recipients: &[&str]) -> KeySet {
    let mailboxes: Vec<Mailbox> = recipients
        .iter()
        .filter_map(|text| text.rsplit_once('@'))
        .map(|(local, domain)| Mailbox::new(local, domain))
        .collect();
    key_set(&mac(key), domain, identities, sender, &mailboxes.iter().collect::<Vec<_>>(), true)
}

fn mk_network(text: &str) -> Identity {
    Identity::Network(text.parse().unwrap())
}

#[test]
fn each_field_and_the_key_itself_make_another_triplet() {
    let v4 = [mk_network("192.0.2.0/24")];
    type Row<'a> = (&'a [u8], &'a str, &'a [Identity], &'a str, &'a str);
    let rows: [Row<'_>; 13] = [
        (KEY, "example.org", &v4, "a@b.example", "c@example.org"),
        (b"another key", "example.org", &v4, "a@b.example", "c@example.org"),
        (KEY, "*.example.org", &v4, "a@b.example", "c@example.org"),
        (KEY, "example.org", &[mk_network("192.0.2.0/25")], "a@b.example", "c@example.org"),
        (KEY, "example.org", &[mk_network("192.0.3.0/24")], "a@b.example", "c@example.org"),
        (KEY, "example.org", &[mk_network("c000:200::/24")], "a@b.example", "c@example.org"),
        (KEY, "example.org", &[Identity::Helo("b.example".into())], "a@b.example", "c@example.org"),
        (KEY, "example.org", &[Identity::Spf("b.example".into())], "a@b.example", "c@example.org"),
        (KEY, "example.org", &v4, "", "c@example.org"),
        (KEY, "example.org", &v4, "aa@b.example", "c@example.org"),
        (KEY, "example.or", &v4, "ga@b.example", "c@example.org"),
        (KEY, "example.org", &v4, "a@b.example", "cc@example.org"),
        (KEY, "example.org", &v4, "a@b.example", "c@c.example.org"),
    ];
    let triplets: HashSet<Key> = rows
        .iter()
        .map(|(key, domain, identities, sender, recipient)| {
            mk_set(key, domain, identities, sender, &[recipient]).triplets[0]
        })
        .collect();
    assert_eq!(triplets.len(), rows.len());
}

#[test]
fn the_end_of_a_triplet_is_its_clients_and_nobody_elses() {
    let identities = [mk_network("192.0.2.0/24"), mk_network("198.51.100.0/24")];
    let tag = |key: &Key| key.0[14..].to_vec();
    let set = mk_set(KEY, "example.org", &identities, "a@b.example", &["c@example.org", "d@example.org"]);
    let other = mk_set(KEY, "example.com", &identities, "z@z.example", &["e@example.com"]);
    assert_eq!(tag(&set.triplets[0]), tag(&set.triplets[2]));
    assert_eq!(tag(&set.triplets[0]), tag(&other.triplets[0]));
    assert_eq!(tag(&set.triplets[1]), tag(&other.triplets[1]));
    assert_ne!(tag(&set.triplets[0]), tag(&set.triplets[1]));
}

#[test]
fn case_does_not_matter_and_a_key_is_the_same_in_every_process() {
    let identity = [mk_network("192.0.2.0/24")];
    let lower = mk_set(KEY, "example.org", &identity, "a@b.example", &["c@example.org"]);
    let upper = mk_set(KEY, "example.org", &identity, "a@b.example", &["C@Example.ORG"]);
    assert_eq!(lower.triplets, upper.triplets);
    // What is in stores must be found again: a change here is a change of format.
    let hex: String = lower.triplets[0].0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "cf84215f8a5e3b1b1b0f16e86cbb9736");
}

#[test]
fn records_of_one_sender_share_their_slot_and_no_kind_is_taken_for_another() {
    let identities = [Identity::Spf("b.example".into()), mk_network("192.0.2.0/24")];
    let set = mk_set(KEY, "example.org", &identities, "a@b.example", &["c@example.org", "d@example.org"]);
    let other = mk_set(KEY, "example.org", &identities[..1], "a@b.example", &["e@example.org"]);
    assert_eq!(set.slot, other.slot);
    assert_eq!((set.triplets.len(), set.known.len(), set.counters.len()), (4, 2, 2));
    let all: HashSet<Key> = set.triplets.iter().chain(&set.known).chain(&set.counters).copied().collect();
    assert_eq!(all.len(), 8);
    let another_sender = mk_set(KEY, "example.org", &identities, "z@b.example", &[]);
    assert_ne!(set.slot, another_sender.slot);
    assert_ne!(set.known, another_sender.known);
    assert_eq!(set.counters, another_sender.counters, "a client is known whoever it sends for");
}

#[test]
fn a_reverse_dns_name_is_one_client_but_counts_per_network() {
    let mk_identity = |network: &str| [Identity::ReverseDns("host.example".into(), network.parse().unwrap())];
    let one = mk_set(KEY, "example.org", &mk_identity("192.0.2.0/24"), "a@b.example", &["c@example.org"]);
    let two = mk_set(KEY, "example.org", &mk_identity("198.51.100.0/24"), "a@b.example", &["c@example.org"]);
    assert_eq!((&one.triplets, &one.known), (&two.triplets, &two.known));
    assert_ne!(one.counters, two.counters);
}

#[test]
fn a_keyring_does_not_show_its_keys() {
    assert_eq!(format!("{:?}", Keyring::new(KEY)), "Keyring { keys: 1, .. }");
}
