//! DNS lists: what is written, and what is asked.

use super::*;
use crate::dns_lists::{ListAnswers, ListKind, ListProbe};
use crate::model::DnsListsCheck;

fn mk(gateway: &str, domain: &str) -> Policy {
    let gateway =
        GATEWAY.replace("hostname: mx.example.net", &format!("hostname: mx.example.net, {gateway}"));
    let text = format!("{gateway}---\n{}", mk_domain("a", &["a.example"], domain));
    let compilation = compile(&mk_inputs(&text, None));
    assert!(compilation.is_clean(), "{:#?}", compilation.outcomes);
    compilation.policy.unwrap()
}

const ZEN: &str = "{name: zen, zone: Zen.Example, keyFile: zen.key, \
    responses: [{codes: [127.0.0.2-127.0.0.9, 127.0.0.20], score: 10}, {codes: [127.0.0.10], score: 7.5}]}";
const GOOD: &str = "{name: good, zone: b\u{fc}cher.example, kind: Allow, responses: [{bits: 8, score: -2}], \
    probe: {listed: 192.0.2.1, notListed: \"2001:db8::1\"}}";

#[test]
fn lists_are_compiled_as_they_are_written() {
    let policy = mk(&format!("dnsLists: [{ZEN}, {GOOD}]"), "");
    let [zen, good] = policy.gateway.dns_lists.as_slice() else { panic!("{:?}", policy.gateway.dns_lists) };
    assert_eq!((&*zen.name, &*zen.zone, zen.kind), ("zen", "zen.example", ListKind::Block));
    assert_eq!((zen.key_file.as_deref(), zen.probe), (Some("zen.key"), ListProbe::default()));
    let address = |text: &str| text.parse().unwrap();
    let codes =
        vec![(address("127.0.0.2"), address("127.0.0.9")), (address("127.0.0.20"), address("127.0.0.20"))];
    assert_eq!((&zen.responses[0].answers, zen.responses[0].score), (&ListAnswers::Codes(codes), 10.0));
    assert_eq!(zen.responses[1].score, 7.5);
    assert_eq!(
        (&*good.zone, good.kind, good.key_file.as_deref()),
        ("xn--bcher-kva.example", ListKind::Allow, None)
    );
    assert_eq!((&good.responses[0].answers, good.responses[0].score), (&ListAnswers::Bits(8), -2.0));
    let probe =
        ListProbe { listed: "192.0.2.1".parse().unwrap(), not_listed: "2001:db8::1".parse().unwrap() };
    assert_eq!(good.probe, probe);
}

#[test]
fn a_mail_domain_asks_all_lists_unless_it_or_the_gateway_says_otherwise() {
    let check = |enabled, enforcement, only: &[&str]| DnsListsCheck {
        enabled,
        enforcement,
        only: only.iter().map(|name| (*name).into()).collect(),
    };
    let monitor = "defaults: {checks: {dnsLists: {enforcement: Monitor, only: [zen]}}}";
    for (defaults, domain, wanted) in [
        ("", "", check(true, Enforcement::Enforce, &[])),
        ("", "  checks: {dnsLists: {only: [good]}}\n", check(true, Enforcement::Enforce, &["good"])),
        ("", "  checks: {dnsLists: {enabled: false}}\n", check(false, Enforcement::Enforce, &[])),
        (monitor, "", check(true, Enforcement::Monitor, &["zen"])),
        (
            monitor,
            "  checks: {dnsLists: {enforcement: Enforce}}\n",
            check(true, Enforcement::Enforce, &["zen"]),
        ),
        (monitor, "  checks: {dnsLists: {only: []}}\n", check(true, Enforcement::Monitor, &[])),
    ] {
        let policy = mk(&format!("dnsLists: [{ZEN}, {GOOD}], {defaults}"), domain);
        assert_eq!(known(&policy, "a.example").dns_lists, wanted, "{defaults} {domain}");
    }
}

#[test]
fn a_range_switches_lists_only_if_it_says_so() {
    for (checks, wanted) in [
        ("", None),
        (", checks: {}", None),
        (", checks: {dnsLists: {enabled: true}}", Some(true)),
        (", checks: {dnsLists: {enabled: false}}", Some(false)),
    ] {
        let policy = mk(&format!("ipRanges: [{{name: r, cidrs: [192.0.2.0/24]{checks}}}]"), "");
        let range = policy.gateway.ranges.find("192.0.2.7".parse().unwrap(), NOW).unwrap();
        assert_eq!(range.dns_lists, wanted, "{checks}");
    }
}
