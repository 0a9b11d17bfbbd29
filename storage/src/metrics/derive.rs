//! From stored points to Prometheus series: parts of histograms and summaries, labels, samples.

use super::batch::{HistogramPoint, MetricExemplar, NO_RECORDED_VALUE, PointValue};
use super::gather::Gathering;
use super::native::{NativeHistogram, STALE_BITS};
use super::select::{Asked, Matchers};
use super::series::{Label, Part, SeriesMeta};
use super::shown::{Extra, Judge, LabelSet, Shown, base_passes, part_passes, with_labels};
use super::store::StoredPoint;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The series on which an exemplar shows: the first bucket whose bound is not below its value.
pub(super) fn exemplar_labels(
    meta: &SeriesMeta,
    point: &StoredPoint,
    exemplar: &MetricExemplar,
) -> Vec<Label> {
    match &point.value {
        PointValue::Histogram(h) => {
            let bound = h.bounds.iter().copied().find(|bound| exemplar.value <= *bound);
            let le = Extra::le(bound.unwrap_or(f64::INFINITY));
            let name = Extra::name(&format!("{}_bucket", meta.family));
            with_labels(&meta.labels, &name, Some(&le))
        }
        _ => with_labels(&meta.labels, &Extra::name(&meta.family), None),
    }
}

pub(super) fn passes(matchers: &Matchers<'_>, labels: &[Label]) -> bool {
    matchers.iter().all(|matcher| {
        let value = labels
            .binary_search_by(|(name, _)| (**name).cmp(matcher.name()))
            .map_or("", |at| &labels[at].1);
        matcher.matches(value)
    })
}

/// Adds the label sets of one OTLP series that pass, without samples.
///
/// * `bounds`: of its histograms, where there are no points to take them from.
pub(super) fn derive_labels(
    meta: &SeriesMeta,
    bounds: &Arc<[f64]>,
    points: &[StoredPoint],
    matchers: &Matchers<'_>,
    judge: &mut Judge<'_>,
    out: &mut Gathering<'_>,
) {
    if !base_passes(meta, matchers) {
        return;
    }
    for Shown { name, part } in judge.names(meta).iter() {
        if !part_passes(meta, *part, matchers) {
            continue;
        }
        match part {
            Part::Bucket => {
                let of_points = points.iter().filter_map(|point| match &point.value {
                    PointValue::Histogram(h) => Some(&h.bounds),
                    _ => None,
                });
                let mut seen: Option<&Arc<[f64]>> = None;
                for bounds in of_points.chain([bounds]) {
                    if seen.replace(bounds) == Some(bounds) {
                        continue;
                    }
                    let buckets = judge.buckets(bounds);
                    for number in &buckets.order {
                        out.slot(LabelSet::of(meta, name, buckets.les[*number].as_ref()));
                    }
                }
            }
            Part::Quantile => {
                let quantiles = points.iter().flat_map(|point| match &point.value {
                    PointValue::Summary(summary) => &summary.quantiles[..],
                    _ => &[],
                });
                let known: BTreeMap<u64, f64> =
                    quantiles.map(|q| (q.quantile.to_bits(), q.quantile)).collect();
                for quantile in known.into_values().map(Extra::quantile) {
                    if judge.quantile(&quantile) {
                        out.slot(LabelSet::of(meta, name, Some(&quantile)));
                    }
                }
            }
            Part::Whole | Part::Count | Part::Sum => {
                out.slot(LabelSet::of(meta, name, None));
            }
        }
    }
}

/// Adds the Prometheus series of one OTLP series that pass.
pub(super) fn derive(
    meta: &SeriesMeta,
    points: &[StoredPoint],
    asked: &Asked<'_>,
    judge: &mut Judge<'_>,
    out: &mut Gathering<'_>,
) {
    let matchers = asked.matchers_of(meta);
    // The base labels pass once for all parts; only derived labels differ.
    if !base_passes(meta, matchers) {
        return;
    }
    let inside: Vec<&StoredPoint> =
        points.iter().filter(|point| asked.holds(time_ms(point))).collect();
    let tell = asked.read.starts_of(meta);
    let known = if tell { starts(inside.iter().copied()) } else { Vec::new() };
    for Shown { name, part } in judge.names(meta).iter() {
        if !part_passes(meta, *part, matchers) {
            continue;
        }
        match part {
            Part::Bucket => {
                buckets(meta, &inside, name, asked.start_ms, tell, judge, out);
            }
            Part::Quantile => quantiles(meta, &inside, name, &known, judge, out),
            Part::Whole | Part::Count | Part::Sum => {
                let at = out.place(LabelSet::of(meta, name, None));
                out.begin(at, &known);
                whole(&inside, *part, asked.start_ms, at, out);
            }
        }
    }
}

