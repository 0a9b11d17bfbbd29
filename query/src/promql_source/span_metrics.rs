//! `traces_spanmetrics_*` and `traces_service_graph_*`, computed from the cells of the RED store.
//!
//! Names and labels are those of Grafana Tempo's metrics generator, which Grafana's trace and service-graph views
//! read. Every span counts, before any sampling.

use super::counters::{Event, Window};
use super::{hex, store_error};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_promql::{
    Bucket, Budget, Exemplar, ExemplarSeries, Histogram, Labels, LabelsBuilder, MatchOp, Matcher,
    Metadata, SelectHints, Series, SourceError, TimeRange, matches_all, stale_marker,
};
use trefoil_storage::metrics::naming::float_label;
use trefoil_storage::red::sketch::bounds_of;
use trefoil_storage::red::{EDGE_CLIENT, EDGE_SERVER, RedCell, RedFilter, RedKey, RedStore};

/// Bounds of the classic histograms, seconds: those of Tempo's metrics generator.
const BOUNDS: [f64; 12] =
    [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096];

/// Classic buckets are refined while the samples of one select stay below this.
const BUCKET_SAMPLES: u64 = 2_000_000;

/// Resolution of native histograms: buckets 0.54% wide, so that a quantile is within 1%.
const SCHEMA: i32 = 7;

/// The coarsest resolution that many busy series may be brought down to.
const SCHEMA_LEAST: i32 = 3;

/// Native-histogram buckets of one select before the resolution goes down.
const NATIVE_BUCKETS: u64 = 8_000_000;

/// Width of the zero bucket, as of OTLP histograms.
const ZERO_THRESHOLD: f64 = 1e-128;

/// What one name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Count,
    /// Only what ended in an error.
    Failed,
    Bucket,
    Sum,
    Native,
}

/// Whose cells a name is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Spans,
    /// Calls between services, with the duration that the caller saw.
    Client,
    /// The same with the duration that the callee saw.
    Server,
}

struct Metric {
    name: &'static str,
    shape: Shape,
    subject: Subject,
}

const fn metric(name: &'static str, shape: Shape, subject: Subject) -> Metric {
    Metric { name, shape, subject }
}

const METRICS: [Metric; 15] = [
    metric("traces_spanmetrics_calls_total", Shape::Count, Subject::Spans),
    metric("traces_spanmetrics_latency", Shape::Native, Subject::Spans),
    metric("traces_spanmetrics_latency_bucket", Shape::Bucket, Subject::Spans),
    metric("traces_spanmetrics_latency_count", Shape::Count, Subject::Spans),
    metric("traces_spanmetrics_latency_sum", Shape::Sum, Subject::Spans),
    metric("traces_service_graph_request_total", Shape::Count, Subject::Server),
    metric("traces_service_graph_request_failed_total", Shape::Failed, Subject::Server),
    metric("traces_service_graph_request_server_seconds", Shape::Native, Subject::Server),
    metric("traces_service_graph_request_server_seconds_bucket", Shape::Bucket, Subject::Server),
    metric("traces_service_graph_request_server_seconds_count", Shape::Count, Subject::Server),
    metric("traces_service_graph_request_server_seconds_sum", Shape::Sum, Subject::Server),
    metric("traces_service_graph_request_client_seconds", Shape::Native, Subject::Client),
    metric("traces_service_graph_request_client_seconds_bucket", Shape::Bucket, Subject::Client),
    metric("traces_service_graph_request_client_seconds_count", Shape::Count, Subject::Client),
    metric("traces_service_graph_request_client_seconds_sum", Shape::Sum, Subject::Client),
];

/// Type, unit and help by family.
const METADATA: [(&str, &str, &str, &str); 6] = [
    ("traces_spanmetrics_calls_total", "counter", "", "Spans."),
    ("traces_spanmetrics_latency", "histogram", "seconds", "Duration of spans."),
    ("traces_service_graph_request_total", "counter", "", "Calls from one service to another."),
    ("traces_service_graph_request_failed_total", "counter", "", "Calls that ended in an error."),
    (
        "traces_service_graph_request_server_seconds",
        "histogram",
        "seconds",
        "Duration of calls between services as the callee saw it.",
    ),
    (
        "traces_service_graph_request_client_seconds",
        "histogram",
        "seconds",
        "Duration of calls between services as the caller saw it.",
    ),
];

