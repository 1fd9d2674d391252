//! What clients of the previous commit's document would stumble over.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::DOCUMENT;
use crate::failure::Failure;
use crate::steps::{must_succeed, output_of};
use crate::tools::Tools;

/// Breaks that are meant, each below its reason.
const ACCEPTED: &str = "docs/openapi-breaks.txt";

/// What the document is compared with, the best first: of a commit that was just made the one before it, and in a clone that has no
/// other commit at least that commit, as long as the document is being changed.
const BASES: [(&str, &str); 2] = [("HEAD^", "the previous commit"), ("HEAD", "this commit")];

/// Compares the document with an earlier one and fails for every break that is not accepted.
pub(crate) fn check(checkout: &Path) -> Result<(), Failure> {
    let path = checkout.join(ACCEPTED);
    let accepted = fs::read_to_string(&path).map_err(Failure::at("read", &path))?;
    explained(&accepted).map_err(Failure::said)?;
    if !checkout.join(".git").exists() {
        println!(
            "this is no git checkout, so there is no earlier document to compare with: NOT COMPARED"
        );
        return Ok(());
    }
    let Some((base, name)) = base(checkout)? else {
        println!("no commit here has a {DOCUMENT} to compare with: NOT COMPARED");
        return Ok(());
    };
    if base != BASES[0].0 {
        println!(
            "there is no previous commit here with a {DOCUMENT} (the first commit, or a shallow clone): compared with {name} alone"
        );
    }
    must_succeed(
        Tools::ready(checkout)?
            .command("oasdiff")?
            .current_dir(checkout)
            .args(["breaking", "--fail-on", "WARN", "--format", "singleline"])
            .args(["--allow-external-refs=false", "--color", "never"])
            .args(["--err-ignore", ACCEPTED, "--warn-ignore", ACCEPTED])
            .arg(format!("{base}:{DOCUMENT}"))
            .arg(DOCUMENT),
    )
    .map_err(|failure| {
        Failure::said(format!(
            "{failure}: clients of {name} would stumble; a break that is meant goes into {ACCEPTED}, below its reason"
        ))
    })
}

/// The first of the bases that has the document.
fn base(checkout: &Path) -> Result<Option<(&'static str, &'static str)>, Failure> {
    for (base, name) in BASES {
        let found = git(checkout)
            .args(["cat-file", "-e"])
            .arg(format!("{base}:{DOCUMENT}"))
            .stderr(Stdio::null())
            .status()
            .map_err(Failure::starting("git"))?;
        if found.success() {
            return Ok(Some((base, name)));
        }
    }
    // A git that cannot read its own commits must not pass for one that has none.
    output_of(git(checkout).args(["rev-parse", "--git-dir"])).map(|_| None)
}

fn git(checkout: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(checkout).stdin(Stdio::null());
    command
}

/// Every line that accepts something has a reason above it; an empty line ends what a reason is given for.
fn explained(accepted: &str) -> Result<(), String> {
    let mut has_reason = false;
    for (number, line) in accepted.lines().enumerate() {
        if line.trim().is_empty() {
            has_reason = false;
        } else if let Some(reason) = line.strip_prefix('#') {
            has_reason |= !reason.trim().is_empty();
        } else if !has_reason {
            return Err(format!(
                "{ACCEPTED}:{}: no reason stands above this",
                number + 1
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_accepted_with_a_reason_only() {
        let good = "# How it is written.\n\n# It was never so.\nGET /a gone\nGET /b gone\n";
        assert_eq!(explained(good), Ok(()));
        for (bad, line) in [
            ("GET /a gone", 1),
            ("#\nGET /a gone", 2),
            ("# Of another.\nGET /a gone\n\nGET /b gone", 4),
        ] {
            let message = format!("{ACCEPTED}:{line}: no reason stands above this");
            assert_eq!(explained(bad), Err(message), "{bad}");
        }
    }
}
