//! What processes a task.

use std::sync::Arc;

use adapters::http_processor::HttpProcessor;
use adapters::system::SystemClock;
use domain::ReverseText;
use domain::ports::{Observer, Processor};

use crate::Failure;
use crate::settings::ProcessingSettings;

/// The processing function that the settings name; the observer is told of calls of a service.
///
/// # Errors
/// When a service is asked over `https://` and this machine has no certificates to trust.
pub fn processor(
    settings: &ProcessingSettings,
    observer: Arc<dyn Observer>,
) -> Result<Arc<dyn Processor>, Failure> {
    Ok(match settings {
        ProcessingSettings::Reverse => Arc::new(ReverseText),
        ProcessingSettings::Http(options) => Arc::new(HttpProcessor::new(
            options.clone(),
            Arc::new(SystemClock),
            observer,
        )?),
    })
}
