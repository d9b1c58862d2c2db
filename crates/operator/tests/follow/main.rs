//! A follower against a real API server: whatever is published, what is in force is good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // helpers of tests

mod outage;
mod publish;

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use torwart_operator::follow::{Follower, Loaded, News};
use torwart_policy::publish::chunks;

use self::outage::Way;
use self::publish::{NOW, Publisher, api_server, index, snapshot};

/// The longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(30);
/// What would have come by now.
const QUIET: Duration = Duration::from_millis(700);

struct Following {
    news: UnboundedReceiver<News>,
    task: JoinHandle<()>,
}

impl Following {
    fn start(config: Config, publisher: &Publisher, last: Option<Loaded>) -> Self {
        let (sender, news) = unbounded_channel();
        let listener = Arc::new(move |one| drop(sender.send(one)));
        let client = Client::try_from(config).unwrap();
        let follower = Follower::new(client, &publisher.source, last, Arc::new(|| NOW), listener);
        Self { news, task: tokio::spawn(follower.run(Arc::new(Notify::new()))) }
    }

    #[track_caller]
    fn next(&mut self) -> impl Future<Output = News> {
        let next = timeout(LIMIT, self.news.recv());
        async move { next.await.expect("no news").expect("the follower ended") }
    }

    /// The next policy, which must have this number and so many mail domains.
    async fn loads(&mut self, sequence: u64, domains: usize) -> Loaded {
        match self.next().await {
            News::Loaded(loaded) => {
                assert_eq!((loaded.publication.sequence(), loaded.policy.domains.len()), (sequence, domains));
                assert_eq!(loaded.problems, Vec::<String>::new());
                loaded
            }
            other => panic!("{other:?} instead of {sequence}"),
        }
    }

    async fn keeps(&mut self, words: &str, policy: bool) {
        match self.next().await {
            News::Kept { why, is_of_policy } => {
                assert!(why.contains(words), "{why}");
                assert_eq!(is_of_policy, policy, "{why}");
            }
            other => panic!("{other:?} instead of {words}"),
        }
    }

    async fn says_nothing(&mut self) {
        if let Ok(news) = timeout(QUIET, self.news.recv()).await {
            panic!("{news:?}");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn what_is_published_is_taken_from_the_first_to_the_next() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "first").await;
    let mut following = Following::start(config.clone(), &publisher, None);
    following.keeps("there is no index", false).await;
    publisher.publish(100, &snapshot(&["a.example", "b.example"])).await;
    following.loads(100, 2).await;
    // One object more: one chunk is fetched, the others are here.
    publisher.publish(101, &snapshot(&["a.example", "b.example", "c.example"])).await;
    following.loads(101, 3).await;
    // The same once more under a new number.
    publisher.publish(102, &snapshot(&["a.example", "b.example", "c.example"])).await;
    let loaded = following.loads(102, 3).await;
    following.says_nothing().await;
    // Who begins later finds the last one, and who had it needs nothing.
    Following::start(config.clone(), &publisher, None).loads(102, 3).await;
    Following::start(config, &publisher, Some(loaded)).says_nothing().await;
    publisher.end().await;
}

#[tokio::test]
async fn a_bad_index_changes_nothing_and_the_next_good_one_is_taken() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "index").await;
    let (one, two) = (snapshot(&["a.example"]), snapshot(&["a.example", "b.example"]));
    publisher.publish(200, &one).await;
    let mut following = Following::start(config, &publisher, None);
    following.loads(200, 1).await;
    // Both are there: only the index decides.
    let changed = chunks(&two).into_iter().filter(|(slot, chunk)| chunks(&one).get(slot) != Some(chunk));
    for (slot, chunk) in changed {
        let before = chunks(&one);
        let both: Vec<_> = before.get(&slot).into_iter().chain([&chunk]).collect();
        publisher.put_slot(slot, &both).await;
    }
    let good = index(201, &two).to_json();
    let mut wrong = index(201, &two);
    wrong.revision = one.revision.clone();
    for (text, words, of_policy) in [
        ("{", "can't be read", true),
        (&good.replace("\"formatVersion\":1", "\"formatVersion\":99"), "update this verdict", true),
        (&index(199, &two).to_json(), "number 199, and number 200 is in force", true),
        (&index(200, &two).to_json(), "number 200, and number 200 is in force", true),
        (&wrong.to_json(), "number 201 can't be used", true),
    ] {
        publisher.put_index(text).await;
        following.keeps(words, of_policy).await;
    }
    publisher.put_index(&index(202, &two).to_json()).await;
    following.loads(202, 2).await;
    publisher.delete_index().await;
    following.keeps("was deleted", false).await;
    // Another object of that name may count anew.
    publisher.put_index(&index(7, &one).to_json()).await;
    following.loads(7, 1).await;
    publisher.put_index(&index(6, &two).to_json()).await;
    following.keeps("number 6, and number 7 is in force", true).await;
    publisher.put_index(&index(7, &one).to_json()).await;
    assert!(matches!(following.next().await, News::Well));
    publisher.end().await;
}

