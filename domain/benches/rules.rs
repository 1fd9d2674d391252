//! What is pure, and done for every task: `cargo bench --package task-processor-domain --bench rules`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use domain::Metrics;
use domain::lifecycle::{Trigger, next};
use domain::ports::{TaskStatus, Totals};
use domain::processing::reverse;

fn lifecycle(criterion: &mut Criterion) {
    let all: Vec<_> = TaskStatus::ALL
        .into_iter()
        .flat_map(|from| Trigger::ALL.map(|trigger| (from, trigger)))
        .collect();
    let mut group = criterion.benchmark_group("lifecycle");
    group.throughput(Throughput::Elements(all.len() as u64));
    group.bench_function("the whole table", |bencher| {
        bencher.iter(|| {
            all.iter()
                .filter(|(from, trigger)| next(black_box(*from), black_box(*trigger)).is_some())
                .count()
        });
    });
    group.finish();
}

fn metrics(criterion: &mut Criterion) {
    let totals = Totals {
        done: 10_000_000,
        elapsed_micros: 12_345_678_901_234,
    };
    criterion.bench_function("metrics/the mean of ten million", |bencher| {
        bencher.iter(|| Metrics::from(black_box(totals)));
    });
}

fn processing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("processing");
    for (name, text) in [
        ("100 letters", "x".repeat(100)),
        ("100 emoji with skin tones", "👍🏽".repeat(100)),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| reverse(black_box(&text))));
    }
    group.finish();
}

criterion_group!(benches, lifecycle, metrics, processing);
criterion_main!(benches);
