//! What Redocly has to say of the document.

use std::path::Path;

use super::DOCUMENT;
use crate::failure::Failure;
use crate::steps::must_succeed;
use crate::tools::{LOCKS, Tools};

/// Fails for every finding that is not excused beside the configuration.
pub(crate) fn check(checkout: &Path) -> Result<(), Failure> {
    must_succeed(
        Tools::ready(checkout)?
            .command("redocly")?
            .current_dir(checkout)
            .args(["lint", "--format", "stylish", "--config"])
            .arg(Path::new(LOCKS).join("redocly.yaml"))
            .arg(DOCUMENT)
            .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true"),
    )
}
