//! EDN text: what is read prints as text that reads as the same.
#![no_main]

use datahike_value::edn;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for value in edn::read_all(text).unwrap_or_default() {
        let printed = value.to_string();
        match edn::read(&printed) {
            Ok(again) => assert_eq!(again, value, "{printed}"),
            Err(error) => panic!("{printed}: {error}"),
        }
    }
});
