//! Tables of moments and what is chosen then; no clock runs here.

use std::collections::BTreeMap;

use super::*;

const EJECTION: Ejection = Ejection { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

fn target(number: u16) -> Target {
    Target { address: SocketAddr::from(([127, 0, 0, 1], number)), encrypted: false }
}

/// A balancer over targets 1 to n, and the moment that everything is counted from.
struct Scene {
    balancer: Balancer,
    start: Instant,
    rolls: u64,
}

impl Scene {
    fn new(targets: u16) -> Self {
        let mut scene = Self { balancer: Balancer::new(EJECTION), start: Instant::now(), rolls: 0 };
        scene.set(1..=targets, 0);
        scene
    }

    /// As [`Self::new`], and each has answered once.
    fn proven(targets: u16) -> Self {
        let mut scene = Self::new(targets);
        for _ in 0..targets {
            let lease = scene.choose(0).unwrap();
            scene.end(lease, End::Answered, 0);
        }
        assert_eq!(scene.count(0), [usize::from(targets), 0, 0, 0]);
        scene
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.start + Duration::from_millis(milliseconds)
    }

    fn set(&mut self, targets: impl IntoIterator<Item = u16>, at: u64) {
        let targets: Vec<Target> = targets.into_iter().map(target).collect();
        self.balancer.set_targets(&targets, self.at(at));
    }

    /// Uneven bits, the same in each run.
    fn roll(&mut self) -> u64 {
        self.rolls += 1;
        crate::scatter::scatter(self.rolls)
    }

    fn pick(&mut self, effect: Effect, tried: &[Target], at: u64) -> Option<Lease> {
        let (roll, now) = (self.roll(), self.at(at));
        self.balancer.choose(Choice { effect, tried, prefer: None }, roll, now)
    }

    fn choose(&mut self, at: u64) -> Option<Lease> {
        self.pick(Effect::None, &[], at)
    }

    fn end(&mut self, lease: Lease, end: End, at: u64) -> Option<Turn> {
        let (roll, now) = (self.roll(), self.at(at));
        self.balancer.ended(lease, end, roll, now)
    }

    /// A call to `number` that fails at once.
    fn fail(&mut self, number: u16, at: u64) -> Option<Turn> {
        let others: Vec<Target> =
            self.balancer.entries.iter().map(|e| e.target).filter(|t| *t != target(number)).collect();
        let lease = self.pick(Effect::None, &others, at).unwrap();
        self.end(lease, End::Failed, at)
    }

    fn count(&mut self, at: u64) -> [usize; 4] {
        let now = self.at(at);
        self.balancer.count(now)
    }
}

#[test]
fn nobody_is_chosen_from_nothing_or_where_all_were_tried() {
    let mut scene = Scene::new(0);
    assert_eq!(scene.choose(0), None);
    let mut scene = Scene::proven(2);
    assert_eq!(scene.pick(Effect::None, &[target(1), target(2)], 0), None);
    assert!(!scene.balancer.has_untried(&[target(1), target(2)]));
    assert_eq!(scene.pick(Effect::None, &[target(1)], 0).unwrap().target, target(2));
}

#[test]
fn calls_spread_evenly_over_the_proven() {
    let mut scene = Scene::proven(3);
    let mut leases: BTreeMap<Target, usize> = BTreeMap::new();
    for _ in 0..300 {
        *leases.entry(scene.choose(0).unwrap().target).or_default() += 1;
    }
    // nothing ends: the power of two choices keeps the loads within a few of each other
    assert!(leases.values().all(|calls| (95..=105).contains(calls)), "{leases:?}");
}

#[test]
fn who_has_more_calls_under_way_is_taken_less() {
    let mut scene = Scene::proven(3);
    for _ in 0..50 {
        let lease = scene.pick(Effect::None, &[target(1), target(2)], 0).unwrap();
        assert_eq!(lease.target, target(3));
    }
    for _ in 0..60 {
        let lease = scene.choose(0).unwrap();
        assert_ne!(lease.target, target(3));
    }
}

#[test]
fn one_on_trial_gets_a_single_call_at_a_time() {
    let mut scene = Scene::proven(2);
    scene.set(1..=3, 0);
    let trial = scene.choose(0).unwrap();
    assert_eq!(trial.target, target(3));
    for _ in 0..20 {
        assert_ne!(scene.choose(0).unwrap().target, target(3));
    }
    scene.end(trial, End::Answered, 5);
    assert_eq!(scene.count(5), [3, 0, 0, 0]);
}

#[test]
fn a_question_that_cannot_be_repeated_is_not_risked_on_who_failed_unless_no_other_comes() {
    let mut scene = Scene::proven(2);
    scene.fail(2, 0);
    assert_eq!(scene.pick(Effect::Remembered, &[], 1999).unwrap().target, target(1));
    assert_eq!(scene.pick(Effect::Remembered, &[], 2000).unwrap().target, target(2));
}

#[test]
fn a_new_one_is_taken_at_its_word() {
    let mut scene = Scene::proven(1);
    scene.set(1..=2, 0);
    assert_eq!(scene.pick(Effect::Remembered, &[], 0).unwrap().target, target(2));
}

#[test]
fn at_the_start_everyone_on_trial_shares_the_calls() {
    let mut scene = Scene::new(2);
    let chosen: Vec<Target> =
        (0..10).map(|_| scene.pick(Effect::Remembered, &[], 0).unwrap().target).collect();
    assert_eq!(chosen.iter().filter(|t| **t == target(1)).count(), 5);
}

#[test]
fn three_failures_in_a_row_eject_and_an_answer_between_them_does_not() {
    let mut scene = Scene::proven(2);
    scene.fail(1, 0);
    assert_eq!(scene.count(0), [1, 1, 0, 0]);
    scene.fail(1, 1);
    let lease = scene.pick(Effect::None, &[target(2)], 2).unwrap();
    scene.end(lease, End::Answered, 2);
    assert_eq!(scene.count(2), [2, 0, 0, 0]);
    for at in 3..6 {
        scene.fail(1, at);
    }
    assert_eq!(scene.count(6), [1, 0, 0, 1]);
    for _ in 0..20 {
        assert_eq!(scene.choose(6).unwrap().target, target(2));
    }
    assert!(!scene.balancer.has_other(&[target(2)], scene.start));
}

#[test]
fn an_ejected_one_is_tried_again_after_its_time_and_then_twice_as_long() {
    let mut scene = Scene::proven(2);
    for _ in 0..3 {
        scene.fail(1, 0);
    }
    let mut at = 0;
    for length in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        assert_eq!(scene.count(at + length * 3 / 4 - 1), [1, 0, 0, 1], "{length}");
        at += length * 5 / 4;
        assert_eq!(scene.count(at), [1, 1, 0, 0], "{length}");
        scene.fail(1, at); // one failed trial is enough
    }
    at += 40_000;
    let lease = scene.choose(at).unwrap();
    assert_eq!(lease.target, target(1));
    scene.end(lease, End::Answered, at);
    assert_eq!(scene.count(at), [2, 0, 0, 0]);
    // forgiven: the next ejection is a short one
    for _ in 0..3 {
        scene.fail(1, at);
    }
    assert_eq!(scene.count(at + 1250), [1, 1, 0, 0]);
}