/// The cells that become one series (or one histogram), by time.
type Groups = BTreeMap<Labels, Vec<RedCell>>;

/// Span metrics as of one moment.
pub(super) struct SpanMetrics<'a> {
    red: &'a RedStore,
    now_ns: u64,
}

impl<'a> SpanMetrics<'a> {
    pub(super) fn new(red: &'a RedStore, now_ns: u64) -> Self {
        Self { red, now_ns }
    }

    /// As [`SeriesSource::select`](trefoil_promql::SeriesSource::select).
    pub(super) fn select(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: &SelectHints,
        budget: &Budget,
    ) -> Result<Vec<Series>, SourceError> {
        let mut out = Vec::new();
        let window = Window::new(range.start_ms, range.end_ms, hints.range_ms, self.now_ns);
        for metric in named(matchers) {
            let groups = self.groups(metric, matchers, 0, window.end_ns())?;
            let from = out.len();
            match metric.shape {
                Shape::Bucket => buckets(&groups, &window, matchers, budget, &mut out)?,
                Shape::Native => natives(&groups, &window, budget, &mut out)?,
                shape => {
                    for (labels, cells) in groups {
                        let series = single(labels, &cells, shape, &window);
                        budget.take_read(series.sample_cost())?;
                        out.push(series);
                    }
                }
            }
            let mut at = 0;
            out.retain(|series| {
                at += 1;
                at <= from || !series.is_empty()
            });
        }
        Ok(out)
    }

