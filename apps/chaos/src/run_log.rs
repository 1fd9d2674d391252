//! The runs of processing functions as the functions saw them: a file for every worker process, a line for every beginning
//! and every end. What was written stays when the process is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::ports::Job;
use uuid::Uuid;

use crate::clock;
use crate::failure::Failure;

const ENDING: &str = "runs";
/// How a run ended that was not heard to its end.
const GIVEN_UP: &str = "given-up";

/// Where a worker process writes.
pub struct RunLog(Arc<File>);

impl RunLog {
    /// Makes the file, or goes on in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(file)))
    }

    pub(crate) fn begin(&self, job: &Job) -> OpenRun {
        let Job {
            id, attempt, fence, ..
        } = job;
        let run = OpenRun {
            file: Arc::clone(&self.0),
            task: id.0,
            fence: fence.0,
            ended: false,
        };
        run.note(&format!(
            "begin {} {fence} {attempt}",
            id.0,
            fence = fence.0
        ));
        run
    }
}

/// A run that has begun. Dropped without an end, it was given up.
pub(crate) struct OpenRun {
    file: Arc<File>,
    task: Uuid,
    fence: i64,
    ended: bool,
}

impl OpenRun {
    pub(crate) fn end(&mut self, how: &str) {
        self.ended = true;
        self.note(&format!("end {} {} {how}", self.task, self.fence));
    }

    /// One write a line, so that a kill leaves no half of one between two others.
    fn note(&self, text: &str) {
        let line = format!("{} {text}\n", clock::now());
        (&*self.file)
            .write_all(line.as_bytes())
            .expect("the disk takes the record of a run");
    }
}

impl Drop for OpenRun {
    fn drop(&mut self) {
        if !self.ended {
            self.end(GIVEN_UP);
        }
    }
}

/// A run as it is in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The worker process.
    pub(crate) process: Arc<str>,
    pub(crate) fence: i64,
    pub(crate) attempt: u32,
    pub(crate) began: i64,
    /// When and how it ended; not at all if its process was killed.
    pub(crate) ended: Option<(i64, String)>,
}

impl Run {
    /// How long it had lasted when it was given up, in microseconds, if it was and had lasted until this deadline.
    pub(crate) fn given_up_after(&self, deadline: Duration) -> Option<i64> {
        /// The deadline is counted by a clock that nobody sets right, the record by one that is.
        const SET_RIGHT: i64 = 100_000;
        let (ended, how) = self.ended.as_ref()?;
        let lasted = ended - self.began;
        let deadline = i64::try_from(deadline.as_micros()).unwrap_or(i64::MAX);
        (how == GIVEN_UP && lasted >= deadline - SET_RIGHT).then_some(lasted)
    }
}

/// All runs by task, each in the order of fences.
pub(crate) type Runs = BTreeMap<Uuid, Vec<Run>>;

/// The file of a process.
pub(crate) fn file_of(process: &str) -> String {
    format!("{process}.{ENDING}")
}

/// Reads the files of every process.
pub(crate) fn read_all(directory: &Path) -> Result<Runs, Failure> {
    let mut runs = Runs::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != ENDING) {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        read(&name, &fs::read_to_string(&path)?, &mut runs);
    }
    for runs in runs.values_mut() {
        runs.sort_by_key(|run| (run.fence, run.began));
    }
    Ok(runs)
}

fn read(process: &str, text: &str, runs: &mut Runs) {
    let process: Arc<str> = process.into();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, what, task, fence, rest] = words[..] else {
            continue;
        };
        let (Ok(at), Ok(task), Ok(fence)) = (at.parse(), task.parse::<Uuid>(), fence.parse())
        else {
            continue;
        };
        let of_task = runs.entry(task).or_default();
        if what == "begin" {
            of_task.push(Run {
                process: Arc::clone(&process),
                fence,
                attempt: rest.parse().unwrap_or(0),
                began: at,
                ended: None,
            });
        } else if let Some(run) = of_task
            .iter_mut()
            .rev()
            .find(|run| run.fence == fence && *run.process == *process && run.ended.is_none())
        {
            run.ended = Some((at, rest.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let task = Uuid::from_u128(5);
        let mut runs = Runs::new();
        let text = format!(
            "10 begin {task} 1 1\n20 begin {task} 3 1\n30 end {task} 3 success\n40 begin {task} 4"
        );
        read("worker-0.1", &text, &mut runs);
        let found: Vec<_> = runs[&task]
            .iter()
            .map(|run| (run.fence, run.began, run.ended.clone()))
            .collect();
        assert_eq!(
            found,
            [(1, 10, None), (3, 20, Some((30, "success".to_owned())))],
            "a line that was cut off is none"
        );
    }
}
