//! Frames of peers and the messages in them.
#![no_main]

use bytes::Bytes;
use datahike_peer::serializer::{Edn, MessagePack, Serializer};
use datahike_peer::{Limits, Message, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let payload = match frame::decode(&Bytes::copy_from_slice(bytes)) {
        Ok((_, payload)) => payload,
        Err(_) => return,
    };
    let serializers: [&dyn Serializer; 2] = [&MessagePack, &Edn];
    for serializer in serializers {
        let Ok(value) = serializer.decode(&payload, &limits) else { continue };
        let mut out = Vec::new();
        if serializer.encode(&value, &mut out).is_ok() {
            let again = serializer.decode(&out, &limits);
            assert_eq!(again.as_ref(), Ok(&value));
        }
        let _ = Message::from_outside(value, bytes.len());
    }
});
