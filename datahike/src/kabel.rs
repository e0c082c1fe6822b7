//! Databases of other peers.
use std::sync::Arc;
use crate::{branch::Branch, config::{Config, KabelPeer}, connection::Connection, error::Error, writer::{Transacted, Transaction}};
#[derive(Debug)]
pub struct RemoteWriter;
impl RemoteWriter {
    pub async fn transact(&self, _: &Arc<Branch>, _: Transaction) -> Result<Transacted, Error> { Err(Error::Released) }
    pub async fn stop(&self) {}
}
pub(crate) async fn connect(_: &Config, _: &KabelPeer) -> Result<Connection, Error> { Err(Error::Released) }
