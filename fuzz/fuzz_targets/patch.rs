//! Blocks packed by themselves or as a change to another.
#![no_main]

use bytes::Bytes;
use datahike_core::block::{apply_patch, make_patch, pack, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: (Vec<u8>, Vec<u8>)| {
    let (base, bytes) = parts;
    let _ = unpack(&bytes);
    let _ = apply_patch(&base, &bytes);
    let _ = datahike_sync::patch::apply(&base, &Bytes::copy_from_slice(&bytes));
    assert_eq!(unpack(&pack(&bytes)).as_ref(), Ok(&bytes));
    assert_eq!(apply_patch(&base, &make_patch(&base, &bytes)).as_ref(), Ok(&bytes));
    if let Some(patch) = datahike_sync::patch::make(&base, &bytes) {
        assert!(datahike_sync::patch::apply(&base, &patch).is_ok_and(|block| block == bytes));
    }
});