#[test]
fn an_ejection_and_its_end_are_told_once() {
    let mut scene = Scene::proven(1);
    let told: Vec<_> = (0..6).map(|at| scene.fail(1, at)).collect();
    assert_eq!(told, [None, None, Some(Turn::Ejected), None, None, None]);
    let lease = scene.choose(6).unwrap();
    assert_eq!(scene.end(lease, End::Answered, 6), Some(Turn::Back));
    let lease = scene.choose(7).unwrap();
    assert_eq!(scene.end(lease, End::Answered, 7), None);
}

#[test]
fn one_fault_that_ends_many_calls_ejects_once() {
    let mut scene = Scene::proven(1);
    let leases: Vec<Lease> = (0..50).map(|_| scene.choose(0).unwrap()).collect();
    for lease in leases {
        scene.end(lease, End::Failed, 10);
    }
    assert_eq!(scene.count(10), [0, 0, 0, 1]);
    assert_eq!(scene.count(1260), [0, 1, 0, 0]);
}

#[test]
fn where_all_are_ejected_the_one_whose_time_is_next_is_tried() {
    let mut scene = Scene::proven(2);
    for at in 0..3 {
        scene.fail(2, at);
    }
    for at in 0..3 {
        scene.fail(1, 500 + at);
    }
    assert_eq!(scene.count(503), [0, 0, 0, 2]);
    let lease = scene.pick(Effect::Remembered, &[], 503).unwrap();
    assert_eq!(lease.target, target(2));
    scene.end(lease, End::Failed, 504);
    assert_eq!(scene.choose(505).unwrap().target, target(1));
}

