use torwart_policy::compile::FieldError;

use super::*;
use crate::values::{Form, ServiceKind};

fn mk_world(domains: &[String]) -> World {
    let mut world = World::new(&format!("{GATEWAY}---\n{}", domains.join("---\n")));
    world.pod("v-0", 0);
    world
}

#[test]
fn a_new_object_is_accepted_published_and_programmed_once_every_pod_has_it() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "  greylisting: {mode: Always}\n")]);
    world.pod("v-1", 0);
    let a = mail_domain("a");
    let wrote = world.step();
    assert!(wrote.index && wrote.slots >= 1, "{wrote:?}");
    assert_eq!(wrote.events(), Vec::<&str>::new());
    assert_eq!(world.shown(&a, "Accepted"), "True Accepted");
    assert_eq!(world.shown(&a, "ResolvedRefs"), "True Resolved");
    assert_eq!(world.shown(&a, "Programmed"), "False Pending");
    assert_eq!(world.shown(&a, "UpstreamReachable"), "Unknown NoMail");
    assert_eq!(world.shown(&a, "Ready"), "False NotProgrammed");
    assert!(world.waits);
    let status = &world.cluster.objects[&a].status;
    assert_eq!((&status["observedGeneration"], &status["generationInForce"]), (&1.into(), &1.into()));
    assert_eq!(status["greylisting"], "Always");

    world.pod("v-0", world.sequence());
    world.step();
    assert_eq!(world.shown(&a, "Programmed"), "False Pending");
    world.pods_follow();
    let wrote = world.step();
    assert_eq!(world.shown(&a, "Programmed"), "True Programmed");
    assert_eq!(world.shown(&a, "Ready"), "True Ready");
    assert_eq!(wrote.events(), ["Programmed", "Programmed"]);
    assert!(!world.waits);
    assert!(world.step().is_nothing());
}

#[test]
fn a_pod_that_does_not_answer_is_named() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.pods.ready.insert("v-1".to_owned(), Err("timed out".to_owned()));
    world.step();
    world.pods_follow();
    world.now_ms += 700_000;
    world.step();
    world.now_ms += 700_000;
    world.step();
    let condition = world.condition(&mail_domain("a"), "Programmed");
    assert_eq!(condition.status, ConditionStatus::False);
    assert!(
        condition.message.contains("1 of 2") && condition.message.contains("v-1 (no answer: timed out)"),
        "{condition:?}"
    );
}

#[test]
fn without_a_ready_pod_nobody_knows_whether_it_is_programmed() {
    let mut world = World::new(&format!("{GATEWAY}---\n{}", mk_domain("a", "a.example", "")));
    world.step();
    let a = mail_domain("a");
    assert_eq!(world.shown(&a, "Programmed"), "Unknown NoVerdictPods");
    assert_eq!(world.shown(&a, "Ready"), "Unknown NotProgrammed");
    assert_eq!(world.shown(&ObjectRef::gateway("default"), "Programmed"), "Unknown NoVerdictPods");
    assert_eq!(world.shown(&ObjectRef::gateway("default"), "ClientIPPreserved"), "Unknown NoVerdictPods");
    assert!(world.waits);
}

#[test]
fn what_was_programmed_stays_so_for_its_generation_whatever_pods_come_and_go() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    let before = world.condition(&a, "Programmed");
    assert_eq!(before.status, ConditionStatus::True);
    world.pod("new", 0);
    assert!(world.step().is_nothing());
    world.pods.ready.clear();
    world.step();
    world.restart();
    world.step();
    assert_eq!(world.condition(&a, "Programmed"), before);

    world.pod("v-0", 0);
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    world.now_ms += 5000;
    world.step();
    assert_eq!(world.shown(&a, "Programmed"), "False Updating");
    let events = world.settle();
    assert_eq!(world.shown(&a, "Programmed"), "True Programmed");
    assert_eq!(events, vec![], "it was programmed before");
}

