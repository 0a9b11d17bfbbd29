//! One filter, one answer: hot rows, sealed segments and merged segments against a naive scan.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_storage::attributes::{Value, put_attribute};
use trefoil_storage::logs::severity::effective_class;
use trefoil_storage::logs::{
    Bound, By, Field, LogBatch, LogFields, LogFilter, LogQuery, LogRange, LogRow, LogSnapshot,
    LogStore, Order,
};
use trefoil_storage::resource::{Interner, Resource, Scope};
use trefoil_storage::segment::{PARTITION_NS, SegmentDir, SegmentMeta};
use trefoil_storage::signal::SignalStore;

/// A log record to be, small enough to shrink well.
#[derive(Debug, Clone)]
struct Log {
    body: String,
    body_is_number: bool,
    severity: i32,
    severity_text: &'static str,
    service: &'static str,
    trace: u8,
    attributes: Vec<(&'static str, Attr)>,
}

#[derive(Debug, Clone)]
enum Attr {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

fn log() -> impl Strategy<Value = Log> {
    let body = prop_oneof![
        6 => (0..50u32).prop_map(|n| format!("Payment failed: code {n}")),
        4 => (0..9u32, "[a-c]{1,2}").prop_map(|(n, w)| format!("GET /cart/{w}{n} took {n}ms")),
        2 => "[abAB1é ,-]{0,16}",
        1 => Just(String::new()),
    ];
    let attr = prop_oneof![
        "[a-c]{0,2}".prop_map(Attr::Text),
        (0..5i64).prop_map(Attr::Int),
        (0..5i32).prop_map(|v| Attr::Double(f64::from(v) / 2.0)),
        any::<bool>().prop_map(Attr::Bool),
    ];
    let key = prop_oneof![Just("k"), Just("http.route"), Just("odd\"key"), Just("region")];
    (
        (body, prop::bool::weighted(0.1)),
        prop_oneof![Just(0), Just(9), Just(17), Just(18)],
        prop_oneof![Just(""), Just("ERROR"), Just("warning"), Just("own")],
        prop_oneof![Just("cart"), Just("payment")],
        0..4u8,
        vec((key, attr), 0..3),
    )
        .prop_map(|(body, severity, severity_text, service, trace, attributes)| Log {
            body: body.0,
            body_is_number: body.1,
            severity,
            severity_text,
            service,
            trace,
            attributes,
        })
}

fn leaf() -> impl Strategy<Value = LogFilter> {
    let field = || {
        prop_oneof![
            Just("body"),
            Just("k"),
            Just("http.route"),
            Just("odd\"key"),
            Just("region"),
            Just("severity"),
            Just("service"),
            Just("trace_id"),
            Just("event_name"),
            Just("resource.region"),
        ]
        .prop_map(Field::named)
    };
    let word = || {
        prop_oneof![
            Just("payment"),
            Just("failed code"),
            Just("code 7"),
            Just("cart"),
            Just("took"),
            Just("3ms"),
            Just("a"),
            Just("é"),
            Just("b1"),
        ]
    };
    let value = || {
        prop_oneof![
            Just("1"),
            Just("2.0"),
            Just("a"),
            Just("true"),
            Just("error"),
            Just("own"),
            Just("cart"),
            Just("eu"),
            Just("03030303030303030303030303030303"),
        ]
    };
    let bound = move || {
        proptest::option::of(
            (value(), any::<bool>())
                .prop_map(|(v, inclusive)| Bound { value: v.into(), inclusive }),
        )
    };
    prop_oneof![
        Just(LogFilter::All),
        word().prop_map(|w| LogFilter::words(Field::Body, w)),
        word().prop_map(|w| LogFilter::prefix(Field::Body, w)),
        (field(), word()).prop_map(|(f, w)| LogFilter::words(f, w)),
        (field(), value()).prop_map(|(f, v)| LogFilter::equals(f, v)),
        (field(), bound(), bound()).prop_map(|(f, low, high)| LogFilter::range(f, low, high)),
        field().prop_map(LogFilter::Exists),
    ]
}

fn filter() -> impl Strategy<Value = LogFilter> {
    leaf().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(LogFilter::and),
            vec(inner.clone(), 1..4).prop_map(LogFilter::Or),
            inner.prop_map(|f| LogFilter::Not(Box::new(f))),
        ]
    })
}

