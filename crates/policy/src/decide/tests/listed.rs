//! DNS lists: which are asked, and what their word does.

use torwart_core::CheckOutcome;

use super::*;
use crate::dns_lists::{DnsList, ListKind, ListProbe};

const BOB: &str = "bob@example.org";

fn mk_list(name: &str, kind: ListKind) -> DnsList {
    DnsList {
        name: name.into(),
        zone: format!("{name}.example").into(),
        kind,
        key_file: None,
        responses: Vec::new(),
        probe: ListProbe::default(),
    }
}

fn mk_finding(list: &str, score: f32) -> ListFinding {
    let listed = score != 0.0;
    ListFinding {
        list: list.into(),
        check: format!("dns_list/{list}").into(),
        kind: if list == "good" { ListKind::Allow } else { ListKind::Block },
        result: if listed { CheckOutcome::Listed } else { CheckOutcome::Clean },
        score,
        detail: if listed { "127.0.0.2" } else { "" }.into(),
        milliseconds: 1,
    }
}

fn mk_findings(scores: &[(&str, f32)]) -> Vec<ListFinding> {
    scores.iter().map(|(list, score)| mk_finding(list, *score)).collect()
}

fn with_lists(domain: Domain, gateway: impl FnOnce(&mut Gateway)) -> Policy {
    mk_policy(domain, |it| {
        it.dns_lists = vec![
            mk_list("zen", ListKind::Block),
            mk_list("other", ListKind::Block),
            mk_list("good", ListKind::Allow),
        ];
        gateway(it);
    })
}

fn check(enabled: bool, enforcement: Enforcement, only: &[&str]) -> DnsListsCheck {
    DnsListsCheck { enabled, enforcement, only: only.iter().map(|name| (*name).into()).collect() }
}

#[test]
fn lists_add_up_and_the_sum_decides() {
    let (suspicious, always, off) = (GreylistMode::Suspicious, GreylistMode::Always, GreylistMode::Off);
    for (scores, mode, shown, score) in [
        (&[("zen", 10.0)][..], off, "550 5.7.1 dns_list", 10.0),
        (&[("zen", 6.0), ("other", 4.0)], off, "550 5.7.1 dns_list", 10.0),
        (&[("zen", 9.9)], off, "ok accepted exempt", 9.9),
        (&[("zen", 10.0), ("good", -4.0)], off, "ok accepted exempt", 6.0),
        (&[("zen", 10.0), ("good", -4.0)], suspicious, "ok accepted not_suspicious", 6.0),
        (&[("zen", 10.0), ("good", -4.0)], always, "450 4.2.0 greylisted new", 6.0),
        (&[("good", -4.0)], suspicious, "ok accepted not_suspicious", -4.0),
        (&[("good", 0.0)], suspicious, "450 4.2.0 greylisted new", 0.0),
        // The lists speak for a refusal even if an allow list does not outweigh them.
        (&[("zen", 10.0), ("other", 5.0), ("good", -2.0)], suspicious, "550 5.7.1 dns_list", 13.0),
    ] {
        let mut domain = mk_domain();
        domain.greylisting.mode = mode;
        let policy = with_lists(domain, |_| {});
        let case = Case { dns_lists: mk_findings(scores), ..Case::default() };
        assert_eq!(case.ask(&policy, &[BOB]).recipients[0].score, score, "{scores:?}");
        if score >= 0.0 {
            assert_eq!(case.shown(&policy, BOB), shown, "{scores:?} {mode:?}");
        } else {
            assert_eq!(case.ask(&policy, &[BOB]).recipients[0].action, Action::Accept);
        }
    }
}

#[test]
fn lists_and_other_checks_together_are_a_score() {
    let mut domain = mk_domain();
    domain.greylisting.mode = GreylistMode::Off;
    let policy = with_lists(domain, |_| {});
    let spf = CheckResult {
        name: "spf".into(),
        result: CheckOutcome::Fail,
        score: 3.0,
        detail: "".into(),
        milliseconds: 1,
    };
    let case = Case { dns_lists: mk_findings(&[("zen", 7.0)]), checks: vec![spf], ..Case::default() };
    assert_eq!(case.shown(&policy, BOB), "550 5.7.1 score");
    let answer = case.ask(&policy, &[BOB]);
    let names: Vec<&str> = answer.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["dns_list/zen", "spf"]);
    assert_eq!(answer.checks.iter().map(|check| check.score).sum::<f32>(), answer.recipients[0].score);
}

#[test]
fn the_reply_names_the_list_that_weighs_most() {
    let policy = with_lists(mk_domain(), |_| {});
    for scores in [[("zen", 6.0), ("other", 8.0)], [("other", 8.0), ("zen", 6.0)]] {
        let case = Case { dns_lists: mk_findings(&scores), ..Case::default() };
        let answer = case.ask(&policy, &[BOB]);
        let text = &answer.recipients[0].reply.as_ref().unwrap().text;
        assert!(text.contains("other") && !text.contains("zen"), "{text}");
    }
}

