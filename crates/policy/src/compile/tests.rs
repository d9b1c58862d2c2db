//! Objects in YAML, since that is what people see.

mod claims;
mod deferred;
mod dns_lists;
pub(crate) mod tenancy;

use proptest::prelude::*;
use torwart_api::yaml;

use super::*;
use crate::inputs::Object;
use crate::model::{DomainMatch, Enforcement, GreylistMode};

pub(crate) const GATEWAY: &str = "apiVersion: torwart.dev/v1alpha1\nkind: MailGateway\nmetadata: {name: default}\nspec: {hostname: mx.example.net}\n";

/// 2026-12-01.
pub(crate) const NOW: i64 = 1_796_083_200;
const DAY: i64 = 86_400;

pub(crate) fn mk_domain(name: &str, domains: &[&str], more: &str) -> String {
    mk_domain_in("mail", name, domains, more)
}

pub(crate) fn mk_domain_in(namespace: &str, name: &str, domains: &[&str], more: &str) -> String {
    format!(
        "apiVersion: torwart.dev/v1alpha1\nkind: MailDomain\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  domains: {domains:?}\n  route: {{upstreams: [{{host: mail.{namespace}.svc}}]}}\n{more}"
    )
}

pub(crate) fn mk_objects(text: &str) -> Vec<Object> {
    let loaded = yaml::load("test.yaml", text);
    assert_eq!(loaded.mistakes, vec![]);
    loaded.documents.into_iter().map(|document| document.manifest.unwrap().into()).collect()
}

pub(crate) fn mk_inputs(text: &str, last: Option<&Compilation>) -> Inputs {
    let last = last.and_then(|last| last.snapshot.clone());
    Inputs { objects: mk_objects(text), last, now: NOW, ..Inputs::default() }
}

pub(crate) fn mk_policy(domains: &str) -> Policy {
    let compilation = compile(&mk_inputs(&format!("{GATEWAY}{domains}"), None));
    assert!(compilation.is_clean(), "{:#?}", compilation.outcomes);
    compilation.policy.unwrap()
}

fn mk_files(domains: &[String]) -> String {
    domains.iter().fold(GATEWAY.to_owned(), |text, domain| format!("{text}---\n{domain}"))
}

fn state(compilation: &Compilation, name: &str) -> State {
    compilation.outcomes[&ObjectRef::domain("mail", name)].state
}

fn object_of(compilation: &Compilation, domain: &str) -> Option<String> {
    match compilation.policy.as_ref()?.domains.find(domain, NOW) {
        DomainMatch::Known { domain, .. } => Some(domain.object.to_string()),
        DomainMatch::Removed { until } => Some(format!("until {}", until - NOW)),
        DomainMatch::Held => Some("held".to_owned()),
        DomainMatch::Unknown => None,
    }
}

