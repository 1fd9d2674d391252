//! What `docs/ARCHITECTURE.md` names must exist, and every conformance suite must be named where authors of adapters look for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::steps::output_of;

const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// Where the suites are, and both lists of them.
const SUITES: &str = "ports/src/conformance";
const LISTS: [&str; 2] = ["docs/TESTING-KIT.md", "ports/src/conformance.rs"];

/// A shorter name may be an ordinary word or a column; tests are sentences.
const SHORTEST_TEST_NAME: usize = 18;

pub(super) fn check(checkout: &Path) -> Result<(), Failure> {
    let document = text_of(checkout, DOCUMENT)?;
    let code = code_of(checkout, "*.rs")?;
    let mut wrong: Vec<String> = quoted(&document)
        .filter_map(|name| missing(checkout, &code, name))
        .collect();
    let suites = code_of(checkout, &format!("{SUITES}/*.rs"))?;
    for list in LISTS {
        wrong.extend(unlisted(&suites, list, &text_of(checkout, list)?));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Failure::said(wrong.join("\n")))
    }
}

fn text_of(checkout: &Path, name: &str) -> Result<String, Failure> {
    fs::read_to_string(checkout.join(name))
        .map_err(|error| Failure::said(format!("{name}: {error}")))
}

fn code_of(checkout: &Path, files: &str) -> Result<String, Failure> {
    let listed = output_of(Command::new("git").current_dir(checkout).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        files,
    ]))?;
    // A file that was deleted and not committed is still listed.
    let files = listed
        .split_terminator('\0')
        .filter_map(|name| fs::read_to_string(checkout.join(name)).ok());
    Ok(files.collect())
}

/// What stands between single backticks on one line.
fn quoted(document: &str) -> impl Iterator<Item = &str> {
    document
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn missing(checkout: &Path, code: &str, name: &str) -> Option<String> {
    if is_path(name) {
        return (!checkout.join(name).exists())
            .then(|| format!("{DOCUMENT} names the path {name}"));
    }
    let is_test = name.len() >= SHORTEST_TEST_NAME
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_test && !code.contains(&format!("fn {name}(")))
        .then(|| format!("{DOCUMENT} names the test {name}"))
}

/// The suites that a list has no row of.
fn unlisted(suites: &str, list: &str, text: &str) -> Vec<String> {
    suites
        .lines()
        .filter_map(|line| line.strip_prefix("macro_rules! "))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|name| name.ends_with("_conformance"))
        .filter(|name| {
            let row = format!("`{name}!`");
            let rows = text.lines().map(|line| line.trim_start_matches("//! "));
            !rows
                .filter(|line| line.starts_with('|'))
                .any(|line| line.contains(&row))
        })
        .map(|name| format!("{list} has no row of {name}!"))
        .collect()
}

fn is_path(name: &str) -> bool {
    name.contains('/')
        && !name.starts_with('/')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{is_path, missing, quoted, unlisted};
    use std::path::Path;

    #[test]
    fn names_are_read_from_between_backticks() {
        let names: Vec<_> = quoted("see `a/b.rs` and `c`\nthen `d`").collect();
        assert_eq!(names, ["a/b.rs", "c", "d"]);
    }

    #[test]
    fn routes_and_media_types_with_parameters_are_no_paths() {
        assert!(is_path("domain/src/worker/"));
        assert!(!is_path("/metrics"));
        assert!(!is_path("GET /tasks"));
        assert!(!is_path("pending"));
    }

    #[test]
    fn a_suite_without_a_row_is_found() {
        let suites =
            "macro_rules! a_conformance {\nmacro_rules! other {\nmacro_rules! b_conformance {";
        let list = "b_conformance! in words\n//! | [`a_conformance!`](a) | a |";
        assert_eq!(
            unlisted(suites, "LIST", list),
            ["LIST has no row of b_conformance!"]
        );
        assert!(unlisted(suites, "LIST", &format!("{list}\n| `b_conformance!` | b |")).is_empty());
    }

    #[test]
    fn what_does_not_exist_is_found() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let code = "fn a_test_that_is_really_there() {}";
        assert_eq!(missing(here, code, "src/main.rs"), None);
        assert_eq!(missing(here, code, "a_test_that_is_really_there"), None);
        assert!(missing(here, code, "src/nowhere.rs").is_some());
        assert!(missing(here, code, "a_test_that_was_renamed").is_some());
    }
}
