mod connection;
mod listed;

use std::collections::HashMap;
use std::time::Duration;

use torwart_core::{CheckOutcome, ClassDigest, Keyword, ListenerTls, Revision, RouteDigest};

use super::*;
use crate::domains::DomainPattern;
use crate::greylist::judge as judge_record;
use crate::model::{
    DnsListsCheck, Gateway, GreylistMode, Greylisting, RecipientLists, Scoring, SenderEntry, SenderLists,
};
use crate::patterns::AddressPattern;
use crate::{DomainTable, RangeTable};

const NOW: i64 = 1_800_000_000;
const CLIENT: &str = "192.0.2.77";

fn mk_domain() -> Domain {
    Domain {
        object: "mail/example-org".into(),
        enforcement: Enforcement::Enforce,
        route: RouteDigest([1; 16]),
        class: ClassDigest([2; 16]),
        greylisting: Greylisting {
            mode: GreylistMode::Suspicious,
            delay: Duration::from_secs(300),
            retry_window: Duration::from_secs(48 * 3600),
            pass_ttl: Duration::from_secs(36 * 24 * 3600),
            auto_pass_after: 5,
            prefix_ipv4: 24,
            prefix_ipv6: 64,
            pool_identity: true,
            exempt_recipients: vec!["postmaster".into(), "abuse".into()],
            accept_on_store_failure: true,
        },
        ranges: RangeTable::default(),
        senders: SenderLists::default(),
        recipients: RecipientLists::default(),
        dns_lists: DnsListsCheck { enabled: true, enforcement: Enforcement::Enforce, only: Vec::new() },
        scoring: Scoring { tag_at: 4.0, greylist_at: 2.0, reject_at: 10.0 },
        message_size: 1000,
        max_recipients: 100,
    }
}

fn mk_policy(domain: Domain, gateway: impl FnOnce(&mut Gateway)) -> Policy {
    let parse = |text: &str| DomainPattern::parse(text).unwrap();
    let other = Domain { object: "mail/other".into(), ..mk_domain() };
    let (domain, other) = (Arc::new(domain), Arc::new(other));
    let known = [
        (parse("example.org"), Arc::clone(&domain)),
        (parse("*.lists.example.org"), domain),
        (parse("other.example"), other),
    ];
    let mut policy = Policy {
        revision: Revision("r1".into()),
        gateway: Gateway {
            hostname: "mx.example.net".into(),
            postmaster: Some(Mailbox::new("root", "example.org")),
            enforcement: Enforcement::Enforce,
            removal_grace: Duration::from_secs(86400),
            greet_delay: Duration::ZERO,
            ranges: RangeTable::default(),
            senders: SenderLists::default(),
            dns_lists: Vec::new(),
        },
        domains: DomainTable::new(
            known,
            [parse("held.example")],
            [(parse("gone.example"), NOW + 100), (parse("long-gone.example"), NOW)],
        ),
        routes: HashMap::new(),
        asks_connections: false,
        incomplete: false,
    };
    gateway(&mut policy.gateway);
    policy
}

fn mk_ranges(ranges: &[(&str, RangeAction)]) -> RangeTable {
    RangeTable::new(ranges.iter().map(|(cidr, action)| {
        let range = Range {
            name: "r".into(),
            action: *action,
            priority: 0,
            expires: None,
            tls: None,
            hidden: Vec::new(),
            dns_lists: None,
            greylisting: None,
        };
        (range, vec![cidr.parse().unwrap()])
    }))
}

fn mk_senders(patterns: &[&str]) -> Vec<SenderEntry> {
    let entry = |pattern: &&str| SenderEntry {
        pattern: AddressPattern::parse_sender(pattern).unwrap(),
        clients: Vec::new(),
        expires: None,
    };
    patterns.iter().map(entry).collect()
}

fn mk_mailboxes(recipients: &[&str]) -> Vec<Mailbox> {
    recipients
        .iter()
        .map(|text| text.rsplit_once('@').map_or(Mailbox::new(*text, ""), |(l, d)| Mailbox::new(l, d)))
        .collect()
}

