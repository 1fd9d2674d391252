//! What a chore says when it cannot go on.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// Why a chore stopped. The text is for the person at the terminal, so it says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What is wrong has been printed already.
    #[error("failed")]
    Printed,
    /// Everything there is to say is in the text.
    #[error("{0}")]
    Said(String),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being tried, as in "cannot write /var/tmp/x".
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Failure {
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// For `map_err` on a call that touches `path`.
    pub(crate) fn at(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("cannot {verb} {}", path.display());
        move |source| Self::System { doing, source }
    }

    /// For `map_err` on a call that starts a program.
    pub(crate) fn starting(program: impl Display) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("cannot start {program}");
        move |source| Self::System { doing, source }
    }
}
