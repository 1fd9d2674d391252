//! Whom events are told to, and who begins spans.

use std::sync::Arc;
use std::time::Duration;

use adapters::otlp::OtlpTracer;
use domain::ports::Observer;
use tracing::{info, warn};

use crate::Failure;
use crate::settings::TraceSettings;
use crate::telemetry::{Tee, observed_by};

/// How long the end of a program waits for the collector of traces at most. Short enough to fit into what a stop may take
/// longer than it should.
const LAST_SPANS: Duration = Duration::from_secs(1);

/// The observers of a program: its log, its meters, and the tracer if traces go anywhere.
pub struct Observers {
    /// Tells all of them.
    pub observer: Arc<dyn Observer>,
    tracer: Option<Arc<OtlpTracer>>,
}

impl Observers {
    /// Makes them, and begins to trace where a collector is named. Must be called within a tokio runtime; no collector need
    /// be up.
    ///
    /// # Errors
    /// When the collector is to be reached over `https://` and this machine has no certificates to trust.
    pub fn start(settings: &TraceSettings, meters: Arc<dyn Observer>) -> Result<Self, Failure> {
        let told = observed_by(meters);
        let Some(options) = settings.0.clone() else {
            return Ok(Self {
                observer: told,
                tracer: None,
            });
        };
        let host = options.endpoint.host_str().unwrap_or_default().to_owned();
        let service = options.service_name.clone();
        let tracer = OtlpTracer::start(options, Arc::clone(&told))?;
        info!(event = "traces.started", host, service, "traces are sent");
        Ok(Self {
            observer: Arc::new(Tee::new(vec![told, tracer.clone()])),
            tracer: Some(tracer),
        })
    }

    /// Sends the last spans.
    pub async fn close(self) {
        let Some(tracer) = self.tracer else { return };
        let lost = tracer.stop(LAST_SPANS).await;
        if lost > 0 {
            warn!(
                event = "traces.not_flushed",
                lost, "the collector of traces did not take the last spans in time"
            );
        }
    }
}
