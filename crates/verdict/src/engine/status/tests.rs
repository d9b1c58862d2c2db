use torwart_core::Mailbox;
use torwart_policy::Policy;

use super::*;
use crate::testing::*;

const NOW: i64 = START;

/// A board and the policy that is in force for it.
struct Setup {
    board: StatusBoard,
    policy: Mutex<Option<Arc<Policy>>>,
}

impl Setup {
    fn new(policy: Arc<Policy>) -> Self {
        let setup = Self { board: StatusBoard::new(NOW), policy: Mutex::default() };
        setup.set_policy(policy);
        setup
    }

    fn set_policy(&self, policy: Arc<Policy>) {
        *self.policy.lock().unwrap() = Some(policy);
        self.board.policy_changed(|| self.policy.lock().unwrap().clone(), 0, NOW);
    }

    fn report(&self, recipients: &[&str], result: DeliveryResult, now: i64) {
        self.add(&mk_delivery(CLIENT, ANNA, recipients, result), now);
    }

    fn add(&self, delivery: &Delivery, now: i64) {
        self.board.reported(|| self.policy.lock().unwrap().clone(), delivery, now);
    }

    fn objects(&self) -> Vec<String> {
        self.board.outcomes().keys().map(|object| object.to_string()).collect()
    }

    fn find(&self, object: &str) -> UpstreamOutcomes {
        self.board.outcomes().get(object).unwrap().outcomes.clone()
    }
}

#[test]
fn every_result_has_its_count_and_since_tells_when_reachability_changed() {
    use DeliveryResult::*;

    let setup = Setup::new(mk_policy_of("r1", &["a.example"], 1));
    for (at, result, reachable, since) in [
        (0, Delivered, true, 0),
        (1, Deferred, true, 0),
        (2, Unreachable, false, 2),
        (3, Unreachable, false, 2),
        (4, Rejected, true, 4),
        (5, Unknown, true, 4),
    ] {
        setup.report(&["bob@a.example"], result, NOW + at);
        let outcomes = setup.find("mail/a.example");
        assert_eq!((outcomes.reachable, outcomes.since), (reachable, NOW + since), "{result:?} at {at}");
        assert_eq!(outcomes.last_reported, NOW + at);
    }
    let outcomes = setup.find("mail/a.example");
    let UpstreamOutcomes { delivered, deferred, rejected, unreachable, unknown, .. } = outcomes;
    assert_eq!([delivered, deferred, rejected, unreachable, unknown], [1, 1, 1, 2, 1]);
}

#[test]
fn a_transaction_counts_once_for_each_object_that_its_recipients_belong_to() {
    let setup = Setup::new(mk_policy_of("r1", &["a.example", "b.example"], 1));
    let recipients = ["x@a.example", "y@A.example", "x@b.example", "x@elsewhere.example"];
    setup.report(&recipients, DeliveryResult::Delivered, NOW);
    assert_eq!(setup.objects(), ["mail/a.example", "mail/b.example"]);
    assert_eq!(setup.find("mail/a.example").delivered, 1);
}

#[test]
fn the_bare_postmaster_belongs_to_the_gateways() {
    let mut policy = Arc::into_inner(mk_policy_of("r1", &["a.example"], 1)).unwrap();
    policy.gateway.postmaster = Some(mk_mailbox("postmaster@a.example"));
    let setup = Setup::new(Arc::new(policy));
    let mut delivery = mk_delivery(CLIENT, ANNA, &[BOB], DeliveryResult::Delivered);
    delivery.recipients = vec![Mailbox::new("PostMaster", "")];
    setup.add(&delivery, NOW);
    assert_eq!(setup.objects(), ["mail/a.example"]);
}

#[test]
fn what_left_the_policy_or_has_another_route_is_forgotten() {
    let setup = Setup::new(mk_policy_of("r1", &["a.example", "b.example"], 1));
    let both = ["x@a.example", "x@b.example"];
    setup.report(&both, DeliveryResult::Unreachable, NOW);
    setup.set_policy(mk_policy_of("r2", &["b.example", "c.example"], 1));
    assert_eq!(setup.objects(), ["mail/b.example"]);
    setup.set_policy(mk_policy_of("r3", &["a.example", "b.example"], 2));
    assert_eq!(setup.objects(), [] as [&str; 0]);
    // Of the route of before.
    setup.report(&both, DeliveryResult::Unreachable, NOW);
    assert_eq!(setup.objects(), [] as [&str; 0]);
    let mut delivery = mk_delivery(CLIENT, ANNA, &both, DeliveryResult::Delivered);
    delivery.route = RouteDigest([2; 16]);
    setup.add(&delivery, NOW);
    assert_eq!(setup.objects(), ["mail/a.example", "mail/b.example"]);
}

#[test]
fn the_last_words_stay_until_there_are_others_and_are_bounded() {
    let setup = Setup::new(mk_policy_of("r1", &["a.example"], 1));
    let mut delivery = mk_delivery(CLIENT, ANNA, &["x@a.example"], DeliveryResult::Deferred);
    delivery.upstream = Some("mx.example:25".into());
    delivery.upstream_reply = Some("ä".repeat(1000).into());
    setup.add(&delivery, NOW);
    let first = setup.find("mail/a.example");
    assert_eq!(first.last_reply.as_ref().map(|reply| reply.chars().count()), Some(Delivery::LONGEST_REPLY));
    setup.report(&["x@a.example"], DeliveryResult::Unreachable, NOW + 1);
    let second = setup.find("mail/a.example");
    assert_eq!((second.last_upstream, second.last_reply), (Some("mx.example:25".into()), first.last_reply));
}

#[test]
fn a_revision_is_in_force_since_it_came_not_since_it_came_again() {
    let policy = |revision: &str| mk_policy_of(revision, &["a.example"], 1);
    let setup = Setup::new(policy("r1"));
    let mut told = setup.board.policy.subscribe();
    let change = |revision: &str, sequence, now| {
        setup.board.policy_changed(|| Some(policy(revision)), sequence, now);
    };
    change("r1", 0, NOW + 5);
    assert!(!told.has_changed().unwrap());
    let status = |revision: &str, sequence, loaded_at| {
        Some(PolicyStatus { revision: Revision(revision.into()), sequence, loaded_at })
    };
    assert_eq!(*told.borrow_and_update(), status("r1", 0, NOW));
    change("r2", 7, NOW + 9);
    assert!(told.has_changed().unwrap());
    assert_eq!(*told.borrow_and_update(), status("r2", 7, NOW + 9));
    // Published once more, the policy is the same: the number counts, the time does not.
    change("r2", 8, NOW + 12);
    assert!(told.has_changed().unwrap());
    assert_eq!(*told.borrow_and_update(), status("r2", 8, NOW + 9));
}
