//! Columns of integers: the smallest of three ways to write them. The count is known from elsewhere.

use super::DecodeError;
use super::bytes::{Reader, put_varint, unzigzag, varint_len, zigzag};

/// Each number as the difference from the one before.
const DELTAS: u8 = 0;
/// Runs of equal numbers: difference from the run before, further repetitions.
const RUNS: u8 = 1;
/// Runs of equal differences: difference, further repetitions.
const STRIDES: u8 = 2;

/// How a column is best written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    mode: u8,
    /// Bytes it takes.
    pub(super) size: usize,
}

/// Finds the smallest way.
pub(super) fn plan(values: &[u64]) -> Plan {
    if values.is_empty() {
        return Plan { mode: DELTAS, size: 0 };
    }
    let mut sizes = [0_usize; 3];
    let (mut previous, mut stride) = (0_u64, None);
    let (mut equal, mut even) = (0_u64, 0_u64);
    for (at, value) in values.iter().enumerate() {
        let delta = value.wrapping_sub(previous);
        let len = varint_len(zigzag(delta as i64));
        sizes[usize::from(DELTAS)] += len;
        if at > 0 && delta == 0 {
            equal += 1;
        } else {
            if at > 0 {
                sizes[usize::from(RUNS)] += varint_len(equal);
            }
            sizes[usize::from(RUNS)] += len;
            equal = 0;
        }
        if stride == Some(delta) {
            even += 1;
        } else {
            if at > 0 {
                sizes[usize::from(STRIDES)] += varint_len(even);
            }
            sizes[usize::from(STRIDES)] += len;
            even = 0;
            stride = Some(delta);
        }
        previous = *value;
    }
    sizes[usize::from(RUNS)] += varint_len(equal);
    sizes[usize::from(STRIDES)] += varint_len(even);
    [DELTAS, RUNS, STRIDES]
        .into_iter()
        .map(|mode| Plan { mode, size: sizes[usize::from(mode)] + 1 })
        .min_by_key(|plan| plan.size)
        .unwrap_or(Plan { mode: DELTAS, size: 0 })
}

/// Writes a column the smallest way.
pub(super) fn put(out: &mut Vec<u8>, values: &[u64]) {
    put_planned(out, values, plan(values));
}

/// Writes a column as planned.
pub(super) fn put_planned(out: &mut Vec<u8>, values: &[u64], plan: Plan) {
    if values.is_empty() {
        return;
    }
    out.push(plan.mode);
    let mut previous = 0_u64;
    if plan.mode == DELTAS {
        for value in values {
            put_varint(out, zigzag(value.wrapping_sub(previous) as i64));
            previous = *value;
        }
        return;
    }
    let mut run: Option<(u64, u64)> = None;
    let start = |out: &mut Vec<u8>, run: Option<(u64, u64)>| {
        if let Some((delta, further)) = run {
            put_varint(out, zigzag(delta as i64));
            put_varint(out, further);
        }
    };
    for (at, value) in values.iter().enumerate() {
        let delta = value.wrapping_sub(previous);
        previous = *value;
        let goes_on = match plan.mode {
            RUNS => at > 0 && delta == 0,
            _ => run.is_some_and(|(stride, _)| stride == delta),
        };
        match &mut run {
            Some((_, further)) if goes_on => *further += 1,
            _ => {
                start(out, run);
                run = Some((delta, 0));
            }
        }
    }
    start(out, run);
}

/// Reads a column of `count` numbers. The caller has bounded `count`.
pub(super) fn get(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, DecodeError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mode = reader.byte()?;
    let mut values = Vec::with_capacity(count);
    let mut previous = 0_u64;
    if mode == DELTAS {
        for _ in 0..count {
            previous = previous.wrapping_add(unzigzag(reader.varint()?) as u64);
            values.push(previous);
        }
        return Ok(values);
    }
    if mode != RUNS && mode != STRIDES {
        return Err(DecodeError::Malformed { what: "a column is written in no known way" });
    }
    while values.len() < count {
        let delta = unzigzag(reader.varint()?) as u64;
        let further = reader.varint()?;
        let room = (count - values.len() - 1) as u64;
        if further > room {
            return Err(DecodeError::Malformed { what: "a run is longer than its column" });
        }
        previous = previous.wrapping_add(delta);
        values.push(previous);
        if mode == RUNS {
            values.extend(std::iter::repeat_n(previous, further as usize));
        } else {
            for _ in 0..further {
                previous = previous.wrapping_add(delta);
                values.push(previous);
            }
        }
    }
    Ok(values)
}
