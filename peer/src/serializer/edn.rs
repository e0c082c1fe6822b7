use std::fmt::Write;

use datahike_value::{Value, edn};

use super::{DecodeError, EncodeError, Serializer};
use crate::frame::SerializerId;
use crate::limits::Limits;

/// EDN text, id 2 in Kabel's table: for tools, for debugging, and for every hello.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edn;

impl Serializer for Edn {
    fn id(&self) -> SerializerId {
        SerializerId::EDN
    }

    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| EncodeError("the value has no EDN text".into()))?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8], limits: &Limits) -> Result<Value, DecodeError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| DecodeError(format!("EDN text is not UTF-8: {error}")))?;
        let limits = datahike_value::Limits {
            depth: limits.depth,
            collection_items: limits.items,
            ..datahike_value::Limits::DEFAULT
        };
        edn::read_with(text, &limits).map_err(|error| DecodeError(error.to_string()))
    }
}
