//! What a store shows must not depend on where its points are: in memory, sealed, merged or opened again.

use super::*;
use crate::attributes::{Value, put_attribute};
use crate::columns::BytesColumn;
use crate::meter::Unmetered;
use crate::resource::{Interner, Resource, Scope};
use crate::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use crate::signal::SignalStore;
use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A matcher for one value of the name, or for everything.
struct Name(Option<String>);

impl LabelMatcher for Name {
    fn name(&self) -> &str {
        "__name__"
    }

    fn matches(&self, value: &str) -> bool {
        self.0.as_ref().is_none_or(|name| name == value)
    }

    fn literals(&self) -> Option<&[String]> {
        self.0.as_ref().map(std::slice::from_ref)
    }

    fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    let mut list = Vec::new();
    put_attribute(&mut list, key, Value::Str(value));
    list
}

/// One point of some series, before it is put into a batch.
#[derive(Debug, Clone)]
struct Sent {
    metric: usize,
    attribute: u8,
    time_ns: u64,
    start_ns: u64,
    flags: u32,
    value: PointValue,
    exemplars: Vec<MetricExemplar>,
}

/// The metrics of the tests: one of each kind, and deltas.
fn descs(interner: &Interner) -> Vec<Arc<MetricDesc>> {
    use MetricKind::{ExponentialHistogram, Gauge, Histogram, Prometheus, Sum, Summary};
    let resource =
        |name: &str| interner.resource(Resource::new(&attribute("service.name", name), "", 0));
    let scope = interner.scope(Scope::new("scope", "1", &[], "", 0));
    [
        ("gauge", Gauge, 0, "a"),
        ("counter", Sum, 2, "a"),
        ("delta.counter", Sum, 1, "b"),
        ("histogram", Histogram, 2, "a"),
        ("delta.histogram", Histogram, 1, "b"),
        ("exponential", ExponentialHistogram, 2, "a"),
        ("delta.exponential", ExponentialHistogram, 1, "b"),
        ("summary", Summary, 0, "a"),
        ("native", Prometheus, 0, "a"),
    ]
    .into_iter()
    .map(|(name, kind, temporality, service)| {
        Arc::new(MetricDesc {
            name: name.into(),
            description: "What it is.".into(),
            unit: "s".into(),
            kind,
            temporality,
            monotonic: kind == Sum,
            resource: resource(service),
            scope: scope.clone(),
        })
    })
    .collect()
}

fn batch(metrics: &[Arc<MetricDesc>], sent: &[Sent]) -> MetricBatch {
    let mut attributes = BytesColumn::default();
    let points = sent
        .iter()
        .map(|one| {
            let list = attribute("key", &one.attribute.to_string());
            attributes.push(&list);
            Point {
                metric: one.metric as u32,
                series_id: series_id(metrics[one.metric].id(), &list),
                time_ns: one.time_ns,
                start_ns: one.start_ns,
                flags: one.flags,
                value: one.value.clone(),
                exemplars: one.exemplars.clone(),
            }
        })
        .collect();
    MetricBatch { metrics: metrics.to_vec(), points, attributes, families: Vec::new() }
}

/// Everything a store shows: PromQL's view, exemplars and the table, as text, because a NaN equals itself there.
fn shown(store: &MetricStore) -> Vec<String> {
    let everything = Name(None);
    let mut out = Vec::new();
    for series in store
        .select(&[&everything], 0, i64::MAX, Read::Samples { starts: true }, &Unmetered)
        .unwrap()
    {
        let floats: Vec<(i64, u64)> =
            series.floats.iter().map(|(time, value)| (time, value.to_bits())).collect();
        let has_sample = |(time, _): &&(i64, i64)| {
            series.floats.times().contains(time)
                || series.histograms.iter().any(|(of_sample, _)| of_sample == time)
        };
        let starts: Vec<&(i64, i64)> = series.starts.iter().filter(has_sample).collect();
        out.push(format!("{:?} {floats:?} {:?} {:?}", series.labels, series.histograms, starts));
    }
    for series in store.exemplars(&[&everything], 0, i64::MAX, &Unmetered).unwrap() {
        out.push(format!("{:?} {:?}", series.labels, series.exemplars));
    }
    let columns: Vec<String> =
        table::schema().fields().iter().map(|field| field.name().clone()).collect();
    let batches = store.snapshot().record_batches(columns, store.key_types(), 0, u64::MAX);
    for batch in batches {
        let batch = batch.unwrap();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> =
                batch.columns().iter().map(|column| cell(&column.slice(row, 1))).collect();
            out.push(cells.join(" | "));
        }
    }
    out.sort();
    out
}

