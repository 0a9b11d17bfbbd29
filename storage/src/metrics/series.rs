//! A series: identity, labels as Prometheus sees them, and the Prometheus series that it shows as.

use super::batch::{MetricDesc, MetricKind};
use super::naming::Naming;
use super::replicas::INSTANCE;
use super::shown::hash_of_all;
use std::sync::Arc;

/// A label pair.
pub type Label = (Arc<str>, Arc<str>);

/// What never changes about a series.
#[derive(Debug)]
pub struct SeriesMeta {
    pub id: u128,
    pub metric: Arc<MetricDesc>,
    /// Canonical attribute list; labels for `Prometheus` series.
    pub attributes: Box<[u8]>,
    /// Prometheus family name; empty when the OTLP name has no usable character.
    pub family: Arc<str>,
    /// Labels without `__name__`, sorted.
    pub labels: Vec<Label>,
    /// Their hash, see [`shown`](super::shown).
    pub(super) labels_hash: u64,
    /// Sent by OTLP from a resource that names no instance: has no `instance` label of its own.
    pub nameless: bool,
}

impl SeriesMeta {
    pub fn new(id: u128, metric: Arc<MetricDesc>, attributes: &[u8], naming: &Naming) -> Self {
        let family = match metric.kind {
            MetricKind::Prometheus => metric.name.clone(),
            _ => naming.metric_name(&metric).unwrap_or_default().into(),
        };
        let labels = naming.labels(&metric, attributes);
        let nameless = metric.kind != MetricKind::Prometheus
            && !labels.iter().any(|(name, _)| **name == *INSTANCE);
        let labels_hash = hash_of_all(&labels);
        Self { id, attributes: attributes.into(), family, labels, labels_hash, nameless, metric }
    }

    /// The names under which parts of this series show, with the part.
    pub fn names(&self) -> Vec<(String, Part)> {
        let family = &self.family;
        if family.is_empty() {
            return Vec::new();
        }
        match self.metric.kind {
            MetricKind::Histogram => vec![
                (format!("{family}_bucket"), Part::Bucket),
                (format!("{family}_count"), Part::Count),
                (format!("{family}_sum"), Part::Sum),
            ],
            MetricKind::Summary => vec![
                (family.to_string(), Part::Quantile),
                (format!("{family}_count"), Part::Count),
                (format!("{family}_sum"), Part::Sum),
            ],
            _ => vec![(family.to_string(), Part::Whole)],
        }
    }

    /// Whether the start times of its points tell when the counter behind them began. That of a delta is only when
    /// this one point's time began.
    pub(super) fn tells_start(&self) -> bool {
        match self.metric.kind {
            MetricKind::Prometheus => true,
            MetricKind::Gauge => false,
            MetricKind::Sum => self.metric.monotonic && !self.metric.is_delta(),
            _ => !self.metric.is_delta(),
        }
    }

    /// Prometheus' type of the family.
    pub fn prometheus_type(&self) -> &'static str {
        match self.metric.kind {
            MetricKind::Sum if self.metric.monotonic => "counter",
            MetricKind::Gauge | MetricKind::Sum => "gauge",
            MetricKind::Histogram | MetricKind::ExponentialHistogram => "histogram",
            MetricKind::Summary => "summary",
            MetricKind::Prometheus => "unknown",
        }
    }
}

/// Which Prometheus series of an OTLP series is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A number or a native histogram.
    Whole,
    /// `_bucket{le}`.
    Bucket,
    /// `_count`.
    Count,
    /// `_sum`.
    Sum,
    /// `{quantile}` of a summary.
    Quantile,
}
