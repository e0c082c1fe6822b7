//! The conformance suite over every backend.

use std::sync::Arc;

use datahike_store::{FileOptions, FileStore, MemoryStore, Store, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conformance::all(|| Arc::new(MemoryStore::new()) as Arc<dyn Store>).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    conformance::all(|| {
        n += 1;
        let path = dir.path().join(n.to_string());
        Arc::new(FileStore::create(path, FileOptions::default()).unwrap()) as Arc<dyn Store>
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_conforms_with_tiny_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    conformance::all(|| {
        n += 1;
        let path = dir.path().join(n.to_string());
        let options = FileOptions { segment_bytes: 300, ..FileOptions::default() };
        Arc::new(FileStore::create(path, options).unwrap()) as Arc<dyn Store>
    })
    .await
    .unwrap();
}
