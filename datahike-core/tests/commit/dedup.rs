//! A transaction happens once.

use datahike_core::commit::{
    CLIENTS_MAX, Dedup, DedupError, Note, Outcome, REQUEST_BYTES_MAX, REQUESTS_PER_CLIENT_MAX,
    RequestId,
};
use datahike_core::datom::TX0;
use datahike_value::{Uuid, Value};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::made::{config, note};

fn asks(client: u128, number: u64) -> RequestId {
    RequestId { client: Uuid::from_u128(client), number }
}

#[test]
fn the_same_request_has_the_same_outcome() {
    let mut table = Dedup::default();
    assert_eq!(table.look_up(asks(1, 1), &[5; 32]), Ok(Outcome::New));
    table.remember(&note(1, 1, 5));
    match table.look_up(asks(1, 1), &[5; 32]) {
        Ok(Outcome::Done(done)) => {
            assert_eq!(done.tx, TX0 + 1);
            assert_eq!(done.tempids, note(1, 1, 5).tempids);
        }
        other => panic!("{other:?}"),
    }
    let error = table.look_up(asks(1, 1), &[6; 32]).unwrap_err();
    assert_eq!(error, DedupError::OtherBody { client: Uuid::from_u128(1), number: 1 });
    assert_eq!(table.look_up(asks(1, 2), &[6; 32]), Ok(Outcome::New));
    assert_eq!(table.look_up(asks(2, 1), &[6; 32]), Ok(Outcome::New));
}

#[test]
fn what_a_client_asked_long_ago_is_unknown_never_new() {
    let mut table = Dedup::default();
    let count = REQUESTS_PER_CLIENT_MAX as u64;
    (1..=count + 10).for_each(|number| table.remember(&note(1, number, 5)));
    for number in 1..=10 {
        let error = table.look_up(asks(1, number), &[5; 32]).unwrap_err();
        assert_eq!(error, DedupError::Unknown { client: Uuid::from_u128(1), number });
    }
    assert!(matches!(table.look_up(asks(1, 11), &[5; 32]), Ok(Outcome::Done(_))));
    assert_eq!(table.look_up(asks(1, count + 11), &[5; 32]), Ok(Outcome::New));
    assert_eq!(table.len(), REQUESTS_PER_CLIENT_MAX);
}

#[test]
fn forgotten_clients_are_not_taken_for_new() {
    let mut table = Dedup::default();
    let clients = CLIENTS_MAX as u128 + 1;
    for client in 1..=clients {
        table.remember(&note(client, 3, 5));
    }
    assert!(matches!(table.look_up(asks(1, 3), &[5; 32]), Err(DedupError::Unknown { .. })));
    assert!(matches!(table.look_up(asks(2, 3), &[5; 32]), Ok(Outcome::Done(_))));
    assert_eq!(table.look_up(asks(clients + 1, 1), &[5; 32]), Ok(Outcome::New));
}

#[test]
fn the_table_is_bounded_in_bytes_and_keeps_the_newest() {
    let mut table = Dedup::default();
    let large = |client: u128, number: u64, bytes: usize| Note {
        tempids: vec![(Value::from("x".repeat(bytes)), 1)],
        ..note(client, number, 5)
    };
    for number in 1..=20 {
        table.remember(&large(1, number, REQUEST_BYTES_MAX / 8));
        assert!(table.encode().len() <= REQUEST_BYTES_MAX + 1000);
    }
    assert!(matches!(table.look_up(asks(1, 1), &[5; 32]), Err(DedupError::Unknown { .. })));
    assert!(matches!(table.look_up(asks(1, 20), &[5; 32]), Ok(Outcome::Done(_))));
    table.remember(&large(2, 1, REQUEST_BYTES_MAX * 2));
    assert!(matches!(table.look_up(asks(2, 1), &[5; 32]), Ok(Outcome::Done(_))));
    assert_eq!(table.len(), 1);
    table.remember(&note(3, 1, 5));
    assert!(matches!(table.look_up(asks(2, 1), &[5; 32]), Err(DedupError::Unknown { .. })));
}

proptest! {
    #![proptest_config(config())]

    /// Against a list of everything that was ever carried out, through any number of restarts.
    #[test]
    fn nothing_is_ever_carried_out_twice(
        asked in prop::collection::vec((1..4u128, 1..1500u64, 0..2u8, any::<bool>()), 1..200),
    ) {
        let mut table = Dedup::default();
        let mut done: Vec<(RequestId, u8)> = Vec::new();
        for (client, number, body, restart) in asked {
            let request = asks(client, number);
            let before = done.iter().find(|(known, _)| *known == request).map(|(_, body)| *body);
            match (table.look_up(request, &[body; 32]), before) {
                (Ok(Outcome::New), None) => {
                    table.remember(&note(client, number, body));
                    done.push((request, body));
                }
                (Ok(Outcome::Done(_)), Some(same)) => prop_assert_eq!(same, body),
                (Err(DedupError::OtherBody { .. }), Some(other)) => prop_assert_ne!(other, body),
                (outcome, before) => prop_assert!(false, "{outcome:?} although {before:?}"),
            }
            if restart {
                table = Dedup::decode(&table.encode()).unwrap();
            }
        }
        prop_assert_eq!(Dedup::decode(&table.encode()).unwrap().encode(), table.encode());
    }

    #[test]
    fn mutated_tables_decode_or_fail_but_never_panic(
        at in any::<Index>(), byte in any::<u8>(), cut in any::<Index>(),
    ) {
        let mut table = Dedup::default();
        (1..5).for_each(|n| table.remember(&note(u128::from(n % 3), n, 5)));
        let mut bytes = table.encode();
        prop_assert!(Dedup::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = Dedup::decode(&bytes);
    }
}
