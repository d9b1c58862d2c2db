//! Greylist decisions a second over one connection to Redis, and what redis-benchmark gets from the same server with
//! the same script, over one connection too, with as many in flight.
//!
//! `cargo run --release -p torwart-verdict --example redis_decisions -- redis://127.0.0.1:6379 [ours|theirs]`
//!
//! All are first tries of triplets that differ. A decision of ours reads the client's counter as well, decodes the
//! answer and wakes its task. The server must be one for this purpose, without TLS and password: it is left full
//! of records.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use torwart_policy::greylist::Params;
use torwart_policy::model::{GreylistMode, Greylisting};
use torwart_verdict::Store;
use torwart_verdict::store::{Call, Key, KeySet, RedisOptions, RedisStore};

/// In flight at a time.
const TASKS: u64 = 100;
/// Of each side, in each round.
const DECISIONS: u64 = 200_000;
const ROUNDS: usize = 5;
/// EVALSHA, the script's hash, the number of keys.
const KEYS_AT: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
    let options = RedisOptions { timeout: Duration::from_secs(5), ..RedisOptions::default() };
    let store = Arc::new(RedisStore::open(url.parse()?, &options)?);
    let mut connects = store.connects().ok_or("no connection")?;
    tokio::time::timeout(Duration::from_secs(5), connects.wait_for(|count| *count > 0)).await??;
    // The server has the script from now on.
    store.check(mk_call(u64::MAX)).await?;
    match arguments.next().as_deref() {
        Some("ours") => println!("{:.0} decisions/s", ours(&store, 0).await?),
        Some("theirs") => println!("{:.0} requests/s", theirs(&url)?),
        _ => compare(&store, &url).await?,
    }
    Ok(())
}

async fn compare(store: &Arc<RedisStore>, url: &str) -> Result<()> {
    let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        all_theirs.push(theirs(url)?);
        all_ours.push(ours(store, round as u64).await?);
    }
    let (ours, theirs) = (median(all_ours), median(all_theirs));
    println!("torwart:         {ours:.0} decisions/s, median of {ROUNDS} rounds");
    println!("redis-benchmark: {theirs:.0} requests/s");
    println!("ratio:           {:.2}", ours / theirs);
    Ok(())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::disallowed_methods)] // It measures time.
async fn ours(store: &Arc<RedisStore>, round: u64) -> Result<f64> {
    let next = Arc::new(AtomicU64::new(round * DECISIONS));
    let end = (round + 1) * DECISIONS;
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (store, next) = (Arc::clone(store), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok(());
                }
                store.check(mk_call(number)).await?;
            }
        });
    }
    for result in tasks.join_all().await {
        result.map_err(|error: torwart_verdict::StoreError| error.to_string())?;
    }
    Ok(DECISIONS as f64 / start.elapsed().as_secs_f64())
}

/// Runs redis-benchmark, and says what it says.
fn theirs(url: &str) -> Result<f64> {
    let (host, port) = url.trim_start_matches("redis://").split_once(':').ok_or("redis://host:port")?;
    let port = port.split('/').next().unwrap_or(port);
    let (mut words, _script) = RedisStore::check_as_sent(&mk_call(0));
    // It puts random digits there, another number at each place. Names are as long as ours.
    for (word, name) in words.iter_mut().skip(KEYS_AT).zip(["tr__rand_int__", "kn__rand_int__"]) {
        if word.len() != name.len() {
            return Err("the names of records have another length than here".into());
        }
        *word = name.into();
    }
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", host, "-p", port, "-c", "1", "-P", &TASKS.to_string(), "-q"]);
    command.args(["-n", &DECISIONS.to_string(), "-r", "2000000000"]);
    for word in words {
        command.arg(String::from_utf8(word)?);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let before = text.rsplit_once(" requests per second").ok_or("no figure")?.0;
    Ok(before.rsplit(' ').next().unwrap_or_default().parse()?)
}

/// A first try of one recipient, by a client that goes by one name.
fn mk_call(number: u64) -> Call {
    let key = |kind: u64| Key((u128::from(mix(number)) << 64 | u128::from(mix(number ^ kind))).to_be_bytes());
    let greylisting = Greylisting {
        mode: GreylistMode::Always,
        delay: Duration::from_secs(300),
        retry_window: Duration::from_secs(48 * 3600),
        pass_ttl: Duration::from_secs(36 * 24 * 3600),
        auto_pass_after: 5,
        prefix_ipv4: 24,
        prefix_ipv6: 64,
        pool_identity: true,
        exempt_recipients: Vec::new(),
        accept_on_store_failure: true,
    };
    Call {
        params: Params::new(&greylisting, false),
        identities: 1,
        sender: 1,
        // As many clients as there are: each has its quota.
        client: [(number >> 8) as u8, number as u8],
        current: KeySet {
            slot: key(1 << 60),
            triplets: vec![key(2 << 60)],
            known: vec![key(3 << 60)],
            counters: vec![key(4 << 60)],
        },
        older: Vec::new(),
    }
}

/// SplitMix64's last steps: numbers that look like hashes.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