    /// Label sets that may have a sample in the range. Buckets are listed with the bounds they always have.
    pub(super) fn labels(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<Labels>, SourceError> {
        let window = Window::new(range.start_ms, range.end_ms, 0, self.now_ns);
        let start_ns = range.start_ms.max(0).saturating_mul(1_000_000) as u64;
        let mut out = Vec::new();
        for metric in named(matchers) {
            for labels in self.groups(metric, matchers, start_ns, window.end_ns())?.into_keys() {
                if metric.shape == Shape::Bucket {
                    let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
                    out.extend(
                        bounds.map(|b| bucket(&labels, b)).filter(|l| matches_all(matchers, l)),
                    );
                } else {
                    out.push(labels);
                }
            }
        }
        Ok(out)
    }

    /// The families that there are cells for.
    pub(super) fn metadata(&self) -> Result<Vec<(&'static str, Metadata)>, SourceError> {
        let some = |subject: Subject| {
            self.cells(&RedFilter { kind: subject.kind(), ..RedFilter::default() }, 0, u64::MAX)
                .map(|cells| !cells.is_empty())
        };
        let (spans, edges) = (some(Subject::Spans)?, some(Subject::Server)?);
        Ok(METADATA
            .iter()
            .filter(|(family, ..)| if family.contains("graph") { edges } else { spans })
            .map(|(family, kind, unit, help)| {
                let (kind, unit, help) =
                    ((*kind).to_owned(), (*unit).to_owned(), (*help).to_owned());
                (*family, Metadata { kind, unit, help })
            })
            .collect())
    }

    /// Spans that stand for a latency, on the bucket that holds them or on the native histogram.
    pub(super) fn exemplars(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let window = Window::new(range.start_ms, range.end_ms, 0, self.now_ns);
        let start_ns = range.start_ms.max(0).saturating_mul(1_000_000) as u64;
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for metric in named(matchers) {
            let shown = matches!(metric.shape, Shape::Bucket | Shape::Native | Shape::Count);
            if !shown || metric.name.ends_with("_count") {
                continue;
            }
            for (labels, cells) in self.groups(metric, matchers, start_ns, window.end_ns())? {
                for exemplar in cells.iter().flat_map(|cell| &cell.exemplars) {
                    let time_ms = (exemplar.time_ns / 1_000_000) as i64;
                    if time_ms < range.start_ms || time_ms > range.end_ms {
                        continue;
                    }
                    let value = seconds(exemplar.duration_ns);
                    let labels = if metric.shape == Shape::Bucket {
                        let bound = BOUNDS.into_iter().find(|bound| value <= *bound);
                        bucket(&labels, bound.unwrap_or(f64::INFINITY))
                    } else {
                        labels.clone()
                    };
                    if matches_all(matchers, &labels) {
                        let ids = [
                            ("trace_id", hex(&exemplar.trace_id)),
                            ("span_id", hex(&exemplar.span_id)),
                        ];
                        let exemplar = Exemplar { labels: Labels::new(ids), value, time_ms };
                        found.entry(labels).or_default().push(exemplar);
                    }
                }
            }
        }
        Ok(found
            .into_iter()
            .map(|(labels, exemplars)| ExemplarSeries { labels, exemplars })
            .collect())
    }

    fn cells(
        &self,
        filter: &RedFilter,
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Vec<RedCell>, SourceError> {
        self.red.cells(filter, start_ns, end_ns).map_err(|error| store_error("span metrics", error))
    }

    /// Cells of a metric that pass all matchers but those on `le`, by label set and time.
    fn groups(
        &self,
        metric: &Metric,
        matchers: &[Matcher],
        start_ns: u64,
        end_ns: u64,
    ) -> Result<Groups, SourceError> {
        let equal = |label: &str| {
            matchers
                .iter()
                .find(|m| m.name() == label && m.op() == MatchOp::Equal)
                .map(|m| m.value().to_owned())
        };
        let [service, operation] = metric.subject.names();
        let filter = RedFilter {
            service: equal(service),
            operation: equal(operation),
            kind: metric.subject.kind(),
        };
        let base: Vec<&Matcher> =
            matchers.iter().filter(|m| metric.shape != Shape::Bucket || m.name() != "le").collect();
        let mut labels_of: FxHashMap<Arc<RedKey>, Option<Labels>> = FxHashMap::default();
        let mut groups: Groups = BTreeMap::new();
        for cell in self.cells(&filter, start_ns, end_ns)? {
            if metric.shape == Shape::Failed && cell.key.status != STATUS_ERROR {
                continue;
            }
            let labels = labels_of.entry(cell.key.clone()).or_insert_with(|| {
                let labels = metric.labels(&cell.key);
                base.iter().all(|m| m.matches_labels(&labels)).then_some(labels)
            });
            if let Some(labels) = labels {
                groups.entry(labels.clone()).or_default().push(cell);
            }
        }
        for cells in groups.values_mut() {
            cells.sort_by_key(|cell| (cell.time_ns, cell.width_ns));
            cells.dedup_by(|later, earlier| {
                let same = (later.time_ns, later.width_ns) == (earlier.time_ns, earlier.width_ns);
                if same {
                    earlier.merge(later);
                }
                same
            });
        }
        Ok(groups)
    }
}

const STATUS_ERROR: i32 = 2;

impl Subject {
    fn kind(self) -> Option<i32> {
        match self {
            Subject::Spans => None,
            Subject::Client => Some(EDGE_CLIENT),
            Subject::Server => Some(EDGE_SERVER),
        }
    }

    /// Labels under which the two names of a key show.
    fn names(self) -> [&'static str; 2] {
        match self {
            Subject::Spans => ["service", "span_name"],
            Subject::Client | Subject::Server => ["client", "server"],
        }
    }
}

impl Metric {
    fn labels(&self, key: &RedKey) -> Labels {
        let mut labels = LabelsBuilder::default();
        labels.set("__name__", self.name);
        let [first, second] = self.subject.names();
        labels.set(first, key.service.clone()).set(second, key.operation.clone());
        if self.subject == Subject::Spans {
            labels
                .set("span_kind", kind_name(key.kind))
                .set("status_code", status_name(key.status));
        }
        labels.build()
    }
}

/// Names of `SpanKind` and `StatusCode` as in the protocol's enums.
fn kind_name(kind: i32) -> &'static str {
    match kind {
        1 => "SPAN_KIND_INTERNAL",
        2 => "SPAN_KIND_SERVER",
        3 => "SPAN_KIND_CLIENT",
        4 => "SPAN_KIND_PRODUCER",
        5 => "SPAN_KIND_CONSUMER",
        _ => "SPAN_KIND_UNSPECIFIED",
    }
}

fn status_name(status: i32) -> &'static str {
    match status {
        1 => "STATUS_CODE_OK",
        STATUS_ERROR => "STATUS_CODE_ERROR",
        _ => "STATUS_CODE_UNSET",
    }
}

/// Metrics whose name passes.
fn named(matchers: &[Matcher]) -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(move |metric| {
        matchers.iter().filter(|m| m.name() == "__name__").all(|m| m.matches(metric.name))
    })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Part of a count that has come by a share of its cell: whole spans only.
