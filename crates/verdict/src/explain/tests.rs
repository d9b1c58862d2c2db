use std::time::Duration;

use prometheus::Registry;
use torwart_core::{Action, Greylist, Reason};
use torwart_policy::RangeTable;
use torwart_policy::model::{Domain, Gateway, Range, SenderEntry};
use torwart_policy::patterns::AddressPattern;

use super::*;
use crate::engine::{DEFAULT_STORE_TIMEOUT, MessageLimits, Options};
use crate::store::MemoryStore;
use crate::testing::*;

async fn ask(
    client: &str,
    sender: &str,
    recipients: &[&str],
    change: impl FnOnce(&mut Domain, &mut Gateway),
) -> Explanation {
    ask_with(client, sender, recipients, MessageLimits::default(), None, change).await
}

async fn ask_with(
    client: &str,
    sender: &str,
    recipients: &[&str],
    messages: MessageLimits,
    message: Option<Message>,
    change: impl FnOnce(&mut Domain, &mut Gateway),
) -> Explanation {
    let clock = Arc::new(ManualClock::new(START));
    let options = Options {
        store: Arc::new(MemoryStore::new(100, clock.clone())),
        clock: clock.clone(),
        key_files: Vec::new(),
        store_timeout: DEFAULT_STORE_TIMEOUT,
        own_addresses: Vec::new(),
        messages,
        checks: crate::CheckOptions::default(),
    };
    let engine = Engine::start(options, &Registry::new()).await.unwrap();
    engine.set_policy(mk_policy("r1", 1, change));
    explain(&engine, &clock, &mk_question(client, sender, recipients), message).await.unwrap()
}

fn range(action: RangeAction, prefix: &str) -> RangeTable {
    let range = Range {
        name: "office".into(),
        action,
        priority: 0,
        expires: None,
        tls: None,
        hidden: Vec::new(),
        dns_lists: None,
        greylisting: None,
    };
    RangeTable::new([(range, vec![prefix.parse().unwrap()])])
}

#[tokio::test]
async fn a_new_sender_waits_under_the_key_that_is_shown_and_then_passes() {
    let explanation = ask(CLIENT, "Anna+list@sender.example", &[BOB], |_, _| {}).await;
    let Explained { answer, why } = explanation.recipients.unwrap();
    assert_eq!(
        (answer.recipients[0].action, answer.recipients[0].reason),
        (Action::Defer, Reason::Greylisted)
    );
    assert_eq!(why[0].step, Step::Greylist);
    let expected = GreylistSeen {
        identities: vec!["network:192.0.2.0/24".to_owned()],
        sender: "anna@sender.example".to_owned(),
        delay: 300,
        wait: Some(300),
        single_use: false,
    };
    assert_eq!(why[0].greylist, Some(expected));
    assert!(why[0].route.is_some(), "where it is going to go");
    let retry = explanation.retry.unwrap();
    assert_eq!(retry.after, 300);
    assert_eq!(retry.routes[0].as_ref().unwrap().upstreams[0].to_string(), "upstream.example:25");
    let verdict = &retry.answer.recipients[0];
    assert_eq!((verdict.action, verdict.greylist), (Action::Accept, Some(Greylist::Passed)));
}

#[tokio::test]
async fn the_longest_wait_passes_everyone() {
    let explanation =
        ask(CLIENT, ANNA, &[BOB, "postmaster@example.org", "x@elsewhere.example"], |domain, _| {
            domain.greylisting.delay = Duration::from_secs(7200);
        })
        .await;
    let why = explanation.recipients.unwrap().why;
    let steps: Vec<Step> = why.iter().map(|why| why.step).collect();
    assert_eq!(steps, [Step::Greylist, Step::UngreylistedRecipient, Step::Domain]);
    assert!(why[1].route.is_some() && why[2].scoring.is_none());
    let retry = explanation.retry.unwrap();
    let actions: Vec<Action> = retry.answer.recipients.iter().map(|verdict| verdict.action).collect();
    assert_eq!((retry.after, actions), (7200, vec![Action::Accept, Action::Accept, Action::Reject]));
}

