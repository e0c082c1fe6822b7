//! The durable formats, byte by byte. What is stored must stay readable: a change of format gets a
//! new first byte and a new case, the old ones stay.

use datahike_core::block::Address;
use datahike_core::commit::{
    CommitId, Dedup, Entry, FlushRecord, Head, Position, decode_batch, encode_batch,
};
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::index::{Params, Root, Roots};
use datahike_core::schema::system;
use datahike_core::tx::ResolvedTx;
use datahike_value::{Keyword, kw};

use crate::made::{FIRST, datom, note, retracted, transaction};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sample() -> Entry {
    let first = transaction(
        1,
        vec![
            datom(1, system::IDENT.0, kw!("city/name"), 1),
            datom(1, system::INDEX.0, true, 1),
            datom(2, FIRST, "Ulm", 1),
        ],
    );
    let second = transaction(2, vec![retracted(2, FIRST, "Ulm", 2), datom(2, FIRST, "Aulm", 2)]);
    let new_attributes = [Keyword::parse("city/name")].into();
    Entry {
        transactions: vec![ResolvedTx { new_attributes, ..first }, second],
        notes: vec![note(7, 1, 0xaa)],
        merged: Vec::new(),
    }
}

#[test]
fn entries() {
    let (bytes, at) = sample().encode(&Position::START);
    assert_eq!(hex(&bytes), ENTRY);
    assert_eq!(at.commit.to_string(), COMMIT);
    assert_eq!(Entry::decode(&bytes, &Position::START).unwrap(), (sample(), at));
}

#[test]
fn entries_that_purge() {
    let purged = vec![datom(2, FIRST, "Ulm", 1), retracted(2, FIRST, "Ulm", 2)].into();
    let purge = ResolvedTx { purged, ..transaction(3, vec![datom(2, FIRST, "U", 3)]) };
    let entry = Entry { transactions: vec![purge], ..Entry::default() };
    let (bytes, at) = entry.encode(&Position::START);
    assert_eq!(hex(&bytes), PURGE_ENTRY);
    assert_eq!(Entry::decode(&bytes, &Position::START).unwrap(), (entry, at));
}

#[test]
fn entries_that_merge() {
    let merged = vec![CommitId([7; 32]), CommitId([8; 32])];
    let transactions = vec![transaction(1, vec![datom(2, FIRST, "U", 1)])];
    let entry = Entry { merged, transactions, ..Entry::default() };
    let (bytes, at) = entry.encode(&Position::START);
    let expected = MERGE_ENTRY.replace("{07*32}", &"07".repeat(32));
    assert_eq!(hex(&bytes), expected.replace("{08*32}", &"08".repeat(32)));
    assert_eq!(Entry::decode(&bytes, &Position::START).unwrap(), (entry.clone(), at));
    let (batch, _) = encode_batch([bytes.as_slice()], &Position::START).unwrap();
    let (again, end) = decode_batch(&batch, &Position::START).unwrap();
    assert_eq!((&again[0].entry, end), (&entry, at));
    // Who is merged is part of the commit's name.
    let alone = Entry { merged: Vec::new(), ..entry };
    assert_ne!(alone.encode(&Position::START).1, at);
}

#[test]
fn batches() {
    let (bytes, _) = sample().encode(&Position::START);
    let (batch, at) = encode_batch([bytes.as_slice()], &Position::START).unwrap();
    assert_eq!(at.commit.to_string(), COMMIT);
    assert_eq!(hex(&batch), BATCH);
    assert_eq!(decode_batch(&batch, &Position::START).unwrap().1, at);
}

#[test]
fn flush_records() {
    let params = Params { leaf_target: 512, branch_target: 64, seed: [1, 2] };
    let config = DbConfig::new(SchemaFlexibility::Read).with_params(params);
    let db = Db::empty(config).apply_all(&sample().transactions);
    let (_, at) = sample().encode(&Position::START);
    let root = |byte| Some(Root { address: Address([byte; 32]), depth: 1, count: 300 });
    let roots = Roots { current: [root(3), root(4), root(5)], history: [root(6), None, None] };
    let bytes = FlushRecord::of(&db, at, Some(Address([9; 32])), roots).encode();
    assert_eq!(hex(&bytes), FLUSH_RECORD);
    assert_eq!(FlushRecord::decode(&bytes).unwrap().encode(), bytes);
}

