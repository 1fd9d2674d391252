//! What is printed: text for people on a terminal, JSON for programs.

use std::io::{IsTerminal as _, Write as _, stdout};

use client::{Accepted, Metrics, Task, TaskEvent};
use serde::Serialize;

use crate::arguments::Form;
use crate::exit::Exit;

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    is_json: bool,
}

/// Something that people can read too.
pub(crate) trait Shown: Serialize {
    fn text(&self) -> String;
}

impl Output {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            is_json: match form {
                Form::Auto => !stdout().is_terminal(),
                Form::Text => false,
                Form::Json => true,
            },
        }
    }

    /// Prints one answer.
    pub(crate) fn print(self, shown: &impl Shown) -> Result<(), Exit> {
        let text = if self.is_json {
            serde_json::to_string(shown).map_err(std::io::Error::from)?
        } else {
            shown.text()
        };
        Ok(writeln!(stdout().lock(), "{text}")?)
    }
}

impl Shown for Accepted {
    fn text(&self) -> String {
        self.id.to_string()
    }
}

impl Shown for Task {
    fn text(&self) -> String {
        match self {
            Self::Done(done) => rows(&[
                ("id", &done.task_id.to_string()),
                ("status", "done"),
                ("processed", &done.processed_at),
                ("result", &printable(&done.result)),
            ]),
            Self::Open(task) => {
                let (id, priority) = (task.id.to_string(), task.priority.to_string());
                let (attempts, payload) = (task.attempts.to_string(), printable(&task.payload));
                let error = task.error.as_deref().map(printable).unwrap_or_default();
                let mut all = vec![
                    ("id", id.as_str()),
                    ("status", task.status.as_str()),
                    ("priority", &priority),
                    ("attempts", &attempts),
                    ("created", &task.created_at),
                    ("updated", &task.updated_at),
                    ("payload", &payload),
                ];
                if task.error.is_some() {
                    all.push(("error", &error));
                }
                rows(&all)
            }
        }
    }
}

impl Shown for TaskEvent {
    fn text(&self) -> String {
        format!("{}  {}  {}", self.at, self.task_id, self.status)
    }
}

impl Shown for Metrics {
    fn text(&self) -> String {
        let mean = self
            .average_processing_time_ms
            .map_or_else(|| "none yet".to_owned(), |millis| format!("{millis} ms"));
        rows(&[
            ("done", &self.total_tasks.to_string()),
            ("mean time", &mean),
        ])
    }
}

/// A key that was just made.
#[derive(Serialize)]
pub(crate) struct MadeKey {
    pub(crate) key: String,
    pub(crate) entry: String,
}

impl Shown for MadeKey {
    fn text(&self) -> String {
        rows(&[("key", &self.key), ("entry", &self.entry)])
            + "\nThe key is shown this once. The entry goes into API_KEYS or API_KEYS_FILE of the servers."
    }
}

fn rows(rows: &[(&str, &str)]) -> String {
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}"))
        .collect();
    lines.join("\n")
}

/// Text of others, which must not move a terminal's cursor or colour it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(
            printable("a\x1b[31m\r\n\tb\u{9b}"),
            "a\u{fffd}[31m\u{fffd}\n\tb\u{fffd}"
        );
    }
}