#[tokio::test]
async fn a_chunk_that_is_missing_or_broken_is_waited_for() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "chunk").await;
    let (one, two) = (snapshot(&["a.example"]), snapshot(&["a.example", "b.example"]));
    let three = snapshot(&["a.example", "b.example", "c.example"]);
    publisher.publish(300, &one).await;
    let mut following = Following::start(config, &publisher, None);
    following.loads(300, 1).await;

    // The index comes before its chunks.
    publisher.put_index(&index(301, &two).to_json()).await;
    following.keeps("does not hold the chunk", true).await;
    publisher.publish(302, &three).await;
    following.loads(302, 3).await;

    // What is under a chunk's name is something else, until it is mended: nobody writes the index again.
    let four = snapshot(&["a.example", "b.example", "c.example", "d.example"]);
    let (slot, chunk) =
        chunks(&four).into_iter().find(|(slot, chunk)| chunks(&three).get(slot) != Some(chunk)).unwrap();
    let mut bytes = chunk.compress();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    publisher.put_bytes(slot, [(chunk.hash.0.to_string(), bytes)].into()).await;
    publisher.put_index(&index(303, &four).to_json()).await;
    following.keeps("is broken", true).await;
    publisher.put_slot(slot, &[&chunk]).await;
    following.loads(303, 4).await;
    publisher.end().await;
}

/// Slots before index, each slot with the chunk before: whoever reads at any time gets a whole policy.
#[tokio::test]
async fn while_the_operator_goes_on_every_policy_is_whole_and_the_last_one_comes() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "burst").await;
    let all: Vec<String> = (0..60).map(|count| format!("d{count}.example")).collect();
    let some = |count: usize| {
        let names: Vec<&str> = all.iter().take(count).map(String::as_str).collect();
        snapshot(&names)
    };
    let mut before = some(1);
    publisher.publish(401, &before).await;
    let mut following = Following::start(config, &publisher, None);
    following.loads(401, 1).await;
    let changes = async {
        for count in 2..=60_u32 {
            let now = some(count as usize);
            let held = chunks(&before);
            for (slot, chunk) in chunks(&now) {
                if held.get(&slot) != Some(&chunk) {
                    let both: Vec<_> = held.get(&slot).into_iter().chain([&chunk]).collect();
                    publisher.put_slot(slot, &both).await;
                }
            }
            publisher.put_index(&index(400 + u64::from(count), &now).to_json()).await;
            before = now;
        }
    };
    let policies = async {
        let mut last = 401;
        while last < 460 {
            let News::Loaded(loaded) = following.next().await else { panic!("not whole after {last}") };
            let sequence = loaded.publication.sequence();
            assert!(sequence > last, "{sequence} after {last}");
            assert_eq!(loaded.policy.domains.len() as u64, sequence - 400);
            last = sequence;
        }
    };
    tokio::join!(changes, policies);
    publisher.end().await;
}

#[tokio::test]
async fn without_the_api_server_what_is_in_force_stays_and_what_came_meanwhile_is_taken_after() {
    let Some(config) = api_server().await else { return };
    let publisher = Publisher::new(config.clone(), "outage").await;
    publisher.publish(500, &snapshot(&["a.example"])).await;
    let mut way = Way::new(config).await;
    let mut following = Following::start(way.config.clone(), &publisher, None);
    following.keeps("the API server can't be asked", false).await;
    following.says_nothing().await;
    way.open().await;
    let first = following.loads(500, 1).await;
    way.close().await;
    publisher.publish(501, &snapshot(&["a.example", "b.example"])).await;
    following.keeps("the API server can't be asked", false).await;
    // A restart meanwhile goes on from what it kept.
    let kept = Loaded::from_file(&first.to_file().unwrap(), NOW).unwrap();
    let mut restarted = Following::start(way.config.clone(), &publisher, Some(kept));
    restarted.keeps("the API server can't be asked", false).await;
    way.open().await;
    following.loads(501, 2).await;
    restarted.loads(501, 2).await;
    publisher.end().await;
}