struct Case {
    sender: Option<Mailbox>,
    client: &'static str,
    size: Option<u64>,
    encrypted: bool,
    accepted_before: u32,
    checks: Vec<CheckResult>,
    dns_lists: Vec<ListFinding>,
    verified: Vec<Identity>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            sender: Some(Mailbox::new("anna", "sender.example")),
            client: CLIENT,
            size: None,
            encrypted: false,
            accepted_before: 0,
            checks: Vec::new(),
            dns_lists: Vec::new(),
            verified: Vec::new(),
        }
    }
}

impl Case {
    fn facts<'a>(&'a self, recipients: &'a [Mailbox]) -> Facts<'a> {
        Facts {
            client: self.client.parse().unwrap(),
            encrypted: self.encrypted,
            helo: Some("mx.sender.example"),
            sender: self.sender.as_ref(),
            declared_size: self.size,
            recipients,
            accepted_before: self.accepted_before,
            checks: &self.checks,
            dns_lists: &self.dns_lists,
            verified: &self.verified,
            own_addresses: &[],
        }
    }

    /// The answer of a greylist that has seen nothing before.
    fn ask(&self, policy: &Policy, recipients: &[&str]) -> torwart_core::RecipientsAnswer {
        self.ask_with(policy, recipients, |group| {
            Some(GreylistWord::Judged(judge_record(None, 1_800_000_000, &group.params).judged))
        })
    }