/// When there are samples in a store: label sets with times and with which of them say that there is no value any more.
fn present(store: &MetricStore, read: Read) -> Vec<String> {
    let found = store.select(&[&Name(None)], 0, i64::MAX, read, &Unmetered).unwrap();
    let shown = found.into_iter().map(|series| {
        let stale = |value: f64| value.to_bits() == STALE_BITS;
        let floats: Vec<(i64, bool)> =
            series.floats.iter().map(|(time, value)| (time, stale(value))).collect();
        format!("{:?} {floats:?} {:?}", series.labels, series.histograms)
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    shown
}

/// What each of some names shows in a part of the time, Unix ms.
fn part(store: &MetricStore, (start_ms, end_ms): (i64, i64)) -> Vec<String> {
    let names = ["gauge_seconds", "counter_seconds_total", "delta_counter_seconds_total"];
    let of_histograms = ["histogram_seconds_bucket", "histogram_seconds_sum"];
    let mut shown = Vec::new();
    for name in names.into_iter().chain(of_histograms).chain(["exponential_seconds"]) {
        let name = Name(Some(name.into()));
        let read = Read::Samples { starts: false };
        for series in store.select(&[&name], start_ms, end_ms, read, &Unmetered).unwrap() {
            let floats: Vec<(i64, u64)> =
                series.floats.iter().map(|(time, value)| (time, value.to_bits())).collect();
            shown.push(format!("{:?} {floats:?} {:?}", series.labels, series.histograms));
        }
    }
    shown.sort();
    shown
}

/// A part of the time in which the tests' points lie, most often a large one.
fn range_ms() -> impl Strategy<Value = (i64, i64)> {
    let hour_ms = (PARTITION_NS / 1_000_000) as i64;
    let edge = move || {
        prop_oneof![
            Just(0),
            Just(2 * hour_ms),
            (0..2i64, 0..5_000i64).prop_map(move |(hour, ms)| hour * hour_ms + ms),
        ]
    };
    (edge(), edge()).prop_map(|(one, other)| (one.min(other), one.max(other)))
}

/// The first line in which two answers differ.
fn unlike(got: &[String], expected: &[String]) -> Option<(String, String)> {
    let len = got.len().max(expected.len());
    let line = |list: &[String], at: usize| list.get(at).cloned().unwrap_or_default();
    (0..len).map(|at| (line(got, at), line(expected, at))).find(|(got, expected)| got != expected)
}

/// One value as text; times as numbers, because text needs a table of time zones.
fn cell(one: &ArrayRef) -> String {
    match one.data_type() {
        DataType::Timestamp(..) => format!("{:?}", cast(one, &DataType::Int64).unwrap()),
        _ => format!("{one:?}"),
    }
}

/// A store whose segments can be sealed, merged and opened again.
struct Bench {
    store: MetricStore,
    interner: Arc<Interner>,
    dir: SegmentDir,
    live: Vec<SegmentMeta>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let interner = Arc::new(Interner::default());
        Self {
            store: MetricStore::new(interner.clone(), naming::Naming::default()),
            interner,
            dir: SegmentDir::new(folder.path().join("segments"), 1).unwrap(),
            live: Vec::new(),
            _folder: folder,
        }
    }

    fn seal(&mut self) {
        self.store.freeze();
        let added = self.store.seal(&self.dir).unwrap();
        self.store.publish(&self.dir, &added, &[], true).unwrap();
        self.live.extend(added);
    }

    /// Merges all segments of each partition.
    fn compact(&mut self) {
        let mut partitions: BTreeMap<u64, Vec<SegmentMeta>> = BTreeMap::new();
        for meta in self.live.drain(..) {
            partitions.entry(meta.partition_ns).or_default().push(meta);
        }
        for inputs in partitions.into_values() {
            let added = self.store.compact(&self.dir, &inputs).unwrap();
            let rows = |metas: &[SegmentMeta]| metas.iter().map(|meta| meta.rows).sum::<u64>();
            assert_eq!(rows(&added), rows(&inputs), "merging loses no row");
            self.store.publish(&self.dir, &added, &inputs, false).unwrap();
            self.live.extend(added);
        }
    }

    fn reopen(&mut self) {
        self.store = MetricStore::new(self.interner.clone(), naming::Naming::default());
        // From here on the second answer comes from columns that the first one left.
        self.store.keep(1 << 20);
        assert!(self.store.open(&self.dir, &self.live).is_empty());
    }
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::from_bits(STALE_BITS)),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-0.0),
        -5.0..5.0f64,
        (0..100i32).prop_map(f64::from),
    ]
}

