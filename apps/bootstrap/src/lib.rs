//! What every binary of Task Processor starts with: settings, telemetry, signals, waiting for dependencies, wiring.
//!
//! A `main` says which program it is and what to do once everything that can be wrong before the start was right:
//!
//! ```text
//! fn main() -> ExitCode {
//!     bootstrap::launch(&PROGRAM, |start: Start<ServerSettings>| async move { … })
//! }
//! ```
//!
//! The files in [`wiring`] are the only ones that name concrete adapters.

pub mod heartbeat;
pub mod keys;
pub mod listen;
pub mod settings;
pub mod shutdown;
pub mod startup;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod wiring;

mod launch;

pub use launch::{Failure, Program, Start, launch, say};
