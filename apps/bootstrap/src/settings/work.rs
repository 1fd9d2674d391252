//! How a worker works.

use std::time::Duration;

use domain::{AuditConfig, PruneConfig, RetryPolicy, WorkerConfig};

use super::Reader;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// A result may stay cached for an hour, and a client may repeat a request for a day.
const SHORTEST_RETENTION: Duration = Duration::from_secs(25 * 3_600);

/// Declares and reads the limits and intervals of a worker; the defaults are the domain's.
pub(super) fn read(reader: &mut Reader) -> WorkerConfig {
    let default = WorkerConfig::default();
    reader.section("Working");
    let name = reader.text(
        "WORKER_NAME",
        "",
        "text",
        "a name for people, in the registry and in logs; host name and process id if left out",
        |_| Ok(()),
    );
    let config = WorkerConfig {
        name: if name.is_empty() { own_name() } else { name },
        concurrency: reader.number(
            "CONCURRENCY",
            default.concurrency,
            1..=100_000,
            "runs",
            "how many runs of the processing function at once",
        ),
        in_flight: reader.number(
            "IN_FLIGHT",
            default.in_flight,
            1..=1_000_000,
            "tasks",
            "how many tasks may be claimed and not yet announced",
        ),
        in_flight_bytes: reader.bytes(
            "IN_FLIGHT_BYTES",
            default.in_flight_bytes,
            1 << 20..=64 << 30,
            "how many bytes of payloads and results may be claimed and not yet announced; what drivers copy in reading, writing and telling them comes on top, up to twice as much; a claim takes as many tasks as fit if each has a payload of 256 KiB and a result as long, 128 by default",
        ),
        batch: reader.number(
            "BATCH",
            default.batch,
            1..=5_000,
            "tasks",
            "how many tasks a claim, a completion or an announcement may hold",
        ),
        task_timeout: reader.duration(
            "TASK_TIMEOUT",
            default.task_timeout,
            Duration::ZERO..=HOUR * 168,
            "how long one run may take before it counts as failed; 0 is no limit",
        ),
        max_result_bytes: reader.bytes(
            "MAX_RESULT",
            default.max_result_bytes,
            1..=64 << 20,
            "the longest result; a task with a longer one ends failed",
        ),
        retry: RetryPolicy {
            base: reader.duration(
                "RETRY_BASE",
                default.retry.base,
                Duration::ZERO..=HOUR,
                "the longest wait before the second attempt; doubles with every further one",
            ),
            cap: reader.duration(
                "RETRY_CAP",
                default.retry.cap,
                Duration::ZERO..=HOUR * 168,
                "the longest wait before any attempt",
            ),
        },
        grace: reader.duration(
            "AGE_GRACE",
            default.grace,
            Duration::ZERO..=HOUR,
            "how much longer a task with a message waits for it before it is claimed by age",
        ),
        age_interval: reader.duration(
            "AGE_INTERVAL",
            default.age_interval,
            MILLISECOND * 10..=SECOND * 60,
            "how often waiting tasks are claimed by age",
        ),
        beat_interval: reader.duration(
            "BEAT",
            default.beat_interval,
            MILLISECOND * 50..=SECOND * 60,
            "how often the worker says that it lives",
        ),
        lease: reader.duration(
            "LEASE",
            default.lease,
            MILLISECOND * 200..=HOUR,
            "how long another worker may be silent before its tasks are taken back; at least three beats",
        ),
        max_rescues: reader.number(
            "MAX_RESCUES",
            default.max_rescues,
            1..=1_000,
            "rescues",
            "how often a task may be taken back from a dead worker before it is taken for the killer and fails",
        ),
        audit: AuditConfig {
            interval: reader.duration(
                "AUDIT_INTERVAL",
                default.audit.interval,
                MILLISECOND * 100..=HOUR,
                "how often one of the workers compares a stretch of tasks, and one of the queue, with the books",
            ),
            stretch: reader.number(
                "AUDIT_STRETCH",
                default.audit.stretch,
                1..=100_000,
                "rows",
                "how many tasks such a stretch has; one of the queue up to ten times as many, 10,000 at most",
            ),
            unmoved_for: reader.duration(
                "AUDIT_AGE",
                default.audit.unmoved_for,
                Duration::ZERO..=HOUR * 168,
                "how long a task that is in no book must not have moved before it is put back in the queue",
            ),
        },
        prune: PruneConfig {
            retention: Some(reader.duration(
                "RETENTION",
                Duration::ZERO,
                Duration::ZERO..=HOUR * 24 * 36_500,
                "how long a task is kept after it was done, failed or cancelled, at least 25h; 0 is for ever",
            ))
            .filter(|retention| !retention.is_zero()),
            ..default.prune
        },
        drain_deadline: reader.duration(
            "DRAIN_DEADLINE",
            default.drain_deadline,
            Duration::ZERO..=HOUR,
            "how long a stop may take after DRAIN_DELAY; runs have four fifths of it, then their tasks are handed back",
        ),
    };
    contradictions(reader, &config);
    config
}

fn contradictions(reader: &mut Reader, config: &WorkerConfig) {
    for (name, value) in [("BATCH", config.batch), ("CONCURRENCY", config.concurrency)] {
        if value > config.in_flight {
            let limit = config.in_flight;
            reader.mistake(
                name,
                format!("must not be more than IN_FLIGHT ({limit}), but is {value}"),
            );
        }
    }
    if config.lease < config.beat_interval * 3 {
        reader.mistake(
            "LEASE",
            format!(
                "must be at least three times BEAT ({:?}), but is {:?}",
                config.beat_interval, config.lease
            ),
        );
    }
    if let Some(retention) = config.prune.retention
        && retention < SHORTEST_RETENTION
    {
        reader.mistake(
            "RETENTION",
            format!("must be 0 (tasks are kept for ever) or at least 25h, but is {retention:?}"),
        );
    }
    if config.retry.cap < config.retry.base {
        reader.mistake(
            "RETRY_CAP",
            format!(
                "must not be less than RETRY_BASE ({:?}), but is {:?}",
                config.retry.base, config.retry.cap
            ),
        );
    }
}

fn own_name() -> String {
    // A system without this file still has a process id.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "worker" } else { host };
    format!("{host}-{}", std::process::id())
}
