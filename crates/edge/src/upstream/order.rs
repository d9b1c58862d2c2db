//! In which order a route's upstreams are tried.

use std::sync::atomic::{AtomicU64, Ordering};

use torwart_core::Upstream;

use crate::scatter::scatter;

/// Spreads transactions over the upstreams of one priority by their weights.
#[derive(Debug, Default)]
pub(super) struct Rotation(AtomicU64);

// === impl Rotation ===

impl Rotation {
    /// The lowest priority first. Within a priority each upstream comes first as often as its weight says, and the
    /// others follow in the route's order; those of weight 0 come first only where all have it.
    pub(super) fn order<'a>(&self, upstreams: &'a [Upstream]) -> Vec<&'a Upstream> {
        let mut order: Vec<&Upstream> = upstreams.iter().collect();
        if order.len() > 1 {
            let turn = scatter(self.0.fetch_add(1, Ordering::Relaxed));
            order.sort_by_key(|upstream| upstream.priority);
            for group in order.chunk_by_mut(|a, b| a.priority == b.priority) {
                let first = pick(group, turn);
                if let Some(head) = group.get_mut(..=first) {
                    head.rotate_right(1);
                }
            }
        }
        order
    }
}

fn pick(group: &[&Upstream], turn: u64) -> usize {
    let weight = |upstream: &&Upstream| u64::from(upstream.weight);
    let total: u64 = group.iter().map(weight).sum();
    let mut left = turn.checked_rem(total).unwrap_or(0);
    for (place, upstream) in group.iter().enumerate() {
        match left.checked_sub(weight(upstream)) {
            Some(rest) if total > 0 => left = rest,
            _ => return place,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use proptest::collection;
    use proptest::prelude::*;

    use torwart_core::Host;

    fn mk_upstream(port: u16, priority: u32, weight: u32) -> Upstream {
        Upstream { host: Host::Name("mx.example".into()), port, priority, weight, max_connections: 20 }
    }

    fn ports(order: &[&Upstream]) -> Vec<u16> {
        order.iter().map(|upstream| upstream.port).collect()
    }

    #[test]
    fn the_lowest_priority_is_tried_first_and_everyone_once() {
        let upstreams = [mk_upstream(3, 9, 1), mk_upstream(1, 0, 1), mk_upstream(2, 5, 100)];
        let rotation = Rotation::default();
        for _ in 0..20 {
            assert_eq!(ports(&rotation.order(&upstreams)), [1, 2, 3]);
        }
    }

    #[test]
    fn weights_decide_how_often_each_comes_first() {
        let upstreams = [mk_upstream(1, 0, 1), mk_upstream(2, 0, 3), mk_upstream(3, 0, 0)];
        let rotation = Rotation::default();
        let mut first = HashMap::new();
        for _ in 0..4000 {
            let order = ports(&rotation.order(&upstreams));
            assert_eq!(order.len(), 3);
            *first.entry(order[0]).or_insert(0) += 1;
        }
        let share = |port| first.get(&port).copied().unwrap_or(0);
        assert!((800..1200).contains(&share(1)), "{first:?}");
        assert!((2800..3200).contains(&share(2)), "{first:?}");
        assert_eq!(share(3), 0);
    }

    proptest! {
        /// Over as many turns as it likes, each upstream's share of first places is its share of its priority's weight,
        /// and no upstream is ever left out or named twice.
        #[test]
        fn first_places_follow_the_weights(
            upstreams in collection::vec((0u32..3, 0u32..20), 1..8),
        ) {
            let upstreams: Vec<Upstream> = upstreams
                .into_iter()
                .zip(1..)
                .map(|((priority, weight), port)| mk_upstream(port, priority, weight))
                .collect();
            let rotation = Rotation::default();
            let turns = 2000u32;
            let mut first: HashMap<u16, u32> = HashMap::new();
            for _ in 0..turns {
                let order = rotation.order(&upstreams);
                prop_assert!(order.is_sorted_by_key(|upstream| upstream.priority));
                let mut all = ports(&order);
                all.sort_unstable();
                prop_assert!(all.into_iter().eq(1..=upstreams.len() as u16));
                for group in order.chunk_by(|a, b| a.priority == b.priority) {
                    *first.entry(group[0].port).or_default() += 1;
                }
            }
            for upstream in &upstreams {
                let total: u32 =
                    upstreams.iter().filter(|other| other.priority == upstream.priority).map(|other| other.weight).sum();
                if total > 0 {
                    let share = f64::from(first.get(&upstream.port).copied().unwrap_or(0)) / f64::from(turns);
                    let wanted = f64::from(upstream.weight) / f64::from(total);
                    prop_assert!((share - wanted).abs() < 0.06, "{upstreams:?}: {upstream} has {share}, not {wanted}");
                }
            }
        }
    }

    #[test]
    fn where_all_weigh_nothing_the_first_is_tried_first() {
        let upstreams = [mk_upstream(1, 0, 0), mk_upstream(2, 0, 0)];
        assert_eq!(ports(&Rotation::default().order(&upstreams)), [1, 2]);
        assert!(Rotation::default().order(&[]).is_empty());
    }
}
