//! One suite over every store: what a step does must not depend on where the records are.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use torwart_core::Greylist::{self, Auto, Early, Expired, Known, New, Passed};
use torwart_policy::greylist::{Params, Time};
use torwart_policy::model::{GreylistMode, Greylisting};

use super::*;
use crate::clock::ManualClock;

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

pub(crate) fn mk_params(null_sender: bool) -> Params {
    let greylisting = Greylisting {
        mode: GreylistMode::Always,
        delay: Duration::from_secs(300),
        retry_window: Duration::from_secs(48 * 3600),
        pass_ttl: Duration::from_secs(36 * 24 * 3600),
        auto_pass_after: 3,
        prefix_ipv4: 24,
        prefix_ipv6: 64,
        pool_identity: true,
        exempt_recipients: Vec::new(),
        accept_on_store_failure: true,
    };
    Params::new(&greylisting, null_sender)
}

pub(crate) fn mk_key(parts: &[u32]) -> Key {
    // Spread like the hashes that keys are.
    let mut state = 0xcbf2_9ce4_8422_2325_u128;
    for part in parts {
        state = (state ^ u128::from(*part)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        state ^= state >> 61;
    }
    Key(state.to_be_bytes())
}

/// A call by small numbers: 0 is the null sender; `identities` are the client's names.
pub(crate) fn mk_call(sender: u32, identities: &[u32], recipients: &[u32]) -> Call {
    mk_call_under(&[1], sender, identities, recipients)
}

fn mk_call_under(keys: &[u32], sender: u32, identities: &[u32], recipients: &[u32]) -> Call {
    let set = |key: u32| {
        let trust = if sender == 0 { &[] } else { identities };
        let triplet = |recipient: &u32| {
            let recipient = *recipient;
            identities.iter().map(move |identity| mk_key(&[key, 1, sender, *identity, recipient]))
        };
        KeySet {
            slot: mk_key(&[1, 0, sender]),
            triplets: recipients.iter().flat_map(triplet).collect(),
            known: trust.iter().map(|identity| mk_key(&[key, 2, sender, *identity])).collect(),
            counters: trust.iter().map(|identity| mk_key(&[key, 3, *identity])).collect(),
        }
    };
    let mut sets = keys.iter().map(|key| set(*key));
    Call {
        params: mk_params(sender == 0),
        identities: identities.len(),
        sender,
        current: sets.next().unwrap(),
        older: sets.collect(),
    }
}

fn mk_revocation(sender: u32, identities: &[u32]) -> Revocation {
    let KeySet { slot, known, counters, .. } = mk_call(sender, identities, &[]).current;
    Revocation { slot, known, counters }
}

/// Every store, fresh, each with its own clock; the folder lives as long as the stores.
struct Stores {
    stores: Vec<Arc<dyn Store>>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

fn mk_stores() -> Stores {
    let clock = Arc::new(ManualClock::new(START));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let redb = RedbStore::open(&path, clock.clone(), RedbOptions::default()).unwrap();
    let stores: Vec<Arc<dyn Store>> =
        vec![Arc::new(MemoryStore::new(100_000, clock.clone())), Arc::new(redb)];
    Stores { stores, clock, _folder: folder }
}

async fn outcomes(store: &Arc<dyn Store>, call: Call) -> Vec<Greylist> {
    store.check(call).await.unwrap().iter().map(|judged| judged.outcome).collect()
}

/// What happens, and what each recipient hears.
enum Event {
    After(i64),
    Ask(&'static [u32], u32, &'static [u32], &'static [Greylist]),
    Deliver(&'static [u32], u32, &'static [u32], bool),
    Revoke(u32, &'static [u32]),
}
use Event::{After, Ask, Deliver, Revoke};

#[tokio::test]
async fn every_store_tells_the_same_stories() {
    let stories: &[(&str, &[Event])] = &[
        (
            "a retry passes after the delay, and from then on",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(299),
                Ask(&[1], 1, &[1], &[Early]),
                After(1),
                Ask(&[1], 1, &[1], &[Passed]),
                After(35 * DAY),
                Ask(&[1], 1, &[1], &[Passed]),
                After(35 * DAY),
                Ask(&[1], 1, &[1], &[Passed]),
                After(36 * DAY),
                Ask(&[1], 1, &[1], &[New]),
            ],
        ),
        (
            "another client, sender or recipient is another triplet",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(300),
                Ask(&[2], 1, &[1], &[New]),
                Ask(&[1], 2, &[1], &[New]),
                Ask(&[1], 1, &[2], &[New]),
            ],
        ),
        (
            "a retry after the window is late",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(48 * HOUR + 1),
                Ask(&[1], 1, &[1], &[Expired]),
                After(300),
                Ask(&[1], 1, &[1], &[Passed]),
            ],
        ),
        (
            "one ripe recipient passes all, and they keep their pass",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(300),
                Ask(&[1], 1, &[2, 1, 3], &[Passed, Passed, Passed]),
                Ask(&[1], 1, &[3], &[Passed]),
                Ask(&[1], 1, &[2], &[Passed]),
            ],
        ),
        (
            "a pool is known by its common name from its first try on",
            &[
                Ask(&[9, 1], 1, &[1], &[New]),
                After(300),
                Ask(&[9, 2], 1, &[1], &[Passed]),
                Ask(&[2], 1, &[1], &[Passed]),
            ],
        ),
        (
            "a name that is missing for once does not restart the wait",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(200),
                Ask(&[9, 1], 1, &[1], &[Early]),
                After(100),
                Ask(&[9, 2], 1, &[1], &[Passed]),
            ],
        ),
        (
            "an old try under one name does not spoil a fresh one under another",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(47 * HOUR),
                Ask(&[9], 1, &[1], &[New]),
                After(2 * HOUR),
                Ask(&[9, 1], 1, &[1], &[Passed]),
            ],
        ),
        (
            "a delivery makes the sender known to the mail domain",
            &[
                Deliver(&[1], 1, &[1], true),
                Ask(&[1], 1, &[1], &[Passed]),
                Ask(&[1], 1, &[2], &[Known]),
                Ask(&[1], 2, &[2], &[New]),
                Ask(&[2], 1, &[3], &[New]),
                After(36 * DAY),
                Ask(&[1], 1, &[2], &[New]),
            ],
        ),
        (
            "a delivery without trust passes its own triplet only",
            &[Deliver(&[1], 1, &[1], false), Ask(&[1], 1, &[2], &[New]), Ask(&[1], 1, &[1], &[Passed])],
        ),
        (
            "three senders, an hour apart, make the client known",
            &[
                Deliver(&[1], 1, &[1], true),
                Deliver(&[1], 2, &[1], true),
                After(HOUR),
                Deliver(&[1], 3, &[1], true),
                Ask(&[1], 7, &[1], &[New]),
                After(HOUR),
                Deliver(&[1], 4, &[1], true),
                Ask(&[1], 8, &[1], &[Auto]),
                Ask(&[1], 9, &[1], &[Auto]),
                Ask(&[2], 8, &[1], &[New]),
            ],
        ),
        (
            "trust is lost when it is taken back",
            &[
                Deliver(&[1], 1, &[1], true),
                After(HOUR),
                Deliver(&[1], 2, &[1], true),
                After(HOUR),
                Deliver(&[1], 3, &[1], true),
                Ask(&[1], 3, &[5], &[Known]),
                Ask(&[1], 9, &[5], &[Auto]),
                Revoke(3, &[1]),
                Ask(&[1], 3, &[5], &[New]),
                Ask(&[1], 9, &[5], &[New]),
                Ask(&[1], 2, &[5], &[Known]),
            ],
        ),
        (
            "the null sender passes once per wait, however often its delivery fails",
            &[
                Ask(&[1], 0, &[1], &[New]),
                After(300),
                Ask(&[1], 0, &[1], &[Passed]),
                After(10),
                Ask(&[1], 0, &[1], &[Passed]),
                Deliver(&[1], 0, &[1], false),
                Ask(&[1], 0, &[1], &[New]),
            ],
        ),
        (
            "the null sender earns nothing",
            &[Deliver(&[1], 0, &[1], true), Ask(&[1], 0, &[1], &[New]), Ask(&[1], 0, &[2], &[New])],
        ),
        (
            "what was delivered while nothing was greylisted has passed",
            &[Deliver(&[1], 1, &[1, 2], false), After(DAY), Ask(&[1], 1, &[2], &[Passed])],
        ),
        (
            "a known sender's triplet that waits is left to wait",
            &[
                Ask(&[1], 1, &[2], &[New]),
                Deliver(&[1], 1, &[1], true),
                Ask(&[1], 1, &[2], &[Known]),
                Revoke(1, &[1]),
                After(299),
                Ask(&[1], 1, &[2], &[Early]),
                After(1),
                Ask(&[1], 1, &[2], &[Passed]),
            ],
        ),
    ];
    for (name, story) in stories {
        let Stores { stores, clock, _folder } = mk_stores();
        for store in stores {
            clock.set(START);
            for (line, event) in story.iter().enumerate() {
                let place = format!("{}: {name}, line {}", store.kind(), line + 1);
                match event {
                    After(seconds) => clock.advance(*seconds),
                    Ask(identities, sender, recipients, expected) => {
                        assert_eq!(
                            outcomes(&store, mk_call(*sender, identities, recipients)).await,
                            *expected,
                            "{place}"
                        );
                    }
                    Deliver(identities, sender, recipients, trust) => {
                        store.deliver(mk_call(*sender, identities, recipients), *trust).await.expect(&place);
                    }
                    Revoke(sender, identities) => {
                        store.revoke(mk_revocation(*sender, identities)).await.expect(&place);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_new_store_key_reads_what_the_old_one_wrote() {
    let Stores { stores, clock, _folder } = mk_stores();
    for store in stores {
        clock.set(START);
        assert_eq!(outcomes(&store, mk_call_under(&[1], 1, &[1], &[1])).await, [New]);
        clock.advance(299);
        assert_eq!(
            outcomes(&store, mk_call_under(&[2, 1], 1, &[1], &[1])).await,
            [Early],
            "{}",
            store.kind()
        );
        clock.advance(1);
        assert_eq!(
            outcomes(&store, mk_call_under(&[2], 1, &[1], &[1])).await,
            [Passed],
            "copied under the new key"
        );
        store.deliver(mk_call_under(&[1], 2, &[1], &[1]), true).await.unwrap();
        assert_eq!(outcomes(&store, mk_call_under(&[2, 1], 2, &[1], &[7])).await, [Known]);
        assert_eq!(outcomes(&store, mk_call_under(&[2], 2, &[1], &[7])).await, [New]);
    }
}

#[tokio::test]
async fn the_secret_stays_what_it_was_first() {
    let Stores { stores, .. } = mk_stores();
    for store in stores {
        assert_eq!(store.secret([1; 32]).await.unwrap(), [1; 32]);
        assert_eq!(store.secret([2; 32]).await.unwrap(), [1; 32]);
    }
}

#[tokio::test]
async fn expired_records_go() {
    let Stores { stores, clock, _folder } = mk_stores();
    for store in stores {
        clock.set(START);
        for recipient in 0..500 {
            outcomes(&store, mk_call(recipient + 1, &[1], &[recipient])).await;
        }
        store.deliver(mk_call(1000, &[1], &[1]), true).await.unwrap();
        let full = store.stats().await.unwrap();
        assert_eq!(full, Stats { records: 502, counters: 1 }, "{}", store.kind());
        clock.advance(3 * DAY);
        while store.sweep().await.unwrap() > 0 {}
        assert_eq!(store.stats().await.unwrap(), Stats { records: 2, counters: 1 }, "{}", store.kind());
        clock.advance(37 * DAY);
        while store.sweep().await.unwrap() > 0 {}
        assert_eq!(store.stats().await.unwrap(), Stats::default(), "{}", store.kind());
    }
}

#[tokio::test]
async fn expired_records_go_with_the_work_of_every_day() {
    let Stores { stores, clock, _folder } = mk_stores();
    for store in stores {
        clock.set(START);
        for sender in 0..600 {
            outcomes(&store, mk_call(sender + 1, &[1], &[1])).await;
        }
        clock.advance(3 * DAY);
        for sender in 10_000..11_200 {
            outcomes(&store, mk_call(sender, &[1], &[1])).await;
        }
        assert_eq!(store.stats().await.unwrap().records, 1200, "{}", store.kind());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_first_tries_at_once_exactly_one_is_new() {
    let Stores { stores, .. } = mk_stores();
    for store in stores {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let store = Arc::clone(&store);
            tasks.spawn(async move { outcomes(&store, mk_call(1, &[1, 2], &[1, 2])).await });
        }
        let all = tasks.join_all().await;
        assert_eq!(all.iter().filter(|answer| answer[..] == [New, New]).count(), 1, "{}", store.kind());
        assert_eq!(all.iter().filter(|answer| answer[..] == [Early, Early]).count(), 63, "{}", store.kind());
    }
}

// --- a naive model, which knows nothing of records: it keeps the history and reads it from the start each time

#[derive(Clone, Debug)]
enum Act {
    Wait(u32),
    Check { sender: u32, identity: u32, recipients: Vec<u32> },
    Deliver { sender: u32, identity: u32, recipients: Vec<u32>, trust: bool },
    Revoke { sender: u32, identity: u32 },
}

#[derive(Default)]
struct Model {
    now: Time,
    /// Per (sender, identity, recipient): when the wait began, and when it last passed.
    waits: HashMap<(u32, u32, u32), Time>,
    passes: HashMap<(u32, u32, u32), Time>,
    known: HashMap<(u32, u32), Time>,
    /// Per identity: good deliveries as (time, sender).
    good: HashMap<u32, Vec<(Time, u32)>>,
}

const PASS_TTL: Time = 36 * 24 * 3600;
const WINDOW: Time = 48 * 3600;

impl Model {
    fn check(&mut self, sender: u32, identity: u32, recipients: &[u32]) -> Vec<bool> {
        let now = self.now;
        let ripe = recipients.iter().any(|recipient| {
            let triplet = (sender, identity, *recipient);
            let passed = self.passes.get(&triplet).is_some_and(|at| now - at < PASS_TTL);
            let waited = self.waits.get(&triplet).is_some_and(|at| (300..=WINDOW).contains(&(now - at)));
            passed || waited
        });
        let trusted = sender != 0
            && (self.known.get(&(sender, identity)).is_some_and(|at| now - at < PASS_TTL)
                || self.auto(identity));
        for recipient in recipients {
            let triplet = (sender, identity, *recipient);
            if ripe {
                if sender != 0 {
                    self.waits.remove(&triplet);
                    self.passes.insert(triplet, now);
                }
            } else if !trusted {
                let wait = self.waits.entry(triplet).or_insert(now);
                if now - *wait > WINDOW {
                    *wait = now;
                }
            }
        }
        vec![ripe || trusted; recipients.len()]
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
            if sender != 0 {
                self.passes.insert((sender, identity, *recipient), self.now);
            }
        }
        if trust && sender != 0 {
            self.known.insert((sender, identity), self.now);
            self.good.entry(identity).or_default().push((self.now, sender));
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let Stores { stores, clock, _folder } = mk_stores();
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
        intervals in proptest::collection::vec(1u32..4 * 3600, 80),
        recipients in proptest::collection::vec(0u32..4, 80),
        null_sender: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let Stores { stores, clock, _folder } = mk_stores();
            for store in stores {
                clock.set(START);
                let sender = u32::from(!null_sender);
                let mut first_try: HashMap<u32, i64> = HashMap::new();
                for (interval, recipient) in intervals.iter().zip(&recipients) {
                    clock.advance(i64::from(*interval));
                    let now = clock.now();
                    let first = *first_try.entry(*recipient).or_insert(now);
                    let judged = store.check(mk_call(sender, &[1], &[*recipient])).await.unwrap()[0];
                    if (300..=48 * HOUR).contains(&(now - first)) {
                        prop_assert!(judged.passes(), "{}: {:?} after {}", store.kind(), judged, now - first);
                    }
                    if judged.passes() && null_sender {
                        first_try.remove(recipient);
                        store.deliver(mk_call(sender, &[1], &[*recipient]), false).await.unwrap();
                    }
                    if now - first > 48 * HOUR && !judged.passes() {
                        first_try.insert(*recipient, now);
                    }
                }
            }
            Ok(())
        })?;
    }
}