fn part(count: f64, share: f64) -> f64 {
    if share < 1.0 { (count * share).floor() } else { count }
}

/// A series of one number per cell.
fn single(labels: Labels, cells: &[RedCell], shape: Shape, window: &Window) -> Series {
    let mut series = Series::new(labels);
    let (mut before, mut now) = (0.0, 0.0);
    window.tell(cells, |event| match event {
        Event::Grow { cell, share } => {
            now = before
                + match shape {
                    Shape::Sum => cell.sum_ns as f64 / 1e9 * share,
                    _ => part(cell.count() as f64, share),
                };
            if share >= 1.0 {
                before = now;
            }
        }
        Event::Sample(time_ms) => series.floats.push(time_ms, now),
        Event::Stale(time_ms) => series.floats.push(time_ms, stale_marker()),
    });
    series
}

fn bucket(labels: &Labels, bound: f64) -> Labels {
    let mut labels = labels.to_builder();
    labels.set("le", float_label(bound));
    labels.build()
}

/// Bounds that one select shows, ascending, seconds, `+Inf` included.
///
/// Those of [`BOUNDS`] always, and finer ones around what was measured while that stays affordable: a quantile of a
/// few series is then as sharp as from a native histogram. All series of a select have the same, so that they add up.
/// An equality on `le` names its bound itself, and any number may be asked.
fn bounds(groups: &Groups, window: &Window, matchers: &[Matcher]) -> Vec<f64> {
    let mut bounds: Vec<f64> = BOUNDS.to_vec();
    let mut asked = matchers.iter().filter(|m| m.name() == "le" && m.op() == MatchOp::Equal);
    if let Some(asked) = asked.next() {
        bounds = asked.value().parse().into_iter().collect();
    } else {
        let affordable = BUCKET_SAMPLES / (groups.len() as u64 * window.samples()).max(1);
        let mut measured: Vec<u32> = groups
            .values()
            .flatten()
            .flat_map(|cell| cell.sketch.buckets())
            .map(|(bucket, _)| *bucket)
            .collect();
        measured.sort_unstable();
        measured.dedup();
        for schema in (0..=SCHEMA).rev() {
            let mut indices: Vec<i32> = measured
                .iter()
                .map(|bucket| native_index(*bucket, schema))
                .flat_map(|index| [index - 1, index])
                .collect();
            indices.dedup();
            indices.sort_unstable();
            indices.dedup();
            if (indices.len() + BOUNDS.len()) as u64 <= affordable {
                let base = 2f64.powi(-schema);
                bounds.extend(indices.into_iter().map(|i| (f64::from(i) * base).exp2()));
                break;
            }
        }
    }
    bounds.push(f64::INFINITY);
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    bounds
}

/// Adds `_bucket` series.
fn buckets(
    groups: &Groups,
    window: &Window,
    matchers: &[Matcher],
    budget: &Budget,
    out: &mut Vec<Series>,
) -> Result<(), SourceError> {
    let bounds = bounds(groups, window, matchers);
    for (labels, cells) in groups {
        let mut series: Vec<Option<Series>> = bounds
            .iter()
            .map(|bound| bucket(labels, *bound))
            .map(|labels| matches_all(matchers, &labels).then(|| Series::new(labels)))
            .collect();
        budget.take_read(window.samples() * series.iter().flatten().count() as u64)?;
        let mut before = vec![0.0; bounds.len()];
        let mut now = before.clone();
        window.tell(cells, |event| match event {
            Event::Grow { cell, share } => {
                let mut counts = vec![0u64; bounds.len()];
                for (bucket, count) in cell.sketch.buckets() {
                    let value = seconds(bounds_of(*bucket).0);
                    let at = bounds.partition_point(|bound| *bound < value);
                    counts[at.min(bounds.len() - 1)] += count;
                }
                let mut below = 0;
                for (at, count) in counts.into_iter().enumerate() {
                    below += count;
                    now[at] = before[at] + part(below as f64, share);
                }
                if share >= 1.0 {
                    before.clone_from(&now);
                }
            }
            Event::Sample(time_ms) => {
                for (series, total) in series.iter_mut().zip(&now) {
                    if let Some(series) = series {
                        series.floats.push(time_ms, *total);
                    }
                }
            }
            Event::Stale(time_ms) => {
                for series in series.iter_mut().flatten() {
                    series.floats.push(time_ms, stale_marker());
                }
            }
        });
        out.extend(series.into_iter().flatten());
    }
    Ok(())
}

