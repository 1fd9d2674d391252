//! One key: as it is made, and as it is kept.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::hash::KeyHash;
use crate::scope::{Scope, Scopes};

/// What every key begins with, so that people and scanners for leaked secrets see what it is.
const PREFIX: &str = "tpk_";

/// A key that was just made: 256 bits from the operating system's source of randomness. `Debug` does not show it.
pub struct NewKey(String);

impl NewKey {
    /// A key that nobody has.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, std::io::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// The key itself, to be shown once.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NewKey(…)")
    }
}

/// What is kept of a key: its name, what it may do, and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    name: Arc<str>,
    scopes: Scopes,
    hash: KeyHash,
}

/// Why an entry is none. Shows nothing of it but its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It has too few or too many parts.
    #[error("must be name:scopes:hash")]
    Form,
    /// Its first part is no name.
    #[error("has a name that is not 1 to 64 letters, digits, - . _, or is \"anonymous\"")]
    Name,
    /// Its second part does not name scopes.
    #[error("({0}) has scopes that are not some of submit, read and admin, joined by +")]
    Scopes(String),
    /// Its third part is no hash.
    #[error(
        "({0}) has a hash that is not 64 hexadecimal digits: the SHA-256 of the key, as task key NAME prints it"
    )]
    Hash(String),
    /// Its third part is the hash of nothing, or of a line end alone.
    #[error("({0}) has the hash of an empty key")]
    Empty(String),
}

impl ApiKey {
    /// Whose requests are everybody's who has no key.
    pub const ANONYMOUS: &str = "anonymous";

    /// Reads `name:scopes:hash`.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn parse(entry: &str) -> Result<Self, InvalidKey> {
        let parts: Vec<&str> = entry.split(':').collect();
        let [name, scopes, hash] = parts.as_slice() else {
            return Err(InvalidKey::Form);
        };
        if !is_name(name) {
            return Err(InvalidKey::Name);
        }
        let named = || (*name).to_owned();
        let hash = KeyHash::from_hex(hash).ok_or_else(|| InvalidKey::Hash(named()))?;
        if ["", "\n"].map(KeyHash::of).contains(&hash) {
            return Err(InvalidKey::Empty(named()));
        }
        Ok(Self {
            name: (*name).into(),
            scopes: Scopes::parse(scopes).ok_or_else(|| InvalidKey::Scopes(named()))?,
            hash,
        })
    }

    /// What it is called; tells it apart from every other.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, shared.
    #[must_use]
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// What it may do.
    #[must_use]
    pub const fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Whether it may do what needs this scope.
    #[must_use]
    pub const fn allows(&self, scope: Scope) -> bool {
        self.scopes.allow(scope)
    }

    pub(crate) const fn hash(&self) -> &KeyHash {
        &self.hash
    }
}

/// Whether a key may be called so.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text != ApiKey::ANONYMOUS
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_long_and_nobody_has_it() {
        let key = NewKey::random().expect("randomness");
        assert_eq!(key.secret().len(), PREFIX.len() + 43);
        assert!(key.secret().starts_with(PREFIX));
        assert!(key.secret().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_ne!(key.hash(), NewKey::random().expect("randomness").hash());
        assert_eq!(format!("{key:?}"), "NewKey(…)");
    }

    #[test]
    fn an_entry_is_read_or_refused_without_being_shown() {
        let hash = KeyHash::of("k").to_string();
        let key = ApiKey::parse(&format!("ci:submit+read:{hash}")).expect("an entry");
        assert_eq!(key.name(), "ci");
        assert!(key.allows(Scope::Read) && !key.allows(Scope::Admin));
        let named = || "ci".to_owned();
        let empty = KeyHash::of("");
        let line_end = KeyHash::of("\n");
        for (entry, expected) in [
            ("tpk_hunter2".to_owned(), InvalidKey::Form),
            (format!("ci:read:{hash}:x"), InvalidKey::Form),
            (format!(":read:{hash}"), InvalidKey::Name),
            (format!("a b:read:{hash}"), InvalidKey::Name),
            (format!("anonymous:read:{hash}"), InvalidKey::Name),
            (format!("{}:read:{hash}", "a".repeat(65)), InvalidKey::Name),
            (format!("ci::{hash}"), InvalidKey::Scopes(named())),
            (format!("ci:write:{hash}"), InvalidKey::Scopes(named())),
            ("ci:read:tpk_hunter2".to_owned(), InvalidKey::Hash(named())),
            (format!("ci:read:{empty}"), InvalidKey::Empty(named())),
            (format!("ci:read:{line_end}"), InvalidKey::Empty(named())),
        ] {
            let error = ApiKey::parse(&entry).expect_err("is refused");
            assert_eq!(error, expected, "{entry}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
