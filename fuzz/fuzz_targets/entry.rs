//! Log entries: what is read is written as the same bytes.
#![no_main]

use datahike_core::commit::{Entry, Position, public_part};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = public_part(bytes);
    let _ = Entry::from_public(bytes, &Position::START);
    if let Ok((entry, at)) = Entry::decode(bytes, &Position::START) {
        let (again, place) = entry.encode(&Position::START);
        let read = Entry::decode(&again, &Position::START);
        assert_eq!(read, Ok((entry, place)));
        let _ = at;
    }
});
