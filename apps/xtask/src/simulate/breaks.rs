//! Breaking the code on purpose: a checker that cannot fail proves nothing.
//!
//! Every break is a patch with a name and a first line that says what it does. It is applied to a copy of the checkout, so
//! that the checkout itself never holds broken code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Arguments, PACKAGE};
use crate::failure::Failure;
use crate::steps::{cargo, must_succeed, output_of};

/// Where the patches are.
const PATCHES: &str = "apps/simulation/breaks";

/// The document whose table is written.
const DOCUMENT: &str = "docs/SIMULATION.md";

const BEGIN: &str = "<!-- breaks: begin -->";
const END: &str = "<!-- breaks: end -->";

struct Break {
    name: String,
    what: String,
    patch: PathBuf,
}

/// What a simulation of broken code said.
struct Finding {
    promise: String,
    histories: String,
    seed: String,
}

pub(super) fn run(checkout: &Path, arguments: &Arguments) -> Result<(), Failure> {
    let own = checkout.join("target/breaks");
    let copy = own.join("tree");
    copy_tree(checkout, &copy)?;
    let only = arguments.only.as_deref().unwrap_or("");
    let mut rows = String::new();
    let mut missed = Vec::new();
    let mut chosen = breaks(checkout)?;
    chosen.retain(|broken| broken.name.contains(only));
    // All of them before the first is built: code moves on, and a patch that no longer fits should be known at once.
    for broken in &chosen {
        apply(&copy, &broken.patch, &["--dry-run"])?;
    }
    for broken in chosen {
        apply(&copy, &broken.patch, &[])?;
        let outcome = simulate(&copy, &own.join("target"), arguments);
        apply(&copy, &broken.patch, &["--reverse"])?;
        let Break { name, what, .. } = broken;
        match outcome? {
            Some(finding) => {
                let Finding {
                    promise,
                    histories,
                    seed,
                } = finding;
                println!("{name}: {promise}, after {histories} histories (seed {seed})");
                rows.push_str(&format!(
                    "| `{name}` | {what} | {promise} | {histories} | {seed} |\n"
                ));
            }
            None => {
                println!("{name}: NOT FOUND");
                missed.push(name);
            }
        }
    }
    if arguments.only.is_none() {
        write_table(checkout, &rows)?;
    }
    if missed.is_empty() {
        return Ok(());
    }
    Err(Failure::said(format!(
        "no history shows: {}",
        missed.join(", ")
    )))
}

/// Every patch applies to the code as it is, and the document's table has a row for each and for nothing else. Which promise it
/// violates only a run can tell.
pub(super) fn check(checkout: &Path) -> Result<(), Failure> {
    let found = breaks(checkout)?;
    let mut wrong: Vec<String> = found
        .iter()
        .filter_map(|broken| apply(checkout, &broken.patch, &["--dry-run"]).err())
        .map(|failure| failure.to_string())
        .collect();
    let text = read(&checkout.join(DOCUMENT))?;
    let (_, table, _) = around_table(&text)?;
    wrong.extend(differences(&found, table));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::said(wrong.join("\n")))
}

/// What the table lacks, has too much, or says in other words than the patch.
fn differences(breaks: &[Break], table: &str) -> Vec<String> {
    let rows: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").next().unwrap_or_default()))
        .collect();
    let lacks = breaks
        .iter()
        .filter(|broken| !rows.contains(&(&broken.name, &broken.what)))
        .map(|broken| {
            let Break { name, what, .. } = broken;
            format!("{DOCUMENT} lacks the break {name}: {what}")
        });
    let is_there = |name: &str| breaks.iter().any(|broken| broken.name == name);
    let stale = rows
        .iter()
        .filter(|(name, _)| !is_there(name))
        .map(|(name, _)| format!("{DOCUMENT} has the break {name}, which is not in {PATCHES}"));
    lacks.chain(stale).collect()
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::at("read", path))
}

/// The document before its table, the table, and the document behind it; the marks belong to what surrounds it.
fn around_table(document: &str) -> Result<(&str, &str, &str), Failure> {
    let (Some(begin), Some(end)) = (document.find(BEGIN), document.find(END)) else {
        return Err(Failure::said(format!(
            "{DOCUMENT} lacks the marks {BEGIN} and {END}"
        )));
    };
    let (head, rest) = document.split_at(begin + BEGIN.len());
    let (table, tail) = rest.split_at(end.saturating_sub(head.len()));
    Ok((head, table, tail))
}

/// Copies what git tracks or would track; a file that did not change keeps its time, so that little is built again.
fn copy_tree(checkout: &Path, copy: &Path) -> Result<(), Failure> {
    let listed = output_of(Command::new("git").current_dir(checkout).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for name in listed.split_terminator('\0') {
        let (from, to) = (checkout.join(name), copy.join(name));
        // A deleted file that is not committed is still listed.
        let Ok(bytes) = fs::read(&from) else {
            continue;
        };
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(Failure::at("make", folder))?;
        }
        fs::write(&to, bytes).map_err(Failure::at("write", &to))?;
    }
    Ok(())
}