#[test]
fn an_overloaded_one_rests_and_is_not_held_to_have_failed() {
    let mut scene = Scene::proven(2);
    let lease = scene.pick(Effect::None, &[target(2)], 0).unwrap();
    scene.end(lease, End::Overloaded, 0);
    assert_eq!(scene.count(0), [1, 0, 1, 0]);
    assert_eq!(scene.choose(1).unwrap().target, target(2));
    // where the others were tried it is asked all the same
    assert_eq!(scene.pick(Effect::None, &[target(2)], 1).unwrap().target, target(1));
    assert_eq!(scene.count(125), [2, 0, 0, 0]);
}

#[test]
fn a_call_that_says_nothing_changes_no_standing_but_is_over() {
    let mut scene = Scene::proven(1);
    scene.set(1..=2, 0);
    let trial = scene.choose(0).unwrap();
    assert_eq!(trial.target, target(2));
    scene.end(trial, End::Open, 1);
    assert_eq!(scene.choose(2).unwrap().target, target(2), "the trial is free again");
}

#[test]
fn the_preferred_one_is_taken_only_where_it_is_proven_and_untried() {
    let mut scene = Scene::proven(3);
    for _ in 0..10 {
        let choice = Choice { effect: Effect::None, tried: &[], prefer: Some(target(2)) };
        let now = scene.start;
        assert_eq!(scene.balancer.choose(choice, 7, now).unwrap().target, target(2));
    }
    scene.fail(2, 0);
    let choice = Choice { effect: Effect::None, tried: &[target(1)], prefer: Some(target(2)) };
    let now = scene.start;
    assert_eq!(scene.balancer.choose(choice, 7, now).unwrap().target, target(3));
}

#[test]
fn targets_that_stay_keep_their_standing_and_late_ends_of_removed_ones_are_ignored() {
    let mut scene = Scene::proven(2);
    let late = scene.pick(Effect::None, &[target(2)], 0).unwrap();
    scene.set([2, 3], 1);
    assert_eq!(scene.count(1), [1, 1, 0, 0]);
    scene.set([1, 2, 3], 2);
    scene.end(late, End::Answered, 3);
    assert_eq!(scene.count(3), [1, 2, 0, 0], "what the old 1 said does not prove the new 1");
    scene.set([], 4);
    assert!(scene.balancer.is_empty());
}

#[test]
fn jitter_stays_within_a_quarter() {
    let second = Duration::from_secs(1);
    assert_eq!(jittered(second, 0), Duration::from_millis(750));
    let longest = jittered(second, u64::MAX);
    assert!(longest <= Duration::from_millis(1250) && longest > Duration::from_millis(1249), "{longest:?}");
    let mut rolls: Vec<Duration> = (0..100).map(|n| jittered(second, crate::scatter::scatter(n))).collect();
    rolls.sort();
    rolls.dedup();
    assert!(rolls.len() > 90);
}