#[test]
fn in_monitor_lists_are_told_and_count_for_nothing() {
    let watched =
        DnsListsCheck { enforcement: Enforcement::Monitor, ..check(true, Enforcement::Enforce, &[]) };
    let mut domain = Domain { dns_lists: watched, ..mk_domain() };
    domain.greylisting.mode = GreylistMode::Off;
    let policy = with_lists(domain, |_| {});
    let findings = mk_findings(&[("zen", 10.0), ("good", -2.0), ("other", 0.0)]);
    let case = Case { dns_lists: findings, ..Case::default() };
    assert_eq!(case.shown(&policy, BOB), "ok accepted exempt");
    let answer = case.ask(&policy, &[BOB]);
    assert_eq!(answer.recipients[0].score, 0.0);
    let told: Vec<String> = answer
        .checks
        .iter()
        .map(|check| format!("{} {} {}", check.result.as_str(), check.score, check.detail))
        .collect();
    assert_eq!(
        told,
        [
            "listed 0 127.0.0.2 (Monitor: +10 is not counted)",
            "listed 0 127.0.0.2 (Monitor: -2 is not counted)",
            "clean 0 ",
        ]
    );
    // A domain of its own goes by its own word in the same call.
    let answer = case.ask(&policy, &[BOB, "bob@other.example"]);
    assert_eq!(answer.recipients[0].action, Action::Accept);
    assert_eq!(answer.recipients[1].score, 8.0);
    assert_eq!(answer.checks[0].score, 10.0);
}

#[test]
fn in_monitor_an_allow_list_spares_nobody_the_wait() {
    let policy =
        with_lists(Domain { dns_lists: check(true, Enforcement::Monitor, &[]), ..mk_domain() }, |_| {});
    let case = Case { dns_lists: mk_findings(&[("good", -2.0)]), ..Case::default() };
    assert_eq!(case.shown(&policy, BOB), "450 4.2.0 greylisted new");
}

#[test]
fn lists_are_asked_only_where_their_word_can_matter() {
    let all: &[&str] = &["zen", "other", "good"];
    let none: &[&str] = &[];
    let enforce = Enforcement::Enforce;
    let range = |action, dns_lists| {
        let range = Range {
            name: "r".into(),
            action,
            priority: 0,
            expires: None,
            tls: None,
            hidden: Vec::new(),
            dns_lists,
            greylisting: None,
        };
        let nets = ["192.0.2.0/24", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        Some((range, nets.to_vec()))
    };
    for (client, recipients, domain_check, ranges, wanted) in [
        ("192.0.2.7", &[BOB][..], check(true, enforce, &[]), None, all),
        ("127.0.0.1", &[BOB], check(true, enforce, &[]), None, all),
        ("2001:db8::1", &[BOB], check(true, enforce, &[]), None, all),
        ("192.0.2.7", &[BOB], check(true, Enforcement::Monitor, &[]), None, all),
        ("192.0.2.7", &[BOB], check(true, enforce, &["good", "zen"]), None, &["zen", "good"]),
        ("192.0.2.7", &[BOB], check(false, enforce, &[]), None, none),
        // Another domain of the same call may want them.
        ("192.0.2.7", &[BOB, "bob@other.example"], check(false, enforce, &[]), None, all),
        ("192.0.2.7", &["bob@elsewhere.example"], check(true, enforce, &[]), None, none),
        ("192.0.2.7", &["bob@gone.example"], check(true, enforce, &[]), None, none),
        ("192.0.2.7", &["Postmaster"], check(true, enforce, &[]), None, none),
        // No sender on the internet has this address, unless a range says so.
        ("10.1.2.3", &[BOB], check(true, enforce, &[]), None, none),
        ("10.1.2.3", &[BOB], check(true, enforce, &[]), range(RangeAction::Check, None), all),
        ("192.0.2.7", &[BOB], check(true, enforce, &[]), range(RangeAction::Allow, None), none),
        ("192.0.2.7", &[BOB], check(true, enforce, &[]), range(RangeAction::Reject, None), none),
        ("192.0.2.7", &[BOB], check(true, enforce, &[]), range(RangeAction::Defer, Some(true)), none),
        ("192.0.2.7", &[BOB], check(true, enforce, &[]), range(RangeAction::Check, Some(false)), none),
        ("192.0.2.7", &[BOB], check(false, enforce, &[]), range(RangeAction::Check, Some(true)), all),
    ] {
        let domain = Domain { dns_lists: domain_check.clone(), ..mk_domain() };
        let policy = with_lists(domain, |gateway| gateway.ranges = RangeTable::new(ranges.clone()));
        let case = Case { client, ..Case::default() };
        let mailboxes = mk_mailboxes(recipients);
        let screening = screen(&policy, &case.facts(&mailboxes), NOW);
        assert_eq!(screening.wanted_lists(&policy), wanted, "{client} {recipients:?} {domain_check:?}");
    }
    let bare = mk_policy(mk_domain(), |_| {});
    let mailboxes = mk_mailboxes(&[BOB]);
    let screening = screen(&bare, &Case::default().facts(&mailboxes), NOW);
    assert!(screening.wanted_lists(&bare).is_empty());
}

#[test]
fn denied_and_allowed_senders_are_no_matter_of_lists() {
    for (allow, deny) in [(&["*@sender.example"][..], &[][..]), (&[], &["*@sender.example"])] {
        let mut domain = mk_domain();
        domain.senders.allow = mk_senders(allow);
        domain.senders.deny = mk_senders(deny);
        let policy = with_lists(domain, |_| {});
        let mailboxes = mk_mailboxes(&[BOB]);
        let screening = screen(&policy, &Case::default().facts(&mailboxes), NOW);
        assert!(screening.wanted_lists(&policy).is_empty());
    }
}
