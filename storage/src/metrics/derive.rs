//! From stored points to Prometheus series: parts of histograms and summaries, labels, samples.

use super::batch::{MetricExemplar, MetricKind, NO_RECORDED_VALUE, PointValue};
use super::gather::Gathering;
use super::index::is_derived;
use super::naming::float_label;
use super::native::{NativeHistogram, STALE_BITS};
use super::select::Matchers;
use super::series::{Label, Part, SeriesMeta};
use super::store::StoredPoint;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bounds of a histogram and, per bucket, the gathered series it goes to.
type BucketSlots = (Arc<[f64]>, Vec<Option<usize>>);

/// The series on which an exemplar shows: the first bucket whose bound is not below its value.
pub(super) fn exemplar_labels(
    meta: &SeriesMeta,
    point: &StoredPoint,
    exemplar: &MetricExemplar,
) -> Vec<Label> {
    match &point.value {
        PointValue::Histogram(h) => {
            let bound = h.bounds.iter().copied().find(|bound| exemplar.value <= *bound);
            let le = float_label(bound.unwrap_or(f64::INFINITY));
            let name = format!("{}_bucket", meta.family);
            with_labels(&meta.labels, &name, Some(("le", &le)))
        }
        _ => with_labels(&meta.labels, &meta.family, None),
    }
}

