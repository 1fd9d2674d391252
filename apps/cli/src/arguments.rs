//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use client::Status;
use uuid::Uuid;

use crate::exit::CODES;

/// Submits tasks to Task Processor and follows them.
///
/// On a terminal answers are for people; in a pipe, or with --output json, they are JSON, one object a line, as the API
/// writes them. The API key is taken from TASK_API_KEY alone, so that it shows in no list of processes.
#[derive(Debug, Parser)]
#[command(name = "task", version, after_help = CODES)]
pub(crate) struct Arguments {
    /// Where the API is
    #[arg(
        long,
        env = "TASK_URL",
        default_value = "http://localhost:3000",
        global = true
    )]
    pub(crate) url: String,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t = Form::Auto, global = true)]
    pub(crate) output: Form,

    /// How long one request may take
    #[arg(long, value_parser = duration, default_value = "30s", global = true)]
    pub(crate) timeout: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a task, or a file of them
    Submit(Submit),
    /// Show a task
    Get(Get),
    /// Show many tasks, the newest first
    List(List),
    /// Print changes of state as they happen: of all tasks, or of one until it is at rest
    Watch {
        /// The id that submit printed
        id: Option<Uuid>,

        /// Go on behind this event: the eventId of the last that an earlier call printed
        #[arg(long, value_name = "EVENT")]
        after: Option<u64>,
    },
    /// Call tasks off
    Cancel(Ids),
    /// Put failed tasks back in the queue
    Retry(Ids),
    /// Show the numbers over all tasks
    Metrics,
    /// Make an API key, and the entry that a server keeps of it
    Key(Key),
    /// Print what makes a shell complete this command
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Key {
    /// Whose key it is: 1 to 64 letters, digits, - . _
    pub(crate) name: String,

    /// What it may do: some of submit, read and admin (which includes the others), joined by +
    #[arg(long, default_value = "submit+read")]
    pub(crate) scopes: String,
}

#[derive(Args, Debug)]
pub(crate) struct Submit {
    /// What to process; - reads it from standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) payload: Option<String>,

    /// A file with a task on each line, as JSON: {"payload":"…","priority":1}; - is standard input
    #[arg(long, value_name = "PATH", conflicts_with_all = ["priority", "run_at", "max_attempts", "wait"])]
    pub(crate) file: Option<PathBuf>,

    /// How urgent it is, 0 to 10
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=10))]
    pub(crate) priority: Option<u8>,

    /// Not to be started before this time, like 2025-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) run_at: Option<String>,

    /// After how many failed attempts it ends failed
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_attempts: Option<u32>,

    /// A name for this submission: repeated under it within a day, with the same tasks, it stores nothing again. One is made
    /// if none is given, and told if it is not clear what was stored
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,

    /// With --file: how many lines to pass over, because an earlier call submitted them
    #[arg(long, value_name = "LINES", default_value_t = 0, requires = "file")]
    pub(crate) after: u64,

    /// Wait until it is at rest, this long if a duration like 30s is given (5m if none)
    #[arg(long, value_parser = duration, num_args = 0..=1, default_missing_value = "5m", require_equals = true)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The id that submit printed
    pub(crate) id: Uuid,

    /// Show everything that is known of it, with why it is not done yet and when it is likely to start
    #[arg(long)]
    pub(crate) full: bool,

    /// Wait until it is at rest, this long if a duration like 30s is given (5m if none)
    #[arg(long, value_parser = duration, num_args = 0..=1, default_missing_value = "5m", require_equals = true)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only tasks of this status
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str))
        .try_map(|name| Status::from_name(&name).ok_or("is no status")))]
    pub(crate) status: Option<Status>,

    /// Only tasks of this priority
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=10))]
    pub(crate) priority: Option<u8>,

    /// Only tasks created at this time, like 2025-01-01T00:00:00Z, or later
    #[arg(long, value_name = "TIME")]
    pub(crate) created_after: Option<String>,

    /// Only tasks created before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) created_before: Option<String>,

    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,

    /// However many there are
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Ids {
    /// The ids that submit printed
    #[arg(required = true)]
    pub(crate) ids: Vec<Uuid>,
}

/// Reads `500ms`, `30s`, `5m` and `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("must be a duration like 500ms, 30s, 5m or 2h".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .map(Duration::from_millis)
        .ok_or_else(|| "must be a duration like 500ms, 30s, 5m or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("30", None),
            ("", None),
            ("-1s", None),
            ("99999999999999999h", None),
        ] {
            assert_eq!(
                duration(text).ok(),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }
}