/// Index of the native bucket that holds the middle of an HDR bucket.
fn native_index(bucket: u32, schema: i32) -> i32 {
    let (low, high) = bounds_of(bucket);
    let value = (low as f64 + high as f64) / 2e9;
    // 1 ns is the least that is told from 0.
    (value.max(1e-9).log2() * f64::from(1 << schema)).ceil() as i32
}

/// Adds native histograms.
fn natives(
    groups: &Groups,
    window: &Window,
    budget: &Budget,
    out: &mut Vec<Series>,
) -> Result<(), SourceError> {
    let schema = native_schema(groups, window);
    for (labels, cells) in groups {
        let mut series = Series::new(labels.clone());
        let mut total = Running::default();
        let mut shown: Option<Arc<Histogram>> = None;
        let mut spent = Ok(());
        window.tell(cells, |event| match event {
            Event::Grow { cell, share } => {
                total.grow(cell, share, schema);
                shown = None;
            }
            Event::Sample(time_ms) if spent.is_ok() => {
                let histogram =
                    shown.get_or_insert_with(|| Arc::new(total.histogram(schema))).clone();
                spent = budget.take_read(histogram.cost());
                series.histograms.push(time_ms, histogram);
            }
            Event::Stale(time_ms) => {
                let gone = Histogram { schema, sum: stale_marker(), ..Histogram::default() };
                series.histograms.push(time_ms, Arc::new(gone));
            }
            Event::Sample(_) => {}
        });
        spent?;
        out.push(series);
    }
    Ok(())
}

/// The finest resolution whose histograms stay within [`NATIVE_BUCKETS`].
fn native_schema(groups: &Groups, window: &Window) -> i32 {
    (SCHEMA_LEAST..=SCHEMA)
        .rev()
        .find(|schema| {
            let buckets: u64 = groups
                .values()
                .map(|cells| {
                    let mut indices: Vec<i32> = cells
                        .iter()
                        .flat_map(|cell| cell.sketch.buckets())
                        .map(|(bucket, _)| native_index(*bucket, *schema))
                        .collect();
                    indices.sort_unstable();
                    indices.dedup();
                    indices.len() as u64
                })
                .sum();
            buckets.saturating_mul(window.samples()) <= NATIVE_BUCKETS
        })
        .unwrap_or(SCHEMA_LEAST)
}

/// Running counts of one native histogram.
#[derive(Default)]
struct Running {
    before: BTreeMap<i32, f64>,
    now: BTreeMap<i32, f64>,
    zero: (f64, f64),
    sum: (f64, f64),
}

impl Running {
    fn grow(&mut self, cell: &RedCell, share: f64, schema: i32) {
        let mut counts: BTreeMap<i32, f64> = BTreeMap::new();
        let mut zero = 0.0;
        for (bucket, count) in cell.sketch.buckets() {
            if bounds_of(*bucket).1 == 0 {
                zero += *count as f64;
            } else {
                *counts.entry(native_index(*bucket, schema)).or_default() += *count as f64;
            }
        }
        for (index, count) in counts {
            let before = self.before.get(&index).copied().unwrap_or(0.0);
            self.now.insert(index, before + part(count, share));
        }
        self.zero.1 = self.zero.0 + part(zero, share);
        self.sum.1 = self.sum.0 + cell.sum_ns as f64 / 1e9 * share;
        if share >= 1.0 {
            self.before.clone_from(&self.now);
            self.zero.0 = self.zero.1;
            self.sum.0 = self.sum.1;
        }
    }

    fn histogram(&self, schema: i32) -> Histogram {
        let positive: Vec<Bucket> = self
            .now
            .iter()
            .filter(|(_, count)| **count > 0.0)
            .map(|(index, count)| Bucket { index: *index, count: *count })
            .collect();
        Histogram {
            schema,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.zero.1,
            count: positive.iter().map(|bucket| bucket.count).sum::<f64>() + self.zero.1,
            sum: self.sum.1,
            positive,
            ..Histogram::default()
        }
    }
}
