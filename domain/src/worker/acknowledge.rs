//! Beside the flow: telling the log that records need no redelivery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ports::{Dependency, Position};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

use super::Life;
use super::leftover::Received;
use crate::resolve::announce;

/// How long a log that does not take dead letters is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// How many receipts may share an acknowledgement.
const BATCH: usize = 1_024;

/// At least so long from one acknowledgement to the next. Nobody waits for it: what comes again after a crash claims nothing.
/// And it is a write of its own in the log, as dear as a batch of records.
const PACE: Duration = Duration::from_millis(50);

/// Records whose part in the work is done once those that cannot be read were sent on.
pub(super) struct Receipt {
    /// The last offset of each partition.
    pub(super) upto: BTreeMap<i32, i64>,
    /// The records that cannot be read.
    pub(super) received: Received,
}

/// Whatever was received while the last acknowledgement ran goes into the next.
pub(super) async fn acknowledge_all(life: Arc<Life>, mut receipts: UnboundedReceiver<Receipt>) {
    let mut batch = Vec::new();
    while receipts.recv_many(&mut batch, BATCH).await > 0 {
        let mut upto = BTreeMap::new();
        for receipt in batch.drain(..) {
            // A record that cannot be read must be kept for people before the log may forget it.
            let letters = receipt.received.to_letters(life.ports.clock.now());
            while !announce(&life.ports, &[], &[], &letters, &[]).await {
                sleep(PAUSE).await;
            }
            receipt.received.seen_through();
            upto.extend(receipt.upto);
        }
        let positions: Vec<Position> = upto
            .into_iter()
            .map(|(partition, offset)| Position { partition, offset })
            .collect();
        if let Err(error) = life.feed.acknowledge(&positions).await {
            life.failed(Dependency::Log, "acknowledge", &error);
        }
        sleep(PACE).await;
    }
}