#[tokio::test]
async fn a_refused_connection_is_the_whole_answer() {
    let explanation =
        ask(CLIENT, ANNA, &[BOB], |_, gateway| gateway.ranges = range(RangeAction::Reject, "192.0.2.0/24"))
            .await;
    assert_eq!(explanation.connection.refuse.unwrap().1, Reason::IpRange);
    let banned = RangeSeen { name: "office".into(), level: Level::Gateway, action: RangeAction::Reject };
    assert_eq!(explanation.connection_range, Some(banned));
    assert!(explanation.recipients.is_none() && explanation.retry.is_none());
}

#[tokio::test]
async fn the_range_that_holds_is_named_with_its_level() {
    for (gateway_action, domain_action, level, action) in [
        (RangeAction::Allow, Some(RangeAction::Reject), Level::Domain, RangeAction::Reject),
        (RangeAction::Defer, Some(RangeAction::Allow), Level::Gateway, RangeAction::Defer),
        (RangeAction::Check, None, Level::Gateway, RangeAction::Check),
    ] {
        let explanation = ask(CLIENT, ANNA, &[BOB], |domain, gateway| {
            gateway.ranges = range(gateway_action, "192.0.0.0/16");
            domain.ranges = domain_action.map(|action| range(action, "192.0.2.0/24")).unwrap_or_default();
        })
        .await;
        let seen = explanation.recipients.unwrap().why.remove(0).range;
        assert_eq!(seen, Some(RangeSeen { name: "office".into(), level, action }));
    }
}

#[tokio::test]
async fn the_entry_of_a_list_is_named_as_it_is_written() {
    let entry = |text: &str| SenderEntry {
        pattern: AddressPattern::parse_sender(text).unwrap(),
        clients: Vec::new(),
        expires: None,
    };
    let seen = async |change: &dyn Fn(&mut Domain, &mut Gateway)| {
        let why = ask(CLIENT, ANNA, &[BOB], change).await.recipients.unwrap().why.remove(0);
        (why.step, why.listed.unwrap())
    };
    let listed =
        |list, level, pattern: Option<&str>| ListSeen { list, level, pattern: pattern.map(str::to_owned) };
    let pattern = |text| AddressPattern::parse_recipient(text).unwrap();
    assert_eq!(
        seen(&|_, gateway| gateway.senders.deny = vec![entry("x@y.example"), entry("*@sender.example")])
            .await,
        (Step::SenderLists, listed("senders.deny", Level::Gateway, Some("*@sender.example")))
    );
    assert_eq!(
        seen(&|domain, _| domain.senders.allow = vec![entry("anna@*")]).await,
        (Step::SenderLists, listed("senders.allow", Level::Domain, Some("anna@*")))
    );
    assert_eq!(
        seen(&|domain, _| domain.recipients.deny = vec![pattern("b*@*")]).await,
        (Step::DeniedRecipient, listed("recipients.deny", Level::Domain, Some("b*@*")))
    );
    assert_eq!(
        seen(&|domain, _| domain.recipients.accept = vec![pattern("carol")]).await,
        (Step::DeniedRecipient, listed("recipients.accept", Level::Domain, None))
    );
    assert_eq!(
        seen(&|domain, _| domain.recipients.exempt = vec![pattern("bob")]).await,
        (Step::ExemptRecipient, listed("recipients.exempt", Level::Domain, Some("bob@*")))
    );
}

#[tokio::test]
async fn a_message_is_checked_if_somebody_who_takes_it_has_checks() {
    let checking = MessageLimits { test_check: true, ..MessageLimits::default() };
    let message = |size: usize| {
        let beginning = format!("X-Test-Verdict: reject\r\n\r\n{}", "x".repeat(size)).into_bytes();
        Some(Message { size: beginning.len() as u64 + 7, beginning })
    };
    // The first is deferred at first, and has its message checked at the retry.
    for recipients in [&[BOB][..], &["postmaster@example.org", BOB]] {
        let explanation = ask_with(CLIENT, ANNA, recipients, checking, message(100_000), |_, _| {}).await;
        let answer = explanation.message.unwrap();
        assert_eq!((answer.action, answer.reason), (Action::Reject, Reason::Score));
        assert!(answer.checks[0].detail.starts_with("100026 of 100033 bytes"), "{}", answer.checks[0].detail);
    }
    for (recipient, limits, message) in [
        (BOB, MessageLimits::default(), message(1)),
        (BOB, checking, None),
        ("x@elsewhere.example", checking, message(1)),
    ] {
        assert!(ask_with(CLIENT, ANNA, &[recipient], limits, message, |_, _| {}).await.message.is_none());
    }
}
