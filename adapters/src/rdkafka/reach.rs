//! Whether protected brokers let us in.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use super::client_config;
use crate::kafka_options::KafkaOptions;
use crate::kafka_probe::ProbeError;

/// How long one question waits before it is looked at what librdkafka says meanwhile.
const GLANCE: Duration = Duration::from_millis(200);

/// After one broker refused us, for how long another may still answer.
const SECOND_CHANCE: Duration = Duration::from_millis(500);

/// Connects, shakes hands and logs in with librdkafka's own means, for at most three times `timeout`, one for each.
///
/// # Errors
/// [`ProbeError`].
pub(crate) fn reach(options: &KafkaOptions, timeout: Duration) -> Result<(), ProbeError> {
    let deadline = Instant::now() + timeout * 3;
    let client: BaseProducer<Listener> = client_config(options)
        .create_with_context(Listener::default())
        .map_err(|error| ProbeError::Incompatible(error.to_string()))?;
    loop {
        let Err(error) = client.client().fetch_metadata(None, GLANCE) else {
            return Ok(());
        };
        // What happened meanwhile is told by this call.
        client.poll(Duration::ZERO);
        let heard = client.context().take();
        if let Some(refusal) = heard.refusal {
            let second = client.client().fetch_metadata(None, SECOND_CHANCE);
            return second.map(drop).map_err(|_none| refusal);
        }
        if Instant::now() >= deadline {
            let cause = heard.last.unwrap_or_else(|| error.to_string());
            return Err(ProbeError::Unreachable(cause.into()));
        }
    }
}

/// What librdkafka says while it connects.
#[derive(Default)]
struct Listener {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    refusal: Option<ProbeError>,
    last: Option<String>,
}

impl Listener {
    /// The refusal, if there was one, and a copy of the last words.
    fn take(&self) -> Heard {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        Heard {
            refusal: heard.refusal.take(),
            last: heard.last.clone(),
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Whoever asked is told, and says it.
        tracing::debug!(target: "librdkafka", facility, "{text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = reason.to_owned();
        let refusal = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Some(ProbeError::Login(reason.clone()))
            }
            Some(RDKafkaErrorCode::SSL) => Some(ProbeError::Tls(reason.clone())),
            // That all brokers are down says less than why each is.
            Some(RDKafkaErrorCode::AllBrokersDown) => return,
            _ => None,
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.refusal = heard.refusal.take().or(refusal);
        heard.last = Some(reason);
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _nothing: ()) {}
}
