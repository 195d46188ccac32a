//! Wall time, with throughput told as the time of one element: what can be compared with a budget per block.

use criterion::{
    Throughput,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use std::time::{Duration, Instant};

/// Wall time that is also told per element.
pub(crate) struct PerElement(pub(crate) WallTime);

impl Measurement for PerElement {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        self.0.start()
    }

    fn end(&self, started: Instant) -> Duration {
        self.0.end(started)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        self.0.add(one, other)
    }

    fn zero(&self) -> Duration {
        self.0.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        self.0.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for PerElement {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        self.0.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let Throughput::Elements(elements) = throughput else {
            return self.0.formatter().scale_throughputs(typical, throughput, values);
        };
        // Values are nanoseconds of one iteration.
        values.iter_mut().for_each(|value| *value /= *elements as f64 * 1_000.0);
        "us each"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        self.0.formatter().scale_for_machines(values)
    }
}
