//! The log decoder against prost: any request that opentelemetry-proto can write comes back field by field.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use trefoil_collector::decode::{DecodeLimits, logs::decode};
use trefoil_storage::attributes::Value;
use trefoil_storage::logs::LogBatch;
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded};

const ARRIVAL_NS: u64 = 1_790_000_000_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,12}".prop_map(|text| Some(Any::StringValue(text))),
        any::<bool>().prop_map(|v| Some(Any::BoolValue(v))),
        any::<i64>().prop_map(|v| Some(Any::IntValue(v))),
        any::<f64>().prop_map(|v| Some(Any::DoubleValue(v))),
        vec(any::<u8>(), 0..6).prop_map(|v| Some(Any::BytesValue(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| AnyValue {
                value: Some(Any::ArrayValue(ArrayValue { values }))
            }),
            vec(("[a-z.]{1,6}", inner), 0..4).prop_map(|pairs| AnyValue {
                value: Some(Any::KvlistValue(KeyValueList { values: key_values(pairs) }))
            }),
        ]
    })
}

fn key_values(pairs: Vec<(String, AnyValue)>) -> Vec<KeyValue> {
    pairs
        .into_iter()
        .map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() })
        .collect()
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(("[a-z.]{1,6}", any_value()), 0..5).prop_map(key_values)
}

fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), len), 1 => vec(any::<u8>(), 0..20), 1 => Just(vec![])]
}

