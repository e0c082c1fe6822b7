//! Values through their public API.

#[path = "values/any.rs"]
mod any;
#[path = "values/bad_input.rs"]
mod bad_input;
#[path = "values/bridge.rs"]
mod bridge;
#[path = "values/codec.rs"]
mod codec;
#[path = "values/order.rs"]
mod order;
#[path = "values/text.rs"]
mod text;
