//! What is printed: text for people on a terminal, JSON for programs.

use std::io::{IsTerminal as _, Write as _, stdout};

use client::{Accepted, ListedTask, Metrics, Task, TaskEvent, TaskRecord};
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

    /// Prints what stands above a table, for people.
    pub(crate) fn head(self, heading: &str) -> Result<(), Exit> {
        if self.is_json {
            return Ok(());
        }
        Ok(writeln!(stdout().lock(), "{heading}")?)
    }

    /// Says something beside the answers, to people.
    pub(crate) fn remark(self, text: &str) {
        if !self.is_json {
            eprintln!("task: {text}");
        }
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

/// What is not known, or not yet, has no line.
impl Shown for TaskRecord {
    fn text(&self) -> String {
        let (id, priority) = (self.id.to_string(), self.priority.to_string());
        let attempts = format!("{} of {}", self.attempts, self.max_attempts);
        let rescues = (self.rescues > 0).then(|| self.rescues.to_string());
        let text = |text: &Option<String>| text.as_deref().map(printable);
        let why = self.reason.as_ref();
        let all = [
            ("id", Some(id)),
            ("status", Some(self.status.to_string())),
            ("why", why.map(|reason| printable(&reason.sentence))),
            ("starts", self.estimated_start.clone()),
            ("priority", Some(priority)),
            ("attempts", Some(attempts)),
            ("rescues", rescues),
            ("created", Some(self.created_at.clone())),
            ("updated", Some(self.updated_at.clone())),
            ("not before", self.not_before.clone()),
            ("claimed", self.claimed_at.clone()),
            ("worker", text(&self.worker)),
            ("finished", self.finished_at.clone()),
            ("payload", Some(printable(&self.payload))),
            ("result", text(&self.result)),
            ("error", text(&self.error)),
        ];
        let known: Vec<(&str, &str)> = all
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .collect();
        rows(&known)
    }
}

/// What stands above the tasks of a list.
pub(crate) const HEADING: &str =
    "ID                                    STATUS      PRIORITY  CREATED                   PAYLOAD";

/// How much of a payload a line of a list has.
const EXCERPT: usize = 40;

impl Shown for ListedTask {
    fn text(&self) -> String {
        format!(
            "{}  {:<10}  {:>8}  {:<24}  {}",
            self.id,
            self.status,
            self.priority,
            self.created_at,
            excerpt(&self.payload)
        )
    }
}

/// A change of state, and what `task watch --after` takes to go on behind it.
#[derive(Serialize)]
pub(crate) struct Followed {
    #[serde(flatten)]
    pub(crate) event: TaskEvent,
    #[serde(rename = "eventId")]
    pub(crate) place: u64,
}

impl Shown for Followed {
    fn text(&self) -> String {
        let Self { event, place } = self;
        let TaskEvent {
            at,
            task_id,
            status,
            ..
        } = event;
        format!("{at}  {task_id}  {status:<10}  {place}")
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

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    let mut letters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut beginning: String = letters.by_ref().take(EXCERPT).collect();
    if letters.next().is_some() {
        beginning.pop();
        beginning.push('…');
    }
    beginning
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

    #[test]
    fn a_list_shows_the_beginning_of_a_payload_on_one_line() {
        assert_eq!(excerpt("a\n\x1b[31mb"), "a  [31mb");
        assert_eq!(excerpt(&"x".repeat(40)), "x".repeat(40));
        assert_eq!(excerpt(&"é".repeat(100)), format!("{}…", "é".repeat(39)));
    }

    #[test]
    fn the_columns_of_a_list_stand_below_their_names() {
        let task = ListedTask {
            id: uuid::Uuid::nil(),
            payload: "Hello world!".into(),
            priority: 10,
            status: client::Status::Processing,
            result: None,
            created_at: "2025-01-01T00:00:00.000Z".into(),
            updated_at: "2025-01-01T00:00:00.000Z".into(),
            attempts: 0,
            error: None,
        };
        let line = task.text();
        for (name, value) in [
            ("STATUS", "processing"),
            ("CREATED", "2025"),
            ("PAYLOAD", "Hello"),
        ] {
            assert_eq!(HEADING.find(name), line.find(value), "{line}");
        }
    }
}