fn batch(interner: &Interner, logs: &[Log], first_ns: u64, step_ns: u64) -> LogBatch {
    let mut batch = LogBatch::default();
    for (i, log) in logs.iter().enumerate() {
        let mut attributes = Vec::new();
        put_attribute(&mut attributes, "service.name", Value::Str(log.service));
        put_attribute(&mut attributes, "region", Value::Str("eu"));
        let resource = interner.resource(Resource::new(&attributes, "", 0));
        let scope = interner.scope(Scope::new("lib", "1", &[], "", 0));
        let row = LogFields {
            time_ns: first_ns + i as u64 * step_ns,
            observed_ns: if i % 3 == 0 { 0 } else { first_ns + 5 },
            trace_id: [log.trace; 16],
            span_id: [log.trace; 8],
            severity_number: log.severity,
            flags: i as u32,
            dropped_attributes_count: u32::from(log.trace),
            resource: batch.resource_index(&resource),
            scope: batch.scope_index(&scope),
        };
        for (key, value) in &log.attributes {
            let value = match value {
                Attr::Text(v) => Value::Str(v),
                Attr::Int(v) => Value::Int(*v),
                Attr::Double(v) => Value::Double(*v),
                Attr::Bool(v) => Value::Bool(*v),
            };
            put_attribute(batch.open_attributes(), key, value);
        }
        let body = if log.body_is_number {
            Value::Int(i64::from(log.trace))
        } else {
            Value::Str(&log.body)
        };
        batch.push_row(&row, body, log.severity_text, if log.trace == 1 { "checkout" } else { "" });
    }
    batch.finish();
    batch
}

/// Everything of a row that must survive, attributes in the order of their keys.
fn facts(row: &LogRow) -> String {
    let attributes = trefoil_storage::attributes::stored_json_object(&row.attributes);
    format!(
        "{} {} {} {} {:?} {:?} {:?} {:?} {} {} {} {} {} {:?}",
        row.time_ns,
        row.observed_ns,
        row.severity_number,
        row.severity_text,
        row.body,
        row.body_message,
        row.trace_id,
        row.span_id,
        row.flags,
        row.event_name,
        attributes,
        row.dropped_attributes_count,
        row.resource.id,
        row.scope.id,
    )
}

struct Answers {
    newest: Vec<String>,
    oldest: Vec<String>,
    count: u64,
    histogram: BTreeMap<(u64, String), u64>,
    by_key: BTreeMap<(u64, String), u64>,
}

fn ask(snapshot: &LogSnapshot, filter: &LogFilter, range: &LogRange, step_ns: u64) -> Answers {
    let search = |order, limit| {
        let query = LogQuery { filter: filter.clone(), range: range.clone(), limit, order };
        snapshot.search(&query).unwrap().iter().map(facts).collect::<Vec<_>>()
    };
    let histogram = |by| {
        let buckets = snapshot.histogram(filter, range, step_ns, &by).unwrap();
        buckets
            .into_iter()
            .flat_map(|b| b.counts.into_iter().map(move |(name, n)| ((b.start_ns, name), n)))
            .collect()
    };
    Answers {
        newest: search(Order::NewestFirst, 7),
        oldest: search(Order::OldestFirst, usize::MAX),
        count: snapshot.count(filter, range).unwrap(),
        histogram: histogram(By::Severity),
        by_key: histogram(By::Field(Field::named("k"))),
    }
}

fn check(
    snapshot: &LogSnapshot,
    all: &[LogBatch],
    filter: &LogFilter,
    range: &LogRange,
    step_ns: u64,
) {
    let mut naive: Vec<(u64, String)> = Vec::new();
    let mut steps: BTreeMap<(u64, String), u64> = BTreeMap::new();
    for batch in all {
        for row in 0..batch.len() {
            let time_ns = batch.rows[row].time_ns;
            if (range.start_ns..=range.end_ns).contains(&time_ns) && filter.matches(batch, row) {
                let log = batch.row(row);
                naive.push((time_ns, facts(&log)));
                let class = effective_class(log.severity_number, &log.severity_text).name();
                *steps.entry((time_ns - time_ns % step_ns, class.to_owned())).or_default() += 1;
            }
        }
    }
    naive.sort();
    let expected: Vec<String> = naive.iter().map(|(_, facts)| facts.clone()).collect();
    let got = ask(snapshot, filter, range, step_ns);
    assert_eq!(got.oldest, expected);
    assert_eq!(got.newest, expected.iter().rev().take(7).cloned().collect::<Vec<_>>());
    assert_eq!(got.count, expected.len() as u64);
    assert_eq!(got.histogram, steps);
    assert_eq!(got.by_key.values().sum::<u64>(), got.count);
}

