#![doc = include_str!("../README.md")]

pub mod conversion;
pub mod journal;

/// The examples of the testing kit's page, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/TESTING-KIT.md")]
struct TestingKit;
