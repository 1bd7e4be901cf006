//! Times in buckets of growing width: percentiles of any number of times in little memory, exact to 3 %.

/// Buckets per power of two.
const PARTS: usize = 32;
const PARTS_BITS: u32 = PARTS.trailing_zeros();
/// Number of powers of two: up to 2^40 microseconds, twelve days.
const POWERS: usize = 40;

/// Counts of times in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    total_us: u64,
    longest_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; PARTS * POWERS], count: 0, total_us: 0, longest_us: 0 }
    }
}

impl Histogram {
    /// Add a time.
    pub fn record(&mut self, us: u64) {
        let bucket = bucket(us).min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.total_us = self.total_us.saturating_add(us);
        self.longest_us = self.longest_us.max(us);
    }

    /// Return the number of times.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Return the mean.
    pub fn mean_us(&self) -> u64 {
        self.total_us.checked_div(self.count).unwrap_or(0)
    }

    /// Return the longest time.
    pub fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// Return the time that `share` (0 to 1) of them do not exceed; 0 without times.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = (share.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return highest_of(bucket).min(self.longest_us);
            }
        }
        self.longest_us
    }
}

/// Return the bucket of a time. Times below `PARTS` have one each; longer ones share it with their neighbours.
fn bucket(us: u64) -> usize {
    if us < PARTS as u64 {
        return us as usize;
    }
    let power = us.ilog2() - PARTS_BITS;
    (power as usize + 1) * PARTS + ((us >> power) as usize - PARTS)
}

fn highest_of(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let power = bucket / PARTS - 1;
    ((bucket % PARTS + PARTS + 1) as u64) * (1 << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_percent() {
        let mut histogram = Histogram::default();
        for us in 1..=100_000 {
            histogram.record(us);
        }
        assert_eq!((histogram.count(), histogram.mean_us(), histogram.longest_us()), (100_000, 50_000, 100_000));
        for share in [0.001, 0.01, 0.5, 0.9, 0.99, 0.999] {
            let (got, exact) = (histogram.quantile_us(share) as f64, share * 100_000.0);
            assert!((0.0..=0.032).contains(&((got - exact) / exact)), "{share}: {got}");
        }
        assert_eq!(histogram.quantile_us(1.0), 100_000);
        assert_eq!(Histogram::default().quantile_us(0.5), 0);
    }

    #[test]
    fn every_time_is_in_a_bucket_whose_bounds_hold_it() {
        for us in (0..4096).chain([1 << 20, (1 << 20) - 1, (1 << 38) + 12_345, u64::from(u32::MAX)]) {
            let at = bucket(us);
            assert!(us <= highest_of(at), "{us}");
            assert!(at == 0 || us > highest_of(at - 1), "{us}");
        }
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantile_us(0.5), highest_of(PARTS * POWERS - 1));
    }
}