#[test]
fn a_change_is_programmed_only_by_the_sequence_that_holds_it() {
    let mut world = mk_world(&[mk_domain("a", "a.example", ""), mk_domain("b", "b.example", "")]);
    world.settle();
    let old = world.sequence();
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    world.now_ms += 1000;
    world.step();
    assert!(world.sequence() > old);
    assert_eq!(world.shown(&mail_domain("a"), "Programmed"), "False Updating");
    assert_eq!(world.shown(&mail_domain("b"), "Programmed"), "True Programmed");
    // What comes later does not put it off.
    let first = world.sequence();
    world.apply(&mk_domain("b", "b.example", "  enforcement: Monitor\n"));
    world.step();
    assert!(world.sequence() > first);
    world.pod("v-0", first);
    world.step();
    assert_eq!(world.shown(&mail_domain("a"), "Programmed"), "True Programmed");
    assert_eq!(world.shown(&mail_domain("b"), "Programmed"), "False Updating");
}

#[test]
fn a_generation_that_is_not_accepted_leaves_the_one_before_in_force() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    let accepted = world.condition(&a, "Accepted");
    world.now_ms += 60_000;
    world.apply(&mk_domain("a", "a.example", "  greylisting: {delay: 2h, retryWindow: 1h}\n"));
    let wrote = world.step();
    assert!(!wrote.index);
    assert_eq!(world.shown(&a, "Accepted"), "False Invalid");
    assert_eq!(world.shown(&a, "ResolvedRefs"), "Unknown NotAccepted");
    assert_eq!(world.shown(&a, "Programmed"), "False NotAccepted");
    assert_eq!(world.shown(&a, "Ready"), "False NotAccepted");
    assert_eq!(wrote.events(), ["Invalid"]);
    let status = &world.cluster.objects[&a].status;
    assert_eq!((&status["observedGeneration"], &status["generationInForce"]), (&2.into(), &1.into()));
    let message = world.condition(&a, "Accepted").message;
    assert!(message.contains("spec.greylisting") && message.contains("generation 1 stays"), "{message}");
    assert!(world.condition(&a, "Accepted").last_transition_time > accepted.last_transition_time);
    assert!(world.step().is_nothing(), "told once");

    world.now_ms += 60_000;
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    let events: Vec<_> = world.settle().iter().map(|event| event.reason).collect();
    assert_eq!(world.shown(&a, "Ready"), "True Ready");
    assert!(events.contains(&"Accepted"), "{events:?}");
}

#[test]
fn times_of_conditions_are_kept_while_their_status_is_the_same() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    let before = world.condition(&a, "Accepted");
    world.now_ms += 60_000;
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    world.settle();
    let after = world.condition(&a, "Accepted");
    assert_eq!(after.observed_generation, Some(2));
    assert_eq!(after.last_transition_time, before.last_transition_time);
    assert!(world.condition(&a, "Programmed").last_transition_time > before.last_transition_time);
}

#[test]
fn an_object_that_cannot_be_read_says_so_and_keeps_what_it_was() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    world.change(&a, |seen| {
        seen.generation = 2;
        seen.form =
            Form::Malformed { errors: vec![FieldError::new("spec.route", "is a number")], draft: None };
    });
    let wrote = world.step();
    assert_eq!(world.shown(&a, "Accepted"), "False Invalid");
    assert_eq!(
        world.condition(&a, "Accepted").message,
        "spec.route: is a number; generation 1 stays in force"
    );
    assert!(!wrote.index);
    assert_eq!(world.published.snapshot.as_ref().unwrap().domains.len(), 1);
}

#[test]
fn each_cause_has_its_reason() {
    let tenant = |namespace: &str| {
        format!(
            "{}  tenants: [{{namespaces: [{namespace}], domains: [\"*.shop.example\", shop.example]}}]\n",
            GATEWAY.replace("spec: {hostname: mx.example.net}", "spec:\n  hostname: mx.example.net")
        )
    };
    let rows = [
        ("other", "a.shop.example", "{host: mail.shop.svc}", "NamespaceNotPermitted"),
        ("shop", "bank.example", "{host: mail.shop.svc}", "DomainNotPermitted"),
        ("shop", "a.shop.example", "{host: db.bank.example}", "UpstreamNotPermitted"),
        ("shop", "taken.shop.example", "{host: mail.shop.svc}", "DomainConflict"),
        ("shop", "com", "{host: mail.shop.svc}", "Invalid"),
    ];
    for (namespace, domain, upstream, reason) in rows {
        let text = format!("{}---\n{}", tenant("shop"), mk_domain("first", "taken.shop.example", ""));
        let mut world = World::new(&text);
        world.pod("v-0", 0);
        world.settle();
        world.apply(&mk_domain_in(namespace, "a", domain, upstream, ""));
        let wrote = world.step();
        let object = ObjectRef::domain(namespace, "a");
        assert_eq!(world.shown(&object, "Accepted"), format!("False {reason}"), "{domain}");
        assert_eq!(world.shown(&object, "UpstreamReachable"), "Unknown NotInForce");
        assert_eq!(wrote.events(), [reason]);
        assert!(wrote.events[0].is_warning);
    }
}

