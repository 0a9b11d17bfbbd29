//! The span store gives the same answers whether rows are hot, frozen, sealed, merged or opened again.

use crate::decode::batch_of;
use crate::generate::{ARRIVAL_NS, request};
use crate::model::{Plain, PlainMap, PlainSpan, message, plain_map, plain_span, spans_of, text};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trefoil_storage::attributes;
use trefoil_storage::resource::Interner;
use trefoil_storage::segment::{SegmentDir, SegmentMeta};
use trefoil_storage::signal::SignalStore as _;
use trefoil_storage::spans::{SpanQuery, SpanStore, TraceStatus, TraceSummary, records, table};

/// A store in a folder of its own, and the segments that a manifest would list.
struct Bench {
    store: SpanStore,
    dir: SegmentDir,
    live: Vec<SegmentMeta>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: SpanStore::new(Arc::default()),
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

    /// Merges each partition into one segment.
    fn compact(&mut self) {
        let mut partitions: BTreeMap<u64, Vec<SegmentMeta>> = BTreeMap::new();
        for meta in &self.live {
            partitions.entry(meta.partition_ns).or_default().push(meta.clone());
        }
        for inputs in partitions.values() {
            let added = self.store.compact(&self.dir, inputs).unwrap();
            assert_eq!(added.len(), 1, "one partition in, one segment out");
            self.store.publish(&self.dir, &added, inputs, false).unwrap();
            self.live.retain(|meta| !inputs.contains(meta));
            self.live.extend(added);
        }
    }

    /// Forgets everything that is only in memory.
    fn reopen(&mut self) {
        self.store = SpanStore::new(Arc::default());
        let failed = self.store.open(&self.dir, &self.live);
        assert!(failed.is_empty(), "{failed:?}");
    }
}

/// What a query should find, worked out the plain way.
fn expected(spans: &[PlainSpan], query: &SpanQuery) -> Vec<TraceSummary> {
    let mut traces: BTreeMap<&[u8], Vec<&PlainSpan>> = BTreeMap::new();
    for span in spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    let fits = |span: &PlainSpan| {
        span.start_ns >= query.start_ns
            && span.start_ns <= query.end_ns
            && query.service.as_ref().is_none_or(|service| span.service() == service)
            && query.operation.as_ref().is_none_or(|operation| span.name == *operation)
            && query.min_duration_ns.is_none_or(|min| span.duration_ns() >= min)
            && query.max_duration_ns.is_none_or(|max| span.duration_ns() <= max)
            && query.attributes.iter().all(|(key, wanted)| {
                [&span.attributes, &span.resource.0]
                    .iter()
                    .any(|map| map.get(key).is_some_and(|value| text(value) == *wanted))
            })
    };
    let mut found: Vec<TraceSummary> = traces
        .into_iter()
        .filter(|(_, spans)| spans.iter().any(|span| fits(span)))
        .filter(|(_, spans)| {
            let failed = spans.iter().any(|span| span.status_code == 2);
            query.status.is_none_or(|status| failed == (status == TraceStatus::Error))
        })
        .map(|(id, spans)| {
            let start_ns = spans.iter().map(|s| s.start_ns).min().unwrap();
            let end_ns = spans.iter().map(|s| s.end_ns.max(s.start_ns)).max().unwrap();
            let root = spans
                .iter()
                .min_by_key(|s| (!s.parent_span_id.is_empty(), s.start_ns, s.service(), &s.name))
                .unwrap();
            let services: BTreeSet<String> = spans.iter().map(|s| s.service().to_owned()).collect();
            TraceSummary {
                trace_id: id.try_into().unwrap(),
                root_service: root.service().to_owned(),
                root_operation: root.name.clone(),
                start_ns,
                duration_ns: end_ns - start_ns,
                span_count: spans.len() as u64,
                error_count: spans.iter().filter(|s| s.status_code == 2).count() as u64,
                services: services.into_iter().collect(),
            }
        })
        .collect();
    found.sort_by_key(|t| (std::cmp::Reverse(t.start_ns), t.trace_id));
    found.truncate(query.limit);
    found
}

