//! Histograms of how long things take, with the traces of some that took so long.

use std::time::SystemTime;

use domain::ports::TraceContext;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;

/// In seconds: 1, 2.5 and 5 of each power of ten, and from 30 s on what people say, and alerts ask for.
const BOUNDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3600.0,
];

/// Durations in seconds. OpenMetrics shows in each bucket the trace of the last one that was sampled.
pub(crate) type Durations = HistogramWithExemplars<[(&'static str, String); 1]>;

pub(crate) fn durations() -> Durations {
    Durations::new(BOUNDS.into_iter())
}

/// Counts a duration, which belongs to this trace.
pub(crate) fn observe(durations: &Durations, seconds: f64, trace: Option<&TraceContext>) {
    let exemplar = trace
        .filter(|context| context.is_sampled())
        .map(|context| [("trace_id", context.trace_id().to_string())]);
    let now = exemplar.is_some().then(SystemTime::now);
    durations.observe(seconds, exemplar, now);
}