#[test]
fn a_missing_service_is_no_mistake_of_the_object_and_its_last_address_holds() {
    let domain = mk_domain_in("torwart-system", "a", "a.example", "{service: {name: mx}}", "");
    let mut world = World::new(&format!("{GATEWAY}---\n{domain}"));
    world.pod("v-0", 0);
    let a = mail_domain("a");
    let wrote = world.step();
    assert_eq!(world.shown(&a, "Accepted"), "True Accepted");
    assert_eq!(world.shown(&a, "ResolvedRefs"), "False ServiceNotFound");
    assert_eq!(world.shown(&a, "Programmed"), "False RefsNotResolved");
    assert_eq!(world.shown(&a, "Ready"), "False RefsNotResolved");
    assert_eq!(wrote.events(), ["ServiceNotFound"]);
    let message = world.condition(&a, "ResolvedRefs").message;
    assert_eq!(message, "spec.route.upstreams[0].service: there is no Service torwart-system/mx");

    world.service("torwart-system", "mx", ServiceKind::Headless);
    let events: Vec<_> = world.settle().iter().map(|event| event.reason).collect();
    assert_eq!(world.shown(&a, "Ready"), "True Ready");
    assert!(events.contains(&"Resolved") && events.contains(&"Programmed"), "{events:?}");

    world.cluster.services.clear();
    world.touch();
    let wrote = world.step();
    assert!(!wrote.index, "what it led to holds on");
    assert_eq!(world.shown(&a, "ResolvedRefs"), "False ServiceNotFound");
    assert_eq!(world.shown(&a, "Programmed"), "True Programmed");

    world.service("torwart-system", "mx", ServiceKind::ExternalName);
    world.step();
    let message = world.condition(&a, "ResolvedRefs").message;
    assert!(message.contains("ExternalName") && message.contains("name that host instead"), "{message}");
    assert_eq!(
        world.shown(&a, "Programmed"),
        "False RefsNotResolved",
        "what it led to must not be reached any more"
    );
}

#[test]
fn a_missing_authority_says_which_label_it_needs() {
    let domain = mk_domain("a", "a.example", "").replace("route: {", "route: {tls: {caRef: {name: roots}}, ");
    let mut world = World::new(&format!("{GATEWAY}---\n{domain}"));
    world.pod("v-0", 0);
    world.step();
    let a = mail_domain("a");
    assert_eq!(world.shown(&a, "ResolvedRefs"), "False AuthorityNotFound");
    let message = world.condition(&a, "ResolvedRefs").message;
    assert!(message.contains("torwart.dev/ca: \"true\""), "{message}");
}

#[test]
fn the_upstream_is_as_the_last_pod_to_hear_of_it_says() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let (a, name, now) = (mail_domain("a"), "torwart-system/a", NOW_MS / 1000);
    world.outcome("v-0", name, true, 1, now);
    assert_eq!(world.step().events(), Vec::<&str>::new());
    assert_eq!(world.shown(&a, "UpstreamReachable"), "True Reached");
    let message = world.condition(&a, "UpstreamReachable").message;
    assert!(
        message.contains("mx.example:25 said last: 250 2.0.0 ok") && message.contains("deferred 1"),
        "{message}"
    );

    world.pod("v-1", world.sequence());
    world.outcome("v-1", name, false, 0, now + 5);
    let wrote = world.step();
    assert_eq!(wrote.events(), ["UpstreamUnreachable"]);
    assert_eq!(world.shown(&a, "UpstreamReachable"), "False Unreachable");
    assert_eq!(world.shown(&a, "Ready"), "False UpstreamUnreachable");
    assert!(world.step().is_nothing());

    world.outcome("v-0", name, true, 2, now + 9);
    assert_eq!(world.step().events(), ["UpstreamReachable"]);
    assert_eq!(world.shown(&a, "Ready"), "True Ready");

    // Pods that are new know nothing, and so change nothing.
    world.pods.ready.clear();
    world.pod("v-2", world.sequence());
    assert!(world.step().is_nothing());
    // But another route may lead elsewhere.
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    world.settle();
    assert_eq!(world.shown(&a, "UpstreamReachable"), "Unknown NoMail");
}

