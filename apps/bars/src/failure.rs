//! Why a run could not go on. A bar that is missed is no failure of this kind: it is what a run finds.

/// An error, for the person at the terminal.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;
