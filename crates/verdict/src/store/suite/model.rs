//! A naive model, which knows nothing of records: it keeps the history and reads it from the start each time.

use std::collections::HashMap;

use proptest::prelude::*;
use torwart_policy::greylist::{LEASE, Time};

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Wait(u32),
    Check { sender: u32, identity: u32, recipients: Vec<u32> },
    Deliver { sender: u32, identity: u32, recipients: Vec<u32>, trust: bool },
    GiveBack { sender: u32, identity: u32, recipients: Vec<u32> },
    Revoke { sender: u32, identity: u32 },
}

#[derive(Default)]
struct Model {
    now: Time,
    /// Per (sender, identity, recipient): when the wait began, and when it last passed.
    waits: HashMap<(u32, u32, u32), Time>,
    passes: HashMap<(u32, u32, u32), Time>,
    known: HashMap<(u32, u32), Time>,
    /// The null sender's: until when a pass is lent.
    lent: HashMap<(u32, u32, u32), Time>,
    /// Per identity: good deliveries as (time, sender).
    good: HashMap<u32, Vec<(Time, u32)>>,
}

const PASS_TTL: Time = 36 * 24 * 3600;
const KEPT: Time = 4 * 24 * 3600;

impl Model {
    fn check(&mut self, sender: u32, identity: u32, recipients: &[u32]) -> Vec<bool> {
        let now = self.now;
        let is_ripe = |recipient: &&u32| {
            let triplet = (sender, identity, **recipient);
            let passed = self.passes.get(&triplet).is_some_and(|at| now - at < PASS_TTL);
            let age = self.waits.get(&triplet).map_or(0, |at| now - at);
            let lent = age < 12 * 3600 && self.lent.get(&triplet).is_some_and(|until| now < *until);
            passed || (300..=KEPT).contains(&age) && !lent
        };
        let ripe_ones: Vec<u32> = recipients.iter().filter(is_ripe).copied().collect();
        let ripe = !ripe_ones.is_empty();
        let known = sender != 0 && self.known.get(&(sender, identity)).is_some_and(|at| now - at < PASS_TTL);
        let auto = sender != 0 && self.auto(identity);
        for recipient in recipients {
            let triplet = (sender, identity, *recipient);
            if ripe {
                if sender != 0 {
                    self.waits.remove(&triplet);
                    self.passes.insert(triplet, now);
                } else if ripe_ones.contains(recipient) {
                    self.lent.insert(triplet, now + 600);
                }
            } else if !known {
                let wait = self.waits.entry(triplet).or_insert(now);
                if now - *wait > KEPT {
                    *wait = now;
                    self.lent.remove(&triplet);
                }
            }
        }
        vec![ripe || known || auto; recipients.len()]
    }

    fn auto(&self, identity: u32) -> bool {
        let Some(good) = self.good.get(&identity) else { return false };
        let mut counted: Vec<(Time, u32)> = Vec::new();
        let mut last = None;
        for (at, sender) in good {
            if last.is_some_and(|last| at - last >= PASS_TTL) {
                counted.clear();
            }
            last = Some(*at);
            let hour_over = counted.last().is_none_or(|(last, _)| at - last >= 3600);
            if hour_over && counted.iter().all(|(_, other)| other != sender) {
                counted.push((*at, *sender));
            }
        }
        counted.len() >= 3 && last.is_some_and(|last| self.now - last < PASS_TTL)
    }

    fn deliver(&mut self, sender: u32, identity: u32, recipients: &[u32], trust: bool) {
        for recipient in recipients {
            self.waits.remove(&(sender, identity, *recipient));
            self.lent.remove(&(sender, identity, *recipient));
            if sender != 0 {
                self.passes.insert((sender, identity, *recipient), self.now);
            }
        }
        if trust && sender != 0 {
            self.known.insert((sender, identity), self.now);
            self.good.entry(identity).or_default().push((self.now, sender));
        }
    }

    fn give_back(&mut self, sender: u32, identity: u32, recipients: &[u32]) {
        for recipient in recipients {
            self.lent.remove(&(sender, identity, *recipient));
        }
    }

