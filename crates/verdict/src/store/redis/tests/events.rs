//! Whatever happens, Redis says what memory says.

use proptest::prelude::*;
use torwart_policy::model::Greylisting;

use super::*;
use crate::store::MemoryStore;

#[derive(Clone, Debug)]
enum Event {
    Wait(u32),
    /// Another store key is put in front.
    Rotate,
    /// The policy has another delay.
    Delay(u64),
    Check(Who),
    Deliver(Who, bool),
    GiveBack(Who),
    Revoke(Who),
}

/// 0 is the null sender.
#[derive(Clone, Debug)]
struct Who {
    sender: u32,
    identities: Vec<u32>,
    recipients: Vec<u32>,
}

fn any_who() -> impl Strategy<Value = Who> {
    let identities = Just(vec![1, 2, 3]).prop_shuffle();
    (0u32..4, identities, 1usize..=3, proptest::collection::vec(0u32..4, 1..4)).prop_map(
        |(sender, mut identities, names, recipients)| {
            identities.truncate(names);
            Who { sender, identities, recipients }
        },
    )
}

fn any_event() -> impl Strategy<Value = Event> {
    let wait = prop_oneof![
        4 => prop_oneof![Just(1), Just(299), Just(300), Just(599), Just(1800), Just(3600)],
        3 => 1..60_000u32,
        1 => prop_oneof![Just(345_600), Just(345_601), Just(3_110_400), Just(200_000)],
    ];
    prop_oneof![
        6 => wait.prop_map(Event::Wait),
        1 => Just(Event::Rotate),
        1 => (0..50_000u64).prop_map(Event::Delay),
        8 => any_who().prop_map(Event::Check),
        4 => (any_who(), any::<bool>()).prop_map(|(who, trust)| Event::Deliver(who, trust)),
        2 => any_who().prop_map(Event::GiveBack),
        1 => any_who().prop_map(Event::Revoke),
    ]
}

struct World {
    memory: MemoryStore,
    redis: RedisStore,
    clock: Arc<ManualClock>,
    keys: Vec<u32>,
    greylisting: Greylisting,
}

impl World {
    fn call(&self, who: &Who) -> Call {
        let params = Params::new(&self.greylisting, who.sender == 0);
        Call { params, ..mk_call_under(&self.keys, who.sender, &who.identities, &who.recipients) }
    }

    async fn happens(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Wait(seconds) => self.clock.advance(i64::from(*seconds)),
            Event::Rotate => {
                self.keys.insert(0, 1 + self.keys[0]);
                self.keys.truncate(3);
            }
            Event::Delay(seconds) => self.greylisting.delay = Duration::from_secs(*seconds),
            Event::Check(who) => {
                let call = self.call(who);
                let memory = self.memory.check(call.clone()).await.unwrap();
                prop_assert_eq!(self.redis.check(call).await.unwrap(), memory);
            }
            Event::Deliver(who, trust) => {
                let call = self.call(who);
                self.memory.deliver(call.clone(), *trust).await.unwrap();
                self.redis.deliver(call, *trust).await.unwrap();
            }
            Event::GiveBack(who) => {
                let call = self.call(who);
                self.memory.give_back(call.clone()).await.unwrap();
                self.redis.give_back(call).await.unwrap();
            }
            Event::Revoke(who) => {
                let Call { current, older, .. } = self.call(who);
                let revocation = Revocation { sets: std::iter::once(current).chain(older).collect() };
                self.memory.revoke(revocation.clone()).await.unwrap();
                self.redis.revoke(revocation).await.unwrap();
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_redis_answers_as_memory_does(
        window in prop_oneof![Just(172_800), 0..1_000_000u64],
        pass_ttl in prop_oneof![Just(3_110_400), 1..1_000_000u64],
        quota in prop_oneof![Just(10_000u32), 1..20u32],
        events in proptest::collection::vec(any_event(), 1..80),
    ) {
        let server = TestServer::shared();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(START));
            let memory = MemoryStore::new(100_000, clock.clone()).with_quota(quota);
            let redis = server.store(clock.clone()).await.with_quota(quota);
            let greylisting = Greylisting {
                retry_window: Duration::from_secs(window),
                pass_ttl: Duration::from_secs(pass_ttl),
                ..mk_greylisting()
            };
            let mut world = World { memory, redis, clock, keys: vec![1], greylisting };
            for event in &events {
                world.happens(event).await?;
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}
