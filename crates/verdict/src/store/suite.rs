//! One suite over every store: what a step does must not depend on where the records are.

mod flood;
mod model;

use std::time::Duration;

use sha2::{Digest, Sha256};
use torwart_core::Greylist::{self, Auto, Early, Known, New, Passed, StoreFailure};
use torwart_policy::greylist::Params;
use torwart_policy::model::{GreylistMode, Greylisting};

use super::redis::TestServer;
use super::*;
use crate::clock::ManualClock;

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

pub(crate) fn mk_params(null_sender: bool) -> Params {
    Params::new(&mk_greylisting(), null_sender)
}

pub(crate) fn mk_greylisting() -> Greylisting {
    Greylisting {
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
    }
}

pub(crate) fn mk_key(parts: &[u32]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.to_be_bytes());
    }
    Key(*hash.finalize().first_chunk().unwrap())
}

/// A call by small numbers: 0 is the null sender; `identities` are the client's names.
pub(crate) fn mk_call(sender: u32, identities: &[u32], recipients: &[u32]) -> Call {
    mk_call_under(&[1], sender, identities, recipients)
}

pub(crate) fn mk_call_under(keys: &[u32], sender: u32, identities: &[u32], recipients: &[u32]) -> Call {
    let set = |key: u32| {
        let trust = if sender == 0 { &[] } else { identities };
        let triplet = |recipient: &u32| {
            let recipient = *recipient;
            identities.iter().map(move |identity| {
                let Key(mut triplet) = mk_key(&[key, 1, sender, *identity, recipient]);
                triplet[14..].copy_from_slice(&mk_key(&[key, 5, *identity]).tag());
                Key(triplet)
            })
        };
        KeySet {
            slot: mk_key(&[key, 0, sender]),
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
        client: identities.last().map_or([0; 2], |network| mk_key(&[1, 5, *network]).tag()),
        current: sets.next().unwrap(),
        older: sets.collect(),
    }
}

pub(crate) fn mk_revocation(sender: u32, identities: &[u32]) -> Revocation {
    Revocation { sets: vec![mk_call(sender, identities, &[]).current] }
}

/// Stores, fresh, with one clock; what they need lives as long as they.
struct Stores {
    stores: Vec<Arc<dyn Store>>,
    clock: Arc<ManualClock>,
    _alive: (tempfile::TempDir, Option<Arc<TestServer>>),
}

/// Every store.
async fn mk_stores() -> Stores {
    mk_stores_of(100_000).await
}

/// Every store; those that have a bound with this one.
async fn mk_stores_of(max_records: usize) -> Stores {
    let mut all = mk_bounded_stores(max_records);
    let server = TestServer::shared();
    all.stores.push(Arc::new(server.store(all.clock.clone()).await));
    all._alive.1 = Some(server);
    all
}

/// Those that hold so many records and no more, and sweep by themselves.
fn mk_bounded_stores(max_records: usize) -> Stores {
    let clock = Arc::new(ManualClock::new(START));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greylist.redb");
    let options = RedbOptions { max_records: max_records as u64, ..RedbOptions::default() };
    let redb = RedbStore::open(&path, clock.clone(), options).unwrap();
    let stores: Vec<Arc<dyn Store>> =
        vec![Arc::new(MemoryStore::new(max_records, clock.clone())), Arc::new(redb)];
    Stores { stores, clock, _alive: (folder, None) }
}

async fn outcomes(store: &Arc<dyn Store>, call: Call) -> Vec<Greylist> {
    store.check(call).await.unwrap().iter().map(|judged| judged.outcome).collect()
}

/// What happens, and what each recipient hears.
enum Event {
    After(i64),
    Ask(&'static [u32], u32, &'static [u32], &'static [Greylist]),
    Deliver(&'static [u32], u32, &'static [u32], bool),
    GiveBack(&'static [u32], u32, &'static [u32]),
    Revoke(u32, &'static [u32]),
}
use Event::{After, Ask, Deliver, GiveBack, Revoke};

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
            "a retry after the window passes as long as the first try is remembered",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(4 * DAY),
                Ask(&[1], 1, &[1], &[Passed]),
                Ask(&[1], 2, &[1], &[New]),
                After(4 * DAY + 1),
                Ask(&[1], 2, &[1], &[New]),
                After(300),
                Ask(&[1], 2, &[1], &[Passed]),
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
            "a wait that goes on under another name is forgotten when it would have been",
            &[
                Ask(&[1], 1, &[1], &[New]),
                After(200),
                Ask(&[9, 1], 1, &[1], &[Early]),
                After(4 * DAY - 200),
                Ask(&[9], 1, &[1], &[Passed]),
                Ask(&[1], 2, &[1], &[New]),
                After(200),
                Ask(&[9, 1], 2, &[1], &[Early]),
                After(4 * DAY - 199),
                Ask(&[9], 2, &[1], &[New]),
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
                Ask(&[1], 10, &[5], &[New]),
                Ask(&[1], 2, &[5], &[Known]),
            ],
        ),
        (
            "a first try that passed by trust is a first try when the trust is lost",
            &[
                Deliver(&[1], 1, &[1], true),
                After(HOUR),
                Deliver(&[1], 2, &[1], true),
                After(HOUR),
                Deliver(&[1], 3, &[1], true),
                Ask(&[1], 9, &[5], &[Auto]),
                Revoke(3, &[1]),
                After(299),
                Ask(&[1], 9, &[5], &[Early]),
                After(1),
                Ask(&[1], 9, &[5], &[Passed]),
            ],
        ),
        (
            "the null sender passes once per wait, however often its delivery fails",
            &[
                Ask(&[1], 0, &[1], &[New]),
                After(300),
                Ask(&[1], 0, &[1], &[Passed]),
                GiveBack(&[1], 0, &[1]),
                Ask(&[1], 0, &[1], &[Passed]),
                GiveBack(&[1], 0, &[1]),
                After(10),
                Ask(&[1], 0, &[1], &[Passed]),
                Deliver(&[1], 0, &[1], false),
                Ask(&[1], 0, &[1], &[New]),
            ],
        ),
        (
            "the null sender's pass is one session's until that is done or forgotten",
            &[
                Ask(&[1], 0, &[1], &[New]),
                After(300),
                Ask(&[1], 0, &[1], &[Passed]),
                Ask(&[1], 0, &[1], &[Early]),
                After(599),
                Ask(&[1], 0, &[1], &[Early]),
                After(1),
                Ask(&[1], 0, &[1, 2], &[Passed, Passed]),
                Ask(&[1], 0, &[1, 2], &[Early, New]),
                Deliver(&[1], 0, &[1, 2], false),
                Ask(&[1], 0, &[1], &[New]),
            ],
        ),
        (
            "whoever asks and never delivers keeps a bounce out for half a day at most",
            &[
                Ask(&[1], 0, &[1], &[New]),
                After(12 * HOUR - 1),
                Ask(&[1], 0, &[1], &[Passed]),
                Ask(&[1], 0, &[1], &[Early]),
                After(1),
                Ask(&[1], 0, &[1], &[Passed]),
            ],
        ),
        (
            "only the null sender can give back",
            &[
                Deliver(&[1], 1, &[1], false),
                GiveBack(&[1], 1, &[1]),
                After(5 * DAY),
                Ask(&[1], 1, &[1], &[Passed]),
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
        let Stores { stores, clock, _alive } = mk_stores().await;
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
                    GiveBack(identities, sender, recipients) => {
                        store.give_back(mk_call(*sender, identities, recipients)).await.expect(&place);
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
    let Stores { stores, clock, _alive } = mk_stores().await;
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
        assert_eq!(outcomes(&store, mk_call_under(&[1], 0, &[1], &[1])).await, [New]);
        clock.advance(300);
        assert_eq!(outcomes(&store, mk_call_under(&[2, 1], 0, &[1], &[1])).await, [Passed]);
        assert_eq!(outcomes(&store, mk_call_under(&[2, 1], 0, &[1], &[1])).await, [Early], "lent once");
    }
}

#[tokio::test]
async fn the_secret_stays_what_it_was_first() {
    let Stores { stores, _alive, .. } = mk_stores().await;
    for store in stores {
        assert_eq!(store.secret([1; 32]).await.unwrap(), [1; 32]);
        assert_eq!(store.secret([2; 32]).await.unwrap(), [1; 32]);
    }
}

#[tokio::test]
async fn expired_records_go() {
    let Stores { stores, clock, _alive } = mk_bounded_stores(100_000);
    for store in stores {
        clock.set(START);
        for recipient in 0..500 {
            outcomes(&store, mk_call(recipient + 1, &[1], &[recipient])).await;
        }
        store.deliver(mk_call(1000, &[1], &[1]), true).await.unwrap();
        let full = store.stats().await.unwrap();
        assert_eq!(full, Stats { records: 502, counters: 1 }, "{}", store.kind());
        clock.advance(5 * DAY);
        while store.sweep().await.unwrap() > 0 {}
        assert_eq!(store.stats().await.unwrap(), Stats { records: 2, counters: 1 }, "{}", store.kind());
        clock.advance(37 * DAY);
        while store.sweep().await.unwrap() > 0 {}
        assert_eq!(store.stats().await.unwrap(), Stats::default(), "{}", store.kind());
    }
}

#[tokio::test]
async fn expired_records_go_with_the_work_of_every_day() {
    let Stores { stores, clock, _alive } = mk_bounded_stores(100_000);
    for store in stores {
        clock.set(START);
        for sender in 0..600 {
            outcomes(&store, mk_call(sender + 1, &[1], &[1])).await;
        }
        clock.advance(5 * DAY);
        for sender in 10_000..11_200 {
            outcomes(&store, mk_call(sender, &[1], &[1])).await;
        }
        assert_eq!(store.stats().await.unwrap().records, 1200, "{}", store.kind());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_first_tries_at_once_exactly_one_is_new() {
    let Stores { stores, _alive, .. } = mk_stores().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_bounces_at_once_exactly_one_passes() {
    let Stores { stores, clock, _alive } = mk_stores().await;
    for store in stores {
        clock.set(START);
        outcomes(&store, mk_call(0, &[1], &[1])).await;
        clock.advance(300);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let store = Arc::clone(&store);
            tasks.spawn(async move { outcomes(&store, mk_call(0, &[1], &[1])).await });
        }
        let all = tasks.join_all().await;
        assert_eq!(all.iter().filter(|answer| answer[..] == [Passed]).count(), 1, "{}", store.kind());
        assert_eq!(all.iter().filter(|answer| answer[..] == [Early]).count(), 19, "{}", store.kind());
    }
}
