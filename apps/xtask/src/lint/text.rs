//! What no file of the project may say.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;
use crate::steps::output_of;

/// Marks of unfinished work. Split, so that this file does not find itself.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("TB", "D"),
    concat!("for ", "now"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
];

/// A test that is skipped must say what it needs.
const BARE_IGNORE: &str = concat!("#[ign", "ore]");

/// Files that tools write.
const GENERATED: &[&str] = &[
    "Cargo.lock",
    "apps/xtask/tools/go.sum",
    "apps/xtask/tools/package-lock.json",
];

pub(super) fn check(checkout: &Path) -> Result<(), Failure> {
    let listed = output_of(Command::new("git").current_dir(checkout).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut found = Vec::new();
    for name in listed
        .split_terminator('\0')
        .filter(|name| !GENERATED.contains(name))
    {
        // A file that was deleted and not committed is still listed; one that is not text has no words.
        let Ok(text) = fs::read_to_string(checkout.join(name)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            found.extend(wrong_with(line).map(|word| format!("{name}:{}: {word}", index + 1)));
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(Failure::said(found.join("\n")))
    }
}

fn wrong_with(line: &str) -> impl Iterator<Item = &'static str> {
    let marks = MARKS.iter().filter(move |mark| has_word(line, mark));
    let paths = MACHINE_PATHS
        .iter()
        .filter(move |path| has_path(line, path));
    let ignores = std::iter::once(&BARE_IGNORE).filter(move |ignore| line.contains(**ignore));
    marks.chain(paths).chain(ignores).copied()
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
        !line[..start].ends_with(part_of_word)
            && !line[start + word.len()..].starts_with(part_of_word)
    })
}

/// The same letters within a longer path, such as a route's, are no path of a machine.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        !line[..start].ends_with(|c: char| c.is_alphanumeric() || "_-.}~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::wrong_with;

    fn check(line: &str, expected: &[&str]) {
        assert_eq!(wrong_with(line).collect::<Vec<_>>(), expected, "{line}");
    }

    #[test]
    fn marks_of_unfinished_work_are_found_as_words() {
        check(concat!("// TO", "DO: write"), &[concat!("TO", "DO")]);
        check(
            concat!("good enough for ", "now."),
            &[concat!("for ", "now")],
        );
        check(concat!("MASTO", "DON"), &[]);
        check("nothing to say", &[]);
    }

    #[test]
    fn paths_of_one_machine_are_found_at_their_beginning() {
        check(concat!("see /ro", "ot/notes"), &[concat!("/ro", "ot/")]);
        check(concat!("\"/ho", "me/me/x\""), &[concat!("/ho", "me/")]);
        check(concat!("GET /api/ho", "me/x"), &[]);
    }

    #[test]
    fn a_skipped_test_must_give_its_reason() {
        check(concat!("#[ign", "ore]"), &[concat!("#[ign", "ore]")]);
        check(concat!("#[ign", "ore = \"needs Redis\"]"), &[]);
    }
}
