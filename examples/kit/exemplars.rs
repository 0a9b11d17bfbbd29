//! Exemplars: for each metric series a few measurements that still know the trace they were taken in.
//!
//! The OpenTelemetry specification gives this to the metrics SDK (reservoirs and the `trace_based` filter), but
//! `opentelemetry_sdk` 0.33 has no reservoir: its aggregations export `exemplars: vec![]`. So the instruments in
//! `instruments.rs` offer each measurement to a reservoir here as well, and the exporter joins the two when the
//! SDK hands it a collection. Reservoirs and filter follow the specification ("Exemplar" in the metrics SDK):
//! one measurement per histogram bucket, or a fixed number for everything else, chosen with equal chance among
//! all of the interval, taken only inside a sampled span.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::KeyValue as ProtoKeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use tonic::transport::Channel;

/// Which measurements of a series a reservoir keeps until the next collection.
#[derive(Debug)]
pub enum Keep {
    /// One per bucket of an explicit histogram; the upper bounds, ascending.
    PerBucket(Vec<f64>),
    /// At most this many of the whole series.
    AtMost(usize),
}

/// The measurements of one instrument since the last collection.
pub struct Reservoir {
    metric: String,
    keep: Keep,
    series: Mutex<HashMap<Vec<KeyValue>, Vec<Slot>>>,
}

#[derive(Clone, Default)]
struct Slot {
    /// Measurements that fell on this slot, kept or not.
    seen: u64,
    kept: Option<Exemplar>,
}

impl Reservoir {
    fn new(metric: &str, keep: Keep) -> Self {
        Self { metric: metric.to_owned(), keep, series: Mutex::default() }
    }

    /// Offers a measurement, in the current context. Without a sampled span there is nothing to keep.
    pub fn offer(&self, value: exemplar::Value, attributes: &[KeyValue]) {
        Context::map_current(|context| {
            let span = context.span();
            if span.span_context().is_sampled() {
                self.insert(value, attributes, span.span_context());
            }
        });
    }

    fn insert(&self, value: exemplar::Value, attributes: &[KeyValue], span: &SpanContext) {
        let mut key = attributes.to_vec();
        key.sort_by(|a, b| a.key.cmp(&b.key));
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = series.entry(key).or_insert_with(|| match &self.keep {
            Keep::PerBucket(bounds) => vec![Slot::default(); bounds.len() + 1],
            Keep::AtMost(count) => vec![Slot::default(); *count],
        });
        let slot = match &self.keep {
            // Buckets hold their upper bound: (lower, upper].
            Keep::PerBucket(bounds) => {
                let slot = &mut slots[bounds.partition_point(|bound| *bound < number(value))];
                slot.seen += 1;
                (rand::random_range(0..slot.seen) == 0).then_some(slot)
            }
            // Vitter's algorithm R; the count of the whole series is kept in the first slot.
            Keep::AtMost(count) => {
                slots[0].seen += 1;
                let index = if slots[0].seen <= *count as u64 {
                    slots[0].seen - 1
                } else {
                    rand::random_range(0..slots[0].seen)
                };
                slots.get_mut(index as usize)
            }
        };
        if let Some(slot) = slot {
            slot.kept = Some(Exemplar {
                filtered_attributes: Vec::new(),
                time_unix_nano: nanoseconds(SystemTime::now()),
                span_id: span.span_id().to_bytes().to_vec(),
                trace_id: span.trace_id().to_bytes().to_vec(),
                value: Some(value),
            });
        }
    }

    /// Takes what was kept: per series its attributes as on the wire, sorted by key, and the exemplars.
    fn drain(&self) -> Vec<(Vec<ProtoKeyValue>, Vec<Exemplar>)> {
        let series =
            std::mem::take(&mut *self.series.lock().unwrap_or_else(PoisonError::into_inner));
        series
            .into_iter()
            .map(|(attributes, slots)| {
                (
                    attributes.iter().map(ProtoKeyValue::from).collect(),
                    slots.into_iter().filter_map(|slot| slot.kept).collect(),
                )
            })
            .collect()
    }
}

