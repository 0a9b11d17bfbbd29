//! Instruments whose measurements go to the SDK and, with their trace, to a reservoir of exemplars.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry_proto::tonic::metrics::v1::exemplar;

use super::exemplars::{Exemplars, Keep, Reservoir};

/// Bucket bounds for durations in seconds, as the semantic conventions advise for HTTP.
pub const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Histograms whose name ends so are exported as exponential histograms (see the view in `telemetry.rs`).
pub const EXPONENTIAL_SUFFIX: &str = ".authorization.duration";

#[derive(Clone)]
pub struct Instruments {
    meter: Meter,
    exemplars: Exemplars,
}

impl Instruments {
    pub fn new(meter: Meter, exemplars: Exemplars) -> Self {
        Self { meter, exemplars }
    }

    /// For instruments that need no exemplars.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A histogram of durations in seconds.
    pub fn duration(&self, name: &'static str, description: &'static str) -> TracedHistogram {
        let keep = if name.ends_with(EXPONENTIAL_SUFFIX) {
            Keep::AtMost(8)
        } else {
            Keep::PerBucket(SECONDS.to_vec())
        };
        TracedHistogram {
            histogram: self
                .meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(SECONDS.to_vec())
                .build(),
            reservoir: self.exemplars.reservoir(name, keep),
        }
    }

    /// A counter; `unit` is a UCUM annotation such as `{order}`.
    pub fn counter(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> TracedCounter {
        TracedCounter {
            counter: self
                .meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(description)
                .build(),
            reservoir: self.exemplars.reservoir(name, Keep::AtMost(1)),
        }
    }
}

#[derive(Clone)]
pub struct TracedHistogram {
    histogram: Histogram<f64>,
    reservoir: Arc<Reservoir>,
}

impl TracedHistogram {
    pub fn record(&self, value: f64, attributes: &[KeyValue]) {
        self.histogram.record(value, attributes);
        self.reservoir.offer(exemplar::Value::AsDouble(value), attributes);
    }
}

#[derive(Clone)]
pub struct TracedCounter {
    counter: Counter<u64>,
    reservoir: Arc<Reservoir>,
}

impl TracedCounter {
    pub fn add(&self, value: u64, attributes: &[KeyValue]) {
        self.counter.add(value, attributes);
        let shown = i64::try_from(value).unwrap_or(i64::MAX);
        self.reservoir.offer(exemplar::Value::AsInt(shown), attributes);
    }
}
