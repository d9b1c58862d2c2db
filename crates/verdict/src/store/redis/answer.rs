//! What the server says, as values of ours.

use redis::{FromRedisValue, Value, from_redis_value, parse_redis_value};
use torwart_core::Greylist;
use torwart_policy::greylist::{Counter, Judged, Params, Time};

use super::failure::classify;
use crate::store::value::decode_counter;
use crate::store::{Call, StoreError};

/// What the script `check` says.
pub(super) struct Answer {
    /// The server's time.
    now: Time,
    judged: Vec<Judged>,
    /// How many records have begun to wait.
    pub(super) begun: u32,
    /// How many wait no more.
    pub(super) settled: u32,
    /// Triplets that there was no room for, by place, and the seconds since their first try.
    pub(super) no_room: Vec<(usize, Time)>,
    /// Why not all was written that should have been.
    pub(super) refused: Option<StoreError>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn read(value: Value, call: &Call) -> Result<Self, StoreError> {
        let mut items: Vec<Value> = read(value)?;
        let refused = items.pop_if(|last| matches!(last, Value::BulkString(_))).map(refusal).transpose()?;
        let numbers: Vec<i64> = read(Value::Array(items))?;
        let (now, rest) = numbers.split_first().ok_or_else(strange)?;
        let (members, rest) = rest.split_at_checked(3 * call.members().len()).ok_or_else(strange)?;
        let ([begun, settled], rest) = rest.split_first_chunk().ok_or_else(strange)?;
        let (no_room, []) = rest.as_chunks::<2>() else { return Err(strange()) };
        Ok(Self {
            now: number(*now)?,
            judged: members
                .as_chunks::<3>()
                .0
                .iter()
                .map(judged)
                .collect::<Option<_>>()
                .ok_or_else(strange)?,
            begun: number(*begun)?,
            settled: number(*settled)?,
            no_room: no_room
                .iter()
                .map(|[place, age]| {
                    Ok((number::<usize>(*place)?.checked_sub(1).ok_or_else(strange)?, number(*age)?))
                })
                .collect::<Result<_, StoreError>>()?,
            refused,
        })
    }

    /// Whether this recipient has passed and all that is to be remembered of it was written.
    pub(super) fn holds(&self, member: usize, call: &Call) -> bool {
        let own = member * call.identities..(member + 1) * call.identities;
        self.refused.is_none()
            && self.judged.get(member).is_some_and(|judged| judged.outcome == Greylist::Passed)
            && !self.no_room.iter().any(|(place, _)| own.contains(place))
    }

    /// A client that is trusted passes, unless its mail does so for a better reason.
    pub(super) fn judged(&self, counters: &[Counter], params: &Params) -> Vec<Judged> {
        let (now, mut judged) = (self.now, self.judged.clone());
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
        6 => Greylist::StoreFailure,
        _ => return None,
    };
    // -1: it was not held up.
    Some(Judged { outcome, wait: u32::try_from(wait).ok()?, held: u32::try_from(held).ok() })
}

/// What the script could not write for, in the server's words.
fn refusal(text: Value) -> Result<StoreError, StoreError> {
    let text: String = read(text)?;
    // Redis before 7 puts its own words in front.
    let wrapped = if text.starts_with('@') { "ERR " } else { "" };
    let line = format!("-{wrapped}{}\r\n", text.replace(['\r', '\n'], " "));
    let error = parse_redis_value(line.as_bytes()).and_then(Value::extract_error).err();
    error.map(|error| classify(&error)).ok_or_else(strange)
}

fn number<T: TryFrom<i64>>(number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| strange())
}

/// How many records wait no more after a delivery.
pub(super) fn settled(value: Value) -> Result<u32, StoreError> {
    read(value)
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
