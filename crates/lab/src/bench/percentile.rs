//! Percentiles of measured values.

/// The smallest of the sorted values that so many of a hundred do not exceed. Not a number without values.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}
