//! Nanoseconds per look-up in a million prefixes.
//!
//! `cargo run --release -p torwart-policy --example range_lookup`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;
use torwart_policy::RangeTable;
use torwart_policy::model::{Range, RangeAction};

const PREFIXES: usize = 1_000_000;
const LOOKUPS: usize = 500_000;
const ROUNDS: usize = 9;

/// SplitMix64: the same numbers in every run.
struct Random(u64);

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn ipv4(&mut self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.next() as u32))
    }

    fn ipv6(&mut self) -> IpAddr {
        let bits = (u128::from(self.next()) << 64) | u128::from(self.next());
        // 2000::/3, as all of the internet is.
        IpAddr::V6(Ipv6Addr::from((bits >> 3) | (1 << 125)))
    }

    /// Mostly /24 and /48, as in routing tables, some shorter and some single addresses.
    fn prefix(&mut self) -> Option<IpNet> {
        let lengths = [8, 12, 16, 20, 22, 24, 24, 24, 24, 32];
        let length = lengths[(self.next() % 10) as usize];
        let net = match self.next() % 4 {
            0 => IpNet::new(self.ipv6(), 2 * length),
            _ => IpNet::new(self.ipv4(), length),
        };
        net.ok().map(|net| net.trunc())
    }
}

#[allow(clippy::disallowed_methods)] // It measures time.
fn main() {
    let mut random = Random(1);
    let mut ranges = Vec::new();
    for index in 0..100 {
        let prefixes: Vec<IpNet> = (0..PREFIXES / 100).filter_map(|_| random.prefix()).collect();
        let range = Range {
            name: format!("range-{index}").into(),
            action: RangeAction::Check,
            priority: index % 7,
            expires: (index % 5 == 0).then_some(i64::from(index) * 1_000),
            tls: None,
            hidden: Vec::new(),
            dns_lists: None,
            greylisting: None,
        };
        ranges.push((range, prefixes));
    }
    let start = Instant::now();
    let table = RangeTable::new(ranges);
    println!("built {PREFIXES} prefixes in {} ms", start.elapsed().as_millis());

    for (family, addresses) in [
        ("IPv4", (0..65_536).map(|_| random.ipv4()).collect::<Vec<_>>()),
        ("IPv6", (0..65_536).map(|_| random.ipv6()).collect::<Vec<_>>()),
    ] {
        let mut best = u128::MAX;
        let mut found = 0usize;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for address in addresses.iter().cycle().take(LOOKUPS) {
                found += usize::from(black_box(table.find(black_box(*address), 50_000)).is_some());
            }
            best = best.min(start.elapsed().as_nanos() / LOOKUPS as u128);
        }
        println!(
            "{family}: {best} ns per look-up in the best of {ROUNDS} rounds, {}% found",
            100 * found / LOOKUPS / ROUNDS
        );
    }
}
