//! Requests that clients name, so that repeating one has the answer of the first.

use std::fmt;

use crate::task::{NewTask, TaskId};
use crate::time::Timestamp;

/// The name of a request: whose it is, what it asks for, and the key that the client gave it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(String);

/// The text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be from 1 to 255 visible ASCII characters")]
pub struct InvalidRequestKey;

impl RequestKey {
    /// The longest key that a client may give, in characters.
    pub const MAX_LENGTH: usize = 255;

    /// The key of a client (`owner`: its API key, or whatever stands for none) for one kind of request. Keys of different
    /// owners or kinds have nothing to do with one another.
    ///
    /// # Errors
    /// [`InvalidRequestKey`] when a part is empty, is longer than 255 characters or holds anything but visible ASCII.
    pub fn new(owner: &str, kind: &str, key: &str) -> Result<Self, InvalidRequestKey> {
        let is_valid = |part: &str| {
            (1..=Self::MAX_LENGTH).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if ![owner, kind, key].into_iter().all(is_valid) {
            return Err(InvalidRequestKey);
        }
        // None of them holds a space.
        Ok(Self(format!("{owner} {kind} {key}")))
    }

    /// All of it as one text, different for different keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a request asked for, as a hash that nobody can make two requests collide in: 256 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    /// 64 hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({self})")
    }
}

impl Fingerprint {
    /// Reads what [`Display`](fmt::Display) wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// A request to store tasks under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// Its name.
    pub key: RequestKey,
    /// What it asks for.
    pub fingerprint: Fingerprint,
    /// The tasks to store if the key is new.
    pub tasks: Vec<NewTask>,
}

/// What is kept under a key: what was asked for first, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRequest {
    /// What the first request asked for.
    pub fingerprint: Fingerprint,
    /// The tasks that it stored, in its order.
    pub tasks: Vec<TaskId>,
    /// When it stored them (store's clock).
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_ascii_of_limited_length() {
        let longest = "k".repeat(255);
        for good in [
            "k",
            "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
            "!~",
            &longest,
        ] {
            assert!(
                RequestKey::new("anonymous", "submit", good).is_ok(),
                "{good}"
            );
        }
        let too_long = "k".repeat(256);
        for bad in ["", " ", "a b", "a\tb", "a\u{7f}", "é", &too_long] {
            let refused = RequestKey::new("anonymous", "submit", bad);
            assert_eq!(refused, Err(InvalidRequestKey), "{bad}");
        }
        let key = |owner, kind| RequestKey::new(owner, kind, "k").expect("valid");
        assert_ne!(key("one", "submit"), key("other", "submit"));
        assert_ne!(key("one", "submit"), key("one", "batch"));
    }

    #[test]
    fn fingerprints_round_trip_through_text() {
        let mut bytes = [0; 32];
        for (byte, value) in bytes.iter_mut().zip(224..=255) {
            *byte = value;
        }
        let fingerprint = Fingerprint(bytes);
        assert_eq!(
            Fingerprint::from_hex(&fingerprint.to_string()),
            Some(fingerprint)
        );
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Fingerprint::from_hex(bad), None, "{bad}");
        }
    }
}
