//! Floods: whoever fills a store harms himself, and nobody is deferred for ever.

use proptest::prelude::*;

use super::*;

/// First tries of one sender to recipients that nobody else writes to, by each of these clients.
async fn flood(
    store: &Arc<dyn Store>,
    sender: u32,
    clients: std::ops::Range<u32>,
    recipients: u32,
    salt: u32,
) {
    for client in clients {
        for start in (0..recipients).step_by(100) {
            let first = 1_000_000 + salt * 100_000 + start;
            let all: Vec<u32> = (first..first + 100.min(recipients - start)).collect();
            store.check(mk_call(sender, &[client], &all)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_network_cannot_drop_the_records_of_others() {
    let Stores { stores, clock, _alive } = mk_stores_of(60_000).await;
    for store in stores {
        clock.set(START);
        assert_eq!(outcomes(&store, mk_call(1, &[1], &[1])).await, [New]);
        for round in 0..3 {
            flood(&store, 1, 2..3, 40_000, round).await;
            clock.advance(300);
        }
        let records = store.stats().await.unwrap().records;
        assert!((10_000..10_100).contains(&records), "{}: {records}", store.kind());
        assert_eq!(outcomes(&store, mk_call(1, &[1], &[1])).await, [Passed], "{}", store.kind());
        assert_eq!(outcomes(&store, mk_call(1, &[2], &[1_000_000])).await, [Passed], "{}", store.kind());
        assert_eq!(
            outcomes(&store, mk_call(1, &[2], &[1_039_999])).await,
            [StoreFailure],
            "{}",
            store.kind()
        );
        assert_eq!(outcomes(&store, mk_call(1, &[3], &[1])).await, [New], "others are greylisted as ever");
    }
}

#[tokio::test]
async fn a_passing_record_makes_room_for_another_that_waits() {
    let Stores { stores, clock, _alive } = mk_stores().await;
    for store in stores {
        clock.set(START);
        for round in 0..3 {
            flood(&store, 1, 2..3, 9_000, round).await;
            clock.advance(300);
            flood(&store, 1, 2..3, 9_000, round).await;
        }
        assert_eq!(store.stats().await.unwrap().records, 27_000, "{}", store.kind());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn under_any_flood_a_sender_that_retries_passes(
        null_sender: bool,
        rounds in proptest::collection::vec((300..=72 * HOUR, 0u32..20, 1u32..400), 1..4),
        same_sender: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Stores { stores, clock, _alive } = mk_stores_of(640).await;
            for store in stores {
                let sender = u32::from(!null_sender);
                let other = if same_sender { sender } else { 7 };
                clock.set(START);
                for (round, (interval, clients, recipients)) in rounds.iter().enumerate() {
                    let salt = round as u32;
                    // Each round is another message.
                    let first = outcomes(&store, mk_call(sender, &[1], &[salt])).await;
                    prop_assert!([New, Early, StoreFailure].contains(&first[0]), "{:?}", first);
                    flood(&store, other, 100..100 + clients, *recipients, salt).await;
                    clock.advance(*interval);
                    flood(&store, other, 200..200 + clients, *recipients, salt).await;
                    let retry = store.check(mk_call(sender, &[1], &[salt])).await.unwrap()[0];
                    prop_assert!(retry.passes(), "{}: {:?} after {}", store.kind(), retry, interval);
                    // A server has no bound of its own: it is full when it has no memory left.
                    let is_bounded = store.connects().is_none();
                    prop_assert!(!is_bounded || store.stats().await.unwrap().records <= 640);
                }
            }
            Ok(())
        })?;
    }
}