/// Times of points with when the counter behind them began, Unix ms, as far as that is known.
fn starts<'p>(points: impl Iterator<Item = &'p StoredPoint>) -> Vec<(i64, i64)> {
    let known = points.filter(|point| point.start_ns > 0);
    known.map(|point| (time_ms(point), (point.start_ns / 1_000_000) as i64)).collect()
}

fn time_ms(point: &StoredPoint) -> i64 {
    (point.time_ns / 1_000_000) as i64
}

/// Adds the samples of a part that has neither buckets nor quantiles.
fn whole(inside: &[&StoredPoint], part: Part, start_ms: i64, at: usize, out: &mut Gathering<'_>) {
    let (mut times, mut values) = (Vec::with_capacity(inside.len()), Vec::new());
    values.reserve_exact(inside.len());
    let (mut fresh, series) = (inside.len() as u64, &mut out.all.series[at]);
    for point in inside {
        let time_ms = time_ms(point);
        match sample(point, part) {
            Some(Sample::Float(value)) => {
                series.zeros.extend(began(point, start_ms).map(|zero| (zero, time_ms)));
                times.push(time_ms);
                values.push(value);
            }
            Some(Sample::Histogram(h)) => {
                fresh += h.samples();
                series.histograms.push((time_ms, h));
            }
            None => {}
        }
    }
    out.fresh += fresh;
    out.add(at, &Arc::new(times), values);
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

pub(super) fn stale() -> f64 {
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

/// Adds the samples of the buckets that pass.
fn buckets(
    meta: &SeriesMeta,
    inside: &[&StoredPoint],
    name: &Extra,
    start_ms: i64,
    tell_starts: bool,
    judge: &mut Judge<'_>,
    out: &mut Gathering<'_>,
) {
    let histograms = inside.iter().filter_map(|point| match &point.value {
        PointValue::Histogram(h) => Some((*point, &**h)),
        _ => None,
    });
    let histograms: Vec<(&StoredPoint, &HistogramPoint)> = histograms.collect();
    // Bounds hardly ever change within a series: the labels of each are made once.
    for run in histograms.chunk_by(|(_, a), (_, b)| a.bounds == b.bounds) {
        let buckets = judge.buckets(&run[0].1.bounds);
        let times = Arc::new(run.iter().map(|(point, _)| time_ms(point)).collect::<Vec<i64>>());
        let mut columns: Vec<Vec<f64>> = vec![Vec::new(); buckets.les.len()];
        for number in &buckets.order {
            columns[*number].reserve_exact(run.len());
        }
        out.fresh += (run.len() * buckets.order.len()) as u64;
        for (point, h) in run {
            let (counts, count) = match &h.totals {
                Some(totals) => (&totals.counts, totals.count),
                None => (&h.counts, h.count),
            };
            let mut below = 0;
            for (number, column) in columns.iter_mut().enumerate() {
                below += counts.get(number).copied().unwrap_or(0);
                if buckets.les[number].is_none() {
                    continue;
                }
                let last = number + 1 == buckets.les.len();
                column.push(match (is_gone(point), last) {
                    (true, _) => stale(),
                    (false, true) => count as f64,
                    (false, false) => below as f64,
                });
            }
        }
        let zeros: Vec<(i64, i64)> = run
            .iter()
            .filter_map(|(point, _)| Some((began(point, start_ms)?, time_ms(point))))
            .collect();
        let points = run.iter().map(|(point, _)| *point);
        let known = if tell_starts { starts(points) } else { Vec::new() };
        for number in &buckets.order {
            let at = out.place(LabelSet::of(meta, name, buckets.les[*number].as_ref()));
            out.all.series[at].zeros.extend_from_slice(&zeros);
            out.begin(at, &known);
            out.add(at, &times, std::mem::take(&mut columns[*number]));
        }
    }
}

/// Adds the samples of the quantiles that pass.
fn quantiles(
    meta: &SeriesMeta,
    inside: &[&StoredPoint],
    name: &Extra,
    starts: &[(i64, i64)],
    judge: &Judge<'_>,
    out: &mut Gathering<'_>,
) {
    let mut columns: BTreeMap<u64, (Vec<i64>, Vec<f64>)> = BTreeMap::new();
    for point in inside {
        let PointValue::Summary(summary) = &point.value else { continue };
        for quantile in &summary.quantiles {
            let value = if is_gone(point) { stale() } else { quantile.value };
            let (times, values) = columns.entry(quantile.quantile.to_bits()).or_default();
            times.push(time_ms(point));
            values.push(value);
        }
    }
    for (quantile, (times, values)) in columns {
        let quantile = Extra::quantile(f64::from_bits(quantile));
        if judge.quantile(&quantile) {
            out.fresh += values.len() as u64;
            let at = out.place(LabelSet::of(meta, name, Some(&quantile)));
            out.begin(at, starts);
            out.add(at, &Arc::new(times), values);
        }
    }
}
