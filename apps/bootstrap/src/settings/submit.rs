//! How submissions are taken in.

use std::time::Duration;

use domain::SubmitConfig;

use super::Reader;

/// So many of the longest bodies fit at once; a batch is as long as 16.
const BODIES: usize = 32;

/// Declares and reads the limits of submitting; the defaults are the domain's. A payload may be as long as the body it
/// comes in, `max_body` bytes.
pub(super) fn read(reader: &mut Reader, max_body: usize) -> SubmitConfig {
    let default = SubmitConfig::default();
    reader.section("Submitting");
    SubmitConfig {
        max_attempts: reader.number(
            "MAX_ATTEMPTS",
            default.max_attempts,
            1..=100,
            "attempts",
            "after how many failed attempts a task ends failed, unless it says otherwise",
        ),
        queue: reader.number(
            "SUBMIT_QUEUE",
            default.queue,
            1..=1_000_000,
            "tasks",
            "how many submissions may wait for a commit; beyond it clients are answered 503",
        ),
        max_bytes: reader.bytes(
            "SUBMIT_BYTES",
            default.max_bytes.max(BODIES * max_body),
            BODIES * max_body..=16 << 30,
            "how many bytes may be under way, at least 32 times MAX_BODY: bodies that are being read (half of it), submissions that wait for a commit, and messages that wait for the log (a quarter); beyond it clients are answered 503, and beyond that quarter tasks go without a message, all of a batch that is larger than it too",
        ),
        batch: reader.number(
            "SUBMIT_BATCH",
            default.batch,
            1..=5_000,
            "tasks",
            "how many submissions may share a commit",
        ),
        writers: reader.number(
            "SUBMIT_WRITERS",
            default.writers,
            1..=64,
            "commits",
            "how many commits may be under way at once, while they are of a few submissions",
        ),
        patience: reader.duration(
            "SUBMIT_PATIENCE",
            default.patience,
            Duration::from_millis(100)..=Duration::from_secs(60),
            "how long a client waits at most, from its arrival on, while commits fail or stand in line, before it is answered 503",
        ),
        max_payload_bytes: max_body,
        ..default
    }
}