fn value(metric: usize) -> BoxedStrategy<PointValue> {
    let counts = prop::collection::vec(0u64..1 << 40, 0..5);
    match metric {
        0..=2 => prop_oneof![
            float().prop_map(PointValue::Double),
            any::<i64>().prop_map(PointValue::Int)
        ]
        .boxed(),
        // Bounds may change within a series.
        3 | 4 => (prop::collection::vec(0u64..1 << 40, 0..4), prop::option::of(float()), 1u8..3)
            .prop_map(|(counts, sum, factor)| {
                let bounds = (1..counts.len()).map(|i| f64::from(factor) * i as f64).collect();
                let count = counts.iter().sum();
                PointValue::Histogram(Box::new(HistogramPoint {
                    count,
                    sum,
                    min: sum,
                    max: None,
                    bounds,
                    counts,
                    totals: None,
                }))
            })
            .boxed(),
        5 | 6 => (counts.clone(), counts, -6..12i32, prop::option::of(float()), 0u64..5)
            .prop_map(|(positive, negative, scale, sum, zero_count)| {
                PointValue::Exponential(Box::new(ExponentialPoint {
                    count: positive.iter().chain(&negative).sum::<u64>() + zero_count,
                    sum,
                    scale,
                    zero_count,
                    positive_offset: -3,
                    positive,
                    negative,
                    ..ExponentialPoint::default()
                }))
            })
            .boxed(),
        7 => (any::<u64>(), float(), prop::collection::vec((0.0..1.0f64, float()), 0..3))
            .prop_map(|(count, sum, quantiles)| {
                let quantiles = quantiles
                    .into_iter()
                    .map(|(quantile, value)| Quantile { quantile, value })
                    .collect();
                PointValue::Summary(Box::new(SummaryPoint { count, sum, quantiles }))
            })
            .boxed(),
        _ => (float(), prop::collection::vec((-9..9i32, 0.5..9.0f64), 0..4))
            .prop_map(|(sum, mut positive)| {
                positive.sort_by_key(|(index, _)| *index);
                positive.dedup_by_key(|(index, _)| *index);
                let native = NativeHistogram { sum, positive, schema: 3, ..Default::default() };
                PointValue::Native(Box::new(native))
            })
            .boxed(),
    }
}

fn exemplar() -> impl Strategy<Value = MetricExemplar> {
    (0u64..3, float(), any::<bool>()).prop_map(|(time, value, traced)| MetricExemplar {
        time_ns: time * 1_000_000,
        value,
        is_int: false,
        trace_id: if traced { vec![7; 16] } else { Vec::new() },
        span_id: if traced { vec![9; 8] } else { Vec::new() },
        attributes: attribute("user", "ann"),
    })
}

fn sent() -> impl Strategy<Value = Sent> {
    (0usize..9).prop_flat_map(|metric| {
        (
            Just(metric),
            0u8..3,
            (0u64..2, 0u64..5_000_000_000),
            prop_oneof![Just(0), 0u64..1_000_000],
            prop_oneof![9 => Just(0), 1 => Just(NO_RECORDED_VALUE)],
            value(metric),
            prop::collection::vec(exemplar(), 0..2),
        )
            .prop_map(
                |(metric, attribute, (hour, offset_ns), start_ns, flags, value, exemplars)| Sent {
                    metric,
                    attribute,
                    time_ns: hour * PARTITION_NS + offset_ns,
                    start_ns,
                    flags,
                    value,
                    exemplars,
                },
            )
    })
}

