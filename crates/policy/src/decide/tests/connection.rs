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
                        hidden: Vec::new(),
                        dns_lists: None,
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

#[test]
fn who_is_allowed_everything_is_greeted_at_once_and_only_its_range_hides_keywords() {
    let delay = Duration::from_secs(5);
    for (action, waits) in
        [(RangeAction::Allow, false), (RangeAction::Check, true), (RangeAction::Defer, true)]
    {
        let policy = mk_policy(mk_domain(), |gateway| {
            gateway.greet_delay = delay;
            let range = Range {
                name: "r".into(),
                action,
                priority: 0,
                expires: Some(NOW + 1),
                tls: None,
                hidden: vec![Keyword::Chunking],
                dns_lists: None,
                greylisting: None,
            };
            gateway.ranges = RangeTable::new([(range, vec!["192.0.2.0/24".parse().unwrap()])]);
        });
        let greeted = |client: &str, now| {
            let (answer, _) = judge_connection(&policy, client.parse().unwrap(), now);
            (answer.greet_delay, answer.hidden)
        };
        let within = if waits { delay } else { Duration::ZERO };
        assert_eq!(greeted("192.0.2.9", NOW), (within, vec![Keyword::Chunking]), "{action:?}");
        assert_eq!(greeted("203.0.113.1", NOW), (delay, Vec::new()));
        assert_eq!(greeted("192.0.2.9", NOW + 1), (delay, Vec::new()), "its range is over");
    }
}

#[test]
fn a_recipient_in_letters_is_one_of_the_domain_in_a_labels() {
    let policy = mk_policy(mk_domain(), |gateway| {
        gateway.senders.deny = mk_senders(&["*@b\u{fc}cher.example"]);
    });
    let denied = Case { sender: Some(Mailbox::new("a", "b\u{fc}cher.example")), ..Case::default() };
    let a_label = Case { sender: Some(Mailbox::new("a", "xn--bcher-kva.example")), ..Case::default() };
    let refused = a_label.shown(&policy, "bob@example.org");
    assert!(refused.contains("sender_denied"), "{refused}");
    assert_eq!(denied.shown(&policy, "bob@example.org"), refused);
}
