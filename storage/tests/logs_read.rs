//! What log snapshots tell beside rows: fields, patterns, tables, live tail.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_storage::attributes::{Value, put_attribute};
use trefoil_storage::logs::{
    Field, LogBatch, LogFields, LogFilter, LogRange, LogSnapshot, LogStore, table,
};
use trefoil_storage::resource::{Interner, Resource, Scope};
use trefoil_storage::segment::{PARTITION_NS, SegmentDir};
use trefoil_storage::signal::SignalStore;

const BASE_NS: u64 = 100 * PARTITION_NS;

/// 300 records: every third has a trace, every tenth is an error, bodies of two patterns and one odd one.
fn batch(interner: &Interner) -> LogBatch {
    let mut attributes = Vec::new();
    put_attribute(&mut attributes, "service.name", Value::Str("payment"));
    put_attribute(&mut attributes, "host.name", Value::Str("h1"));
    let resource = interner.resource(Resource::new(&attributes, "", 0));
    let scope = interner.scope(Scope::new("lib", "1.0", &[], "", 0));
    let mut batch = LogBatch::default();
    for i in 0..300u64 {
        let row = LogFields {
            time_ns: BASE_NS + i * 1_000_000_000,
            observed_ns: if i % 2 == 0 { 0 } else { BASE_NS + i * 1_000_000_000 + 7 },
            trace_id: if i % 3 == 0 { [(i % 250) as u8 + 1; 16] } else { [0; 16] },
            span_id: if i % 3 == 0 { [2; 8] } else { [0; 8] },
            severity_number: if i % 10 == 0 { 17 } else { 9 },
            resource: batch.resource_index(&resource),
            scope: batch.scope_index(&scope),
            ..LogFields::default()
        };
        let open = batch.open_attributes();
        put_attribute(open, "http.status", Value::Int(200 + i as i64 % 2));
        if i == 5 {
            put_attribute(open, "rare", Value::Bool(true));
        }
        let body = match i {
            7 => "odd one".to_owned(),
            _ if i % 2 == 0 => format!("order {i} paid in {i}ms"),
            _ => format!("user \"u{i}\" asked for 10.0.0.{i}"),
        };
        batch.push_row(&row, Value::Str(&body), "", "");
    }
    batch.finish();
    batch
}

/// The same records hot and sealed.
fn both(test: impl Fn(&LogStore, LogSnapshot)) {
    let interner = Arc::new(Interner::default());
    let store = LogStore::new(interner.clone());
    store.insert(batch(&interner));
    test(&store, store.snapshot());
    let folder = tempfile::tempdir().unwrap();
    let dir = SegmentDir::new(folder.path().join("segments"), 1).unwrap();
    store.freeze();
    let metas = store.seal(&dir).unwrap();
    store.publish(&dir, &metas, &[], true).unwrap();
    test(&store, store.snapshot());
}

#[test]
fn patterns_have_exact_counts_and_a_sample() {
    both(|_, snapshot| {
        let patterns = snapshot.patterns(&LogFilter::All, &LogRange::ALL, 10).unwrap();
        let counts: Vec<(&str, u64)> =
            patterns.iter().map(|p| (p.pattern.as_str(), p.count)).collect();
        assert_eq!(
            counts,
            [("order <*> paid in <*>", 150), ("user \"<*>\" asked for <*>", 149), ("odd one", 1)]
        );
        assert!(patterns[0].sample.starts_with("order ") && patterns[0].sample.ends_with("ms"));
        let half = LogRange::new(BASE_NS, BASE_NS + 99 * 1_000_000_000);
        let patterns = snapshot.patterns(&LogFilter::All, &half, 1).unwrap();
        assert_eq!((patterns.len(), patterns[0].count), (1, 50));
    });
}

