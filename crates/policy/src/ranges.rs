//! Which IP range an address is in.
//!
//! Within a level (gateway, or one MailDomain) the highest priority wins, then the longest prefix. Priority beats
//! length, so the longest match alone does not answer; but everything that contains an address also contains, or is
//! contained in, its longest match. Each stored prefix therefore carries the candidates among itself and all that
//! cover it, best first, and the list ends at the first one that never expires: mostly it has one entry.
//!
//! ```text
//!   10.0.0.0/8    office  priority 100            [office]
//!   10.1.0.0/16   lab     priority 50             [office]          office still wins here
//!   10.1.2.0/24   guests  priority 200, expires   [guests, office]  office again from then on
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::model::Range;

/// The IP ranges of one level. An empty one costs a pointer.
#[derive(Debug, Default)]
pub struct RangeTable {
    tables: Option<Box<Tables>>,
}

#[derive(Debug)]
struct Tables {
    ranges: Vec<Arc<Range>>,
    /// Each list of candidates once, as indices into `ranges`: the best first; only the last never expires. A million
    /// prefixes share a few lists, so that these stay in the processor's cache and a prefix costs four bytes.
    candidates: Vec<Box<[u32]>>,
    /// Indices into `candidates`.
    ipv4: PrefixMap<Ipv4Net, u32>,
    ipv6: PrefixMap<Ipv6Net, u32>,
}

/// One range at one prefix, while the table is built.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    range: u32,
    priority: i32,
    length: u8,
    expires: bool,
}

// === impl RangeTable ===

impl RangeTable {
    /// Ranges with their prefixes. Of two that are equal in priority and prefix the first one wins; `compile`
    /// refuses such pairs.
    pub fn new(ranges: impl IntoIterator<Item = (Range, Vec<IpNet>)>) -> Self {
        let mut all = Vec::new();
        let mut ipv4: BTreeMap<Ipv4Net, Vec<Candidate>> = BTreeMap::new();
        let mut ipv6: BTreeMap<Ipv6Net, Vec<Candidate>> = BTreeMap::new();
        for (range, prefixes) in ranges {
            let Ok(index) = u32::try_from(all.len()) else { break };
            let candidate = |length| Candidate {
                range: index,
                priority: range.priority,
                length,
                expires: range.expires.is_some(),
            };
            for prefix in prefixes {
                match canonical_net(prefix) {
                    IpNet::V4(net) => ipv4.entry(net).or_default().push(candidate(net.prefix_len())),
                    IpNet::V6(net) => ipv6.entry(net).or_default().push(candidate(net.prefix_len())),
                }
            }
            all.push(Arc::new(range));
        }
        if ipv4.is_empty() && ipv6.is_empty() {
            return Self::default();
        }
        let mut lists = Lists::default();
        let ipv4 = resolve(ipv4, &mut lists, |outer, inner| outer.contains(inner));
        let ipv6 = resolve(ipv6, &mut lists, |outer, inner| outer.contains(inner));
        let tables = Tables {
            ranges: all,
            candidates: lists.into_vec(),
            ipv4: ipv4.into_iter().collect(),
            ipv6: ipv6.into_iter().collect(),
        };
        Self { tables: Some(Box::new(tables)) }
    }

    /// The range that holds for `address` at `now` (Unix seconds). IPv4-mapped IPv6 is IPv4.
    pub fn find(&self, address: IpAddr, now: i64) -> Option<&Arc<Range>> {
        let tables = self.tables.as_deref()?;
        let list = match address.to_canonical() {
            IpAddr::V4(ip) => tables.ipv4.get_lpm(&Ipv4Net::from(ip))?.1,
            IpAddr::V6(ip) => tables.ipv6.get_lpm(&Ipv6Net::from(ip))?.1,
        };
        tables
            .candidates
            .get(*list as usize)?
            .iter()
            .filter_map(|index| tables.ranges.get(*index as usize))
            .find(|range| range.expires.is_none_or(|at| now < at))
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_none()
    }

    /// Every range, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Range>> {
        self.tables.iter().flat_map(|tables| &tables.ranges)
    }
}

/// A prefix within `::ffff:0:0/96` is the IPv4 prefix that it maps; host bits are cut off.
pub(crate) fn canonical_net(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(ip) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(ip, length)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

/// Gives each prefix its candidates. The map's order puts a prefix before all that it covers.
fn resolve<N: Copy>(
    prefixes: BTreeMap<N, Vec<Candidate>>,
    lists: &mut Lists,
    covers: impl Fn(&N, &N) -> bool,
) -> Vec<(N, u32)> {
    let mut resolved = Vec::with_capacity(prefixes.len());
    // The prefixes that cover the present one, outermost first, each with its sorted candidates.
    let mut open: Vec<(N, Vec<Candidate>)> = Vec::new();
    for (net, mut candidates) in prefixes {
        while open.last().is_some_and(|(outer, _)| !covers(outer, &net)) {
            open.pop();
        }
        if let Some((_, outer)) = open.last() {
            candidates.extend_from_slice(outer);
        }
        candidates.sort_by_key(|c| (std::cmp::Reverse(c.priority), std::cmp::Reverse(c.length), c.range));
        if let Some(last) = candidates.iter().position(|c| !c.expires) {
            candidates.truncate(last + 1);
        }
        resolved.push((net, lists.index_of(candidates.iter().map(|c| c.range).collect())));
        open.push((net, candidates));
    }
    resolved
}

/// Lists of candidates, each once.
#[derive(Default)]
struct Lists(HashMap<Box<[u32]>, u32>);

// === impl Lists ===

impl Lists {
    fn index_of(&mut self, list: Box<[u32]>) -> u32 {
        // There are fewer lists than prefixes, and fewer prefixes than a file has bytes.
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(list).or_insert(next)
    }

    fn into_vec(self) -> Vec<Box<[u32]>> {
        let mut lists = vec![Box::default(); self.0.len()];
        for (list, index) in self.0 {
            if let Some(place) = lists.get_mut(index as usize) {
                *place = list;
            }
        }
        lists
    }
}

#[cfg(test)]
mod tests;