#[test]
fn numbers_alone_are_written_every_five_minutes_at_most() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let now = NOW_MS / 1000;
    world.outcome("v-0", "torwart-system/a", true, 0, now);
    world.settle();
    let mut written = 0;
    for second in 1..=1800 {
        world.now_ms += 1000;
        world.outcome("v-0", "torwart-system/a", true, second, now);
        written += world.step().statuses.len();
    }
    assert!((3..=6).contains(&written), "{written}");
}

#[test]
fn an_object_made_anew_under_the_same_name_is_another_one() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    world.delete(&a);
    world.apply(&mk_domain("a", "a.example", "  enforcement: Monitor\n"));
    world.now_ms += 1000;
    world.step();
    assert_eq!(world.cluster.objects[&a].generation, 1);
    assert_eq!(world.shown(&a, "Programmed"), "False Pending");
}

#[test]
fn what_others_wrote_into_a_status_is_put_right_if_it_is_ours_and_left_alone_if_not() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    world.change(&a, |seen| {
        let conditions = seen.status["conditions"].as_array_mut().unwrap();
        let mut theirs = conditions[0].clone();
        theirs["type"] = "Theirs".into();
        conditions.insert(0, theirs);
        seen.status["more"] = true.into();
    });
    assert!(world.step().is_nothing());
    world.change(&a, |seen| seen.status["conditions"][1]["status"] = "False".into());
    let wrote = world.step();
    assert_eq!((wrote.statuses.len(), wrote.events.len()), (1, 0));
    world.change(&a, |seen| seen.status = "broken".into());
    assert_eq!(world.step().statuses.len(), 1);
}

#[test]
fn a_warning_is_in_the_message_of_what_is_accepted() {
    let mut world = mk_world(&[mk_domain(
        "a",
        "a.example",
        "  ipRanges: [{name: old, cidrs: [192.0.2.0/24], action: Reject, expires: \"2020-01-01T00:00:00Z\"}]\n",
    )]);
    world.step();
    let accepted = world.condition(&mail_domain("a"), "Accepted");
    assert_eq!(accepted.status, ConditionStatus::True);
    assert!(accepted.message.contains("spec.ipRanges[0]"), "{}", accepted.message);
}

#[test]
fn a_bad_object_made_anew_is_not_what_its_namesake_was() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    let a = mail_domain("a");
    world.delete(&a);
    world.apply(&mk_domain("a", "a.example", "  greylisting: {delay: 2h, retryWindow: 1h}\n"));
    world.step();
    assert_eq!(world.cluster.objects[&a].generation, 1, "as the one before");
    assert_eq!(world.shown(&a, "Programmed"), "False NotAccepted");
}

#[test]
fn a_form_that_is_kept_follows_its_service() {
    let domain = |more: &str| mk_domain_in("torwart-system", "a", "a.example", "{service: {name: mx}}", more);
    let mut world = mk_world(&[domain("")]);
    world.service("torwart-system", "mx", ServiceKind::Headless);
    world.settle();
    let bad = domain("  greylisting: {delay: 2h, retryWindow: 1h}\n");
    world.apply(&bad.replace("{service: {name: mx}}", "{host: other.example}"));
    assert!(!world.step().index);
    let key = ("torwart-system".to_owned(), "mx".to_owned());
    world.cluster.services.get_mut(&key).unwrap().ports[0].port = 2626;
    world.touch();
    assert!(world.step().index);
}

#[test]
fn what_a_pod_says_of_an_older_route_is_not_the_new_ones() {
    let mut world = mk_world(&[mk_domain("a", "a.example", "")]);
    world.settle();
    world.outcome("v-0", "torwart-system/a", false, 0, NOW_MS / 1000);
    world.step();
    let a = mail_domain("a");
    assert_eq!(world.shown(&a, "UpstreamReachable"), "False Unreachable");
    world.apply(&mk_domain("a", "a.example", "").replace("mx.example", "mx2.example"));
    world.step();
    assert_eq!(world.shown(&a, "UpstreamReachable"), "Unknown NoMail");
    world.pods_follow();
    world.step();
    assert_eq!(world.shown(&a, "UpstreamReachable"), "False Unreachable", "it runs the new one and says so");
}
