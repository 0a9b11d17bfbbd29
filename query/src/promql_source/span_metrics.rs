//! `traces_spanmetrics_*` and `traces_service_graph_*`, computed from the cells of the RED store.
//!
//! Names and labels are those of Grafana Tempo's metrics generator, which Grafana's trace and service-graph views
//! read. Every span counts, before any sampling. Inside a cell that is wider than the distance of samples, counts grow
//! evenly and so are fractions: any part of it then has the percentiles of the whole.

use super::counters::{IDLE_NS, Window};
use super::hex;
use super::metered::store_error;
use super::shapes::{Shown, bucket, seconds};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use trefoil_promql::{
    Exemplar, ExemplarSeries, Labels, LabelsBuilder, MatchOp, Matcher, Metadata, SelectHints,
    Series, SourceError, TimeRange, matches_all,
};
use trefoil_storage::meter::{Meter, Unmetered};
use trefoil_storage::red::{
    EDGE_CLIENT, EDGE_SERVER, RedCell, RedFilter, RedKey, RedStore, RedTotal,
};

/// Bounds of the classic histograms, seconds: those of Tempo's metrics generator.
pub(super) const BOUNDS: [f64; 12] =
    [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096];

/// What one name shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
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

/// What becomes one series (or one histogram, or one set of buckets).
#[derive(Default)]
pub(super) struct Group {
    /// Sum of what came before the cells.
    pub base: Option<RedTotal>,
    /// By time, one per slot.
    pub cells: Vec<RedCell>,
}

pub(super) type Groups = BTreeMap<Labels, Group>;

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
        meter: &dyn Meter,
    ) -> Result<Vec<Series>, SourceError> {
        if hints.labels_only {
            let labels = self.labels(matchers, range, meter)?;
            return Ok(labels.into_iter().map(Series::new).collect());
        }
        let failed = |error| store_error("span metrics", error);
        let mut out = Vec::new();
        let window = Window::new(range.start_ms, range.end_ms, hints.range_ms, self.now_ns);
        for metric in named(matchers) {
            let groups = self.groups(metric, matchers, &window, meter).map_err(failed)?;
            let from = out.len();
            let shown = Shown::new(&groups, &window, meter);
            match metric.shape {
                Shape::Bucket => shown.buckets(matchers, &mut out),
                Shape::Native => shown.natives(&mut out),
                shape => shown.numbers(shape, &mut out),
            }
            .map_err(failed)?;
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
        meter: &dyn Meter,
    ) -> Result<Vec<Labels>, SourceError> {
        let window = Window::new(range.start_ms, range.end_ms, 0, self.now_ns);
        let mut out = Vec::new();
        for metric in named(matchers) {
            let filter = metric.filter(matchers);
            // A counter shows for a while after its last cell.
            let start_ns = start_ns(range).saturating_sub(IDLE_NS);
            let keys = self
                .red
                .keys(&filter, start_ns, window.end_ns(), meter)
                .map_err(|error| store_error("span metrics", error))?;
            let keys = keys.iter().filter(|key| metric.counts(key));
            let sets: BTreeSet<Labels> = keys.map(|key| metric.labels(key)).collect();
            for labels in sets.into_iter().filter(|labels| metric.passes(matchers, labels)) {
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
            let filter = RedFilter { kind: subject.kind(), ..RedFilter::default() };
            self.red
                .keys(&filter, 0, u64::MAX, &Unmetered)
                .map(|keys| !keys.is_empty())
                .map_err(|error| store_error("span metrics", error))
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
        meter: &dyn Meter,
    ) -> Result<Vec<ExemplarSeries>, SourceError> {
        let window = Window::new(range.start_ms, range.end_ms, 0, self.now_ns);
        let (start_ns, end_ns) = (start_ns(range), window.end_ns());
        let mut found: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        for metric in named(matchers) {
            let shown = matches!(metric.shape, Shape::Bucket | Shape::Native | Shape::Count);
            if !shown || metric.name.ends_with("_count") {
                continue;
            }
            let cells = self
                .red
                .metered_cells(&metric.filter(matchers), start_ns, end_ns, meter)
                .map_err(|error| store_error("span metrics", error))?;
            for cell in cells.iter().filter(|cell| metric.counts(&cell.key)) {
                let labels = metric.labels(&cell.key);
                for exemplar in &cell.exemplars {
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

    /// Cells of a metric that pass all matchers but those on `le`, by label set and time, and what came before them.
    fn groups(
        &self,
        metric: &Metric,
        matchers: &[Matcher],
        window: &Window,
        meter: &dyn Meter,
    ) -> io::Result<Groups> {
        let filter = metric.filter(matchers);
        let mut labels_of: FxHashMap<Arc<RedKey>, Option<Labels>> = FxHashMap::default();
        let mut labels_of = |key: &Arc<RedKey>| {
            let labels = labels_of.entry(key.clone()).or_insert_with(|| {
                let labels = metric.labels(key);
                (metric.counts(key) && metric.passes(matchers, &labels)).then_some(labels)
            });
            labels.clone()
        };
        let mut groups: Groups = BTreeMap::new();
        let boundary_ns = window.boundary_ns();
        let sketches = matches!(metric.shape, Shape::Bucket | Shape::Native);
        for (key, total) in self.red.totals(&filter, boundary_ns, sketches, meter)? {
            if let Some(labels) = labels_of(&key) {
                let group = groups.entry(labels).or_default();
                group.base.get_or_insert_default().merge(&total);
            }
        }
        for cell in self.red.metered_cells(&filter, boundary_ns, window.end_ns(), meter)? {
            if let Some(labels) = labels_of(&cell.key) {
                groups.entry(labels).or_default().cells.push(cell);
            }
        }
        for Group { cells, .. } in groups.values_mut() {
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

/// First moment of a range, Unix ns.
fn start_ns(range: TimeRange) -> u64 {
    range.start_ms.max(0).saturating_mul(1_000_000) as u64
}

const STATUS_ERROR: i32 = 2;

/// The service once more, under the name that OpenTelemetry's own span metrics (`spanmetrics` connector) give it.
const SERVICE_NAME: &str = "service_name";

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
    /// What of the store can pass the matchers.
    fn filter(&self, matchers: &[Matcher]) -> RedFilter {
        let equal = |label: &str| {
            let on_label = |m: &&Matcher| m.name() == label && m.op() == MatchOp::Equal;
            matchers.iter().find(on_label).map(|m| m.value().to_owned())
        };
        let [service, operation] = self.subject.names();
        let also = || (self.subject == Subject::Spans).then(|| equal(SERVICE_NAME)).flatten();
        RedFilter {
            service: equal(service).or_else(also),
            operation: equal(operation),
            kind: self.subject.kind(),
        }
    }

    /// Whether cells of a key are counted here.
    fn counts(&self, key: &RedKey) -> bool {
        self.shape != Shape::Failed || key.status == STATUS_ERROR
    }

    /// Whether labels, `le` not among them yet, pass all matchers but those on `le`.
    fn passes(&self, matchers: &[Matcher], labels: &Labels) -> bool {
        let bucket = self.shape == Shape::Bucket;
        matchers.iter().filter(|m| !bucket || m.name() != "le").all(|m| m.matches_labels(labels))
    }

    fn labels(&self, key: &RedKey) -> Labels {
        let mut labels = LabelsBuilder::default();
        labels.set("__name__", self.name);
        let [first, second] = self.subject.names();
        labels.set(first, key.service.clone()).set(second, key.operation.clone());
        if self.subject == Subject::Spans {
            labels
                .set(SERVICE_NAME, key.service.clone())
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
