use super::*;

#[test]
fn at_the_banner_only_a_gateway_wide_reject_speaks() {
    let client = CLIENT.parse().unwrap();
    for (action, enforcement, refused, monitored) in [
        (RangeAction::Reject, Enforcement::Enforce, Some(554), false),
        (RangeAction::Reject, Enforcement::Monitor, None, true),
        (RangeAction::Defer, Enforcement::Enforce, None, false),
        (RangeAction::Check, Enforcement::Enforce, None, false),
        (RangeAction::Allow, Enforcement::Enforce, None, false),
    ] {
        let policy = mk_policy(mk_domain(), |gateway| {
            gateway.enforcement = enforcement;
            gateway.ranges = mk_ranges(&[("192.0.2.0/24", action)]);
        });
        let (answer, would) = judge_connection(&policy, client, NOW);
        assert_eq!(answer.refuse.map(|(reply, _)| reply.code), refused, "{action:?} {enforcement:?}");
        assert_eq!(would.is_some(), monitored, "{action:?} {enforcement:?}");
        assert_eq!(answer.tls, ListenerTls::Offer);
        let (answer, _) = judge_connection(&policy, "203.0.113.1".parse().unwrap(), NOW);
        assert_eq!(answer.refuse, None);
    }
}

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