/// A query made of what some of the spans hold, so that most find something.
#[derive(Debug, Clone)]
struct Asked {
    sample: prop::sample::Index,
    service: bool,
    operation: bool,
    attribute: Option<prop::sample::Index>,
    durations: (bool, bool),
    status: Option<TraceStatus>,
    window: Option<(u64, u64)>,
    limit: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let hour = 3_600_000_000_000u64;
    (
        any::<prop::sample::Index>(),
        any::<(bool, bool)>(),
        any::<Option<prop::sample::Index>>(),
        any::<(bool, bool)>(),
        prop::option::of(prop_oneof![Just(TraceStatus::Error), Just(TraceStatus::Ok)]),
        prop::option::of((ARRIVAL_NS - 4 * hour..ARRIVAL_NS, 0..3 * hour)),
        1..9usize,
    )
        .prop_map(
            |(sample, (service, operation), attribute, durations, status, window, limit)| {
                let window = window.map(|(start, length)| (start, start + length));
                Asked { sample, service, operation, attribute, durations, status, window, limit }
            },
        )
}

impl Asked {
    fn query(&self, spans: &[PlainSpan]) -> SpanQuery {
        let (start_ns, end_ns) = self.window.unwrap_or((0, u64::MAX));
        let mut query = SpanQuery {
            service: None,
            operation: None,
            min_duration_ns: None,
            max_duration_ns: None,
            status: self.status,
            attributes: Vec::new(),
            start_ns,
            end_ns,
            limit: self.limit,
        };
        if spans.is_empty() {
            return query;
        }
        let span = self.sample.get(spans);
        query.service = self.service.then(|| span.service().to_owned());
        query.operation = self.operation.then(|| span.name.clone());
        query.min_duration_ns = self.durations.0.then(|| span.duration_ns());
        query.max_duration_ns = self.durations.1.then(|| span.duration_ns() + 1_000_000);
        let pairs: Vec<(&String, &Plain)> =
            span.attributes.iter().chain(&span.resource.0).collect();
        if let (Some(at), false) = (&self.attribute, pairs.is_empty()) {
            let (key, value) = at.get(&pairs);
            query.attributes.push(((*key).clone(), text(value)));
        }
        query
    }
}

/// One cell of a result, typed, JSON and times already taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Null,
    Text(String),
    Number(i64),
    Double(u64),
    Bool(bool),
    Map(PlainMap),
    Span(Vec<crate::model::PlainEvent>, Vec<crate::model::PlainLink>),
}

