//! Takes the services down when the tests end, however they end.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::failure::Failure;
use crate::services::{self, Place};

/// A process of its own, out of reach of the terminal's interrupt, that waits for the end of its standard input. We hold
/// the other end: when we go, on purpose, by Ctrl-C or killed, the system closes it, and the services stop.
pub(super) struct Caretaker(Child);

/// The word that starts it; it is not meant for people.
pub(crate) const CHORE: &str = "services-down-when-input-ends";

impl Caretaker {
    pub(super) fn hire() -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(Failure::starting("this program again"))?;
        Command::new("setsid")
            .arg(own)
            .arg(CHORE)
            .stdin(Stdio::piped())
            .spawn()
            .map(Self)
            .map_err(Failure::starting("the caretaker of the services"))
    }

    /// The tests are over.
    pub(super) fn dismiss(mut self) -> Result<(), Failure> {
        // `wait` closes the input first.
        let status = self
            .0
            .wait()
            .map_err(Failure::starting("the caretaker of the services"))?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::said(format!(
                "stopping the services failed: {status}"
            )))
        }
    }
}

pub(crate) fn attend() -> Result<(), Failure> {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).ok();
    services::down(&Place::of_this_checkout()?)
}
