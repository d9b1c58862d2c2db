use proptest::prelude::*;

use super::*;
use crate::model::RangeAction;

fn mk_range(name: &str, priority: i32, expires: Option<i64>) -> Range {
    Range {
        name: name.into(),
        action: RangeAction::Check,
        priority,
        expires,
        tls: None,
        hidden: Vec::new(),
        dns_lists: None,
        greylisting: None,
    }
}

fn mk_table(rows: &[(&str, i32, Option<i64>, &[&str])]) -> RangeTable {
    RangeTable::new(rows.iter().map(|(name, priority, expires, nets)| {
        (mk_range(name, *priority, *expires), nets.iter().map(|net| net.parse().unwrap()).collect())
    }))
}

fn name_at(table: &RangeTable, address: &str, now: i64) -> Option<String> {
    table.find(address.parse().unwrap(), now).map(|range| range.name.to_string())
}

#[test]
fn the_highest_priority_wins_and_then_the_longest_prefix() {
    let table = mk_table(&[
        ("all", 0, None, &["0.0.0.0/0", "::/0"]),
        ("office", 100, None, &["10.0.0.0/8"]),
        ("lab", 50, None, &["10.1.0.0/16"]),
        ("desk", 100, None, &["10.2.0.0/16"]),
        ("guests", 200, Some(1000), &["10.1.2.0/24"]),
        ("six", 1, None, &["2001:db8::/32"]),
    ]);
    for (address, now, wanted) in [
        ("192.0.2.1", 0, "all"),
        ("10.3.0.1", 0, "office"),
        ("10.1.9.9", 0, "office"),
        ("10.2.0.1", 0, "desk"),
        ("10.1.2.3", 999, "guests"),
        ("10.1.2.3", 1000, "office"),
        ("::ffff:10.1.2.3", 0, "guests"),
        ("2001:db8::1", 0, "six"),
        ("2001:db9::1", 0, "all"),
    ] {
        assert_eq!(name_at(&table, address, now).as_deref(), Some(wanted), "{address} at {now}");
    }
}

#[test]
fn outside_every_range_there_is_none() {
    let table = mk_table(&[("office", 0, None, &["192.0.2.0/24"])]);
    assert_eq!(name_at(&table, "192.0.3.1", 0), None);
    assert_eq!(name_at(&table, "2001:db8::1", 0), None);
    assert_eq!(name_at(&RangeTable::default(), "192.0.2.1", 0), None);
}

#[test]
fn a_mapped_prefix_is_its_ipv4_prefix() {
    let table = mk_table(&[("office", 0, None, &["::ffff:192.0.2.0/120"])]);
    assert_eq!(name_at(&table, "192.0.2.9", 0).as_deref(), Some("office"));
    assert_eq!(name_at(&table, "::ffff:192.0.2.9", 0).as_deref(), Some("office"));
}

#[test]
fn the_ipv6_default_route_holds_no_ipv4_client() {
    let table = mk_table(&[("six", 0, None, &["::/0"])]);
    assert_eq!(name_at(&table, "::ffff:192.0.2.9", 0), None);
}

/// What a table must answer, by looking at every prefix.
fn oracle(rows: &[(Range, Vec<IpNet>)], address: IpAddr, now: i64) -> Option<Arc<str>> {
    let address = address.to_canonical();
    let mut best: Option<(i32, u8, usize)> = None;
    for (index, (range, nets)) in rows.iter().enumerate() {
        if range.expires.is_some_and(|at| at <= now) {
            continue;
        }
        for net in nets.iter().map(|net| canonical_net(*net)).filter(|net| net.contains(&address)) {
            let better = best
                .is_none_or(|(priority, length, _)| (range.priority, net.prefix_len()) > (priority, length));
            if better {
                best = Some((range.priority, net.prefix_len(), index));
            }
        }
    }
    best.map(|(_, _, index)| rows[index].0.name.clone())
}

/// Few distinct bits, so that prefixes nest and addresses fall into them.
fn mk_address() -> impl Strategy<Value = IpAddr> {
    let bits = prop_oneof![Just(0u8), Just(1), Just(128), Just(255)];
    (any::<bool>(), proptest::collection::vec(bits, 4)).prop_map(|(six, b)| {
        if six {
            IpAddr::from([0x20, 1, 0xd, 0xb8, b[0], b[1], 0, 0, 0, 0, 0, 0, 0, 0, b[2], b[3]])
        } else {
            IpAddr::from([b[0], b[1], b[2], b[3]])
        }
    })
}

fn mk_net() -> impl Strategy<Value = IpNet> {
    (mk_address(), 0u8..=128).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length % 33 } else { length };
        IpNet::new(address, length).unwrap().trunc()
    })
}

proptest! {
    #[test]
    fn a_look_up_finds_what_a_linear_scan_finds(
        rows in proptest::collection::vec(
            (-2i32..3, proptest::option::of(0i64..4), proptest::collection::vec(mk_net(), 0..6)), 0..12),
        addresses in proptest::collection::vec(mk_address(), 1..40),
        now in 0i64..5,
    ) {
        let rows: Vec<(Range, Vec<IpNet>)> = rows
            .into_iter()
            .enumerate()
            .map(|(i, (priority, expires, nets))| (mk_range(&i.to_string(), priority, expires), nets))
            .collect();
        let table = RangeTable::new(rows.iter().map(|(range, nets)| (range.clone(), nets.clone())));
        for address in addresses {
            prop_assert_eq!(
                table.find(address, now).map(|range| range.name.clone()),
                oracle(&rows, address, now),
                "{} at {}", address, now
            );
        }
    }
}
