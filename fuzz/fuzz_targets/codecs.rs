//! Values as CBOR, tagged JSON and transit: what is read can be written, and reads as the same.
#![no_main]

use datahike_value::codec::{cbor, json, transit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = cbor::read(bytes) {
        assert_eq!(cbor::read(&cbor::write(&value)), Ok(value));
    }
    if let Ok(value) = json::read(bytes) {
        assert_eq!(json::read(json::write(&value).as_bytes()), Ok(value));
    }
    if let Ok(value) = transit::read(bytes) {
        assert_eq!(transit::read(transit::write(&value).as_bytes()), Ok(value));
    }
});
