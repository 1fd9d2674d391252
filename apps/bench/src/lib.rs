#![doc = include_str!("../README.md")]

pub mod duration;
pub mod load;
