//! How long changes of a folder take: a histogram that costs nothing to keep.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Upper ends of the classes, in milliseconds; a last class takes the rest.
pub const BOUNDS_MS: [u64; 12] = [
    5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000,
];

/// From when a change of the folder is asked for (its bytes are here) until it is durable and recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ApplyTimes {
    /// How many changes there were.
    pub count: u64,
    /// Milliseconds of all together.
    pub sum_ms: u64,
    /// How many took at most 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000 ms and not
    /// less than the class before; the last number: longer. Empty when there was none.
    pub classes: Vec<u64>,
}

impl ApplyTimes {
    /// Counts `n` changes that took so long each.
    pub fn add(&mut self, n: u64, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.count += n;
        self.sum_ms = self.sum_ms.saturating_add(ms.saturating_mul(n));
        self.classes.resize(BOUNDS_MS.len() + 1, 0);
        let class = BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.classes[class] += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_falls_into_one_class() {
        let mut times = ApplyTimes::default();
        for (n, ms) in [(1, 0), (2, 5), (3, 6), (4, 30_000), (5, 30_001)] {
            times.add(n, Duration::from_millis(ms));
        }
        assert_eq!((times.count, times.classes.iter().sum::<u64>()), (15, 15));
        assert_eq!(times.classes[..2], [3, 3]);
        assert_eq!(times.classes[11..], [4, 5]);
        assert_eq!(times.sum_ms, 10 + 18 + 120_000 + 150_005);
    }
}
