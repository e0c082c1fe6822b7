//! The name of a block.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The content hash that names a block: 32 bytes, printed as 64 hexadecimal digits.
///
/// A store never computes or checks it; see the crate documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub [u8; 32]);

impl Hash for Address {
    /// Any eight bytes of it are a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Address {
    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Address {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Address> for [u8; 32] {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl AsRef<[u8]> for Address {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell addresses apart in a log; all 64 make it unreadable.
        let [a, b, c, d, ..] = self.0;
        write!(f, "Address({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is 64 hexadecimal digits")]
pub struct ParseAddressError;

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ParseAddressError);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(ParseAddressError);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let &[high, low] = pair else { return Err(ParseAddressError) };
            *byte = (digit(high)? * 16 + digit(low)?) as u8;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_bad_text_is_refused() {
        let mut bytes = [0; 32];
        bytes[0] = 0xfe;
        bytes[31] = 0x07;
        let address = Address(bytes);
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!("fe".parse::<Address>(), Err(ParseAddressError));
        assert_eq!("zz".repeat(32).parse::<Address>(), Err(ParseAddressError));
    }
}
