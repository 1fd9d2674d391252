//! One fetch, and what kafka-rust makes of it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use kafka::client::{FetchPartition, KafkaClient as Client};
use kafka::error::{Error as KafkaError, KafkaCode};

use super::super::link::Health;
use crate::kafka_probe::exchange::{Broken, Reader, Wire};

/// How much is fetched of a partition at once. More than a broker's limit of a batch (1 MiB unless told otherwise), so
/// that any batch fits.
pub(super) const FETCH_BYTES: i32 = 1024 * 1024 + 64 * 1024;

/// Down to this size a fetch is cut when records seem to be missing from it.
const SMALLEST_FETCH_BYTES: i32 = 128;

/// How long asking for an error's number may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// The broker cannot put the record into words old enough for kafka-rust: it is compressed with zstd, or the broker is told
/// not to convert.
const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;

const FETCH: i16 = 1;

/// Where to go on in a partition, and how much to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) bytes: i32,
}

/// A record as kafka-rust gives it.
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What came of one partition.
pub(super) enum Fetched {
    Records {
        records: Vec<Record>,
        /// The offset after the partition's last record.
        end: i64,
    },
    /// The offset is not in the partition (any more).
    OutOfRange,
    /// kafka-rust will never read the record at this offset; the text says why.
    Illegible(String),
    /// It may go better with a new client.
    Failed,
}

/// Fetches all partitions at once, or, when their common answer cannot be read, each by itself: one record that kafka-rust
/// cannot read would otherwise hide those of healthy partitions.
pub(super) fn fetch_all(
    client: &mut Client,
    topic: &str,
    cursors: &[Cursor],
) -> Result<(BTreeMap<i32, Fetched>, Health), KafkaError> {
    let mut fetched = match fetch(client, topic, cursors) {
        Ok(fetched) => fetched,
        Err(error) if is_illegible(&error) => {
            let mut each = BTreeMap::new();
            for cursor in cursors {
                match fetch(client, topic, std::slice::from_ref(cursor)) {
                    Ok(one) => each.extend(one),
                    Err(error) if is_illegible(&error) => {
                        each.insert(cursor.partition, Fetched::Illegible(why(&error)));
                    }
                    Err(error) => return Err(error),
                }
            }
            each
        }
        Err(error) => return Err(error),
    };
    let mut health = Health::Sound;
    for cursor in cursors {
        let one = fetched.remove(&cursor.partition);
        let one = match one {
            Some(Fetched::Records { records, end })
                if records
                    .first()
                    .is_some_and(|first| first.offset > cursor.offset) =>
            {
                close_gap(client, topic, *cursor)?.unwrap_or(Fetched::Records { records, end })
            }
            Some(one) => one,
            // Nobody leads the partition at the moment: kafka-rust leaves it out of the request.
            None => Fetched::Failed,
        };
        if matches!(one, Fetched::Failed | Fetched::OutOfRange) {
            health = Health::Suspect;
        }
        fetched.insert(cursor.partition, one);
    }
    Ok((fetched, health))
}

fn fetch(
    client: &mut Client,
    topic: &str,
    cursors: &[Cursor],
) -> Result<BTreeMap<i32, Fetched>, KafkaError> {
    let wanted: Vec<FetchPartition<'_>> = cursors
        .iter()
        .map(|cursor| {
            FetchPartition::new(topic, cursor.partition, cursor.offset).with_max_bytes(cursor.bytes)
        })
        .collect();
    let responses = client.fetch_messages(&wanted)?;
    let mut fetched = BTreeMap::new();
    let mut unknown = Vec::new();
    for partition in responses
        .iter()
        .flat_map(|response| response.topics())
        .flat_map(|topic| topic.partitions())
    {
        let number = partition.partition();
        let outcome = match partition.data() {
            Ok(data) => Fetched::Records {
                records: data
                    .messages()
                    .iter()
                    .map(|message| Record {
                        offset: message.offset,
                        key: message.key.to_vec(),
                        value: message.value.to_vec(),
                    })
                    .collect(),
                end: data.highwatermark_offset(),
            },
            Err(error) => match &*error {
                KafkaError::Kafka(KafkaCode::OffsetOutOfRange) => Fetched::OutOfRange,
                KafkaError::Kafka(KafkaCode::Unknown) => {
                    unknown.push(number);
                    Fetched::Failed
                }
                _ => Fetched::Failed,
            },
        };
        fetched.insert(number, outcome);
    }
    for number in unknown {
        if let Some(cursor) = cursors.iter().find(|cursor| cursor.partition == number)
            && ask_for_code(client, topic, *cursor) == Some(UNSUPPORTED_COMPRESSION_TYPE)
        {
            fetched.insert(
                number,
                Fetched::Illegible("its compression (zstd) is too new for kafka-rust".into()),
            );
        }
    }
    Ok(fetched)
}

/// kafka-rust forgets uncompressed records that stand before a compressed batch in the same answer. With less in the
/// answer the batch falls out of it. `None`: there is nothing in the gap.
fn close_gap(
    client: &mut Client,
    topic: &str,
    cursor: Cursor,
) -> Result<Option<Fetched>, KafkaError> {
    let mut smaller = cursor;
    while smaller.bytes > SMALLEST_FETCH_BYTES {
        smaller.bytes /= 2;
        let Some(Fetched::Records { records, end }) =
            fetch(client, topic, &[smaller])?.remove(&cursor.partition)
        else {
            return Ok(None);
        };
        match records.first() {
            None => return Ok(None),
            Some(first) if first.offset == cursor.offset => {
                return Ok(Some(Fetched::Records { records, end }));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Whether an error means that an answer arrived and could not be read.
fn is_illegible(error: &KafkaError) -> bool {
    match error {
        KafkaError::InvalidSnappy(_)
        | KafkaError::UnsupportedProtocol
        | KafkaError::UnsupportedCompression
        | KafkaError::CodecError
        | KafkaError::StringDecodeError
        | KafkaError::Kafka(KafkaCode::CorruptMessage) => true,
        // What gzip says of bytes that are none of its own.
        KafkaError::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        ),
        _ => false,
    }
}

fn why(error: &KafkaError) -> String {
    match error {
        KafkaError::UnsupportedCompression => {
            "its compression (lz4) is not one that kafka-rust reads".into()
        }
        error => error.to_string(),
    }
}

/// kafka-rust knows the errors of its day by name and calls every other `Unknown`; here is the number.
fn ask_for_code(client: &Client, topic: &str, cursor: Cursor) -> Option<i16> {
    let topics = client.topics();
    let partitions = topics.partitions(topic)?;
    let leader = partitions.partition(cursor.partition)?.leader()?;
    let mut wire = Wire::open(leader.host(), ASK_TIMEOUT).ok()?;
    let mut body = Vec::new();
    // An ordinary client; wait for nothing; whatever there is.
    body.extend((-1_i32).to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(i16::try_from(topic.len()).ok()?.to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(cursor.partition.to_be_bytes());
    body.extend(cursor.offset.to_be_bytes());
    body.extend(cursor.bytes.to_be_bytes());
    let answer = wire.ask(FETCH, 0, &body).ok()?;
    read_code(&answer).ok()
}

fn read_code(answer: &[u8]) -> Result<i16, Broken> {
    let mut reader = Reader::new(answer);
    let _topics = reader.i32()?;
    let _topic = reader.text()?;
    let _partitions = reader.i32()?;
    let _partition = reader.i32()?;
    reader.i16()
}
