//! Blocks of the indexes.
#![no_main]

use datahike_core::index::Node;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(node) = Node::decode(bytes) {
        let _ = format!("{node:?}");
    }
});
