//! Runs of log entries in columns.
#![no_main]

use datahike_core::commit::{Position, decode_batch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_batch(bytes, &Position::START);
});
