//! The stores as PromQL sees them: the metric store's series, and span metrics derived from the RED store.

mod counters;
mod metered;
mod shapes;
mod span_metrics;

use self::metered::{By, Metered, store_error};
use self::span_metrics::SpanMetrics;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use trefoil_promql::histogram::mark_reset;
use trefoil_promql::{
    Bucket, Budget, Column, CounterResetHint, Exemplar, ExemplarSeries, Histogram, Labels, Matcher,
    Metadata, SelectHints, Series, SeriesSource, Shared, SourceError, SourceStats, TimeRange,
};
use trefoil_storage::attributes;
use trefoil_storage::metrics::{
    LabelMatcher, MetricExemplar, MetricStore, NativeHistogram, PromSeries, Read,
};
use trefoil_storage::red::RedStore;

/// Longest label set of an exemplar, in characters (OpenMetrics, "Exemplars").
const EXEMPLAR_CHARS_MAX: usize = 128;

/// Series of the stores. Cheap to clone; every call answers from what is visible then.
#[derive(Clone)]
pub struct PromSource {
    metrics: Arc<MetricStore>,
    red: Arc<RedStore>,
}

impl PromSource {
    pub fn new(metrics: Arc<MetricStore>, red: Arc<RedStore>) -> Self {
        Self { metrics, red }
    }

    fn spans(&self) -> SpanMetrics<'_> {
        SpanMetrics::new(&self.red, now_ns())
    }

    /// Label sets of one selector, each once.
    fn labels_of(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        budget: &Budget,
    ) -> Result<Vec<Labels>, SourceError> {
        let by = By::all(matchers, budget);
        let by: Vec<&dyn LabelMatcher> = by.iter().map(|m| m as &dyn LabelMatcher).collect();
        let meter = Metered::new(budget);
        let found = self
            .metrics
            .select(&by, range.start_ms, range.end_ms, Read::Labels, &meter)
            .map_err(|error| store_error("series labels", error))?;
        let mut labels: Vec<Labels> =
            found.into_iter().map(|series| Labels::sharing(series.labels)).collect();
        let of_spans = self.spans().labels(matchers, range, &meter)?;
        budget.take_series(of_spans.len() as u64)?;
        labels.extend(of_spans);
        Ok(labels)
    }

    /// Label sets of several selectors, each once; all series when there is no selector.
    fn union(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &Budget,
    ) -> Result<HashSet<Labels>, SourceError> {
        budget.check()?;
        let every = [Vec::new()];
        let selectors = if selectors.is_empty() { &every } else { selectors };
        let mut out = HashSet::new();
        for matchers in selectors {
            out.extend(self.labels_of(matchers, range, budget)?);
            budget.check()?;
        }
        Ok(out)
    }

    /// Adds to a list of label names or values what the metric store knows without label sets, if it does. Returns the
    /// label sets that are left to look at: those of span metrics, or all.
    ///
    /// * `known`: asks the metric store.
    fn unlisted(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &Budget,
        list: &mut BTreeSet<String>,
        known: impl Fn(&Metered<'_>) -> io::Result<Option<BTreeSet<Arc<str>>>>,
    ) -> Result<HashSet<Labels>, SourceError> {
        budget.check()?;
        let meter = Metered::new(budget);
        if selectors.is_empty()
            && let Some(known) = known(&meter).map_err(|error| store_error("labels", error))?
        {
            list.extend(known.iter().map(|text| text.as_ref().to_owned()));
            return Ok(self.spans().labels(&[], range, &meter)?.into_iter().collect());
        }
        self.union(selectors, range, budget)
    }
}