#[test]
fn flush_records_of_grafts() {
    let db = Db::empty(DbConfig::default()).apply_all(&sample().transactions);
    let parents = vec![CommitId([3; 32]), CommitId([4; 32])];
    let record = FlushRecord::graft(&db, 9, parents.clone(), Roots::default());
    assert_eq!(record.at.commit.to_string(), GRAFT);
    let again = FlushRecord::decode(&record.encode()).unwrap();
    assert_eq!((again.at, again.graft_id()), (record.at, record.at.commit));
    assert_eq!(again.grafted, parents);
    // The id does not depend on which record was before.
    let later = FlushRecord { previous: Some(Address([9; 32])), ..again };
    assert_eq!(later.graft_id(), record.at.commit);
    let others = FlushRecord { grafted: vec![CommitId([3; 32])], ..later };
    assert_ne!(others.graft_id(), record.at.commit);
}

#[test]
fn heads() {
    let (_, flush) = sample().encode(&Position::START);
    let dedup = Some(Address([2; 32]));
    let head = Head { flush_record: Address([1; 32]), flush, log_base: 5, dedup };
    let bytes = head.encode();
    assert_eq!(hex(&bytes), format!("01{}01{COMMIT}0a{}", "01".repeat(32), "02".repeat(32)));
    assert_eq!(Head::decode(&bytes), Ok(head));
    let mirror = Head { dedup: None, ..head };
    assert_eq!(Head::decode(&mirror.encode()), Ok(mirror));
    assert_eq!((mirror.log_number(7), mirror.seq_at(2)), (2, 7));
}

#[test]
fn tables_of_requests() {
    let mut table = Dedup::default();
    table.remember(&note(7, 1, 0xaa));
    table.remember(&note(8, 3, 0xbb));
    let bytes = table.encode();
    assert_eq!(hex(&bytes), DEDUP);
    assert_eq!(Dedup::decode(&bytes).unwrap().encode(), bytes);
}

const COMMIT: &str = "9f2d21da80980a3152af4f925085b2599a5ae59abe385d6aa0e6837806741232";
const ENTRY: &str = "\
    01410000000002000fc6f69b8dc168010a0463697479046e616d650100020a0463697479046e616d655504211e02\
    03556c6d0009e20f241e03556c6d251e0441756c6d010000000000000000000000000000000701aaaaaaaaaaaaaa\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa81808080020203010708036e657708";
const PURGE_ENTRY: &str =
    "0124000000000104078a969c8dc1680002231e040303556c6d261e0103556c6d00211e04015500";
const MERGE_ENTRY: &str = "0154000000000002{07*32}{08*32}010005c6f69b8dc168211e04015500";
const GRAFT: &str = "6e0ac34db4ed532c52c65deeae762efbbb579d73170b78b4f3d148faeda4f1b5";
const BATCH: &str = "\
    014af71f011902000fc6f69b8dc168010a0463697479046e616d650009e20f0501552124250500041e1e1e020202\
    0003000b2200f00204001e0d03556c6d03556c6d0441756c6d";
const FLUSH_RECORD: &str = "\
    01019f2d21da80980a3152af4f925085b2599a5ae59abe385d6aa0e6837806741232010909090909090909090909\
    0909090909090909090909090909090909090909090d800440010000000000000002000000000000000282808080\
    02a8869c8dc16801030303030303030303030303030303030303030303030303030303030303030301ac02010404\
    04040404040404040404040404040404040404040404040404040404040401ac0201050505050505050505050505\
    050505050505050505050505050505050505050501ac020106060606060606060606060606060606060606060606\
    0606060606060606060601ac02000014030a000e6174747269627574652d72656673010a000a6174747269627574\
    657313010a0463697479046e616d650a000b646566696e6974696f6e731401030214020a026462056964656e740a\
    0463697479046e616d650a02646205696e64657802";
const DEDUP: &str = "\
    01000200000000000000000000000000000007000000000000000000000000000000000800020001aaaaaaaaaaaa\
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa81808080020203010708036e6577080103bbbbbb\
    bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb83808080020203010708036e657708";
