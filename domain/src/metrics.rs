//! The mathematics of `GET /metrics`.

use ports::Totals;

/// Numbers over all tasks that ever became done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How many became done.
    pub total_tasks: u64,
    /// The mean of (done − created) in milliseconds, rounded half up; `None` while there are none.
    pub average_processing_time_ms: Option<i64>,
}

impl From<Totals> for Metrics {
    fn from(totals: Totals) -> Self {
        Self {
            total_tasks: totals.done,
            average_processing_time_ms: mean_ms(totals),
        }
    }
}

/// floor(mean + 1/2), computed in whole numbers: floor((2·sum + 1000·n) / (2000·n)).
fn mean_ms(totals: Totals) -> Option<i64> {
    if totals.done == 0 {
        return None;
    }
    let count = i128::from(totals.done);
    let rounded = (2 * totals.elapsed_micros + 1_000 * count).div_euclid(2_000 * count);
    Some(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(done: u64, elapsed_micros: i128, expected: Option<i64>) {
        let metrics = Metrics::from(Totals {
            done,
            elapsed_micros,
        });
        assert_eq!(metrics.average_processing_time_ms, expected);
        assert_eq!(metrics.total_tasks, done);
    }

    #[test]
    fn the_mean_is_rounded_half_up() {
        check(0, 0, None);
        check(1, 0, Some(0));
        check(1, 499, Some(0));
        check(1, 500, Some(1));
        check(1, 1_499, Some(1));
        check(3, 4_500, Some(2));
        check(5, 6_000_000, Some(1_200));
        check(1, -500, Some(0));
        check(1, -501, Some(-1));
        check(u64::MAX, i128::from(u64::MAX) * 1_000, Some(1));
    }
}