fn breaks(checkout: &Path) -> Result<Vec<Break>, Failure> {
    let folder = checkout.join(PATCHES);
    let entries = fs::read_dir(&folder).map_err(Failure::at("read", &folder))?;
    let mut found = Vec::new();
    for entry in entries {
        let patch = entry.map_err(Failure::at("read", &folder))?.path();
        if patch
            .extension()
            .is_none_or(|extension| extension != "patch")
        {
            continue;
        }
        let text = read(&patch)?;
        let name = patch.file_stem().unwrap_or_default();
        found.push(Break {
            name: name.to_string_lossy().into_owned(),
            what: text.lines().next().unwrap_or_default().to_owned(),
            patch,
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn apply(copy: &Path, patch: &Path, how: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("patch");
    command
        .current_dir(copy)
        .args(["--strip=1", "--silent", "--no-backup-if-mismatch"])
        .args(how)
        .arg("--input")
        .arg(patch);
    let output = command.output().map_err(Failure::starting("patch"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::said(format!(
        "{} does not apply: {}",
        patch.display(),
        String::from_utf8_lossy(&output.stdout)
    )))
}

/// `None` when every history held.
fn simulate(copy: &Path, target: &Path, arguments: &Arguments) -> Result<Option<Finding>, Failure> {
    let mut build = cargo(copy);
    build.env("CARGO_TARGET_DIR", target);
    // Most breaks show within a few histories, so what counts is the time to build.
    build.env("CARGO_PROFILE_SIMULATION_OPT_LEVEL", "1");
    build.env("CARGO_PROFILE_SIMULATION_DEBUG", "false");
    build.env("CARGO_PROFILE_SIMULATION_INCREMENTAL", "true");
    // Broken code leaves things unused.
    build.env("RUSTFLAGS", "--cap-lints=allow");
    build.args(["build", "--locked", "--quiet"]).args(PACKAGE);
    must_succeed(&mut build)?;
    let program = target.join("simulation/simulate");
    let output = Command::new(&program)
        .args(arguments.to_simulate())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(Failure::starting(program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    if output.status.success() {
        return Ok(None);
    }
    let Some(promise) = last.split('"').nth(1) else {
        return Err(Failure::said(format!("the simulation said: {last}")));
    };
    let word = |name: &str| {
        let found = last.split(' ').find_map(|word| word.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    Ok(Some(Finding {
        promise: promise.to_owned(),
        histories: word("histories="),
        seed: word("seed="),
    }))
}

fn write_table(checkout: &Path, rows: &str) -> Result<(), Failure> {
    let path = checkout.join(DOCUMENT);
    let text = read(&path)?;
    let (before, _, after) = around_table(&text)?;
    let head = "\n| break | what it does | promise violated first | histories | seed |\n|---|---|---|---|---|\n";
    fs::write(&path, format!("{before}\n{head}{rows}\n{after}"))
        .map_err(Failure::at("write", &path))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Break, around_table, check, differences};

    const TABLE: &str = "| break | what it does | promise violated first | histories | seed |
|---|---|---|---|---|
| `one` | does this | accepted is never lost | 4 | 2 |
";

    fn a_break(name: &str, what: &str) -> Break {
        Break {
            name: name.to_owned(),
            what: what.to_owned(),
            patch: "nowhere".into(),
        }
    }

    #[test]
    fn every_patch_applies_and_is_in_the_table() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        check(&checkout).unwrap_or_else(|failure| panic!("{failure}"));
    }

    #[test]
    fn what_the_table_lacks_or_has_too_much_is_named() {
        let one = || a_break("one", "does this");
        assert!(differences(&[one()], TABLE).is_empty());
        let lacks = differences(&[one(), a_break("two", "does that")], TABLE);
        assert_eq!(lacks, ["docs/SIMULATION.md lacks the break two: does that"]);
        let other = differences(&[a_break("one", "does something else")], TABLE);
        assert_eq!(
            other,
            ["docs/SIMULATION.md lacks the break one: does something else"]
        );
        let stale = differences(&[], TABLE);
        assert_eq!(stale.len(), 1);
        assert!(stale[0].contains("has the break one"), "{stale:?}");
    }

    #[test]
    fn a_document_without_its_marks_is_refused() {
        let document = "a <!-- breaks: begin --> b <!-- breaks: end --> c";
        let (before, table, after) = around_table(document).expect("both marks");
        assert_eq!(table, " b ");
        assert_eq!(format!("{before}{table}{after}"), document);
        assert!(around_table("a b c").is_err());
    }
}
