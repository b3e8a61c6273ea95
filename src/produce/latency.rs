//! A histogram of latencies that has a fixed size and uses no locks. Any thread can read the histogram while other
//! threads write to it.
//!
//! The range from each power of two to the next is divided into eight buckets, so a quantile is at most 12.5 % larger
//! than its true value. The minimum, the maximum and the mean are exact.

use std::sync::atomic::{AtomicU64, Ordering};

/// The base-2 logarithm of the number of buckets for each power of two.
const CUT_BITS: u32 = 3;
/// Number of buckets that are needed for all values of a `u64`.
const BUCKETS: usize = (64 - CUT_BITS as usize + 1) << CUT_BITS;

/// A histogram of latencies in microseconds. The histogram covers all latencies since its creation.
#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: Box<[AtomicU64]>,
    count: AtomicU64,
    sum_us: AtomicU64,
    min_us: AtomicU64,
    max_us: AtomicU64,
}

/// The statistics of a [`LatencyHistogram`] at one moment. All values are zero if the histogram is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// The arithmetic mean of the latencies.
    pub mean_us: f64,
    /// The smallest latency.
    pub min_us: u64,
    /// The largest latency.
    pub max_us: u64,
    /// The median: half of the latencies are at most this long.
    pub p50_us: u64,
    /// The 99th percentile: 99 of 100 latencies are at most this long.
    pub p99_us: u64,
}

impl LatencyHistogram {
    /// Adds one latency to the histogram.
    pub fn record(&self, us: u64) {
        self.buckets[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.min_us.fetch_min(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Returns the current statistics. If other threads write at the same time, some statistics may include a few more
    /// latencies than others.
    #[allow(clippy::cast_precision_loss)]
    pub fn summary(&self) -> LatencySummary {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return LatencySummary::default();
        }
        let max_us = self.max_us.load(Ordering::Relaxed);
        LatencySummary {
            mean_us: self.sum_us.load(Ordering::Relaxed) as f64 / count as f64,
            min_us: self.min_us.load(Ordering::Relaxed),
            max_us,
            p50_us: self.at_rank(count.div_ceil(2)).min(max_us),
            p99_us: self.at_rank(count - count / 100).min(max_us),
        }
    }

    /// Returns the upper end of the bucket that contains the latency with the given rank. The smallest latency has rank
    /// 1.
    fn at_rank(&self, rank: u64) -> u64 {
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= rank {
                return bucket_end(index);
            }
        }
        u64::MAX
    }
}

impl Default for LatencyHistogram {
    /// Returns an empty histogram.
    fn default() -> LatencyHistogram {
        LatencyHistogram {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
            min_us: AtomicU64::new(u64::MAX),
            max_us: AtomicU64::new(0),
        }
    }
}

/// Returns the index of the bucket for a value. Each value below 8 has its own bucket. The bucket of a larger value
/// depends on the position of the highest bit that is set, and on the three bits after that bit.
fn bucket_of(us: u64) -> usize {
    let exponent = us.checked_ilog2().unwrap_or(0);
    if exponent < CUT_BITS {
        return usize::try_from(us).unwrap_or(0);
    }
    let shift = exponent - CUT_BITS;
    let cut = (us >> shift) & ((1 << CUT_BITS) - 1);
    (usize::try_from(shift + 1).unwrap_or(0) << CUT_BITS) + usize::try_from(cut).unwrap_or(0)
}

/// Returns the largest value that belongs to a bucket.
fn bucket_end(index: usize) -> u64 {
    let (row, cut) = (index >> CUT_BITS, index & ((1 << CUT_BITS) - 1));
    let cut = u64::try_from(cut).unwrap_or(0);
    if row == 0 {
        return cut;
    }
    let base = (1 << CUT_BITS) + cut;
    // The end of the last bucket is `u64::MAX`. The calculation uses 128 bits, because `u64::MAX` plus one does not fit
    // into 64 bits.
    let wide = (u128::from(base) + 1) << (row - 1);
    u64::try_from(wide - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_exactly_one_bucket() {
        for us in (0..5_000).chain([u64::MAX, u64::MAX / 2, 1 << 40, (1 << 40) + 7]) {
            let index = bucket_of(us);
            assert!(us <= bucket_end(index), "{us}");
            assert!(index == 0 || us > bucket_end(index - 1), "{us}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_at_most_an_eighth_too_high() {
        let latency = LatencyHistogram::default();
        assert_eq!(latency.summary(), LatencySummary::default());
        for us in 1..=10_000 {
            latency.record(us);
        }
        let s = latency.summary();
        assert!((5_000..=5_625).contains(&s.p50_us), "{s:?}");
        assert!((9_900..=10_000).contains(&s.p99_us), "{s:?}");
        assert_eq!((s.min_us, s.max_us), (1, 10_000));
        assert!((s.mean_us - 5_000.5).abs() < 1e-6);
    }
}
