//! All keys that are known.

use std::collections::HashMap;
use std::fmt;

use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::hash::KeyHash;
use crate::key::ApiKey;

/// The keys that are let in; by [`Default`] none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKeys(Vec<ApiKey>);

/// Every entry that is none, and why. Shows no more of it than its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", self.first().join("; "), self.rest())]
pub struct InvalidKeys(Vec<String>);

impl InvalidKeys {
    /// How many of the mistakes are shown: there may be one in each of a thousand entries.
    const SHOWN: usize = 4;

    fn first(&self) -> &[String] {
        &self.0[..self.0.len().min(Self::SHOWN)]
    }

    fn rest(&self) -> String {
        match self.0.len().saturating_sub(Self::SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        }
    }
}

impl ApiKeys {
    /// How many there may be: every request is compared with each of them.
    pub const MAX: usize = 1_000;

    /// The longest key that is looked at, in bytes.
    const MAX_SECRET: usize = 512;

    /// Reads entries (see [`ApiKey::parse`]) separated by commas or line ends. What follows `#` on a line is a comment.
    ///
    /// # Errors
    /// [`InvalidKeys`] with what is wrong: entries that are none, two with the same name or the same hash, and more than
    /// [`MAX`](Self::MAX).
    pub fn parse(text: &str) -> Result<Self, InvalidKeys> {
        let entries = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let mut keys = Vec::new();
        let mut wrong = Vec::new();
        let mut names = HashMap::new();
        let mut hashes = HashMap::new();
        for (entry, number) in entries.zip(1_usize..) {
            let key = match ApiKey::parse(entry) {
                Ok(key) => key,
                Err(error) => {
                    wrong.push(format!("entry {number} {error}"));
                    continue;
                }
            };
            if let Some(first) = names.insert(key.shared_name(), number) {
                wrong.push(format!(
                    "entry {number} ({}) has the name of entry {first}",
                    key.name()
                ));
            }
            if let Some(first) = hashes.insert(key.hash().to_string(), number) {
                wrong.push(format!(
                    "entry {number} ({}) has the hash of entry {first}",
                    key.name()
                ));
            }
            keys.push(key);
        }
        if keys.len() > Self::MAX {
            wrong.push(format!("has {} keys, more than {}", keys.len(), Self::MAX));
        }
        if wrong.is_empty() {
            Ok(Self(keys))
        } else {
            Err(InvalidKeys(wrong))
        }
    }

