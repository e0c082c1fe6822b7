//! What a mirror knows of where its copy comes from: kept in the head of a branch of its own, beside
//! the mirrored one.

use bytes::Bytes;
use datahike_store::{Batch, Expect, Store, StoreError};
use datahike_sync::{Address, Identity, Partial, Shape};
use serde::{Deserialize, Serialize};

/// Where a mirror's copy comes from, and how far a transfer has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) identity: Identity,
    pub(super) shape: Shape,
    pub(super) partial: Option<(Address, u64)>,
}

impl Meta {
    pub(super) fn partial(&self) -> Option<Partial> {
        self.partial.map(|(flush, seeds)| Partial { flush, seeds })
    }
}

/// The branch that keeps the notes about the mirrored branch `name`.
pub(super) fn branch_of(name: &str) -> String {
    format!("{name}{}", crate::branch::MIRROR_NOTES)
}

pub(super) async fn load(store: &dyn Store, name: &str) -> Result<Option<Meta>, StoreError> {
    let head = store.head(&branch_of(name)).await?;
    // Notes that cannot be read are as none: the copy is then begun anew.
    Ok(head.and_then(|head| rmp_serde::from_slice(&head.record).ok()))
}

/// Whether notes say that a transfer was begun and not finished.
pub(crate) fn unfinished(record: &[u8]) -> bool {
    rmp_serde::from_slice(record).is_ok_and(|meta: Meta| meta.partial.is_some())
}

pub(super) async fn save(store: &dyn Store, name: &str, meta: &Meta) -> Result<(), StoreError> {
    let branch = branch_of(name);
    let expect = match store.head(&branch).await? {
        Some(head) => Expect::Revision(head.revision),
        None => Expect::Absent,
    };
    let mut batch = Batch::new(branch, expect);
    batch.record = Some(Bytes::from(rmp_serde::to_vec(meta).unwrap_or_default()));
    store.commit(batch).await.map(drop)
}

pub(super) async fn forget(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    for branch in [branch_of(name), name.to_owned()] {
        if let Some(head) = store.head(&branch).await? {
            store.delete_branch(&branch, head.revision).await?;
        }
    }
    Ok(())
}
