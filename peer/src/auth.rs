//! Who may connect, and what they may do.

use std::fmt::Debug;
use std::sync::Arc;

use datahike_value::Value;

use crate::error::Refusal;
use crate::hello::{Hello, Token};
use crate::rt::{BoxFuture, MaybeSend, MaybeSync};
use crate::transport::TransportInfo;

/// Whom the other side of a connection was found to be. Only [`Authenticate`] makes one from a
/// connection; nothing in a message can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name, unique among principals.
    pub name: Arc<str>,
    /// Anything else that is known, such as the claims of a token.
    pub claims: Value,
}

impl Principal {
    /// A principal without claims.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), claims: Value::Nil }
    }
}

/// Decides who connects.
pub trait Authenticate: Debug + MaybeSend + MaybeSync {
    /// Whom this is, or why not. Bounded by the time of the handshake.
    fn authenticate<'a>(
        &'a self,
        hello: &'a Hello,
        transport: &'a TransportInfo,
    ) -> BoxFuture<'a, Result<Principal, Refusal>>;
}

/// Lets nobody in: what a peer does that was given no other rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Authenticate for Nobody {
    fn authenticate<'a>(
        &'a self,
        _: &'a Hello,
        _: &'a TransportInfo,
    ) -> BoxFuture<'a, Result<Principal, Refusal>> {
        Box::pin(async { Err(unauthenticated("this peer accepts no connections")) })
    }
}

/// Lets everybody in, as the principal `anonymous`: for development on loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anyone;

impl Authenticate for Anyone {
    fn authenticate<'a>(
        &'a self,
        _: &'a Hello,
        _: &'a TransportInfo,
    ) -> BoxFuture<'a, Result<Principal, Refusal>> {
        Box::pin(async { Ok(Principal::named("anonymous")) })
    }
}

/// Lets in whoever knows one token.
#[derive(Clone, Debug)]
pub struct SharedToken {
    /// The token's hash.
    known: blake3::Hash,
    principal: Principal,
}

impl SharedToken {
    /// Whoever shows this token is this principal.
    pub fn new(token: &Token, principal: Principal) -> Self {
        Self { known: hash(token), principal }
    }
}

impl Authenticate for SharedToken {
    fn authenticate<'a>(
        &'a self,
        hello: &'a Hello,
        _: &'a TransportInfo,
    ) -> BoxFuture<'a, Result<Principal, Refusal>> {
        Box::pin(async {
            match &hello.token {
                None => Err(unauthenticated("this peer asks for a token")),
                // Hashes are compared in constant time, so that it tells neither the token nor its length.
                Some(token) if hash(token) == self.known => Ok(self.principal.clone()),
                Some(_) => Err(unauthenticated("the token is not the right one")),
            }
        })
    }
}

fn hash(token: &Token) -> blake3::Hash {
    blake3::hash(token.secret().as_bytes())
}

fn unauthenticated(message: &str) -> Refusal {
    Refusal::new("peer/unauthenticated", message)
}

/// What a principal wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Subscribe to a topic.
    Subscribe,
    /// Publish to a topic.
    Publish,
    /// Invoke a function.
    Invoke,
}

/// One thing that a principal wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// What.
    pub action: Action,
    /// The topic, or the function's name.
    pub target: &'a Value,
    /// The payload or the arguments, if there are any.
    pub payload: Option<&'a Value>,
}

/// Decides what authenticated principals may do.
pub trait Authorize: Debug + MaybeSend + MaybeSync {
    /// Whether this may be done, or why not.
    ///
    /// # Errors
    /// The refusal that is sent back.
    fn authorize(&self, wish: &Wish<'_>) -> Result<(), Refusal>;
}

/// Whoever was let in may do everything: what a peer does that was given no other rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everything;

impl Authorize for Everything {
    fn authorize(&self, _: &Wish<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}