#[test]
fn fields_name_types_counts_and_top_values() {
    both(|_, snapshot| {
        let fields = snapshot.fields(&LogFilter::All, &LogRange::ALL).unwrap();
        let field = |name: &str| fields.iter().find(|field| field.name == name).unwrap().clone();
        let status = field("http.status");
        assert_eq!((status.kind, status.count), ("int", 300));
        assert_eq!(status.values, [("200".to_owned(), 150), ("201".to_owned(), 150)]);
        assert_eq!(field("severity").values[0], ("INFO".to_owned(), 270));
        assert_eq!(field("trace_id").count, 100);
        assert_eq!((field("rare").kind, field("rare").count), ("bool", 1));
        assert_eq!(field("resource.host.name").values, [("h1".to_owned(), 300)]);
    });
}

fn read(store: &LogStore, snapshot: &LogSnapshot, columns: &[&str]) -> Vec<RecordBatch> {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    snapshot
        .record_batches(columns, store.key_types(), 0, u64::MAX)
        .collect::<std::io::Result<Vec<_>>>()
        .unwrap()
}

#[test]
fn every_column_of_the_schema_has_its_type_and_values() {
    both(|store, snapshot| {
        let schema = table::schema();
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let batches = read(store, &snapshot, &names);
        let mut rows: BTreeMap<i64, String> = BTreeMap::new();
        for batch in &batches {
            for (field, column) in schema.fields().iter().zip(batch.columns()) {
                assert_eq!(field.data_type(), column.data_type(), "{}", field.name());
            }
            let column = |name: &str| batch.column_by_name(name).unwrap();
            let times = column("timestamp").as_primitive::<TimestampNanosecondType>();
            let observed = column("observed_timestamp").as_primitive::<TimestampNanosecondType>();
            let severities = column("severity_number").as_primitive::<Int64Type>();
            let text = |name: &str, row: usize| {
                let texts = column(name).as_string::<i32>();
                (!texts.is_null(row)).then(|| texts.value(row).to_owned())
            };
            for row in 0..batch.num_rows() {
                rows.insert(
                    times.value(row) - BASE_NS as i64,
                    format!(
                        "{:?} {} {:?} {:?} {:?} {:?} {:?} {:?}",
                        observed.is_valid(row).then(|| observed.value(row) - times.value(row)),
                        severities.value(row),
                        text("service_name", row),
                        text("body", row),
                        text("trace_id", row),
                        text("scope_name", row),
                        text("attributes", row),
                        text("resource_attributes", row),
                    ),
                );
            }
        }
        assert_eq!(rows.len(), 300);
        assert_eq!(
            rows[&5_000_000_000],
            r#"Some(7) 9 Some("payment") Some("user \"u5\" asked for 10.0.0.5") None Some("lib") Some("{\"http.status\":201,\"rare\":true}") Some("{\"host.name\":\"h1\",\"service.name\":\"payment\"}")"#
        );
        assert!(rows[&0].contains(&"01".repeat(16)));
    });
}

#[test]
fn attribute_keys_are_columns_and_bounds_prune() {
    both(|store, snapshot| {
        assert_eq!(store.key_types().column_type("http.status"), Some(DataType::Int64));
        let batches = read(store, &snapshot, &["http.status", "rare", "host.name"]);
        let mut sum = 0;
        let (mut rare, mut hosts) = (0, 0);
        for batch in &batches {
            sum += batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
            rare += batch.num_rows() - batch.column(1).null_count();
            hosts += batch.num_rows() - batch.column(2).null_count();
        }
        assert_eq!((sum, rare, hosts), (150 * 401, 1, 300));
        let far = BASE_NS + PARTITION_NS;
        let none = snapshot.record_batches(
            vec!["body".into()],
            store.key_types(),
            far,
            far + PARTITION_NS,
        );
        assert_eq!(none.count(), 0);
    });
}

#[test]
fn a_subscriber_gets_batches_once_they_are_visible() {
    let interner = Arc::new(Interner::default());
    let store = LogStore::new(interner.clone());
    store.insert(batch(&interner));
    let mut tail = store.subscribe();
    store.insert(batch(&interner));
    let got = tail.try_recv().unwrap();
    assert_eq!(got.len(), 300);
    assert!(tail.try_recv().is_err());
    let count = store.snapshot().count(&LogFilter::words(Field::Body, "odd"), &LogRange::ALL);
    assert_eq!(count.unwrap(), 2);
}
