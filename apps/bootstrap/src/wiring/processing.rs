//! What processes a task.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use adapters::http_processor::HttpProcessor;
use adapters::own_threads::OwnThreads;
use adapters::system::SystemClock;
use domain::ReverseText;
use domain::ports::{Observer, Processor};

use crate::Failure;
use crate::settings::ProcessingSettings;

/// From how many bytes on a text is reversed on threads of their own, as many as there are processors. That takes some 40 ns a byte:
/// 10 ms for the longest payload by default, for which nothing else must wait.
const LONG_TEXT: usize = 4 * 1024;

/// The processing function that the settings name; the observer is told of calls of a service.
///
/// # Errors
/// When a service is asked over `https://` and this machine has no certificates to trust, or no thread can be started.
pub fn processor(
    settings: &ProcessingSettings,
    observer: Arc<dyn Observer>,
) -> Result<Arc<dyn Processor>, Failure> {
    Ok(match settings {
        ProcessingSettings::Reverse => {
            let threads = available_parallelism().map_or(1, NonZero::get);
            Arc::new(OwnThreads::start(ReverseText, threads)?.from_bytes(LONG_TEXT))
        }
        ProcessingSettings::Http(options) => Arc::new(HttpProcessor::new(
            options.clone(),
            Arc::new(SystemClock),
            observer,
        )?),
    })
}