    fn ask_with(
        &self,
        policy: &Policy,
        recipients: &[&str],
        greylist: impl Fn(&Group<'_>) -> Option<GreylistWord>,
    ) -> torwart_core::RecipientsAnswer {
        let mailboxes = mk_mailboxes(recipients);
        let facts = self.facts(&mailboxes);
        let screening = screen(policy, &facts, NOW);
        let mut words = vec![None; mailboxes.len()];
        for group in screening.groups(&facts) {
            for member in &group.members {
                words[*member] = greylist(&group);
            }
        }
        judge(policy, &facts, &screening, &words)
    }

    /// In one line: the code or `ok`, the reason, the greylist's word, and what Monitor would have done.
    fn shown(&self, policy: &Policy, recipient: &str) -> String {
        let answer = self.ask(policy, &[recipient]);
        let verdict = &answer.recipients[0];
        assert!(verdict.score.is_sign_positive());
        assert_eq!(verdict.action == Action::Accept, verdict.reply.is_none());
        let routed = verdict.action == Action::Accept || verdict.reason == Reason::Greylisted;
        assert_eq!(routed, verdict.route.is_some());
        let code = verdict.reply.as_ref().map_or("ok".to_owned(), |reply| {
            let (class, subject, detail) = reply.enhanced;
            assert_eq!(verdict.action == Action::Defer, class == 4);
            format!("{} {class}.{subject}.{detail}", reply.code)
        });
        let mut shown = format!("{code} {}", verdict.reason.as_str());
        if let Some(greylist) = verdict.greylist {
            shown += &format!(" {}", greylist.as_str());
        }
        if let Some(would) = verdict.monitored {
            shown += &format!(" monitored:{} {}", would.action.as_str(), would.reason.as_str());
        }
        if verdict.refuse_data.is_some() {
            shown += " at-data";
        }
        shown
    }
}

fn plain(recipient: &str) -> String {
    Case::default().shown(&mk_policy(mk_domain(), |_| {}), recipient)
}

#[test]
fn the_recipients_address_alone_decides_first() {
    for (recipient, shown) in [
        ("bob@example.org", "450 4.2.0 greylisted new"),
        ("Bob@EXAMPLE.ORG", "450 4.2.0 greylisted new"),
        ("bob@a.lists.example.org", "450 4.2.0 greylisted new"),
        ("bob@elsewhere.example", "550 5.7.1 unknown_domain"),
        ("bob@sub.example.org", "550 5.7.1 unknown_domain"),
        ("bob@[192.0.2.1]", "550 5.7.1 unknown_domain"),
        ("bob@example.org.", "550 5.7.1 unknown_domain"),
        ("bob@gone.example", "451 4.3.5 removed_domain"),
        ("bob@long-gone.example", "550 5.7.1 unknown_domain"),
        ("bob@held.example", "451 4.3.5 policy_unavailable"),
        ("bob%elsewhere.example@example.org", "553 5.1.3 recipient_routed"),
        ("elsewhere.example!bob@example.org", "553 5.1.3 recipient_routed"),
        ("\"bob@elsewhere.example\"@example.org", "553 5.1.3 recipient_routed"),
        ("\"bob\\@elsewhere.example\"@example.org", "553 5.1.3 recipient_routed"),
        ("bob%elsewhere.example@elsewhere.example", "550 5.7.1 unknown_domain"),
        ("\"bob smith\"@example.org", "450 4.2.0 greylisted new"),
        ("postmaster@example.org", "ok accepted exempt"),
        ("PostMaster@example.org", "ok accepted exempt"),
        ("\"postmaster\"@example.org", "ok accepted exempt"),
        ("abuse@a.lists.example.org", "ok accepted exempt"),
        ("Postmaster", "ok accepted exempt"),
        ("bob", "550 5.7.1 unknown_domain"),
    ] {
        assert_eq!(plain(recipient), shown, "{recipient}");
    }
}

#[test]
fn the_bare_postmaster_goes_to_the_gateways_postmaster() {
    let policy = mk_policy(mk_domain(), |_| {});
    let answer = Case::default().ask(&policy, &["POSTMASTER"]);
    assert_eq!(answer.recipients[0].deliver_to, Some(Mailbox::new("root", "example.org")));
    let none = mk_policy(mk_domain(), |gateway| gateway.postmaster = None);
    assert_eq!(Case::default().shown(&none, "postmaster"), "451 4.3.5 policy_unavailable");
    let elsewhere = mk_policy(mk_domain(), |gateway| {
        gateway.postmaster = Some(Mailbox::new("root", "elsewhere.example"));
    });
    assert_eq!(Case::default().shown(&elsewhere, "postmaster"), "451 4.3.5 policy_unavailable");
}

#[test]
fn routed_local_parts_may_be_allowed() {
    let mut domain = mk_domain();
    domain.recipients.allow_routed_local_parts = true;
    assert_eq!(
        Case::default().shown(&mk_policy(domain, |_| {}), "a%b@example.org"),
        "450 4.2.0 greylisted new"
    );
}

#[test]
fn a_gateways_refusing_range_stands_and_a_domains_match_replaces_the_rest() {
    use RangeAction::{Allow, Check, Defer, Reject};
    let refused = "550 5.7.1 ip_range";
    let deferred = "450 4.7.1 ip_range";
    let greylisted = "450 4.2.0 greylisted new";
    let trusted = "ok ip_range exempt";
    for (gateway_range, domain_range, shown) in [
        (None, None, greylisted),
        (Some(Reject), None, refused),
        (Some(Reject), Some(Allow), refused),
        (Some(Defer), None, deferred),
        (Some(Defer), Some(Allow), deferred),
        (Some(Allow), None, trusted),
        (Some(Allow), Some(Check), greylisted),
        (Some(Allow), Some(Reject), refused),
        (Some(Check), Some(Allow), trusted),
        (None, Some(Allow), trusted),
        (None, Some(Defer), deferred),
        (None, Some(Reject), refused),
    ] {
        let table = |action: Option<RangeAction>| {
            action.map_or_else(RangeTable::default, |action| mk_ranges(&[("192.0.2.0/24", action)]))
        };
        let domain = Domain { ranges: table(domain_range), ..mk_domain() };
        let policy = mk_policy(domain, |gateway| gateway.ranges = table(gateway_range));
        let case = Case::default();
        assert_eq!(case.shown(&policy, "bob@example.org"), shown, "{gateway_range:?} {domain_range:?}");
        assert_eq!(case.shown(&policy, "bob@elsewhere.example"), "550 5.7.1 unknown_domain");
        let other = Case { client: "203.0.113.1", ..Case::default() };
        assert_eq!(other.shown(&policy, "bob@example.org"), greylisted);
        let mapped = Case { client: "::ffff:192.0.2.77", ..Case::default() };
        assert_eq!(mapped.shown(&policy, "bob@example.org"), shown);
    }
}

#[test]
fn recipient_lists_say_who_exists() {
    let patterns = |texts: &[&str]| {
        texts.iter().map(|text| AddressPattern::parse_recipient(text).unwrap()).collect::<Vec<_>>()
    };
    let lists = |accept: &[&str], deny: &[&str], exempt: &[&str]| {
        let recipients = RecipientLists {
            accept: patterns(accept),
            deny: patterns(deny),
            exempt: patterns(exempt),
            allow_routed_local_parts: false,
        };
        mk_policy(Domain { recipients, ..mk_domain() }, |gateway| {
            gateway.senders.deny = mk_senders(&["*@spam.example"]);
        })
    };
    let spammer = Case { sender: Some(Mailbox::new("x", "spam.example")), ..Case::default() };
    let case = Case::default();
    let some = lists(&["bob@example.org"], &[], &[]);
    assert_eq!(case.shown(&some, "bob@example.org"), "450 4.2.0 greylisted new");
    assert_eq!(case.shown(&some, "eve@example.org"), "550 5.1.1 recipient_denied");
    assert_eq!(case.shown(&some, "postmaster@example.org"), "ok accepted exempt");
    assert_eq!(case.shown(&some, "Postmaster"), "ok accepted exempt");
    let but = lists(&["*@example.org"], &["eve@example.org"], &[]);
    assert_eq!(case.shown(&but, "eve@example.org"), "550 5.1.1 recipient_denied");
    assert_eq!(case.shown(&but, "bob@example.org"), "450 4.2.0 greylisted new");
    let free = lists(&[], &[], &["bob@example.org"]);
    assert_eq!(spammer.shown(&free, "bob@example.org"), "ok accepted exempt");
    assert_eq!(spammer.shown(&free, "carl@example.org"), "550 5.7.1 sender_denied");
    // Trust of an address makes nobody exist.
    let mut trusting = lists(&[], &["eve@example.org"], &[]);
    trusting.gateway.ranges = mk_ranges(&[("192.0.2.0/24", RangeAction::Allow)]);
    assert_eq!(case.shown(&trusting, "eve@example.org"), "550 5.1.1 recipient_denied");
    assert_eq!(spammer.shown(&trusting, "bob@example.org"), "ok ip_range exempt");
}

#[test]
fn sender_lists_of_two_levels_are_weighed_like_ranges() {
    let allowed = "ok sender_allowed exempt";
    let denied = "550 5.7.1 sender_denied";
    let neither = "450 4.2.0 greylisted new";
    let all: &[&str] = &["*@sender.example"];
    let anna: &[&str] = &["anna@sender.example"];
    let none: &[&str] = &[];
    for (gateway_allow, gateway_deny, allow, deny, shown) in [
        (none, none, none, none, neither),
        (none, all, none, none, denied),
        (none, all, anna, none, denied),
        (anna, all, none, none, allowed),
        (all, none, none, anna, denied),
        (none, none, anna, all, allowed),
        (none, none, none, all, denied),
        (all, none, none, none, allowed),
    ] {
        let senders = SenderLists { allow: mk_senders(allow), deny: mk_senders(deny) };
        let policy = mk_policy(Domain { senders, ..mk_domain() }, |gateway| {
            gateway.senders =
                SenderLists { allow: mk_senders(gateway_allow), deny: mk_senders(gateway_deny) };
        });
        let row = (gateway_allow, gateway_deny, allow, deny);
        assert_eq!(Case::default().shown(&policy, "bob@example.org"), shown, "{row:?}");
    }
}

#[test]
fn an_allowed_sender_must_come_from_its_clients_and_in_time() {
    let policy = |clients: &[&str], expires| {
        let mut allow = mk_senders(&["*@sender.example"]);
        allow[0].clients = clients.iter().map(|net| net.parse().unwrap()).collect();
        allow[0].expires = expires;
        mk_policy(Domain { senders: SenderLists { allow, deny: Vec::new() }, ..mk_domain() }, |_| {})
    };
    let shown = |policy| Case::default().shown(&policy, "bob@example.org");
    assert_eq!(shown(policy(&["192.0.2.0/24"], Some(NOW + 1))), "ok sender_allowed exempt");
    assert_eq!(shown(policy(&["203.0.113.0/24"], None)), "450 4.2.0 greylisted new");
    assert_eq!(shown(policy(&[], Some(NOW))), "450 4.2.0 greylisted new");
}

#[test]
fn a_declared_size_beyond_the_domains_limit_is_refused() {
    let policy = mk_policy(mk_domain(), |_| {});
    let case = |size| Case { size: Some(size), ..Case::default() };
    assert_eq!(case(1001).shown(&policy, "postmaster@example.org"), "552 5.3.4 message_too_large");
    assert_eq!(case(1000).shown(&policy, "postmaster@example.org"), "ok accepted exempt");
}

#[test]
fn recipients_beyond_the_domains_limit_come_again() {
    let domain = Domain { max_recipients: 3, ..mk_domain() };
    let policy = mk_policy(domain, |_| {});
    let case = Case { accepted_before: 1, ..Case::default() };
    let names =
        ["postmaster@example.org", "no@elsewhere.example", "abuse@example.org", "abuse@a.lists.example.org"];
    let answer = case.ask(&policy, &names);
    let reasons: Vec<_> = answer.recipients.iter().map(|verdict| verdict.reason.as_str()).collect();
    assert_eq!(reasons, ["accepted", "unknown_domain", "accepted", "too_many_recipients"]);
    assert_eq!(answer.recipients[3].reply.as_ref().map(|reply| reply.code), Some(452));
}

#[test]
fn monitor_lets_pass_what_it_judges_but_never_relays() {
    let mut domain = mk_domain();
    domain.recipients.deny = vec![AddressPattern::parse_recipient("eve@example.org").unwrap()];
    domain.max_recipients = 3;
    let by_gateway = mk_policy(domain, |gateway| {
        gateway.enforcement = Enforcement::Monitor;
        gateway.ranges = mk_ranges(&[("203.0.113.0/24", RangeAction::Reject)]);
        gateway.senders.deny = mk_senders(&["*@spam.example"]);
    });
    let by_domain = mk_policy(Domain { enforcement: Enforcement::Monitor, ..mk_domain() }, |_| {});
    let case = Case::default();
    assert_eq!(case.shown(&by_domain, "bob@example.org"), "ok accepted new monitored:defer greylisted");
    assert_eq!(case.shown(&by_gateway, "bob@example.org"), "ok accepted new monitored:defer greylisted");
    assert_eq!(case.shown(&by_gateway, "bob@other.example"), "ok accepted new monitored:defer greylisted");
    assert_eq!(case.shown(&by_domain, "bob@other.example"), "450 4.2.0 greylisted new");
    assert_eq!(case.shown(&by_gateway, "eve@example.org"), "ok accepted monitored:reject recipient_denied");
    let spammer = Case { sender: Some(Mailbox::new("x", "spam.example")), ..Case::default() };
    assert_eq!(spammer.shown(&by_gateway, "bob@example.org"), "ok accepted monitored:reject sender_denied");
    let banned = Case { client: "203.0.113.9", ..Case::default() };
    assert_eq!(banned.shown(&by_gateway, "bob@example.org"), "ok accepted monitored:reject ip_range");
    let null = Case { sender: None, ..Case::default() };
    assert_eq!(null.shown(&by_gateway, "bob@example.org"), "ok accepted new monitored:defer greylisted");
    assert_eq!(case.shown(&by_gateway, "bob@elsewhere.example"), "550 5.7.1 unknown_domain");
    assert_eq!(case.shown(&by_gateway, "a%b@example.org"), "553 5.1.3 recipient_routed");
    assert_eq!(case.shown(&by_gateway, "bob@gone.example"), "451 4.3.5 removed_domain");
    let big = Case { size: Some(1001), ..Case::default() };
    assert_eq!(big.shown(&by_gateway, "bob@example.org"), "552 5.3.4 message_too_large");
    let many = Case { accepted_before: 3, ..Case::default() };
    assert_eq!(many.shown(&by_gateway, "bob@example.org"), "452 4.5.3 too_many_recipients new");
}

#[test]
fn a_client_that_cannot_be_on_the_internet_neither_uses_nor_feeds_the_greylist() {
    let policy = mk_policy(mk_domain(), |gateway| {
        gateway.ranges = mk_ranges(&[("10.1.0.0/16", RangeAction::Check)]);
    });
    let recipients = mk_mailboxes(&["bob@example.org"]);
    for (client, shown, learns, suspect) in [
        ("192.0.2.77", "450 4.2.0 greylisted new", true, false),
        ("127.0.0.1", "450 4.2.0 greylisted new", true, false),
        ("10.0.0.1", "ok accepted exempt", false, true),
        ("100.64.9.9", "ok accepted exempt", false, true),
        ("10.1.2.3", "450 4.2.0 greylisted new", true, false),
    ] {
        let case = Case { client, ..Case::default() };
        assert_eq!(case.shown(&policy, "bob@example.org"), shown, "{client}");
        let facts = case.facts(&recipients);
        assert_eq!(!lessons(&policy, &facts, 0.0, NOW).is_empty(), learns, "{client}");
        let screening = screen(&policy, &facts, NOW);
        assert_eq!(screening.suspect, suspect, "{client}");
        assert_eq!(screening.identity(&facts).is_none(), suspect, "{client}");
    }
}

#[test]
fn the_null_sender_is_deferred_at_data() {
    let policy = mk_policy(mk_domain(), |_| {});
    let null = Case { sender: None, ..Case::default() };
    assert_eq!(null.shown(&policy, "bob@example.org"), "ok greylisted new at-data");
    assert_eq!(null.shown(&policy, "postmaster@example.org"), "ok accepted exempt");
    assert_eq!(null.ask(&policy, &["bob@example.org"]).identity.as_deref(), Some("helo:sender.example"));
    assert_eq!(
        Case::default().ask(&policy, &["bob@example.org"]).identity.as_deref(),
        Some("network:192.0.2.0/24")
    );
}

#[test]
fn modes_say_when_there_is_greylisting() {
    let mk_check = |score| CheckResult {
        name: "spf".into(),
        result: CheckOutcome::Fail,
        score,
        detail: "".into(),
        milliseconds: 1,
    };
    let spf = || vec![Identity::Spf("sender.example".into())];
    for (mode, verified, score, sender, shown) in [
        (GreylistMode::Suspicious, vec![], 0.0, true, "450 4.2.0 greylisted new"),
        (GreylistMode::Suspicious, spf(), 0.0, true, "ok accepted not_suspicious"),
        (GreylistMode::Suspicious, spf(), 1.9, true, "ok accepted not_suspicious"),
        (GreylistMode::Suspicious, spf(), 2.0, true, "450 4.2.0 greylisted new"),
        (GreylistMode::Suspicious, spf(), 10.0, true, "550 5.7.1 score"),
        (GreylistMode::Suspicious, spf(), 0.0, false, "ok greylisted new at-data"),
        (GreylistMode::Always, spf(), 0.0, true, "450 4.2.0 greylisted new"),
        (GreylistMode::Off, vec![], 9.0, true, "ok accepted exempt"),
    ] {
        let mut domain = mk_domain();
        domain.greylisting.mode = mode;
        let case = Case {
            sender: sender.then(|| Mailbox::new("anna", "sender.example")),
            checks: vec![mk_check(score)],
            verified,
            ..Case::default()
        };
        let shown_now = case.shown(&mk_policy(domain, |_| {}), "bob@example.org");
        assert_eq!(shown_now, shown, "{mode:?} {score}");
    }
}

#[test]
fn a_range_may_switch_greylisting_for_its_clients() {
    let range = Range {
        name: "partners".into(),
        action: RangeAction::Check,
        priority: 0,
        expires: None,
        tls: None,
        hidden: Vec::new(),
        dns_lists: None,
        greylisting: Some(GreylistMode::Off),
    };
    let ranges = RangeTable::new([(range, vec!["192.0.2.0/24".parse().unwrap()])]);
    let policy = mk_policy(Domain { ranges, ..mk_domain() }, |_| {});
    assert_eq!(Case::default().shown(&policy, "bob@example.org"), "ok accepted exempt");
    let other = Case { client: "203.0.113.1", ..Case::default() };
    assert_eq!(other.shown(&policy, "bob@example.org"), "450 4.2.0 greylisted new");
}

#[test]
fn a_store_that_fails_passes_the_mail_or_defers_it_as_the_domain_says() {
    let mut domain = mk_domain();
    let failed = |policy: &Policy| {
        let answer = Case::default().ask_with(policy, &["bob@example.org"], |_| Some(GreylistWord::Failed));
        let verdict = answer.recipients[0].clone();
        (verdict.action, verdict.greylist, verdict.reply.map(|reply| reply.code))
    };
    let policy = mk_policy(mk_domain(), |_| {});
    assert_eq!(failed(&policy), (Action::Accept, Some(Greylist::StoreFailure), None));
    domain.greylisting.accept_on_store_failure = false;
    let policy = mk_policy(domain, |_| {});
    assert_eq!(failed(&policy), (Action::Defer, Some(Greylist::StoreFailure), Some(451)));
}

#[test]
fn recipients_are_grouped_by_mail_domain_and_exempt_ones_stand_alone() {
    let policy = mk_policy(mk_domain(), |_| {});
    let recipients = mk_mailboxes(&[
        "a@example.org",
        "b@other.example",
        "postmaster@example.org",
        "c@EXAMPLE.org",
        "d@elsewhere.example",
        "e@x.lists.example.org",
        "f@y.lists.example.org",
    ]);
    let case = Case::default();
    let facts = case.facts(&recipients);
    let screening = screen(&policy, &facts, NOW);
    let groups: Vec<_> = screening
        .groups(&facts)
        .into_iter()
        .map(|group| (group.target.pattern.to_string(), group.members))
        .collect();
    assert_eq!(
        groups,
        [
            ("example.org".to_owned(), vec![0, 3]),
            ("other.example".to_owned(), vec![1]),
            ("*.lists.example.org".to_owned(), vec![5, 6]),
        ]
    );
}

#[test]
fn trust_is_earned_by_good_mail_of_a_sender_to_a_recipient_that_is_not_exempt() {
    let policy = mk_policy(mk_domain(), |gateway| gateway.senders.deny = mk_senders(&["*@spam.example"]));
    let off = mk_policy(
        Domain {
            greylisting: Greylisting { mode: GreylistMode::Off, ..mk_domain().greylisting },
            ..mk_domain()
        },
        |_| {},
    );
    let taught = |policy: &Policy, sender: Option<&str>, recipients: &[&str], score| {
        let sender = sender.map(|domain| Mailbox::new("anna", domain));
        let recipients = mk_mailboxes(recipients);
        let case = Case { sender, ..Case::default() };
        let lessons = lessons(policy, &case.facts(&recipients), score, NOW);
        lessons.iter().map(|lesson| (lesson.group.members.clone(), lesson.trust)).collect::<Vec<_>>()
    };
    let someone = Some("sender.example");
    assert_eq!(taught(&policy, someone, &["bob@example.org"], 3.9), [(vec![0], true)]);
    assert_eq!(taught(&policy, someone, &["bob@example.org"], 4.0), [(vec![0], false)]);
    assert_eq!(taught(&policy, None, &["bob@example.org"], 0.0), [(vec![0], false)]);
    assert_eq!(taught(&policy, someone, &["abuse@example.org"], 0.0), [(vec![0], false)]);
    assert_eq!(
        taught(&policy, someone, &["abuse@example.org", "bob@example.org"], 0.0),
        [(vec![0, 1], true)]
    );
    assert_eq!(taught(&off, someone, &["bob@example.org"], 0.0), [(vec![0], true)]);
    assert_eq!(taught(&policy, Some("spam.example"), &["bob@example.org"], 0.0), []);
    assert_eq!(taught(&policy, someone, &["bob@elsewhere.example"], 0.0), []);
}
