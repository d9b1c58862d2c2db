//! Numbers that look random, for spreading and sampling; nothing secret hangs on them.

/// SplitMix64's output function: the same for the same count, and even over all of them.
pub(crate) fn scatter(count: u64) -> u64 {
    let mut z = count.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
