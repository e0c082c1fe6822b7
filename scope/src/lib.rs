//! Remote invocation as a layer on [`datahike_peer`]: functions registered on one peer are invoked
//! from another, in both directions over one connection.
//!
//! No code travels: both sides know the functions by name, and their arguments and results by serde.
//! This crate knows nothing of databases.
//!
//! ```
//! use datahike_peer::{Anyone, LinkOptions, Peer, Refusal, sim};
//! use datahike_scope::Scope;
//!
//! let world = sim::World::new(1);
//! let network = sim::Network::new(&world);
//!
//! let functions = Scope::new();
//! functions.register("sum", |_call, (a, b): (i64, i64)| async move {
//!     a.checked_add(b).ok_or_else(|| Refusal::new("sum/overflow", "the sum is too large"))
//! });
//! let server =
//!     Peer::builder(None, world.runtime()).authenticate(Anyone).layer(functions).build();
//! network.listen("server", &server);
//!
//! let scope = Scope::new();
//! let client = Peer::builder(None, world.runtime()).layer(scope.clone()).build();
//! let link = client.link(network.dial("server"), LinkOptions::default());
//! world.block_on(async move {
//!     link.connected().await.expect("connects");
//!     assert_eq!(scope.invoke::<_, i64>(&link, "sum", &(1, 2)).await, Ok(3));
//!     let error = scope.invoke::<_, i64>(&link, "sum", &(i64::MAX, 2)).await.expect_err("fails");
//!     assert_eq!(error.code().to_string(), ":sum/overflow");
//! });
//! ```
//!
//! | message | entries |
//! |---|---|
//! | `:scope/invoke` | `:id`, `:function`, `:arguments`, `:deadline` (milliseconds from now) |
//! | `:scope/result` | `:id`, `:result` |
//! | `:scope/error` | `:id`, `:code`, `:message`, `:data` |
//! | `:scope/cancel` | `:id` |

pub mod calls;

mod error;
mod function;
mod layer;

pub use error::InvokeError;
pub use function::Call;
pub use layer::{InvokeOptions, Scope};
