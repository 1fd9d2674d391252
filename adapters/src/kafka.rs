//! The log on Kafka through kafka-rust: brokers up to 3.9; workers share partitions by number.
//!
//! kafka-rust is blocking, never reconnects, and knows nothing of groups beyond storing offsets. So every use of it goes
//! through a `link`: a thread of its own that makes the client anew after any error, with a watchdog on each call.

mod events;
mod feed;
mod link;
mod log;
mod partitioner;
mod topics;

pub use events::KafkaEventFeed;
pub use feed::{KafkaTaskFeed, Share, WrongShare};
pub use log::KafkaLog;
pub use topics::ensure_topics;
