use super::*;

#[test]
fn where_tls_is_required_mail_in_clear_waits_even_if_the_banner_did_not_say_so() {
    let refused = "451 4.7.0 ip_range";
    for (cidr, tls, encrypted, shown) in [
        ("192.0.2.0/24", Some(ListenerTls::Require), false, refused),
        ("192.0.2.0/24", Some(ListenerTls::Require), true, "450 4.2.0 greylisted new"),
        ("192.0.2.0/24", Some(ListenerTls::Offer), false, "450 4.2.0 greylisted new"),
        ("203.0.113.0/24", Some(ListenerTls::Require), false, "450 4.2.0 greylisted new"),
    ] {
        for action in [RangeAction::Check, RangeAction::Allow] {
            for enforcement in [Enforcement::Enforce, Enforcement::Monitor] {
                let policy = mk_policy(Domain { enforcement, ..mk_domain() }, |gateway| {
                    let range = Range {
                        name: "r".into(),
                        action,
                        priority: 0,
                        expires: None,
                        tls,
                        greylisting: None,
                    };
                    gateway.ranges = RangeTable::new([(range, vec![cidr.parse().unwrap()])]);
                });
                let got = Case { encrypted, ..Case::default() }.shown(&policy, "bob@example.org");
                let is_plain = action == RangeAction::Check && enforcement == Enforcement::Enforce;
                if is_plain || shown == refused {
                    assert_eq!(got, shown, "{cidr} {tls:?} {encrypted} {action:?} {enforcement:?}");
                } else {
                    assert!(!got.contains("4.7.0"), "{got}");
                }
            }
        }
    }
}