fn seal(store: &LogStore, dir: &SegmentDir) -> Vec<SegmentMeta> {
    store.freeze();
    let metas = store.seal(dir).unwrap();
    store.publish(dir, &metas, &[], true).unwrap();
    metas
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn any_filter_finds_the_same_rows_hot_sealed_merged_and_reopened(
        first in vec(log(), 1..60),
        second in vec(log(), 1..60),
        filters in vec(filter(), 1..12),
        start in 0..60_000u64,
        len in 0..60_000u64,
        copies in prop_oneof![3 => Just(1usize), 1 => Just(80usize)],
        // Between logs, ns: all within a minute, or 80 copies over several.
        apart in prop_oneof![Just(10u64), Just(40_000_000)],
    ) {
        let interner = Arc::new(Interner::default());
        let base = 5 * PARTITION_NS;
        // Copies make segments of several blocks; the second batch overlaps the first in time.
        let repeat = |logs: &[Log]| logs.iter().cloned().cycle().take(logs.len() * copies).collect::<Vec<_>>();
        let (first, second) = (repeat(&first), repeat(&second));
        let all = || {
            let later = base + apart * 61 / 2;
            vec![batch(&interner, &first, base, apart), batch(&interner, &second, later, apart)]
        };
        let from = base + start * apart / 10;
        let ranges = [LogRange::ALL, LogRange::new(from, from + len * apart / 10)];
        let naive = all();
        let store = LogStore::new(interner.clone());
        let verify = |store: &LogStore| {
            for filter in &filters {
                for range in &ranges {
                    for step_ns in [apart * 100, 60_000_000_000] {
                        check(&store.snapshot(), &naive, filter, range, step_ns);
                    }
                }
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
        let mut metas = Vec::new();
        for batch in all() {
            store.insert(batch);
        }
        verify(&store);
        let split = LogStore::new(interner.clone());
        for batch in all() {
            split.insert(batch);
            metas.extend(seal(&split, &dir));
        }
        verify(&split);
        let merged = split.compact(&dir, &metas).unwrap();
        split.publish(&dir, &merged, &metas, false).unwrap();
        prop_assert_eq!(split.snapshot().count(&LogFilter::All, &LogRange::ALL).unwrap(), merged[0].rows);
        verify(&split);
        let reopened = LogStore::new(Arc::new(Interner::default()));
        prop_assert!(reopened.open(&dir, &merged).is_empty());
        verify(&reopened);
    }
}

#[test]
fn rows_of_several_hours_seal_into_a_segment_each() {
    let interner = Arc::new(Interner::default());
    let log = Log {
        body: "hello".into(),
        body_is_number: false,
        severity: 9,
        severity_text: "INFO",
        service: "cart",
        trace: 1,
        attributes: vec![],
    };
    let store = LogStore::new(interner.clone());
    store.insert(batch(&interner, &[log.clone(), log.clone(), log], 0, PARTITION_NS));
    let folder = tempfile::tempdir().unwrap();
    let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
    let metas = seal(&store, &dir);
    assert_eq!(metas.len(), 3);
    assert!(metas.iter().enumerate().all(|(i, meta)| meta.partition_ns == i as u64 * PARTITION_NS));
    assert_eq!(store.hot_bytes(), 0);
    assert_eq!(store.snapshot().count(&LogFilter::All, &LogRange::ALL).unwrap(), 3);
}

#[test]
fn a_truncated_sidecar_is_refused_at_open() {
    let interner = Arc::new(Interner::default());
    let store = LogStore::new(interner.clone());
    let logs: Vec<Log> = vec![];
    store.insert(batch(&interner, &logs, 0, 1));
    assert_eq!(store.hot_bytes(), 0);
    let log = Log {
        body: "x".into(),
        body_is_number: false,
        severity: 9,
        severity_text: "INFO",
        service: "cart",
        trace: 1,
        attributes: vec![],
    };
    store.insert(batch(&interner, &[log], 7, 1));
    let folder = tempfile::tempdir().unwrap();
    let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
    let metas = seal(&store, &dir);
    let path = dir.file_path(&metas[0], "blk");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let reopened = LogStore::new(interner);
    let failed = reopened.open(&dir, &metas);
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.to_string().contains("blk"), "{}", failed[0].1);
}
