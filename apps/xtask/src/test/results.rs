//! Counting what `cargo test` says.

/// The sums over all test programs that reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Results {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// Ignored or filtered out.
    pub(super) left_out: usize,
}

impl Results {
    /// Takes a line like `test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    pub(super) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        for count in counts.split([';', '.']) {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<usize>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "filtered out" => self.left_out += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Results;

    fn check(lines: &[&str], passed: usize, failed: usize, left_out: usize) {
        let mut results = Results::default();
        for line in lines {
            results.read(line);
        }
        assert_eq!(
            results,
            Results {
                passed,
                failed,
                left_out
            },
            "{lines:?}"
        );
    }

    #[test]
    fn sums_the_closing_lines_and_nothing_else() {
        check(
            &[
                "test some::name ... ok",
                "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                "test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured; 4 filtered out; finished in 1.50s",
                "9 passed; 9 failed",
            ],
            7,
            1,
            7,
        );
    }

    #[test]
    fn colours_do_not_hide_the_numbers() {
        check(
            &[
                "test result: \u{1b}[32mok\u{1b}[m. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            ],
            1,
            0,
            0,
        );
    }
}
