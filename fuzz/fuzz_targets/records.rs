//! Flush records, heads and the table of remembered requests.
#![no_main]

use datahike_core::commit::{Dedup, FlushRecord, Head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = FlushRecord::decode(bytes) {
        let encoded = record.encode();
        assert!(FlushRecord::decode(&encoded).is_ok_and(|again| again.encode() == encoded));
    }
    if let Ok(head) = Head::decode(bytes) {
        assert!(Head::decode(&head.encode()).is_ok_and(|again| again.encode() == head.encode()));
    }
    if let Ok(table) = Dedup::decode(bytes) {
        let encoded = table.encode();
        assert!(Dedup::decode(&encoded).is_ok_and(|again| again.encode() == encoded));
    }
});