    /// Whether there are none, so that nobody can be told from anybody else.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.0.iter()
    }

    /// The key that this is. The time it takes depends on the length of what came and on the number of keys alone: every key is compared,
    /// to the last byte, and the search does not end at a hit.
    #[must_use]
    pub fn recognise(&self, secret: &str) -> Option<&ApiKey> {
        if secret.len() > Self::MAX_SECRET {
            return None;
        }
        let hash = KeyHash::of(secret);
        // One more than the last is none.
        let found = self
            .0
            .iter()
            .zip(0_u64..)
            .fold(u64::MAX, |found, (key, index)| {
                u64::conditional_select(&found, &index, key.hash().is(&hash))
            });
        if bool::from(found.ct_eq(&u64::MAX)) {
            return None;
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.iter().map(ApiKey::name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scope;

    fn entry(name: &str, secret: &str) -> String {
        format!("{name}:read:{}", KeyHash::of(secret))
    }

    #[test]
    fn fuzz_api_keys() {
        const ENTRIES: &[&[u8]] = &[
            b"ci:submit+read:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            b"ops:admin:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f # hunter2\n,\n\
              web:read:202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
            b"hunter2",
        ];
        fuzz::run("API keys", &fuzz::text(ENTRIES), |text| {
            match ApiKeys::parse(&text) {
                Ok(keys) => {
                    for key in keys.iter() {
                        proptest::prop_assert!((1..=64).contains(&key.name().len()));
                        proptest::prop_assert!(key.name() != ApiKey::ANONYMOUS);
                    }
                    let names: std::collections::HashSet<_> =
                        keys.iter().map(ApiKey::name).collect();
                    proptest::prop_assert_eq!(names.len(), keys.len());
                    // What is kept is a hash: nothing in it is a key.
                    let parts = text.split([',', ':', '\n', ' ']);
                    for part in parts.filter(|part| !part.is_empty()) {
                        proptest::prop_assert!(keys.recognise(part).is_none(), "{part}");
                    }
                }
                Err(wrong) => {
                    let reason = wrong.to_string();
                    proptest::prop_assert!((1..=800).contains(&reason.len()), "{reason}");
                    proptest::prop_assert!(!reason.contains(char::is_control), "{reason:?}");
                }
            }
            Ok(())
        });
    }

    #[test]
    fn a_key_is_recognised_wherever_it_stands_and_nothing_else_is() {
        let names = ["a", "b", "c", "d"];
        let text = names.map(|name| entry(name, &format!("secret-{name}")));
        let keys = ApiKeys::parse(&text.join(",")).expect("entries");
        assert_eq!(keys.len(), 4);
        for name in names {
            let secret = format!("secret-{name}");
            let known = keys.recognise(&secret).map(ApiKey::name);
            assert_eq!(known, Some(name));
            // Tampered with: each bit of each byte that leaves it text, one character less, one more, another case.
            for index in 0..secret.len() {
                for bit in 0..7 {
                    let mut bytes = secret.clone().into_bytes();
                    bytes[index] ^= 1 << bit;
                    let other = String::from_utf8(bytes).expect("ASCII");
                    let known = keys.recognise(&other).map(ApiKey::name);
                    let expected = names
                        .into_iter()
                        .find(|name| other == format!("secret-{name}"));
                    assert_eq!(known, expected, "{other:?}");
                }
            }
            for other in [
                &secret[1..],
                &secret[..secret.len() - 1],
                &format!("{secret} "),
                &secret.to_uppercase(),
                &KeyHash::of(&secret).to_string(),
                &format!("{secret}{}", "x".repeat(ApiKeys::MAX_SECRET)),
                "",
            ] {
                assert_eq!(keys.recognise(other), None, "{other}");
            }
        }
        assert_eq!(ApiKeys::default().recognise("secret-a"), None);
    }

    #[test]
    fn entries_stand_on_lines_or_between_commas_with_comments() {
        let text = format!(
            "# whose they are\n{} # the build\n\n{}, {}\r\n",
            entry("ci", "1"),
            entry("web", "2"),
            entry("ops", "3")
        );
        let keys = ApiKeys::parse(&text).expect("entries");
        let names: Vec<&str> = keys.iter().map(ApiKey::name).collect();
        assert_eq!(names, ["ci", "web", "ops"]);
        assert_eq!(format!("{keys:?}"), "[\"ci\", \"web\", \"ops\"]");
        assert!(keys.iter().all(|key| key.allows(Scope::Read)));
        assert!(ApiKeys::parse(" ,\n# none\n").expect("nothing").is_empty());
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_secret() {
        let text = format!(
            "{},ci:read:hunter2,{},{},hunter2",
            entry("ci", "1"),
            entry("ci", "2"),
            entry("web", "1")
        );
        let error = ApiKeys::parse(&text).expect_err("is refused").to_string();
        assert_eq!(
            error,
            "entry 2 (ci) has a hash that is not 64 hexadecimal digits: the SHA-256 of the key, as task key NAME prints it; \
             entry 3 (ci) has the name of entry 1; entry 4 (web) has the hash of entry 1; \
             entry 5 must be name:scopes:hash"
        );
        let many: Vec<String> = (0..=ApiKeys::MAX)
            .map(|number| entry(&format!("k{number}"), &number.to_string()))
            .collect();
        let error = ApiKeys::parse(&many.join("\n")).expect_err("is refused");
        assert_eq!(error.to_string(), "has 1001 keys, more than 1000");
    }
}
