//! Messages of the synchronisation, of both directions: what is read is written and reads as the same.
#![no_main]

use bytes::Bytes;
use datahike_sync::message::{Request, Update};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(request) = Request::decode(bytes.clone()) {
        assert!(Request::decode(request.encode()).is_ok());
    }
    if let Ok(update) = Update::decode(bytes) {
        assert!(Update::decode(update.encode()).is_ok());
    }
});
