//! What is kept of a key.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The SHA-256 of a key. `Debug` does not show it, though it is no secret: nobody finds a random key by its hash.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether they are the same, in the same time whether they are or not.
    pub(crate) fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.is(other).into()
    }
}

impl Eq for KeyHash {}

impl fmt::Display for KeyHash {
    /// 64 hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FIPS 180-2, appendix B.1; also what `printf %s abc | sha256sum` says.
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn it_is_sha_256_as_every_tool_writes_it() {
        let hash = KeyHash::of("abc");
        assert_eq!(hash.to_string(), OF_ABC);
        assert_eq!(KeyHash::from_hex(OF_ABC), Some(hash));
        assert_eq!(KeyHash::from_hex(&OF_ABC.to_uppercase()), Some(hash));
        assert_ne!(KeyHash::of("abd"), hash);
        assert!(!format!("{hash:?}").contains("ba78"));
        for wrong in [
            "",
            "abc",
            &OF_ABC[1..],
            &format!("{OF_ABC}0"),
            &OF_ABC.replacen('b', "+", 1),
            &OF_ABC.replacen("ba", "ä", 1),
        ] {
            assert_eq!(KeyHash::from_hex(wrong), None, "{wrong}");
        }
    }
}
