#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod hash;
mod key;
mod keys;
mod scope;

pub use hash::KeyHash;
pub use key::{ApiKey, InvalidKey, NewKey};
pub use keys::{ApiKeys, InvalidKeys};
pub use scope::{Scope, Scopes};