fn cell(batch: &RecordBatch, column: &str, row: usize) -> Cell {
    let array = batch.column_by_name(column).unwrap();
    if array.is_null(row) {
        return Cell::Null;
    }
    let json_map = |text: &str| {
        let object = serde_json::from_str(text).unwrap();
        let mut list = Vec::new();
        attributes::put_stored_json_object(&mut list, &object);
        plain_map(&list)
    };
    match (column, array.data_type()) {
        ("attributes" | "resource_attributes", DataType::Utf8) => {
            Cell::Map(json_map(array.as_string::<i32>().value(row)))
        }
        ("events", _) => Cell::Span(
            events(&records::events_from_json(array.as_string::<i32>().value(row))),
            vec![],
        ),
        ("links", _) => Cell::Span(
            vec![],
            links(&records::links_from_json(array.as_string::<i32>().value(row))),
        ),
        (_, DataType::Utf8) => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        (_, DataType::Int64) => Cell::Number(array.as_primitive::<Int64Type>().value(row)),
        (_, DataType::Float64) => {
            Cell::Double(array.as_primitive::<Float64Type>().value(row).to_bits())
        }
        (_, DataType::Boolean) => Cell::Bool(array.as_boolean().value(row)),
        (_, DataType::Timestamp(_, _)) => {
            Cell::Number(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
        (_, other) => panic!("column {column} has type {other}"),
    }
}

fn events(list: &[u8]) -> Vec<crate::model::PlainEvent> {
    records::events(list)
        .into_iter()
        .map(|event| crate::model::PlainEvent {
            time_ns: event.time_ns,
            name: event.name,
            attributes: plain_map(&event.attributes),
            dropped: event.dropped_attributes_count,
        })
        .collect()
}

fn links(list: &[u8]) -> Vec<crate::model::PlainLink> {
    records::links(list)
        .into_iter()
        .map(|link| crate::model::PlainLink {
            trace_id: link.trace_id,
            span_id: link.span_id,
            trace_state: link.trace_state,
            attributes: plain_map(&link.attributes),
            dropped: link.dropped_attributes_count,
            flags: link.flags,
        })
        .collect()
}

/// What a column of the table `spans` should say of a span.
fn expected_cell(span: &PlainSpan, column: &str, data_type: &DataType) -> Cell {
    let some = |text: &str| if text.is_empty() { Cell::Null } else { Cell::Text(text.to_owned()) };
    match column {
        "trace_id" => Cell::Text(records::hex(&span.trace_id)),
        "span_id" => Cell::Text(records::hex(&span.span_id)),
        "parent_span_id" => some(&records::hex(&span.parent_span_id)),
        "start_time" => Cell::Number(span.start_ns as i64),
        "end_time" => Cell::Number(span.end_ns as i64),
        "duration_ns" => Cell::Number(span.duration_ns() as i64),
        "service_name" => Cell::Text(span.service().to_owned()),
        "name" => Cell::Text(span.name.clone()),
        "kind" => Cell::Text(table::kind_name(span.kind)),
        "status_code" => Cell::Text(table::status_name(span.status_code)),
        "status_message" => some(&span.status_message),
        "scope_name" => Cell::Text(span.scope.0.clone()),
        "scope_version" => some(&span.scope.1),
        "attributes" => Cell::Map(span.attributes.clone()),
        "resource_attributes" => Cell::Map(span.resource.0.clone()),
        "events" if span.events.is_empty() => Cell::Null,
        "events" => Cell::Span(span.events.clone(), vec![]),
        "links" if span.links.is_empty() => Cell::Null,
        "links" => Cell::Span(vec![], span.links.clone()),
        "trace_state" => some(&span.trace_state),
        "flags" => Cell::Number(i64::from(span.flags)),
        key => match (data_type, span.attribute(key)) {
            (_, None) => Cell::Null,
            (DataType::Utf8, Some(value)) => Cell::Text(text(value)),
            (DataType::Int64, Some(Plain::Int(v))) => Cell::Number(*v),
            (DataType::Float64, Some(Plain::Double(v))) => Cell::Double(*v),
            (DataType::Boolean, Some(Plain::Bool(v))) => Cell::Bool(*v),
            (_, Some(_)) => Cell::Null,
        },
    }
}

/// Every read of the store against the plain list of spans.
fn check(bench: &Bench, spans: &[PlainSpan], queries: &[Asked]) -> Result<(), TestCaseError> {
    let snapshot = bench.store.snapshot();
    let mut ids: BTreeSet<Vec<u8>> = spans.iter().map(|s| s.trace_id.clone()).collect();
    ids.insert(vec![0xee; 16]);
    for id in &ids {
        let mut found: Vec<PlainSpan> =
            snapshot.trace(id[..].try_into().unwrap()).unwrap().iter().map(plain_span).collect();
        prop_assert!(found.is_sorted_by_key(|s| s.start_ns), "a trace comes by start");
        found.sort();
        let wanted: Vec<PlainSpan> = spans.iter().filter(|s| s.trace_id == *id).cloned().collect();
        prop_assert_eq!(found, wanted);
    }

    for asked in queries {
        let query = asked.query(spans);
        prop_assert_eq!(snapshot.search(&query).unwrap(), expected(spans, &query), "{:?}", query);
    }

    let services: BTreeSet<&str> = spans.iter().map(PlainSpan::service).collect();
    let known: Vec<Arc<str>> = bench.store.services();
    prop_assert_eq!(
        known.iter().map(|s| &**s).collect::<Vec<_>>(),
        Vec::from_iter(services.clone())
    );
    for service in services {
        let wanted: BTreeSet<(&str, i32)> =
            spans.iter().filter(|s| s.service() == service).map(|s| (&*s.name, s.kind)).collect();
        let known = bench.store.operations(service);
        prop_assert_eq!(
            known.iter().map(|(name, kind)| (&**name, *kind)).collect::<Vec<_>>(),
            Vec::from_iter(wanted)
        );
    }

    let keys = bench.store.key_types();
    let wanted: BTreeSet<&str> = spans
        .iter()
        .flat_map(|s| s.attributes.keys().chain(s.resource.0.keys()))
        .map(String::as_str)
        .collect();
    let known: BTreeSet<&str> = keys.0.keys().map(|key| &**key).collect();
    prop_assert_eq!(&known, &wanted, "keys of the table");
    let mut columns: Vec<String> =
        table::schema().fields().iter().map(|field| field.name().clone()).collect();
    columns.extend(known.iter().map(|key| (*key).to_owned()));
    columns.sort();
    columns.dedup();
    let mut found: Vec<Vec<Cell>> = Vec::new();
    let mut types: BTreeMap<String, DataType> = BTreeMap::new();
    for batch in snapshot.record_batches(columns.clone(), keys.clone(), 0, u64::MAX) {
        let batch = batch.unwrap();
        for field in batch.schema().fields() {
            types.insert(field.name().clone(), field.data_type().clone());
        }
        for row in 0..batch.num_rows() {
            found.push(columns.iter().map(|column| cell(&batch, column, row)).collect());
        }
    }
    let mut wanted: Vec<Vec<Cell>> = spans
        .iter()
        .map(|span| columns.iter().map(|c| expected_cell(span, c, &types[c])).collect())
        .collect();
    found.sort();
    wanted.sort();
    prop_assert_eq!(found, wanted, "columns {:?}", columns);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rows_out_are_rows_in_through_freeze_seal_compact_and_reopen(
        first in vec(request(), 1..4),
        second in vec(request(), 0..3),
        queries in vec(asked(), 1..6),
    ) {
        let mut bench = Bench::new();
        let interner = Interner::default();
        let mut spans: Vec<PlainSpan> = Vec::new();
        for request in &first {
            bench.store.insert(batch_of(request, &interner));
            spans.extend(spans_of(request));
        }
        spans.sort();
        check(&bench, &spans, &queries)?;
        bench.store.freeze();
        check(&bench, &spans, &queries)?;
        for request in &second {
            bench.store.insert(batch_of(request, &interner));
            spans.extend(spans_of(request));
        }
        spans.sort();
        check(&bench, &spans, &queries)?;
        // Seals what was frozen first, then the rest: segments beside hot rows, then only segments.
        bench.seal();
        check(&bench, &spans, &queries)?;
        bench.seal();
        check(&bench, &spans, &queries)?;
        prop_assert_eq!(bench.store.hot_bytes(), 0);
        let rows: u64 = bench.live.iter().map(|meta| meta.rows).sum();
        prop_assert_eq!(rows, spans.len() as u64);
        bench.reopen();
        check(&bench, &spans, &queries)?;
        bench.compact();
        check(&bench, &spans, &queries)?;
        bench.reopen();
        check(&bench, &spans, &queries)?;
    }
}

#[test]
fn values_survive_being_written_as_messages() {
    let map: PlainMap = [("k".to_owned(), Plain::List(vec![Plain::Empty, Plain::Int(1)]))].into();
    let bytes = message(&Plain::Map(map.clone()));
    assert_eq!(crate::model::plain(attributes::any_value(&bytes)), Plain::Map(map));
}
