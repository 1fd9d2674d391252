//! One fetch, and what kafka-rust makes of it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use kafka::client::fetch::{Message, Topic};
use kafka::client::{FetchPartition, KafkaClient as Client};
use kafka::error::{Error as KafkaError, KafkaCode};
use ports::{TaskId, TraceContext};

use super::super::link::Health;
use crate::kafka_probe::exchange::{Broken, Reader, Wire};
use crate::wire;

/// How much is fetched of a partition at once. More than a broker's limit of a batch (1 MiB unless told otherwise), so
/// that any batch fits.
pub(super) const FETCH_BYTES: i32 = 1024 * 1024 + 64 * 1024;

/// No compressed batch is smaller: its head alone has 26 bytes, and what it holds has as many.
const SMALLEST_BATCH_BYTES: i32 = 48;

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

/// A record, read.
pub(super) struct Record {
    pub(super) offset: i64,
    pub(super) content: Result<(TaskId, Option<TraceContext>), Unreadable>,
}

/// A record that is no task message.
pub(super) struct Unreadable {
    pub(super) reason: String,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
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
                        let before = fetch_before_batch(client, topic, *cursor)?;
                        let one = before.unwrap_or_else(|| Fetched::Illegible(why(&error)));
                        each.insert(cursor.partition, one);
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
                fetch_before_batch(client, topic, *cursor)?
                    .unwrap_or(Fetched::Records { records, end })
            }
            Some(one) => one,
            // Nobody leads the partition at the moment: kafka-rust leaves it out of the request.
            None => Fetched::Failed,
        };
        let mut one = one;
        match &mut one {
            Fetched::Records { records, .. } => {
                tell_missing_from_empty(client, topic, *cursor, records);
            }
            Fetched::Failed | Fetched::OutOfRange => health = Health::Suspect,
            Fetched::Illegible(_) => {}
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
        .flat_map(Topic::partitions)
    {
        let number = partition.partition();
        let outcome = match partition.data() {
            Ok(data) => Fetched::Records {
                records: data
                    .messages()
                    .iter()
                    .map(|message| Record {
                        offset: message.offset,
                        content: read(message),
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

fn read(message: &Message<'_>) -> Result<(TaskId, Option<TraceContext>), Unreadable> {
    wire::decode_hint(message.value).map_err(|error| Unreadable {
        reason: if message.value.is_empty() {
            "the record has no value".into()
        } else {
            error.to_string()
        },
        key: Some(message.key.to_vec()),
        value: Some(message.value.to_vec()),
    })
}

/// kafka-rust forgets uncompressed records that stand before a compressed batch in the same answer, and refuses the whole
/// answer when it cannot read the batch. In an answer that ends between the two they show; so the size of such an answer
/// is searched for. `None`: there is none, the batch comes first.
fn fetch_before_batch(
    client: &mut Client,
    topic: &str,
    cursor: Cursor,
) -> Result<Option<Fetched>, KafkaError> {
    // Too little for any record, and so much that the batch is in it.
    let (mut too_little, mut too_much) = (0, cursor.bytes);
    while too_much - too_little > SMALLEST_BATCH_BYTES {
        let bytes = too_little + (too_much - too_little) / 2;
        let fetched = match fetch(client, topic, &[Cursor { bytes, ..cursor }]) {
            Ok(mut fetched) => fetched.remove(&cursor.partition),
            Err(error) if is_illegible(&error) => {
                too_much = bytes;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(Fetched::Records { records, end }) = fetched else {
            return Ok(None);
        };
        match records.first() {
            None => too_little = bytes,
            Some(first) if first.offset == cursor.offset => {
                return Ok(Some(Fetched::Records { records, end }));
            }
            Some(_) => too_much = bytes,
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

/// The same fetch in Kafka's own bytes, for what kafka-rust does not tell.
fn ask(client: &Client, topic: &str, cursor: Cursor) -> Option<Vec<u8>> {
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
    wire.ask(FETCH, 0, &body).ok()
}

/// kafka-rust knows the errors of its day by name and calls every other `Unknown`; here is the number.
fn ask_for_code(client: &Client, topic: &str, cursor: Cursor) -> Option<i16> {
    let answer = ask(client, topic, cursor)?;
    read_head(&mut Reader::new(&answer)).ok()
}

/// Reads up to the error code of the one partition that was asked for.
fn read_head(reader: &mut Reader<'_>) -> Result<i16, Broken> {
    let _topics = reader.i32()?;
    let _topic = reader.text()?;
    let _partitions = reader.i32()?;
    let _partition = reader.i32()?;
    reader.i16()
}

/// kafka-rust shows a key or value that is missing as empty. Whoever reads the log for its content wants to know which it
/// was, so the broker is asked again, once for many records. Inside a compressed batch it cannot be seen, and what is
/// empty is taken to be missing, which it nearly always is.
fn tell_missing_from_empty(client: &Client, topic: &str, cursor: Cursor, records: &mut [Record]) {
    let mut seen: BTreeMap<i64, Missing> = BTreeMap::new();
    for record in records {
        let Err(reason) = record.content.as_mut() else {
            continue;
        };
        let empty = [&reason.key, &reason.value]
            .iter()
            .any(|bytes| bytes.as_ref().is_some_and(Vec::is_empty));
        if !empty {
            continue;
        }
        if !seen.contains_key(&record.offset) {
            let here = Cursor {
                offset: record.offset,
                ..cursor
            };
            if let Some(answer) = ask(client, topic, here) {
                read_missing(&mut Reader::new(&answer), &mut seen).ok();
            }
        }
        let missing = seen.get(&record.offset).copied().unwrap_or(Missing {
            key: true,
            value: true,
        });
        if missing.key && reason.key.as_ref().is_some_and(Vec::is_empty) {
            reason.key = None;
        }
        if missing.value && reason.value.as_ref().is_some_and(Vec::is_empty) {
            reason.value = None;
        }
    }
}

/// What of a record is missing.
#[derive(Clone, Copy)]
struct Missing {
    key: bool,
    value: bool,
}

/// Reads the messages of the one partition that was asked for, up to the end or to one that is cut off.
fn read_missing(reader: &mut Reader<'_>, seen: &mut BTreeMap<i64, Missing>) -> Result<(), Broken> {
    let _code = read_head(reader)?;
    let _end = reader.i64()?;
    let _length = reader.i32()?;
    loop {
        let offset = reader.i64()?;
        // A broker that converts records for an old client pads its answer.
        if reader.i32()? <= 0 {
            return Ok(());
        }
        let _checksum = reader.i32()?;
        let [_magic, attributes] = reader.i16()?.to_be_bytes();
        let key = reader.skip_bytes()?;
        let value = reader.skip_bytes()?;
        if attributes & 0x07 == 0 {
            seen.insert(
                offset,
                Missing {
                    key: !key,
                    value: !value,
                },
            );
        }
    }
}