    fn revoke(&mut self, sender: u32, identity: u32) {
        self.known.remove(&(sender, identity));
        if sender != 0 {
            self.good.remove(&identity);
        }
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let who = (0u32..4, 0u32..2, proptest::collection::btree_set(0u32..3, 1..3));
    prop_oneof![
        3 => prop_oneof![Just(1), Just(299), Just(300), Just(1800), Just(3600), Just(30_000), Just(180_000), Just(3_200_000)]
            .prop_map(Act::Wait),
        5 => who.clone().prop_map(|(sender, identity, recipients)| {
            Act::Check { sender, identity, recipients: recipients.into_iter().collect() }
        }),
        1 => who.clone().prop_map(|(sender, identity, recipients)| {
            Act::GiveBack { sender, identity, recipients: recipients.into_iter().collect() }
        }),
        2 => (who, any::<bool>()).prop_map(|((sender, identity, recipients), trust)| {
            Act::Deliver { sender, identity, recipients: recipients.into_iter().collect(), trust }
        }),
        1 => (0u32..4, 0u32..2).prop_map(|(sender, identity)| Act::Revoke { sender, identity }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_store_agrees_with_a_naive_model(acts in proptest::collection::vec(any_act(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Stores { stores, clock, _alive } = mk_stores().await;
            for store in stores {
                clock.set(START);
                let mut model = Model { now: START as Time, ..Model::default() };
                for (step, act) in acts.iter().enumerate() {
                    match act {
                        Act::Wait(seconds) => {
                            clock.advance(i64::from(*seconds));
                            model.now += seconds;
                        }
                        Act::Check { sender, identity, recipients } => {
                            let expected = model.check(*sender, *identity, recipients);
                            let call = mk_call(*sender, &[*identity], recipients);
                            let passes: Vec<_> =
                                store.check(call).await.unwrap().iter().map(|judged| judged.passes()).collect();
                            prop_assert_eq!(passes, expected, "{} at step {}", store.kind(), step);
                        }
                        Act::Deliver { sender, identity, recipients, trust } => {
                            model.deliver(*sender, *identity, recipients, *trust);
                            store.deliver(mk_call(*sender, &[*identity], recipients), *trust).await.unwrap();
                        }
                        Act::GiveBack { sender, identity, recipients } => {
                            model.give_back(*sender, *identity, recipients);
                            store.give_back(mk_call(*sender, &[*identity], recipients)).await.unwrap();
                        }
                        Act::Revoke { sender, identity } => {
                            model.revoke(*sender, *identity);
                            store.revoke(mk_revocation(*sender, &[*identity])).await.unwrap();
                        }
                    }
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_store_defers_for_ever(
        delay in 0..30 * DAY,
        window in 0..30 * DAY,
        pass_ttl in 0..90 * DAY,
        tries in proptest::collection::vec((60..=72 * HOUR, 0..3), 1..30),
        null_sender: bool,
    ) {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let greylisting = Greylisting {
            delay: seconds(delay),
            retry_window: seconds(window),
            pass_ttl: seconds(pass_ttl),
            ..mk_greylisting()
        };
        let params = Params::new(&greylisting, null_sender);
        let longest = i64::from(params.delay().max(if null_sender { LEASE } else { 0 }));
        prop_assert!(longest <= 12 * HOUR);
        let mk_call = || Call { params, ..mk_call(u32::from(!null_sender), &[1], &[1]) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Stores { stores, clock, _alive } = mk_stores().await;
            for store in stores {
                clock.set(START);
                let mut deferred_since = None;
                for (interval, outcome) in &tries {
                    let judged = store.check(mk_call()).await.unwrap()[0];
                    let now = clock.now();
                    if judged.passes() {
                        deferred_since = None;
                        match outcome {
                            0 => store.deliver(mk_call(), false).await.unwrap(),
                            1 => store.give_back(mk_call()).await.unwrap(),
                            _ => {}
                        }
                    } else {
                        let since = *deferred_since.get_or_insert(now);
                        prop_assert!(since == now || now - since < longest, "{}: {:?}", store.kind(), judged);
                    }
                    clock.advance(*interval);
                }
            }
            Ok(())
        })?;
    }
}