impl SeriesSource for PromSource {
    fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
        budget: &Budget,
    ) -> Result<Vec<Series>, SourceError> {
        if range.start_ms > range.end_ms {
            return Ok(Vec::new());
        }
        budget.check()?;
        let by = By::all(matchers, budget);
        let by: Vec<&dyn LabelMatcher> = by.iter().map(|m| m as &dyn LabelMatcher).collect();
        let meter = Metered::new(budget);
        let read = match hints {
            SelectHints { labels_only: true, .. } => Read::Labels,
            SelectHints { presence_only: true, .. } => Read::Presence,
            SelectHints { starts, .. } => Read::Samples { starts: *starts },
        };
        let found = self
            .metrics
            .select(&by, range.start_ms, range.end_ms, read, &meter)
            .map_err(|error| store_error("samples", error))?;
        budget.check()?;
        let mut out: Vec<Series> = found.into_iter().map(series_from).collect();
        let of_spans = self.spans().select(matchers, range, hints, &meter)?;
        budget.take_series(of_spans.len() as u64)?;
        out.extend(of_spans);
        meter.settle(&out)?;
        Ok(out)
    }

    fn series(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<Labels>, SourceError> {
        let mut found: Vec<Labels> = self.union(selectors, range, budget)?.into_iter().collect();
        found.sort();
        Ok(cut(found, limit))
    }

    fn label_names(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let known =
            |meter: &Metered<'_>| self.metrics.label_names(range.start_ms, range.end_ms, meter);
        for labels in self.unlisted(selectors, range, budget, &mut names, known)? {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(cut(names.into_iter().collect(), limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let mut values: BTreeSet<String> = BTreeSet::new();
        let known = |meter: &Metered<'_>| {
            self.metrics.label_values(name, range.start_ms, range.end_ms, meter)
        };
        for labels in self.unlisted(selectors, range, budget, &mut values, known)? {
            if let Some(value) = labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        }
        Ok(cut(values.into_iter().collect(), limit))
    }

    fn metadata(
        &self,
        family: Option<&str>,
    ) -> Result<BTreeMap<String, Vec<Metadata>>, SourceError> {
        let known = self.metrics.metadata().map_err(|error| store_error("metadata", error))?;
        let mut families: BTreeMap<String, Vec<Metadata>> = known
            .into_iter()
            .map(|(family, metadata)| {
                let metadata = metadata
                    .into_iter()
                    .map(|m| Metadata { kind: m.kind, unit: m.unit, help: m.help })
                    .collect();
                (family, metadata)
            })
            .collect();
        for (family, metadata) in self.spans().metadata()? {
            families.entry(family.to_owned()).or_default().push(metadata);
        }
        families.retain(|name, _| family.is_none_or(|family| family == name));
        Ok(families)
    }

    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
        budget: &Budget,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        let meter = Metered::new(budget);
        for matchers in selectors {
            budget.check()?;
            let by = By::all(matchers, budget);
            let by: Vec<&dyn LabelMatcher> = by.iter().map(|m| m as &dyn LabelMatcher).collect();
            let series = self
                .metrics
                .exemplars(&by, range.start_ms, range.end_ms, &meter)
                .map_err(|error| store_error("exemplars", error))?;
            for one in series {
                let exemplars = one.exemplars.iter().map(exemplar_from).collect();
                found.insert(Labels::from_sorted(one.labels), exemplars);
            }
            for one in self.spans().exemplars(matchers, range, &meter)? {
                found.insert(one.labels, one.exemplars);
            }
        }
        Ok(found
            .into_iter()
            .map(|(labels, mut exemplars)| {
                exemplars.sort_by_key(|exemplar| exemplar.time_ms);
                ExemplarSeries { labels, exemplars }
            })
            .collect())
    }

    fn stats(&self, limit: usize) -> Result<SourceStats, SourceError> {
        let budget = Budget::new(trefoil_promql::Limits::default());
        let all = self.union(&[], TimeRange::ALL, &budget)?;
        let mut by_metric: BTreeMap<&str, u64> = BTreeMap::new();
        let mut by_label: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for labels in &all {
            *by_metric.entry(labels.name()).or_default() += 1;
            for (name, value) in labels.iter() {
                by_label.entry(name).or_default().insert(value);
            }
        }
        let top = |mut list: Vec<(String, u64)>| {
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            list.truncate(limit);
            list
        };
        let label_pairs = by_label.values().map(|values| values.len() as u64).sum();
        Ok(SourceStats {
            series: all.len() as u64,
            label_pairs,
            times_ms: self.metrics.time_bounds_ms(),
            series_by_metric: top(by_metric.into_iter().map(|(n, c)| (n.into(), c)).collect()),
            values_by_label: top(by_label
                .into_iter()
                .map(|(n, values)| (n.into(), values.len() as u64))
                .collect()),
        })
    }
}

fn series_from(stored: PromSeries) -> Series {
    let labels = Labels::sharing(stored.labels);
    let (times, values, part) = stored.floats.into_shared();
    let (times, values) = (Shared::part(times, part.clone()), Shared::part(values, part));
    let mut histograms: Column<Arc<Histogram>> = Column::default();
    for (time_ms, histogram) in stored.histograms {
        let mut histogram = histogram_from(histogram);
        // A number in between ends the run.
        let before = histograms.values.last().zip(histograms.times.last()).filter(|(_, before)| {
            let next = times.partition_point(|time| time <= before);
            times.get(next).is_none_or(|time| *time >= time_ms)
        });
        mark_reset(before.map(|(histogram, _)| &**histogram), &mut histogram);
        histograms.push(time_ms, Arc::new(histogram));
    }
    let mut floats = Column { times, values, starts: Vec::new() };
    if !histograms.is_empty() {
        // A series that sends both kinds at one time is a mistake of its sender; the histogram says more.
        let alone = |time: &i64| histograms.times.binary_search(time).is_err();
        let samples = floats.times.iter().copied().zip(floats.values.iter().copied());
        let (times, values) = samples.filter(|(time, _)| alone(time)).unzip();
        (floats.times, floats.values) = (times, values);
    }
    floats.starts = starts_of(&floats.times, &stored.starts);
    histograms.starts = starts_of(&histograms.times, &stored.starts);
    Series { labels, floats, histograms }
}

/// The start of the counter at each sample, 0 = not known; empty if it is known of none.
fn starts_of(times: &[i64], known: &[(i64, i64)]) -> Vec<i64> {
    let start_at = |time: &i64| {
        let found = known.binary_search_by_key(time, |(time, _)| *time);
        found.map_or(0, |at| known[at].1)
    };
    let starts: Vec<i64> =
        if known.is_empty() { Vec::new() } else { times.iter().map(start_at).collect() };
    if starts.iter().all(|start| *start == 0) { Vec::new() } else { starts }
}

fn histogram_from(native: NativeHistogram) -> Histogram {
    let buckets = |list: Vec<(i32, f64)>| {
        list.into_iter().map(|(index, count)| Bucket { index, count }).collect()
    };
    Histogram {
        schema: native.schema,
        zero_threshold: native.zero_threshold,
        zero_count: native.zero_count,
        count: native.count,
        sum: native.sum,
        positive: buckets(native.positive),
        negative: buckets(native.negative),
        custom_values: (native.schema == trefoil_promql::histogram::CUSTOM_BUCKETS_SCHEMA)
            .then(|| native.custom_bounds.into()),
        reset_hint: match native.reset_hint {
            1 => CounterResetHint::CounterReset,
            2 => CounterResetHint::NotCounterReset,
            3 => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        },
    }
}

/// `trace_id`, `span_id`, then attributes while all stay within [`EXEMPLAR_CHARS_MAX`].
fn exemplar_from(exemplar: &MetricExemplar) -> Exemplar {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, id) in [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)] {
        if !id.is_empty() {
            pairs.push((name.to_owned(), hex(id)));
        }
    }
    let mut chars: usize = pairs.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
    for (key, value) in attributes::iter(&exemplar.attributes) {
        let Some(name) = trefoil_storage::metrics::naming::label_name(key) else { continue };
        let value = value.to_text();
        chars += name.chars().count() + value.chars().count();
        if chars > EXEMPLAR_CHARS_MAX {
            break;
        }
        pairs.push((name.into_owned(), value.into_owned()));
    }
    Exemplar {
        labels: Labels::new(pairs),
        value: exemplar.value,
        time_ms: (exemplar.time_ns / 1_000_000) as i64,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cut<T>(mut list: Vec<T>, limit: usize) -> Vec<T> {
    if limit > 0 {
        list.truncate(limit);
    }
    list
}

/// Unix time now, ns; 0 on a clock set before 1970.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
