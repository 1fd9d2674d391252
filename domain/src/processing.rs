//! Processing functions: the default one, and closures as processors.

use std::future::Future;

use async_trait::async_trait;
use ports::{Failure, Job, Processor};
use unicode_segmentation::UnicodeSegmentation;

/// The default processing: the payload reversed, and ` (len=N)`.
///
/// Both count extended grapheme clusters (Unicode Standard Annex #29), what a reader takes for one character.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReverseText;

#[async_trait]
impl Processor for ReverseText {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        Ok(reverse(job.payload.as_str()))
    }
}

/// `Hello world!` → `!dlrow olleH (len=12)`.
#[must_use]
pub fn reverse(text: &str) -> String {
    let mut reversed = String::with_capacity(text.len() + 16);
    let mut length = 0_usize;
    for cluster in text.graphemes(true).rev() {
        reversed.push_str(cluster);
        length += 1;
    }
    reversed.push_str(" (len=");
    reversed.push_str(&length.to_string());
    reversed.push(')');
    reversed
}

/// Makes a [`Processor`] of an async closure.
///
/// ```
/// use domain::{ports::Failure, processor_fn};
///
/// let shout = processor_fn(|job| async move { Ok::<_, Failure>(job.payload.as_str().to_uppercase()) });
/// ```
pub fn processor_fn<F, R>(function: F) -> impl Processor
where
    F: Fn(Job) -> R + Send + Sync,
    R: Future<Output = Result<String, Failure>> + Send,
{
    FnProcessor(function)
}

struct FnProcessor<F>(F);

#[async_trait]
impl<F, R> Processor for FnProcessor<F>
where
    F: Fn(Job) -> R + Send + Sync,
    R: Future<Output = Result<String, Failure>> + Send,
{
    async fn process(&self, job: Job) -> Result<String, Failure> {
        (self.0)(job).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(reverse(text), expected);
    }

    #[test]
    fn reverses_and_counts_grapheme_clusters() {
        check("Hello world!", "!dlrow olleH (len=12)");
        check("👍🏽é", "é👍🏽 (len=2)");
        check("e\u{301}a", "ae\u{301} (len=2)");
        check("a\r\nb", "b\r\na (len=3)");
        check("🇩🇪🇫🇷", "🇫🇷🇩🇪 (len=2)");
        check("", " (len=0)");
    }
}