/// Of points at one millisecond which one shows depends on which came last; the tests leave that open.
fn once_per_time(sent: Vec<Sent>) -> Vec<Sent> {
    let mut seen = std::collections::HashSet::new();
    sent.into_iter()
        .filter(|s| seen.insert((s.metric, s.attribute, s.time_ns / 1_000_000)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hot_sealed_merged_and_reopened_show_the_same(
        requests in prop::collection::vec(prop::collection::vec(sent(), 0..12), 1..4),
        late in prop::collection::vec(sent(), 0..6),
        ranges in prop::collection::vec(range_ms(), 4),
    ) {
        let ends: Vec<usize> = requests
            .iter()
            .scan(0, |end, request| {
                *end += request.len();
                Some(*end)
            })
            .collect();
        let sent = requests.concat().len();
        let mut all = requests.concat();
        all.extend(late);
        let all = once_per_time(all);
        let (all, late) = all.split_at(sent.min(all.len()));
        let requests: Vec<&[Sent]> = ends
            .iter()
            .scan(0, |from, end| {
                let end = (*end).min(all.len());
                let start = std::mem::replace(from, end);
                Some(&all[start..end])
            })
            .collect();
        let mut bench = Bench::new();
        let hot = Bench::new();
        let (metrics, hot_metrics) = (descs(&bench.interner), descs(&hot.interner));
        for request in &requests {
            bench.store.insert(batch(&metrics, request));
            hot.store.insert(batch(&hot_metrics, request));
            bench.seal();
        }
        let expected = shown(&hot.store);
        prop_assert_eq!(unlike(&shown(&bench.store), &expected), None, "sealed");
        bench.compact();
        prop_assert_eq!(unlike(&shown(&bench.store), &expected), None, "merged");
        bench.reopen();
        prop_assert_eq!(unlike(&shown(&bench.store), &expected), None, "reopened");
        prop_assert_eq!(unlike(&shown(&bench.store), &expected), None, "from kept columns");
        let expected = present(&hot.store, Read::Samples { starts: false });
        let got = present(&bench.store, Read::Presence);
        prop_assert_eq!(unlike(&got, &expected), None, "presence alone");
        for range in &ranges {
            let (got, expected) = (part(&bench.store, *range), part(&hot.store, *range));
            prop_assert_eq!(unlike(&got, &expected), None, "{:?}", range);
        }
        // A store that was opened again does not know the running totals of deltas: in use, the log tells them.
        let late: Vec<Sent> = late.iter().filter(|s| matches!(s.metric, 0 | 1 | 3)).cloned().collect();
        bench.store.insert(batch(&metrics, &late));
        hot.store.insert(batch(&hot_metrics, &late));
        for range in &ranges {
            let (got, expected) = (part(&bench.store, *range), part(&hot.store, *range));
            prop_assert_eq!(unlike(&got, &expected), None, "{:?}, with fresh points", range);
        }
    }
}

fn gauge(value: f64, time_ms: u64) -> Sent {
    Sent {
        metric: 0,
        attribute: 0,
        time_ns: time_ms * 1_000_000,
        start_ns: 0,
        flags: 0,
        value: PointValue::Double(value),
        exemplars: Vec::new(),
    }
}

#[test]
fn late_samples_are_kept_and_the_same_sample_twice_is_one() {
    let mut bench = Bench::new();
    let metrics = descs(&bench.interner);
    let name = Name(Some("gauge_seconds".into()));
    let expected = vec![(1_000, 1.0), (2_000, 2.0), (3_000, 3.0)];
    bench.store.insert(batch(&metrics, &[gauge(3.0, 3_000), gauge(1.0, 1_000), gauge(3.0, 3_000)]));
    bench.seal();
    bench.store.insert(batch(&metrics, &[gauge(2.0, 2_000), gauge(1.0, 1_000)]));
    let floats = |store: &MetricStore| {
        let series =
            store.select(&[&name], 0, 10_000, Read::Samples { starts: true }, &Unmetered).unwrap();
        assert_eq!(series.len(), 1);
        series[0].floats.iter().collect::<Vec<_>>()
    };
    assert_eq!(floats(&bench.store), expected);
    bench.seal();
    assert_eq!(floats(&bench.store), expected);
    bench.compact();
    bench.reopen();
    assert_eq!(floats(&bench.store), expected);
}

#[test]
fn family_metadata_survives_a_seal_without_points_and_a_restart() {
    let mut bench = Bench::new();
    let metrics = descs(&bench.interner);
    let family = FamilyMetadata {
        family: "up".into(),
        kind: "gauge".into(),
        unit: "".into(),
        help: "Whether it answers.".into(),
    };
    bench.store.insert(MetricBatch { families: vec![family], ..MetricBatch::default() });
    bench.seal();
    bench.store.insert(batch(&metrics, &[gauge(1.0, 1)]));
    bench.seal();
    bench.compact();
    bench.reopen();
    let metadata = bench.store.metadata().unwrap();
    assert!(metadata["up"].iter().any(|m| m.help == "Whether it answers."));
}