fn number(value: exemplar::Value) -> f64 {
    match value {
        exemplar::Value::AsDouble(value) => value,
        exemplar::Value::AsInt(value) => value as f64,
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// All reservoirs of a process, shared by the instruments and the exporter.
#[derive(Clone, Default)]
pub struct Exemplars(Arc<Mutex<Vec<Arc<Reservoir>>>>);

impl Exemplars {
    /// A reservoir for the instrument called `metric`.
    pub fn reservoir(&self, metric: &str, keep: Keep) -> Arc<Reservoir> {
        let reservoir = Arc::new(Reservoir::new(metric, keep));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(reservoir.clone());
        reservoir
    }

    /// Moves what the reservoirs hold onto the data points it belongs to.
    pub fn attach(&self, request: &mut ExportMetricsServiceRequest) {
        let reservoirs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = request
            .resource_metrics
            .iter_mut()
            .flat_map(|resource| &mut resource.scope_metrics)
            .flat_map(|scope| &mut scope.metrics);
        for metric in metrics {
            for reservoir in reservoirs.iter() {
                if reservoir.metric != metric.name {
                    continue;
                }
                for (attributes, exemplars) in reservoir.drain() {
                    if let Some(place) = exemplars_of(metric, &attributes) {
                        *place = exemplars;
                    }
                }
            }
        }
    }
}

/// The exemplar list of the data point with these attributes, which are sorted by key.
fn exemplars_of<'a>(
    metric: &'a mut Metric,
    attributes: &[ProtoKeyValue],
) -> Option<&'a mut Vec<Exemplar>> {
    let same = |point: &[ProtoKeyValue]| {
        point.len() == attributes.len() && attributes.iter().all(|one| point.contains(one))
    };
    match metric.data.as_mut()? {
        Data::Gauge(gauge) => gauge
            .data_points
            .iter_mut()
            .find(|point| same(&point.attributes))
            .map(|point| &mut point.exemplars),
        Data::Sum(sum) => sum
            .data_points
            .iter_mut()
            .find(|point| same(&point.attributes))
            .map(|point| &mut point.exemplars),
        Data::Histogram(histogram) => histogram
            .data_points
            .iter_mut()
            .find(|point| same(&point.attributes))
            .map(|point| &mut point.exemplars),
        Data::ExponentialHistogram(histogram) => histogram
            .data_points
            .iter_mut()
            .find(|point| same(&point.attributes))
            .map(|point| &mut point.exemplars),
        Data::Summary(_) => None,
    }
}

/// Sends the SDK's collections over OTLP/gRPC, with exemplars.
pub struct ExemplarExporter {
    client: MetricsServiceClient<Channel>,
    exemplars: Exemplars,
}

impl ExemplarExporter {
    pub fn new(channel: Channel, exemplars: Exemplars) -> Self {
        Self { client: MetricsServiceClient::new(channel), exemplars }
    }
}

impl PushMetricExporter for ExemplarExporter {
    /// A failed export loses the interval's exemplars; the totals themselves are cumulative and arrive later.
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut request = ExportMetricsServiceRequest::from(metrics);
        self.exemplars.attach(&mut request);
        match self.client.clone().export(request).await {
            Ok(_) => Ok(()),
            Err(status) => Err(OTelSdkError::InternalFailure(status.to_string())),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
    use opentelemetry_proto::tonic::metrics::v1::{
        Histogram, HistogramDataPoint, ResourceMetrics as ProtoResourceMetrics, ScopeMetrics,
    };

    fn in_span<T>(trace: u128, flags: TraceFlags, body: impl FnOnce() -> T) -> T {
        let span = SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes([7; 8]),
            flags,
            false,
            TraceState::default(),
        );
        let _guard = Context::new().with_remote_span_context(span).attach();
        body()
    }

