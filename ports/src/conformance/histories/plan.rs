//! What histories are made of. Everything is named by a small number, so that a history stays one when steps are left out.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::store::Spent;
use crate::task::TaskStatus;

/// How many tasks, workers and claims there are names for.
pub(super) const TASKS: u8 = 9;
pub(super) const WORKERS: u8 = 3;
pub(super) const CLAIMS: u8 = 8;

/// When a new task may be claimed.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    /// This many minutes before the history began.
    Past(u8),
    /// Long after its end.
    Future,
}

#[derive(Clone, Debug)]
pub(super) struct Fresh {
    pub(super) task: u8,
    pub(super) payload: u8,
    pub(super) priority: u8,
    pub(super) max_attempts: u32,
    pub(super) when: When,
    pub(super) messaged: bool,
}

/// Which fence or status a move names, compared with the one that the task has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    Right,
    FenceBefore,
    FenceAfter,
    Status(TaskStatus),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    Done,
    Failed,
    Cancelled,
    Soon,
    Later,
}

#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) task: u8,
    pub(super) seen: Seen,
    pub(super) to: To,
    pub(super) spent: Spent,
    pub(super) text: u8,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Now,
    /// This many minutes before the history began.
    Past(u8),
    /// Exactly the time of a row.
    Row(u8),
    Future,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Insert(Vec<Fresh>),
    Get(Vec<u8>),
    ClaimDelivered {
        worker: u8,
        claim: u8,
        tasks: Vec<u8>,
    },
    ClaimAged {
        worker: u8,
        claim: u8,
        until: Until,
        grace_minutes: u8,
        limit: u8,
    },
    Transition(Vec<Move>),
    Release(Vec<u8>),
    ClaimsOf {
        worker: u8,
        after: Option<u8>,
        limit: u8,
    },
    MarkUnmessaged(Vec<u8>),
    Totals,
    Register(u8),
    Beat {
        worker: u8,
        position: Option<u8>,
    },
    Workers,
    DeclareDead {
        worker: u8,
        beat_since: bool,
    },
    Remove(u8),
    Stranded {
        after: Option<u8>,
        limit: u8,
        unmoved: bool,
    },
    Enqueue(Vec<u8>),
    SweepQueue {
        after: Option<u8>,
        limit: u8,
    },
    Enlist(Vec<u8>),
    SweepStopped {
        after: Option<u8>,
        limit: u8,
    },
    Untold {
        after: Option<u8>,
        limit: u8,
        unmoved: bool,
    },
    MarkTold(Vec<u8>),
    OrphanedClaims(u8),
    Prune {
        after: Option<u8>,
        limit: u8,
        unmoved: bool,
    },
    List {
        status: Option<TaskStatus>,
        below: Option<u8>,
        walk: u8,
    },
    Inspect {
        task: u8,
        count_up_to: u8,
    },
    Plant(u8),
    PlantQueueRow(u8),
    RemoveQueueRow(u8),
    PlantClaim {
        claim: u8,
        worker: u8,
        tasks: Vec<u8>,
        under_its_fence: bool,
    },
    PlantStopped {
        task: u8,
        cancelled: bool,
    },
    RemoveStopped(u8),
    /// The same call as the last one: its answer was lost.
    Repeat,
}

fn task() -> impl Strategy<Value = u8> {
    0..TASKS
}

fn tasks() -> impl Strategy<Value = Vec<u8>> {
    vec(task(), 0..6)
}

fn worker() -> impl Strategy<Value = u8> {
    0..WORKERS
}

fn claim() -> impl Strategy<Value = u8> {
    0..CLAIMS
}

fn limit() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(100_u8), 3 => 1_u8..4, 1 => Just(0)]
}

fn fresh() -> impl Strategy<Value = Fresh> {
    let when = prop_oneof![
        2 => Just(When::Now),
        4 => (0_u8..60).prop_map(When::Past),
        2 => Just(When::Future),
    ];
    let max_attempts = prop_oneof![
        30 => 1_u32..6,
        1 => Just(i32::MAX.unsigned_abs()),
        1 => Just(i32::MAX.unsigned_abs() + 1),
    ];
    (task(), 0_u8..4, 0_u8..11, max_attempts, when, any::<bool>()).prop_map(
        |(task, payload, priority, max_attempts, when, messaged)| Fresh {
            task,
            payload,
            priority,
            max_attempts,
            when,
            messaged,
        },
    )
}

pub(super) fn inserting() -> impl Strategy<Value = Step> {
    vec(fresh(), 0..6).prop_map(Step::Insert)
}

pub(super) fn delivered() -> impl Strategy<Value = Step> {
    (worker(), claim(), tasks()).prop_map(|(worker, claim, tasks)| Step::ClaimDelivered {
        worker,
        claim,
        tasks,
    })
}

pub(super) fn aged() -> impl Strategy<Value = Step> {
    let until = prop_oneof![
        3 => Just(Until::Now),
        2 => (0_u8..80).prop_map(Until::Past),
        2 => task().prop_map(Until::Row),
        1 => Just(Until::Future),
    ];
    let grace_minutes = prop_oneof![2 => Just(0_u8), 1 => Just(20), 1 => Just(200)];
    (worker(), claim(), until, grace_minutes, limit()).prop_map(
        |(worker, claim, until, grace_minutes, limit)| Step::ClaimAged {
            worker,
            claim,
            until,
            grace_minutes,
            limit,
        },
    )
}