fn known<'p>(policy: &'p Policy, name: &str) -> &'p Arc<Domain> {
    match policy.domains.find(name, NOW) {
        DomainMatch::Known { domain, .. } => domain,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_nobody_says_is_built_in() {
    let policy = mk_policy(&format!("---\n{}", mk_domain("a", &["a.example"], "")));
    let domain = known(&policy, "a.example");
    assert_eq!(domain.enforcement, Enforcement::Enforce);
    assert_eq!((domain.message_size, domain.max_recipients), (50 << 20, 100));
    let greylisting = &domain.greylisting;
    assert_eq!(greylisting.mode, GreylistMode::Suspicious);
    assert_eq!(
        [greylisting.delay, greylisting.retry_window, greylisting.pass_ttl].map(|d| d.as_secs()),
        [300, 172_800, 3_110_400]
    );
    assert_eq!((greylisting.prefix_ipv4, greylisting.prefix_ipv6, greylisting.auto_pass_after), (24, 64, 5));
    assert_eq!(greylisting.exempt_recipients, ["postmaster".into(), "abuse".into()]);
    assert!(greylisting.accept_on_store_failure && greylisting.pool_identity);
    let route = &policy.routes[&domain.route];
    assert_eq!(route.upstreams[0].to_string(), "mail.mail.svc:25");
    assert_eq!((route.upstreams[0].weight, route.upstreams[0].max_connections), (1, 20));
    assert_eq!(route.tls.mode, torwart_core::TlsMode::Opportunistic);
    assert_eq!(policy.gateway.removal_grace.as_secs(), 86_400);
}

#[test]
fn a_field_is_the_domains_else_the_gateways_else_built_in() {
    let gateway = GATEWAY.replace(
        "{hostname: mx.example.net}",
        "{hostname: mx.example.net, defaults: {greylisting: {delay: 1m, mode: Always}, limits: {recipients: 7}, scoring: {tagAt: 3}}}",
    );
    let domain = mk_domain("a", &["a.example"], "  greylisting: {delay: 2m}\n  scoring: {rejectAt: 8}\n");
    let policy = compile(&mk_inputs(&format!("{gateway}---\n{domain}"), None)).policy.unwrap();
    let domain = known(&policy, "a.example");
    assert_eq!(domain.greylisting.delay.as_secs(), 120);
    assert_eq!(domain.greylisting.mode, GreylistMode::Always);
    assert_eq!(domain.max_recipients, 7);
    assert_eq!(
        (domain.scoring.tag_at, domain.scoring.greylist_at, domain.scoring.reject_at),
        (3.0, 2.0, 8.0)
    );
}

#[test]
fn equal_policy_on_equal_upstreams_shares_a_class() {
    let policy = mk_policy(&format!(
        "---\n{}---\n{}---\n{}---\n{}",
        mk_domain("a", &["a.example"], ""),
        mk_domain("b", &["b.example"], "  greylisting: {mode: Off}\n"),
        mk_domain("c", &["c.example"], "  scoring: {rejectAt: 9}\n"),
        mk_domain_in("other", "d", &["d.example"], ""),
    ));
    let [a, b, c, d] = ["a.example", "b.example", "c.example", "d.example"].map(|name| known(&policy, name));
    assert_eq!((a.route, a.class), (b.route, b.class));
    assert_eq!(a.route, c.route);
    assert_ne!(a.class, c.class);
    assert_ne!(a.route, d.route);
    assert_ne!(a.class, d.class);
    assert_eq!(policy.routes.len(), 2);
}

#[test]
fn a_bad_object_keeps_its_last_good_form_and_the_good_ones_apply() {
    let first = compile(&mk_inputs(
        &mk_files(&[mk_domain("a", &["a.example"], ""), mk_domain("b", &["b.example"], "")]),
        None,
    ));
    let bad = mk_domain("a", &["a.example", "co.uk"], "");
    let second = compile(&mk_inputs(&mk_files(&[bad, mk_domain("b", &["new.example"], "")]), Some(&first)));
    assert_eq!(state(&second, "a"), State::Kept);
    assert_eq!(state(&second, "b"), State::Accepted);
    assert_eq!(object_of(&second, "a.example").as_deref(), Some("mail/a"));
    assert_eq!(object_of(&second, "new.example").as_deref(), Some("mail/b"));
    assert_eq!(second.snapshot.unwrap().domains.len(), 2);
}

#[test]
fn an_object_that_was_never_good_is_nowhere() {
    let compilation = compile(&mk_inputs(
        &mk_files(&[mk_domain("a", &["co.uk"], ""), mk_domain("b", &["b.example"], "")]),
        None,
    ));
    assert_eq!(state(&compilation, "a"), State::Rejected);
    assert_eq!(compilation.policy.unwrap().domains.len(), 1);
}

#[test]
fn a_bad_gateway_keeps_its_last_good_form() {
    let domain = mk_domain("a", &["a.example"], "");
    let first = compile(&mk_inputs(&format!("{GATEWAY}---\n{domain}"), None));
    let bad = GATEWAY.replace("mx.example.net", "mx");
    let second = compile(&mk_inputs(&format!("{bad}---\n{domain}"), Some(&first)));
    assert_eq!(second.outcomes[&ObjectRef::gateway("default")].state, State::Kept);
    assert_eq!(&*second.policy.unwrap().gateway.hostname, "mx.example.net");
}

#[test]
fn a_gateway_deleted_by_mistake_stays_and_is_missed() {
    let domain = mk_domain("a", &["a.example"], "");
    let first = compile(&mk_inputs(&format!("{GATEWAY}---\n{domain}"), None));
    let second = compile(&mk_inputs(&domain, Some(&first)));
    assert!(second.policy.is_some());
    assert_eq!(second.problems.len(), 1);
}

#[test]
fn without_a_gateway_there_is_no_policy_but_every_mistake() {
    let compilation = compile(&mk_inputs(&mk_domain("a", &["co.uk"], ""), None));
    assert!(compilation.policy.is_none() && compilation.snapshot.is_none());
    assert_eq!(compilation.problems.len(), 1);
    assert_eq!(compilation.outcomes[&ObjectRef::domain("mail", "a")].errors.len(), 1);
}

#[test]
fn a_domain_that_left_is_deferred_for_its_grace_and_then_unknown() {
    let both =
        mk_files(&[mk_domain("a", &["a.example"], ""), mk_domain("b", &["b.example", "*.b.example"], "")]);
    let first = compile(&mk_inputs(&both, None));
    let only = mk_files(&[mk_domain("a", &["a.example"], "")]);
    let second = compile(&mk_inputs(&only, Some(&first)));
    assert_eq!(object_of(&second, "b.example").as_deref(), Some("until 86400"));
    assert_eq!(object_of(&second, "x.b.example").as_deref(), Some("until 86400"));

    // An hour later it still ends at the same time.
    let third = compile(&Inputs { now: NOW + 3600, ..mk_inputs(&only, Some(&second)) });
    assert_eq!(object_of(&third, "b.example").as_deref(), Some("until 86400"));
    let later = compile(&Inputs { now: NOW + DAY, ..mk_inputs(&only, Some(&third)) });
    assert_eq!(object_of(&later, "b.example"), None);
    assert!(later.snapshot.as_ref().unwrap().removed.is_empty());

    let back = compile(&mk_inputs(&both, Some(&third)));
    assert_eq!(object_of(&back, "b.example").as_deref(), Some("mail/b"));
    assert!(back.snapshot.as_ref().unwrap().removed.is_empty());
    assert_eq!(back.snapshot.unwrap().revision, first.snapshot.unwrap().revision);
}

fn mk_many(count: usize) -> Vec<String> {
    (0..count).map(|i| mk_domain(&format!("d{i}"), &[&format!("d{i}.example")], "")).collect()
}

#[test]
fn a_plan_that_removes_most_domains_is_held_until_it_is_confirmed() {
    let first = compile(&mk_inputs(&mk_files(&mk_many(20)), None));
    let few = mk_files(&mk_many(9));
    let held = compile(&mk_inputs(&few, Some(&first)));
    let removal = held.mass_removal.clone().unwrap();
    assert_eq!((removal.removed, removal.of), (11, 20));
    assert_eq!(held.policy.as_ref().unwrap().domains.len(), 20);
    assert_eq!(held.snapshot.as_ref().unwrap().revision, first.snapshot.as_ref().unwrap().revision);

    let annotated = few.replacen(
        "{name: default}",
        &format!("{{name: default, annotations: {{{CONFIRM_REMOVAL}: \"{}\"}}}}", removal.confirm),
        1,
    );
    let confirmed = compile(&mk_inputs(&annotated, Some(&held)));
    assert_eq!(confirmed.mass_removal, None);
    assert_eq!(confirmed.policy.as_ref().unwrap().domains.len(), 9);
    assert_eq!(object_of(&confirmed, "d15.example").as_deref(), Some("until 86400"));
}

#[test]
fn what_leaves_little_by_little_counts_together_and_is_asked_about_once() {
    let mut last = compile(&mk_inputs(&mk_files(&mk_many(100)), None));
    last = compile(&mk_inputs(&mk_files(&mk_many(67)), Some(&last)));
    assert_eq!(last.mass_removal, None);
    let few = mk_files(&mk_many(45));
    let held = compile(&mk_inputs(&few, Some(&last)));
    let removal = held.mass_removal.clone().unwrap();
    assert_eq!((removal.removed, removal.of), (55, 100));
    assert_eq!(held.policy.as_ref().unwrap().domains.len(), 67);
    let annotated = |text: &str, confirm: &str| {
        let annotation = format!("{{name: default, annotations: {{{CONFIRM_REMOVAL}: \"{confirm}\"}}}}");
        text.replacen("{name: default}", &annotation, 1)
    };
    let confirmed = compile(&mk_inputs(&annotated(&few, &removal.confirm), Some(&held)));
    assert_eq!(confirmed.mass_removal, None);
    assert_eq!(confirmed.policy.as_ref().unwrap().domains.len(), 45);
    // What was confirmed is not asked about again; what leaves now is a small part of the rest.
    let later = annotated(&mk_files(&mk_many(40)), &removal.confirm);
    let later = compile(&mk_inputs(&later, Some(&confirmed)));
    assert_eq!(later.mass_removal, None);
    // After the grace it is forgotten.
    let at_last = Inputs { now: NOW + 2 * DAY, ..mk_inputs(&mk_files(&mk_many(30)), Some(&later)) };
    assert_eq!(compile(&at_last).mass_removal, None);
}

#[test]
fn half_of_the_domains_or_fewer_than_ten_leave_without_a_question() {
    for (before, after) in [(20, 10), (9, 0), (18, 9)] {
        let first = compile(&mk_inputs(&mk_files(&mk_many(before)), None));
        let second = compile(&mk_inputs(&mk_files(&mk_many(after)), Some(&first)));
        assert_eq!(second.mass_removal, None, "{before} to {after}");
        assert_eq!(second.policy.unwrap().domains.len(), after);
    }
}

#[test]
fn the_banner_is_asked_for_only_if_some_client_hears_another() {
    for (range, wanted) in [
        ("action: Allow", false),
        ("action: Check", false),
        ("action: Reject", true),
        ("action: Defer", true),
        ("tls: Offer", false),
        ("tls: Hide", true),
        ("tls: Require", true),
        ("hideKeywords: []", false),
        ("hideKeywords: [CHUNKING, 8BITMIME]", true),
        (
            "action: Check}], defaults: {checks: {earlyTalker: {greetDelay: 5s}}}, senders: {deny: [{pattern: a@b.example",
            false,
        ),
        (
            "action: Allow}], defaults: {checks: {earlyTalker: {greetDelay: 5s}}}, senders: {deny: [{pattern: a@b.example",
            true,
        ),
    ] {
        let end = if range.contains("senders") { "}]}" } else { "}]" };
        let ranges =
            format!("{{hostname: mx.example.net, ipRanges: [{{name: a, cidrs: [10.0.0.0/8], {range}{end}}}");
        let text = GATEWAY.replace("{hostname: mx.example.net}", &ranges);
        assert_eq!(compile(&mk_inputs(&text, None)).policy.unwrap().asks_connections, wanted, "{range}");
    }
}

#[test]
fn the_greet_delay_is_the_gateways_and_none_where_the_check_is_off() {
    for (check, seconds) in [
        ("{}", 0),
        ("{greetDelay: 5s}", 5),
        ("{enabled: false, greetDelay: 5s}", 0),
        ("{enabled: true, greetDelay: 1m}", 60),
    ] {
        let spec = format!("{{hostname: mx.example.net, defaults: {{checks: {{earlyTalker: {check}}}}}}}");
        let text = GATEWAY.replace("{hostname: mx.example.net}", &spec);
        let policy = compile(&mk_inputs(&text, None)).policy.unwrap();
        assert_eq!(policy.gateway.greet_delay.as_secs(), seconds, "{check}");
    }
}

#[test]
fn the_revision_follows_the_meaning_and_not_the_writing() {
    let revision = |text: &str| compile(&mk_inputs(text, None)).snapshot.unwrap().revision.clone();
    let one = mk_files(&[mk_domain("a", &["a.example"], "  greylisting: {delay: 90s, mode: Off}\n")]);
    let same = mk_files(&[mk_domain("a", &["a.example"], "  greylisting: {mode: Off, delay: 1m30s}\n")]);
    let other = mk_files(&[mk_domain("a", &["a.example"], "  greylisting: {mode: Off, delay: 91s}\n")]);
    assert_eq!(revision(&one), revision(&same));
    assert_ne!(revision(&one), revision(&other));
    assert_eq!(revision(&one).0.len(), 64);
}

type Rows = Vec<(String, usize, Vec<usize>)>;

/// MailDomains by namespace, number and places in a list of domain names that are in each other's way.
fn mk_tenants_inputs(rows: Rows, permitted: &str) -> Inputs {
    let names = ["x.example", "*.x.example", "a.x.example", "y.example", "*.a.x.example", "co.uk"];
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (namespace, name, domains) in rows {
        let mut domains: Vec<&str> = domains.into_iter().map(|i| names[i]).collect();
        domains.sort_unstable();
        domains.dedup();
        let name = format!("d{name}");
        texts.insert(format!("{namespace}{name}"), mk_domain_in(&namespace, &name, &domains, ""));
    }
    let tenants =
        format!("{{hostname: mx.example.net, tenants: [{{namespaces: [{permitted}], domains: [\"*\"]}}]}}");
    let gateway = GATEWAY.replace("{hostname: mx.example.net}", &tenants);
    let text = texts.values().fold(gateway, |text, domain| format!("{text}---\n{domain}"));
    Inputs { tenancy: tenancy::mk_cluster(&["a", "b"]), ..mk_inputs(&text, None) }
}

fn rows() -> impl Strategy<Value = Rows> {
    proptest::collection::vec(("[ab]", 0usize..4, proptest::collection::vec(0usize..6, 1..3)), 1..8)
}

proptest! {
    #[test]
    fn a_settled_compilation_comes_to_the_same_once_it_is_published(
        before in rows(),
        after in rows(),
        permitted in prop_oneof![Just("a, b"), Just("a")],
        later in 0..=DAY,
    ) {
        let last = compile(&mk_tenants_inputs(before, "a, b")).snapshot;
        let mut inputs = Inputs { last, now: NOW + later, ..mk_tenants_inputs(after, permitted) };
        let first = compile(&inputs);
        let is_settled = first.is_settled(&inputs);
        inputs.last.clone_from(&first.snapshot);
        let again = compile(&inputs);
        if is_settled {
            prop_assert_eq!(&first.outcomes, &again.outcomes);
            prop_assert_eq!(first.snapshot.unwrap().revision.clone(), again.snapshot.unwrap().revision.clone());
        }
    }

    #[test]
    fn the_order_of_the_inputs_decides_nothing(
        rows in rows(),
        seed in proptest::collection::vec(any::<u32>(), 20),
    ) {
        let mut inputs = mk_tenants_inputs(rows, "a, b");
        let straight = compile(&inputs);
        let mut order: Vec<usize> = (0..inputs.objects.len()).collect();
        order.sort_by_key(|i| seed[*i]);
        inputs.objects = order.into_iter().map(|i| inputs.objects[i].clone()).collect();
        let shuffled = compile(&inputs);
        prop_assert_eq!(&straight.outcomes, &shuffled.outcomes);
        prop_assert_eq!(&straight.snapshot.unwrap().revision, &shuffled.snapshot.as_ref().unwrap().revision);

        // What holds does not depend on how often it is compiled.
        inputs.last = shuffled.snapshot.clone();
        let again = compile(&inputs);
        prop_assert_eq!(&again.snapshot.unwrap().revision, &shuffled.snapshot.unwrap().revision);
    }
}
