//! The work of this program: amounts of money into euros.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::{Failure, Job, Processor};

/// The source of rates does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatesAreDown;

/// Where rates come from. A port of this program, as those of Task Processor are: tests put a fake behind it.
#[async_trait]
pub trait Rates: Send + Sync {
    /// What one euro is worth in cents of this currency; `None` if there is no such currency.
    ///
    /// # Errors
    /// When the source does not answer.
    async fn cents_per_euro(&self, currency: &str) -> Result<Option<u64>, RatesAreDown>;
}

/// Makes `12.50 USD` into `11.57 EUR`.
///
/// The three ways to fail differ. What can never be converted is permanent. A source that is down is no fault of the task:
/// no attempt is spent, and the worker takes hardly any tasks until it is back. Anything else would be retryable.
pub struct Conversion(pub Arc<dyn Rates>);

#[async_trait]
impl Processor for Conversion {
    async fn process(&self, job: Job) -> Result<String, Failure> {
        let payload = job.payload.as_str();
        let (cents, currency) = parse(payload).ok_or_else(|| {
            Failure::Permanent(format!("{payload:?} is no amount like 12.50 USD"))
        })?;
        let rate = self.0.cents_per_euro(currency).await;
        match rate.map_err(|RatesAreDown| Failure::Unavailable("the rates are down".into()))? {
            None | Some(0) => Err(Failure::Permanent(format!(
                "there is no rate for {currency}"
            ))),
            Some(rate) => {
                // Rounded half up.
                let euros = (u128::from(cents) * 200 + u128::from(rate)) / (u128::from(rate) * 2);
                Ok(format!("{}.{:02} EUR", euros / 100, euros % 100))
            }
        }
    }
}

fn parse(text: &str) -> Option<(u64, &str)> {
    let (amount, currency) = text.trim().split_once(' ')?;
    let (whole, cents) = amount.split_once('.')?;
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if cents.len() != 2 || !is_number(whole) || !is_number(cents) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let cents: u64 = cents.parse().ok()?;
    Some((whole.checked_mul(100)?.checked_add(cents)?, currency))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn amounts_have_two_decimals_and_a_currency() {
        for (text, expected) in [
            ("12.50 USD", Some((1_250, "USD"))),
            ("0.05 JPY", Some((5, "JPY"))),
            ("12 USD", None),
            ("12.5 USD", None),
            ("-1.00 USD", None),
            ("12.50", None),
            ("99999999999999999999.00 USD", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