fn record() -> impl Strategy<Value = LogRecord> {
    let time = || prop_oneof![3 => 1..ARRIVAL_NS, 1 => Just(0)];
    (
        (time(), time(), 0..30i32, "[A-Z]{0,5}", proptest::option::of(any_value())),
        (attributes(), any::<u32>(), any::<u32>(), id(16), id(8), "[a-z.]{0,6}"),
    )
        .prop_map(|(head, tail)| LogRecord {
            time_unix_nano: head.0,
            observed_time_unix_nano: head.1,
            severity_number: head.2,
            severity_text: head.3,
            body: head.4,
            attributes: tail.0,
            dropped_attributes_count: tail.1,
            flags: tail.2,
            trace_id: tail.3,
            span_id: tail.4,
            event_name: tail.5,
        })
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope_logs = (attributes(), "[a-z]{0,4}", vec(record(), 0..6)).prop_map(
        |(attributes, name, log_records)| ScopeLogs {
            scope: Some(InstrumentationScope {
                name,
                version: "1.2".into(),
                attributes,
                dropped_attributes_count: 1,
            }),
            log_records,
            schema_url: "s".into(),
        },
    );
    let resource_logs =
        (attributes(), vec(scope_logs, 0..3)).prop_map(|(attributes, scope_logs)| ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs,
            schema_url: "r".into(),
        });
    vec(resource_logs, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn list(attributes: &[KeyValue]) -> Vec<u8> {
    KeyValueList { values: attributes.to_vec() }.encode_to_vec()
}

fn batch(decoded: &Decoded) -> &LogBatch {
    match &decoded.batch {
        Batch::Logs(batch) => batch,
        other => panic!("not logs: {other:?}"),
    }
}

fn run(request: &ExportLogsServiceRequest) -> Decoded {
    let limits = DecodeLimits::default();
    decode(&request.encode_to_vec(), ARRIVAL_NS, &Interner::default(), &limits).unwrap()
}

fn one(record: LogRecord) -> Decoded {
    run(&ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_prost_writes_comes_back_field_by_field(request in request()) {
        let decoded = run(&request);
        let batch = batch(&decoded);
        let sent: Vec<_> = request
            .resource_logs
            .iter()
            .flat_map(|r| r.scope_logs.iter().flat_map(move |s| s.log_records.iter().map(move |l| (r, s, l))))
            .collect();
        prop_assert_eq!(decoded.accepted, sent.len() as u64);
        prop_assert_eq!(batch.len(), sent.len());
        for (row, (resource, scope, log)) in sent.into_iter().enumerate() {
            let got = batch.row(row);
            let time = [log.time_unix_nano, log.observed_time_unix_nano, ARRIVAL_NS];
            prop_assert_eq!(got.time_ns, *time.iter().find(|t| **t != 0).unwrap());
            prop_assert_eq!(got.observed_ns, log.observed_time_unix_nano);
            prop_assert_eq!(got.severity_number, log.severity_number);
            prop_assert_eq!(&*got.severity_text, log.severity_text.as_str());
            prop_assert_eq!(&*got.event_name, log.event_name.as_str());
            prop_assert_eq!(got.flags, log.flags);
            prop_assert_eq!(got.dropped_attributes_count, log.dropped_attributes_count);
            prop_assert_eq!(got.trace_id, <[u8; 16]>::try_from(&log.trace_id[..]).unwrap_or_default());
            prop_assert_eq!(got.span_id, <[u8; 8]>::try_from(&log.span_id[..]).unwrap_or_default());
            prop_assert_eq!(&*got.attributes, &list(&log.attributes)[..]);
            prop_assert_eq!(&*got.resource.attributes, &list(&resource.resource.as_ref().unwrap().attributes)[..]);
            prop_assert_eq!(&*got.resource.schema_url, "r");
            let sent_scope = scope.scope.as_ref().unwrap();
            prop_assert_eq!(&*got.scope.name, sent_scope.name.as_str());
            prop_assert_eq!(&*got.scope.attributes, &list(&sent_scope.attributes)[..]);
            let body = log.body.clone().unwrap_or_default();
            match &body.value {
                Some(Any::StringValue(text)) => {
                    prop_assert_eq!(&*got.body, text.as_str());
                    prop_assert!(got.body_message.is_none());
                }
                _ => prop_assert_eq!(got.body_message.as_deref(), Some(&body.encode_to_vec()[..])),
            }
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, ARRIVAL_NS, &Interner::default(), &DecodeLimits::default());
    }

    #[test]
    fn a_request_with_one_byte_changed_never_panics(request in request(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = decode(&bytes, ARRIVAL_NS, &Interner::default(), &DecodeLimits::default());
    }
}

#[test]
fn a_record_far_in_the_future_is_rejected_alone_and_the_reason_counted() {
    let decoded =
        one(LogRecord { time_unix_nano: ARRIVAL_NS + DAY_NS + 1, ..LogRecord::default() });
    assert_eq!((decoded.accepted, decoded.rejected), (0, 1));
    assert!(decoded.reason.unwrap().contains("1 × time lies more than a day in the future"));
    let decoded = one(LogRecord { time_unix_nano: ARRIVAL_NS + DAY_NS, ..LogRecord::default() });
    assert_eq!((decoded.accepted, decoded.rejected), (1, 0));
}

#[test]
fn a_body_nested_too_deep_is_rejected_and_64_levels_are_kept() {
    let nest = |levels: usize| {
        let mut value = AnyValue { value: Some(Any::IntValue(1)) };
        for _ in 0..levels {
            value = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        LogRecord { body: Some(value), ..LogRecord::default() }
    };
    assert_eq!(one(nest(64)).accepted, 1);
    let refused = one(nest(65));
    assert_eq!((refused.accepted, refused.rejected), (0, 1));
    assert!(refused.reason.unwrap().contains("nests deeper"));
}

#[test]
fn text_that_is_not_utf8_is_kept_with_replacement_characters() {
    // LogRecord { severity_text: ff, body: { string: "a" ff "b" }, event_name: ff }
    let record = [0x1a, 1, 0xff, 0x2a, 5, 0x0a, 3, b'a', 0xff, b'b', 0x62, 1, 0xff];
    let mut scope = vec![0x12, record.len() as u8];
    scope.extend(record);
    let mut resource = vec![0x12, scope.len() as u8];
    resource.extend(scope);
    let mut body = vec![0x0a, resource.len() as u8];
    body.extend(resource);
    let decoded = decode(&body, 7, &Interner::default(), &DecodeLimits::default()).unwrap();
    let row = batch(&decoded).row(0);
    assert_eq!(&*row.body, "a\u{fffd}b");
    assert_eq!((&*row.severity_text, &*row.event_name), ("\u{fffd}", "\u{fffd}"));
    assert_eq!(row.time_ns, 7);
    assert_eq!(row.body_value(), Value::Str("a\u{fffd}b"));
}