fn moving() -> impl Strategy<Value = Move> {
    let seen = prop_oneof![
        12 => Just(Seen::Right),
        1 => Just(Seen::FenceBefore),
        1 => Just(Seen::FenceAfter),
        1 => proptest::sample::select(&TaskStatus::ALL).prop_map(Seen::Status),
    ];
    let to = prop_oneof![
        4 => Just(To::Done),
        2 => Just(To::Failed),
        1 => Just(To::Cancelled),
        3 => Just(To::Soon),
        1 => Just(To::Later),
    ];
    let spent = prop_oneof![
        Just(Spent::Attempt),
        Just(Spent::Rescue),
        Just(Spent::Nothing),
        Just(Spent::Reset),
    ];
    (task(), seen, to, spent, 0_u8..30).prop_map(|(task, seen, to, spent, text)| Move {
        task,
        seen,
        to,
        spent,
        text,
    })
}

pub(super) fn transition() -> impl Strategy<Value = Step> {
    vec(moving(), 0..6).prop_map(Step::Transition)
}

pub(super) fn books() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => tasks().prop_map(Step::Get),
        3 => (worker(), option::of(claim()), limit()).prop_map(|(worker, after, limit)| {
            Step::ClaimsOf {
                worker,
                after,
                limit,
            }
        }),
        1 => tasks().prop_map(Step::MarkUnmessaged),
        1 => Just(Step::Totals),
        1 => Just(Step::Workers),
        1 => (option::of(task()), limit(), any::<bool>()).prop_map(|(after, limit, unmoved)| {
            Step::Stranded {
                after,
                limit,
                unmoved,
            }
        }),
        1 => tasks().prop_map(Step::Enqueue),
        1 => (option::of(task()), limit()).prop_map(|(after, limit)| Step::SweepQueue { after, limit }),
        1 => tasks().prop_map(Step::Enlist),
        1 => (option::of(task()), limit())
            .prop_map(|(after, limit)| Step::SweepStopped { after, limit }),
        1 => (option::of(task()), limit(), any::<bool>()).prop_map(|(after, limit, unmoved)| {
            Step::Untold {
                after,
                limit,
                unmoved,
            }
        }),
        1 => tasks().prop_map(Step::MarkTold),
        1 => limit().prop_map(Step::OrphanedClaims),
        1 => (
            option::of(proptest::sample::select(&TaskStatus::ALL)),
            option::of(task()),
            limit(),
        )
            .prop_map(|(status, below, walk)| Step::List {
                status,
                below,
                walk,
            }),
        1 => (task(), limit()).prop_map(|(task, count_up_to)| Step::Inspect { task, count_up_to }),
    ]
}

pub(super) fn registry() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => worker().prop_map(Step::Register),
        2 => (worker(), option::of(0_u8..60)).prop_map(|(worker, position)| Step::Beat {
            worker,
            position
        }),
        1 => (worker(), any::<bool>()).prop_map(|(worker, beat_since)| Step::DeclareDead {
            worker,
            beat_since,
        }),
        1 => worker().prop_map(Step::Remove),
    ]
}

/// Other hands, and what takes tasks out.
fn planting() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => task().prop_map(Step::Plant),
        2 => task().prop_map(Step::PlantQueueRow),
        1 => task().prop_map(Step::RemoveQueueRow),
        2 => (task(), any::<bool>())
            .prop_map(|(task, cancelled)| Step::PlantStopped { task, cancelled }),
        1 => task().prop_map(Step::RemoveStopped),
        1 => (option::of(task()), limit(), any::<bool>()).prop_map(|(after, limit, unmoved)| {
            Step::Prune { after, limit, unmoved }
        }),
        1 => (claim(), worker(), tasks(), any::<bool>()).prop_map(
            |(claim, worker, tasks, under_its_fence)| Step::PlantClaim {
                claim,
                worker,
                tasks,
                under_its_fence,
            }
        ),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => inserting(),
        5 => delivered(),
        5 => aged(),
        8 => transition(),
        2 => vec(claim(), 0..3).prop_map(Step::Release),
        5 => books(),
        4 => registry(),
        2 => planting(),
        2 => Just(Step::Repeat),
    ]
}

/// In half of the histories no task has a message, so that claims by age have no choice between the two kinds.
pub(super) fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    (any::<bool>(), vec(step(), 1..=length)).prop_map(|(some_messaged, mut steps)| {
        for step in &mut steps {
            if let Step::Insert(tasks) = step {
                tasks
                    .iter_mut()
                    .for_each(|task| task.messaged &= some_messaged);
            }
        }
        // What waits at the end shows in two claims: without a message, then with one.
        let last = |grace_minutes, claim| Step::ClaimAged {
            worker: 0,
            claim,
            until: Until::Now,
            grace_minutes,
            limit: TASKS,
        };
        steps.extend([Step::Register(0), last(200, 0), last(0, 1)]);
        steps
    })
}
