//! Why a run could not go on. A broken promise is no failure of this kind: it is what a run finds.

/// An error, for the person at the terminal.
pub type Failure = Box<dyn std::error::Error + Send + Sync + 'static>;
