//! Both sides of a mirrored database, as the synchronisation protocol asks for them.

mod log;
mod meta;
mod passed;
mod replica;
mod source;

pub(crate) use meta::unfinished;
pub(crate) use passed::Leads;
pub use replica::{Resets, StoreReplica};
pub use source::BranchSource;

use datahike_core::commit::{CommitId, Position};
use datahike_core::db::{DbConfig, SchemaFlexibility};
use datahike_core::index::FORMAT_VERSION;
use datahike_store::StoreIdentity;
use datahike_sync::{CommitId as SyncCommit, Identity, Point, Shape};

/// Everything on which blocks made of given datoms depend, as bytes that are equal or not.
fn shape(config: &DbConfig) -> Shape {
    let params = config.params;
    let mut bytes = vec![
        FORMAT_VERSION,
        u8::from(config.keep_history),
        u8::from(config.attribute_refs),
        u8::from(config.schema_flexibility == SchemaFlexibility::Read),
    ];
    bytes.extend(params.leaf_target.to_le_bytes());
    bytes.extend(params.branch_target.to_le_bytes());
    params.seed.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    Shape(bytes.into())
}

/// A store as the protocol names it. Of the epoch half its random bits are enough.
fn identity(store: StoreIdentity) -> Identity {
    Identity { store: store.id, epoch: store.epoch.as_u64_pair().0 }
}

pub(crate) fn point(at: Position) -> Point {
    Point { seq: at.seq, commit: SyncCommit(at.commit.0) }
}

fn position(at: Point) -> Position {
    Position { seq: at.seq, commit: CommitId(at.commit.0) }
}
