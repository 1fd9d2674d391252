//! The use cases together, on the in-memory adapters under paused time.

mod audit;
mod catalog;
mod command;
mod events;
mod faults;
mod heavy;
mod keyed;
mod order;
mod overload;
mod panic;
mod prune;
mod read;
mod rescue;
mod stop;
mod submit;
mod trace;
mod worker;
mod world;
