//! What the server says, as values of ours.

use redis::{FromRedisValue, Value, from_redis_value};
use torwart_core::Greylist;
use torwart_policy::greylist::{Counter, Judged, Params, Time};

use crate::store::value::decode_counter;
use crate::store::{Call, StoreError};

/// What the script `check` says.
pub(super) struct Answer {
    /// The server's time.
    now: Time,
    judged: Vec<Judged>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn read(value: Value, call: &Call) -> Result<Self, StoreError> {
        let numbers: Vec<i64> = read(value)?;
        let (now, rest) = numbers.split_first().ok_or_else(strange)?;
        let (members, []) = rest.as_chunks::<3>() else { return Err(strange()) };
        if members.len() != call.members().len() {
            return Err(strange());
        }
        let judged = members.iter().map(judged).collect::<Option<_>>().ok_or_else(strange)?;
        Ok(Self { now: Time::try_from(*now).map_err(|_| strange())?, judged })
    }

    /// A client that is trusted passes, unless its mail does so for a better reason.
    pub(super) fn judged(self, counters: &[Counter], params: &Params) -> Vec<Judged> {
        let Self { now, mut judged } = self;
        let trusts = |counter: &Counter| !counter.is_expired(now) && counter.passes(now, params);
        if !params.single_use() && judged.iter().all(|judged| !judged.passes()) && counters.iter().any(trusts)
        {
            judged.fill(Judged { outcome: Greylist::Auto, wait: 0, held: None });
        }
        judged
    }
}

/// By the classes of `records.lua`.
fn judged(&[class, wait, held]: &[i64; 3]) -> Option<Judged> {
    let outcome = match class {
        0 | 1 => Greylist::Passed,
        2 => Greylist::Early,
        3 => Greylist::Expired,
        4 => Greylist::New,
        5 => Greylist::Known,
        _ => return None,
    };
    // -1: it was not held up.
    Some(Judged { outcome, wait: u32::try_from(wait).ok()?, held: u32::try_from(held).ok() })
}

pub(super) fn counter(value: Value) -> Result<Option<Counter>, StoreError> {
    Ok(self::value(value)?.and_then(|bytes| decode_counter(&bytes)))
}

pub(super) fn value(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    read(value)
}

pub(super) fn values(value: Value) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    read(value)
}

/// The keys of one answer to SCAN.
pub(super) fn page(value: Value) -> Result<Vec<Vec<u8>>, StoreError> {
    let (_cursor, keys): (Vec<u8>, Vec<Vec<u8>>) = read(value)?;
    Ok(keys)
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    from_redis_value(value).map_err(|_| strange())
}

fn strange() -> StoreError {
    StoreError::Unusable("Redis answers what the script cannot say; is a proxy in between?".into())
}