/// Adds `__name__` and perhaps a derived label, keeping the order.
pub(super) fn with_labels(labels: &[Label], name: &str, extra: Option<(&str, &str)>) -> Vec<Label> {
    let mut all: Vec<Label> = Vec::with_capacity(labels.len() + 2);
    all.push(("__name__".into(), name.into()));
    all.extend(labels.iter().cloned());
    if let Some((label, value)) = extra {
        all.retain(|(name, _)| &**name != label);
        all.push((label.into(), value.into()));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

pub(super) fn passes(matchers: &Matchers<'_>, labels: &[Label]) -> bool {
    matchers.iter().all(|matcher| {
        let value = labels
            .binary_search_by(|(name, _)| (**name).cmp(matcher.name()))
            .map_or("", |at| &labels[at].1);
        matcher.matches(value)
    })
}

/// Whether the labels of a series pass but for those that only its parts have.
fn base_passes(meta: &SeriesMeta, matchers: &Matchers<'_>) -> bool {
    matchers.iter().filter(|m| m.name() != "__name__" && !is_derived(m.name())).all(|m| {
        let at = meta.labels.binary_search_by(|(name, _)| (**name).cmp(m.name()));
        m.matches(at.map_or("", |at| &meta.labels[at].1))
    })
}

/// Parts of a series whose name passes.
fn parts(meta: &SeriesMeta, matchers: &Matchers<'_>) -> Vec<(String, Part)> {
    let mut names = meta.names();
    names.retain(|(name, _)| {
        matchers.iter().filter(|m| m.name() == "__name__").all(|matcher| matcher.matches(name))
    });
    names
}

/// Adds the label sets of one OTLP series that pass, without samples.
///
/// * `bounds`: of its histograms, where there are no points to take them from.
pub(super) fn derive_labels(
    meta: &SeriesMeta,
    bounds: &[f64],
    points: &[StoredPoint],
    matchers: &Matchers<'_>,
    out: &mut Gathering<'_>,
) {
    if !base_passes(meta, matchers) {
        return;
    }
    for (name, part) in parts(meta, matchers) {
        let mut values: BTreeSet<String> = BTreeSet::new();
        let label = match part {
            Part::Bucket => {
                let of_points = points.iter().filter_map(|point| match &point.value {
                    PointValue::Histogram(h) => Some(&*h.bounds),
                    _ => None,
                });
                let mut seen: Option<&[f64]> = None;
                for bounds in of_points.chain([bounds]) {
                    if seen.replace(bounds) != Some(bounds) {
                        values.extend(bounds.iter().map(|bound| float_label(*bound)));
                    }
                }
                values.insert(float_label(f64::INFINITY));
                Some("le")
            }
            Part::Quantile => {
                for point in points {
                    if let PointValue::Summary(summary) = &point.value {
                        let quantiles = summary.quantiles.iter();
                        values.extend(quantiles.map(|quantile| float_label(quantile.quantile)));
                    }
                }
                Some("quantile")
            }
            Part::Whole | Part::Count | Part::Sum => None,
        };
        let sets = match label {
            Some(label) => values
                .iter()
                .map(|value| with_labels(&meta.labels, &name, Some((label, value))))
                .collect(),
            None => vec![with_labels(&meta.labels, &name, None)],
        };
        for labels in sets {
            if passes(matchers, &labels) {
                out.slot(labels);
            }
        }
    }
}

/// Adds the Prometheus series of one OTLP series that pass.
pub(super) fn derive(
    meta: &SeriesMeta,
    points: &[StoredPoint],
    matchers: &Matchers<'_>,
    start_ms: i64,
    end_ms: i64,
    out: &mut Gathering<'_>,
) {
    // The base labels pass once for all parts; only derived labels differ.
    if !base_passes(meta, matchers) {
        return;
    }
    let in_range = |point: &&StoredPoint| {
        let time_ms = (point.time_ns / 1_000_000) as i64;
        time_ms >= start_ms && time_ms <= end_ms
    };
    for (name, part) in parts(meta, matchers) {
        match part {
            Part::Bucket => buckets(meta, points, &name, matchers, start_ms, &in_range, out),
            Part::Quantile => quantiles(meta, points, &name, matchers, &in_range, out),
            Part::Whole | Part::Count | Part::Sum => {
                let labels = with_labels(&meta.labels, &name, None);
                if !passes(matchers, &labels) {
                    continue;
                }
                let mut fresh = 0;
                let series = out.slot(labels);
                for point in points.iter().filter(in_range) {
                    let time_ms = (point.time_ns / 1_000_000) as i64;
                    if point.start_ns > 0 && meta.metric.kind == MetricKind::Prometheus {
                        fresh += 1;
                        series.starts.push((time_ms, (point.start_ns / 1_000_000) as i64));
                    }
                    match sample(point, part) {
                        Some(Sample::Float(value)) => {
                            fresh += 1;
                            series.zeros.extend(began(point, start_ms).map(|zero| (zero, time_ms)));
                            series.floats.push((time_ms, value));
                        }
                        Some(Sample::Histogram(h)) => {
                            fresh += h.samples();
                            series.histograms.push((time_ms, h));
                        }
                        None => {}
                    }
                }
                out.fresh += fresh;
            }
        }
    }
}

/// When the running total of a delta series began with this point, Unix ms: it was 0 then, so that the first delta
/// counts in `increase`.
fn began(point: &StoredPoint, start_ms: i64) -> Option<i64> {
    let first = match &point.value {
        PointValue::Double(value) => point.total? == *value,
        PointValue::Int(value) => point.total? == *value as f64,
        PointValue::Histogram(h) => h.totals.as_ref()?.count == h.count,
        _ => false,
    };
    // One millisecond shows one sample: a start in that of the point itself moves before it.
    let zero_ms = ((point.start_ns / 1_000_000) as i64).min((point.time_ns / 1_000_000) as i64 - 1);
    let told = point.start_ns > 0 && point.start_ns < point.time_ns;
    (first && told && zero_ms >= start_ms).then_some(zero_ms)
}

enum Sample {
    Float(f64),
    Histogram(NativeHistogram),
}

fn stale() -> f64 {
    f64::from_bits(STALE_BITS)
}

fn is_gone(point: &StoredPoint) -> bool {
    point.flags & NO_RECORDED_VALUE != 0
}

fn sample(point: &StoredPoint, part: Part) -> Option<Sample> {
    if is_gone(point) {
        return Some(match (&point.value, part) {
            (PointValue::Exponential(_) | PointValue::Native(_), _) => {
                Sample::Histogram(NativeHistogram::stale())
            }
            _ => Sample::Float(stale()),
        });
    }
    Some(match (&point.value, part) {
        (PointValue::Double(v), Part::Whole) => Sample::Float(point.total.unwrap_or(*v)),
        (PointValue::Int(v), Part::Whole) => Sample::Float(point.total.unwrap_or(*v as f64)),
        (PointValue::Exponential(p), Part::Whole) => Sample::Histogram(match &p.total {
            Some(total) => (**total).clone(),
            None => NativeHistogram::from_exponential(p)?,
        }),
        (PointValue::Native(h), Part::Whole) => Sample::Histogram((**h).clone()),
        (PointValue::Histogram(h), Part::Count) => {
            Sample::Float(h.totals.as_ref().map_or(h.count, |t| t.count) as f64)
        }
        (PointValue::Histogram(h), Part::Sum) => {
            let sum = h.sum?;
            Sample::Float(h.totals.as_ref().map_or(sum, |t| t.sum))
        }
        (PointValue::Summary(s), Part::Count) => Sample::Float(s.count as f64),
        (PointValue::Summary(s), Part::Sum) => Sample::Float(s.sum),
        _ => return None,
    })
}

fn buckets<'a>(
    meta: &SeriesMeta,
    points: &'a [StoredPoint],
    name: &str,
    matchers: &Matchers<'_>,
    start_ms: i64,
    in_range: &impl Fn(&&'a StoredPoint) -> bool,
    out: &mut Gathering<'_>,
) {
    // Bounds hardly ever change within a series: the labels of each are made once.
    let mut known: Option<BucketSlots> = None;
    for point in points.iter().filter(|p| in_range(p)) {
        let PointValue::Histogram(h) = &point.value else { continue };
        if known.as_ref().is_none_or(|(bounds, _)| bounds != &h.bounds) {
            let slots = h
                .bounds
                .iter()
                .copied()
                .chain([f64::INFINITY])
                .map(|bound| {
                    let labels = with_labels(&meta.labels, name, Some(("le", &float_label(bound))));
                    passes(matchers, &labels).then(|| out.place(labels))
                })
                .collect();
            known = Some((h.bounds.clone(), slots));
        }
        let Some((_, slots)) = &known else { continue };
        let time_ms = (point.time_ns / 1_000_000) as i64;
        let (counts, count) = match &h.totals {
            Some(totals) => (&totals.counts, totals.count),
            None => (&h.counts, h.count),
        };
        let mut below = 0;
        for (i, slot) in slots.iter().enumerate() {
            below += counts.get(i).copied().unwrap_or(0);
            let Some(slot) = slot else { continue };
            let last = i + 1 == slots.len();
            let value = if is_gone(point) {
                stale()
            } else if last {
                count as f64
            } else {
                below as f64
            };
            let series = &mut out.series[*slot];
            series.zeros.extend(began(point, start_ms).map(|zero| (zero, time_ms)));
            series.floats.push((time_ms, value));
            out.fresh += 1;
        }
    }
}

fn quantiles<'a>(
    meta: &SeriesMeta,
    points: &'a [StoredPoint],
    name: &str,
    matchers: &Matchers<'_>,
    in_range: &impl Fn(&&'a StoredPoint) -> bool,
    out: &mut Gathering<'_>,
) {
    for point in points.iter().filter(|p| in_range(p)) {
        let PointValue::Summary(summary) = &point.value else { continue };
        let time_ms = (point.time_ns / 1_000_000) as i64;
        for quantile in &summary.quantiles {
            let text = float_label(quantile.quantile);
            let labels = with_labels(&meta.labels, name, Some(("quantile", &text)));
            if passes(matchers, &labels) {
                let value = if is_gone(point) { stale() } else { quantile.value };
                out.slot(labels).floats.push((time_ms, value));
                out.fresh += 1;
            }
        }
    }
}
