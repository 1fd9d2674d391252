//! A file of tasks, submitted in batches, with a progress bar.

use std::io::{BufRead, BufReader, IsTerminal as _, stdin};
use std::path::Path;

use client::{Client, NewTask};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::Exit;
use crate::output::Output;

/// How many tasks a request holds: as many as the server takes.
const BATCH: usize = 1_000;

/// How many bytes of lines a request holds at most, well under what the server takes.
const BATCH_BYTES: u64 = 1 << 20;

/// How the bar of a file and that of a stream of unknown length look.
const OF_FILE: &str = "{bar:30} {percent:>3} %  {msg}  {elapsed} of {duration}";
const OF_STREAM: &str = "{spinner}  {msg}  {elapsed}";

/// Lines that are submitted together.
#[derive(Default)]
struct Batch {
    tasks: Vec<NewTask>,
    bytes: u64,
    /// The number of its last line, counted from 1.
    last_line: u64,
}

/// Submits each line of a file after the first `after`. One batch follows the other, so whatever ends it early, it is clear up
/// to which line tasks are stored, but for those of the batch that was not answered. Each batch has a key of its own, which ends in the number
/// of the line before it: the same file is cut into the same batches, so whoever goes on under the same key stores none of them twice.
pub(crate) async fn submit(
    client: &Client,
    path: &Path,
    after: u64,
    key: &str,
    output: Output,
) -> Result<(), Exit> {
    let named = |error: std::io::Error| Exit::Usage(format!("{}: {error}", path.display()));
    let (mut reader, length): (Box<dyn BufRead>, Option<u64>) = if path.as_os_str() == "-" {
        (Box::new(stdin().lock()), None)
    } else {
        let file = std::fs::File::open(path).map_err(named)?;
        let length = file.metadata().map_err(named)?.len();
        (Box::new(BufReader::new(file)), Some(length))
    };
    let bar = bar(length);
    for _ in 0..after {
        bar.inc(reader.read_line(&mut String::new())? as u64);
    }
    let (mut stored, mut submitted) = (after, 0);
    let outcome = loop {
        let batch = match next(&mut reader, stored) {
            Ok(batch) if batch.last_line == stored => break Ok(()),
            Ok(batch) => batch,
            Err(exit) => break Err(exit),
        };
        let accepted = match batch.tasks.as_slice() {
            // Blank lines to the end of the file.
            [] => Vec::new(),
            tasks => {
                let key = format!("{key}-{stored}");
                match client.submit_batch_keyed(tasks, &key).await {
                    Ok(accepted) => accepted,
                    Err(error) => break Err(error.into()),
                }
            }
        };
        stored = batch.last_line;
        submitted += accepted.len();
        bar.inc(batch.bytes);
        bar.set_message(format!("{submitted} tasks"));
        if let Err(exit) = bar.suspend(|| accepted.iter().try_for_each(|one| output.print(one))) {
            break Err(exit);
        }
    };
    bar.finish_and_clear();
    outcome.inspect_err(|_| {
        eprintln!(
            "task: {submitted} tasks were submitted before that, up to line {stored}; go on with --after {stored} --idempotency-key {key}"
        );
    })
}

/// The lines after that of number `before`, as far as they fit in one request.
fn next(reader: &mut impl BufRead, before: u64) -> Result<Batch, Exit> {
    let mut batch = Batch {
        last_line: before,
        ..Batch::default()
    };
    while batch.tasks.len() < BATCH && batch.bytes < BATCH_BYTES {
        let mut text = String::new();
        let read = reader.read_line(&mut text)?;
        if read == 0 {
            break;
        }
        batch.bytes += read as u64;
        batch.last_line += 1;
        if !text.trim().is_empty() {
            let task = serde_json::from_str(&text).map_err(|error| {
                let number = batch.last_line;
                Exit::Usage(format!("line {number} is no task: {error}"))
            })?;
            batch.tasks.push(task);
        }
    }
    Ok(batch)
}

fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), OF_FILE),
        None => (ProgressBar::new_spinner(), OF_STREAM),
    };
    bar.set_draw_target(if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    });
    // A test holds that the templates are valid.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [OF_FILE, OF_STREAM] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_batch_ends_at_its_limit_and_blank_lines_are_passed_over() {
        let mut lines = "{\"payload\":\"a\"}\n\n".repeat(1_500) + "\n\n";
        lines.push_str("rubbish");
        let mut reader = lines.as_bytes();
        let first = next(&mut reader, 0).expect("tasks");
        assert_eq!((first.tasks.len(), first.last_line), (1_000, 1_999));
        let Err(Exit::Usage(text)) = next(&mut reader, first.last_line) else {
            panic!("rubbish was taken");
        };
        assert!(text.starts_with("line 3003 is no task"), "{text}");
    }
}
