//! Exemplars by series and by trace.

use super::batch::MetricExemplar;
use super::derive::{exemplar_labels, passes};
use super::replicas;
use super::select::{Matchers, Seen, Visit, range_ns};
use super::series::{Label, SeriesMeta};
use super::store::{MetricStore, StoredPoint};
use crate::meter::{Meter, Unmetered};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Exemplars of one Prometheus series.
#[derive(Debug, Clone)]
pub struct PromExemplars {
    pub labels: Vec<Label>,
    pub exemplars: Vec<MetricExemplar>,
}

/// An exemplar comes with the next point of its series, which is sent at most about this much later.
const EXEMPLAR_AFTER_MS: i64 = 300_000;

/// Memory of an exemplar in samples: its ids, labels and value.
const EXEMPLAR_SAMPLES: u64 = 12;

impl MetricStore {
    /// Exemplars of series that pass all matchers. Histograms show theirs on the bucket that holds the value.
    pub fn exemplars(
        &self,
        matchers: &Matchers<'_>,
        start_ms: i64,
        end_ms: i64,
        meter: &dyn Meter,
    ) -> io::Result<Vec<PromExemplars>> {
        let (start_ns, end_ns) = range_ns(start_ms, end_ms);
        let mut found: BTreeMap<Vec<Label>, Vec<MetricExemplar>> = BTreeMap::new();
        let free = replicas::without_instance(matchers);
        let mut visit = |meta: &Arc<SeriesMeta>, _: Seen<'_>, points: &[StoredPoint]| {
            let matchers = if meta.nameless { &free[..] } else { matchers };
            let exemplars: usize = points.iter().map(|point| point.exemplars.len()).sum();
            meter.check()?;
            meter.samples(EXEMPLAR_SAMPLES * exemplars as u64)?;
            for point in points {
                for exemplar in &point.exemplars {
                    if exemplar.time_ns < start_ns || exemplar.time_ns > end_ns {
                        continue;
                    }
                    let labels = exemplar_labels(meta, point, exemplar);
                    if passes(matchers, &labels) {
                        found.entry(labels).or_default().push(exemplar.clone());
                    }
                }
            }
            Ok(())
        };
        let sent_ms = end_ms.saturating_add(EXEMPLAR_AFTER_MS);
        self.visit(matchers, start_ms, sent_ms, Visit::Exemplars, meter, &mut visit)?;
        Ok(found
            .into_iter()
            .map(|(labels, mut exemplars)| {
                let key = |e: &MetricExemplar| (e.time_ns, e.trace_id.clone(), e.value.to_bits());
                exemplars.sort_by_cached_key(key);
                // Cumulative senders repeat an exemplar with every export.
                exemplars.dedup_by(|a, b| key(a) == key(b) && a.attributes == b.attributes);
                PromExemplars { labels, exemplars }
            })
            .collect())
    }

    /// Exemplars with a trace ID, with the OTLP name of their metric.
    pub fn exemplars_of_trace(
        &self,
        trace_id: &[u8; 16],
        start_ns: u64,
        end_ns: u64,
    ) -> io::Result<Vec<PromExemplars>> {
        let mut found: BTreeMap<Vec<Label>, Vec<MetricExemplar>> = BTreeMap::new();
        let to_ms = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
        let (start_ms, end_ms) = (to_ms(start_ns), to_ms(end_ns));
        let mut visit = |meta: &Arc<SeriesMeta>, _: Seen<'_>, points: &[StoredPoint]| {
            for point in points {
                for exemplar in point.exemplars.iter().filter(|e| e.trace_id == trace_id) {
                    let of_series =
                        found.entry(exemplar_labels(meta, point, exemplar)).or_default();
                    if !of_series.contains(exemplar) {
                        of_series.push(exemplar.clone());
                    }
                }
            }
            Ok(())
        };
        self.visit(&[], start_ms, end_ms, Visit::Exemplars, &Unmetered, &mut visit)?;
        Ok(found
            .into_iter()
            .map(|(labels, exemplars)| PromExemplars { labels, exemplars })
            .collect())
    }
}
