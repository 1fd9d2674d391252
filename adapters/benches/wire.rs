//! Records and cached values, encoded and decoded: `cargo bench --package task-processor-adapters --bench wire --features wire`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ports::{Payload, Priority, TaskId, TaskMessage, TaskResult, Timestamp};
use task_processor_adapters::wire;
use uuid::Uuid;

fn codecs(criterion: &mut Criterion) {
    let id = TaskId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
    let message = TaskMessage {
        id,
        payload: Payload::new("x".repeat(100)).expect("it has no NUL"),
        priority: Priority::default(),
        trace: None,
    };
    let result = TaskResult {
        id,
        result: "x".repeat(100) + " (len=100)",
        processed_at: Timestamp::from_micros(1_735_689_602_345_000),
    };
    let (encoded_message, encoded_result) =
        (wire::encode_message(&message), wire::encode_result(&result));
    let mut group = criterion.benchmark_group("wire");
    group.bench_function("encode a message", |bencher| {
        bencher.iter(|| wire::encode_message(black_box(&message)));
    });
    group.bench_function("decode a message", |bencher| {
        bencher.iter(|| wire::decode_message(black_box(&encoded_message)));
    });
    group.bench_function("decode the id of a message", |bencher| {
        bencher.iter(|| wire::decode_hint(black_box(&encoded_message)));
    });
    group.bench_function("encode a result", |bencher| {
        bencher.iter(|| wire::encode_result(black_box(&result)));
    });
    group.bench_function("decode a result", |bencher| {
        bencher.iter(|| wire::decode_result(black_box(&encoded_result)));
    });
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