    fn request(metric: &str, points: &[Vec<KeyValue>]) -> ExportMetricsServiceRequest {
        let data_points = points
            .iter()
            .map(|attributes| HistogramDataPoint {
                attributes: attributes.iter().map(ProtoKeyValue::from).collect(),
                ..Default::default()
            })
            .collect();
        ExportMetricsServiceRequest {
            resource_metrics: vec![ProtoResourceMetrics {
                scope_metrics: vec![ScopeMetrics {
                    metrics: vec![Metric {
                        name: metric.to_owned(),
                        data: Some(Data::Histogram(Histogram {
                            data_points,
                            ..Default::default()
                        })),
                        ..Default::default()
                    }],
                    ..Default::default()
                }],
                ..Default::default()
            }],
        }
    }

    fn exemplars_in(request: &ExportMetricsServiceRequest, point: usize) -> &[Exemplar] {
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("not a histogram") };
        &histogram.data_points[point].exemplars
    }

    #[test]
    fn each_bucket_keeps_one_measurement_with_its_trace() {
        let exemplars = Exemplars::default();
        let reservoir = exemplars.reservoir("d", Keep::PerBucket(vec![0.1, 1.0]));
        let route = vec![KeyValue::new("route", "/a"), KeyValue::new("code", 200)];
        let reversed: Vec<_> = route.iter().rev().cloned().collect();
        for (trace, value) in [(1, 0.05), (2, 0.1), (3, 0.5), (4, 7.0)] {
            in_span(trace, TraceFlags::SAMPLED, || {
                reservoir.offer(exemplar::Value::AsDouble(value), &reversed);
            });
        }
        let mut sent = request("d", &[vec![KeyValue::new("route", "/b")], route]);
        exemplars.attach(&mut sent);

        assert!(exemplars_in(&sent, 0).is_empty());
        let kept = exemplars_in(&sent, 1);
        let trace = |one: &Exemplar| u128::from_be_bytes(one.trace_id[..].try_into().unwrap());
        assert_eq!(kept.len(), 3);
        assert!([1, 2].contains(&trace(&kept[0])), "a bucket holds its upper bound");
        assert_eq!((trace(&kept[1]), kept[1].value), (3, Some(exemplar::Value::AsDouble(0.5))));
        assert_eq!((trace(&kept[2]), kept[2].value), (4, Some(exemplar::Value::AsDouble(7.0))));
        assert!(kept.iter().all(|one| one.span_id == [7; 8] && one.time_unix_nano > 0));
    }

    #[test]
    fn a_collection_empties_the_reservoir() {
        let exemplars = Exemplars::default();
        let reservoir = exemplars.reservoir("d", Keep::AtMost(2));
        for trace in 1..100 {
            in_span(trace, TraceFlags::SAMPLED, || {
                reservoir.offer(exemplar::Value::AsInt(1), &[]);
            });
        }
        let mut first = request("d", &[vec![]]);
        exemplars.attach(&mut first);
        assert_eq!(exemplars_in(&first, 0).len(), 2);
        let mut second = request("d", &[vec![]]);
        exemplars.attach(&mut second);
        assert!(exemplars_in(&second, 0).is_empty());
    }

    #[test]
    fn without_a_sampled_span_nothing_is_kept() {
        let exemplars = Exemplars::default();
        let reservoir = exemplars.reservoir("d", Keep::AtMost(2));
        reservoir.offer(exemplar::Value::AsInt(1), &[]);
        in_span(1, TraceFlags::NOT_SAMPLED, || reservoir.offer(exemplar::Value::AsInt(1), &[]));
        let mut sent = request("d", &[vec![]]);
        exemplars.attach(&mut sent);
        assert!(exemplars_in(&sent, 0).is_empty());
    }

    #[test]
    fn every_measurement_has_the_same_chance_to_stay() {
        let mut kept_first = 0;
        for _ in 0..2000 {
            let reservoir = Reservoir::new("d", Keep::AtMost(1));
            for trace in 1..=4 {
                in_span(trace, TraceFlags::SAMPLED, || {
                    reservoir.offer(exemplar::Value::AsInt(1), &[]);
                });
            }
            let kept = reservoir.drain().remove(0).1.remove(0);
            kept_first += u64::from(kept.trace_id[15] == 1);
        }
        // Expected 500; 6 standard deviations are 116.
        assert!((384..=616).contains(&kept_first), "{kept_first}");
    }
}
