//! The life of a task as a total table: from every status, what every trigger leads to, or that it is refused.

use ports::{ClaimedTask, Next, Spent, Task, TaskStatus, Transition};

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A worker takes it.
    Claim,
    /// Its run succeeded.
    Succeed,
    /// Its run failed for good: permanently, or the attempts are used up.
    GiveUp,
    /// Its run failed and will be tried again.
    BackOff,
    /// A stopping worker, or one whose dependency is down, gives it back.
    HandBack,
    /// Its worker died.
    Rescue,
    /// Someone calls it off.
    Cancel,
    /// Someone wants a failed task tried again.
    Revive,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::Succeed,
        Self::GiveUp,
        Self::BackOff,
        Self::HandBack,
        Self::Rescue,
        Self::Cancel,
        Self::Revive,
    ];
}

/// Where `trigger` leads from `from`; `None` when it is refused.
#[must_use]
pub const fn next(from: TaskStatus, trigger: Trigger) -> Option<TaskStatus> {
    use TaskStatus::{Cancelled, Done, Failed, Pending, Processing};
    match (from, trigger) {
        (Pending, Trigger::Claim) => Some(Processing),
        (Processing, Trigger::Succeed) => Some(Done),
        (Processing, Trigger::GiveUp) => Some(Failed),
        (Processing, Trigger::BackOff | Trigger::HandBack | Trigger::Rescue)
        | (Failed, Trigger::Revive) => Some(Pending),
        (Pending | Processing, Trigger::Cancel) => Some(Cancelled),
        (Pending, _) | (Processing, Trigger::Claim | Trigger::Revive) | (Failed, _) => None,
        // Final for ever.
        (Done | Cancelled, _) => None,
    }
}

/// The move of a claimed task, named by the fence of its claim.
#[must_use]
pub fn settle(task: &ClaimedTask, to: Next, spent: Spent) -> Transition {
    Transition {
        id: task.id,
        fence: task.fence,
        from: TaskStatus::Processing,
        to,
        spent,
    }
}

/// The move of a task as it was just read.
#[must_use]
pub fn advance(task: &Task, to: Next, spent: Spent) -> Transition {
    Transition {
        id: task.id,
        fence: task.fence,
        from: task.status,
        to,
        spent,
    }
}

/// The table in Markdown, as `docs/lifecycle.md` shows it.
#[must_use]
pub fn to_markdown() -> String {
    let mut text = String::from("| from \\ trigger |");
    for trigger in Trigger::ALL {
        text.push_str(&format!(" {trigger:?} |"));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(Trigger::ALL.len()));
    text.push('\n');
    for from in TaskStatus::ALL {
        text.push_str(&format!("| `{from}` |"));
        for trigger in Trigger::ALL {
            match next(from, trigger) {
                Some(to) => text.push_str(&format!(" `{to}` |")),
                None => text.push_str(" – |"),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_refuse_everything() {
        for trigger in Trigger::ALL {
            assert_eq!(next(TaskStatus::Done, trigger), None);
            assert_eq!(next(TaskStatus::Cancelled, trigger), None);
        }
    }

    #[test]
    fn only_someone_revives_a_failed_task() {
        for trigger in Trigger::ALL {
            let expected = (trigger == Trigger::Revive).then_some(TaskStatus::Pending);
            assert_eq!(next(TaskStatus::Failed, trigger), expected);
        }
    }

    #[test]
    fn done_is_reached_from_processing_alone() {
        for from in TaskStatus::ALL {
            for trigger in Trigger::ALL {
                if next(from, trigger) == Some(TaskStatus::Done) {
                    assert_eq!((from, trigger), (TaskStatus::Processing, Trigger::Succeed));
                }
            }
        }
    }

    #[test]
    fn the_document_shows_this_table() {
        let document = include_str!("../../docs/lifecycle.md");
        assert!(
            document.contains(&to_markdown()),
            "docs/lifecycle.md must contain:\n{}",
            to_markdown()
        );
    }
}
