//! The span decoder against prost, and the rules for what a sender must not send.

use crate::generate::{ARRIVAL_NS, request};
use crate::model::{canonical, plain_span, spans_of};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use trefoil_collector::decode::{DecodeLimits, spans};
use trefoil_storage::resource::Interner;
use trefoil_storage::signal::{Batch, Decoded};
use trefoil_storage::spans::{Span as Row, SpanBatch};

const DAY_NS: u64 = 86_400_000_000_000;

pub fn decode(body: &[u8]) -> Result<Decoded, String> {
    spans::decode(body, ARRIVAL_NS, &Interner::default(), &DecodeLimits::default())
}

/// The batch that a valid request becomes.
pub fn batch_of(request: &ExportTraceServiceRequest, interner: &Interner) -> SpanBatch {
    let limits = DecodeLimits::default();
    let decoded =
        spans::decode(&request.encode_to_vec(), ARRIVAL_NS, interner, &limits).expect("valid");
    match decoded.batch {
        Batch::Spans(batch) => batch,
        other => panic!("spans were sent, {other:?} came back"),
    }
}

fn one(span: Span) -> Decoded {
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: vec![span, valid()], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    decode(&request.encode_to_vec()).unwrap()
}

fn valid() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: ARRIVAL_NS,
        end_time_unix_nano: ARRIVAL_NS + 5,
        ..Span::default()
    }
}

fn spans_in(decoded: &Decoded) -> &SpanBatch {
    match &decoded.batch {
        Batch::Spans(batch) => batch,
        other => panic!("spans were sent, {other:?} came back"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_prost_writes_comes_back_field_by_field(request in request()) {
        let decoded = decode(&request.encode_to_vec()).unwrap();
        let batch = spans_in(&decoded);
        let sent = spans_of(&request);
        prop_assert_eq!(decoded.accepted, sent.len() as u64);
        prop_assert_eq!(decoded.rejected, 0);
        let mut found: Vec<_> = (0..batch.len()).map(|row| plain_span(&Row::from_batch(batch, row))).collect();
        found.sort();
        prop_assert_eq!(found, sent);
        let lists: Vec<_> = request
            .resource_spans
            .iter()
            .flat_map(|r| r.scope_spans.iter().flat_map(|s| &s.spans))
            .map(|span| canonical(&span.attributes))
            .collect();
        let kept: Vec<_> = batch.attributes.iter().map(<[u8]>::to_vec).collect();
        prop_assert_eq!(kept, lists, "attributes are kept byte for byte and in order");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_request_with_one_byte_changed_never_panics(request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes);
    }
}

#[test]
fn ids_that_are_zero_or_of_another_length_reject_their_span_alone() {
    for (trace_id, span_id, reason) in [
        (vec![0; 16], vec![2; 8], "trace_id"),
        (vec![1; 15], vec![2; 8], "trace_id"),
        (vec![], vec![2; 8], "trace_id"),
        (vec![1; 16], vec![0; 8], "span_id"),
        (vec![1; 16], vec![2; 16], "span_id"),
    ] {
        let decoded = one(Span { trace_id, span_id, ..valid() });
        assert_eq!((decoded.accepted, decoded.rejected), (1, 1));
        assert!(decoded.reason.unwrap().starts_with(&format!("1 × {reason}")));
    }
}

#[test]
fn a_span_more_than_a_day_in_the_future_is_rejected_alone() {
    let late = ARRIVAL_NS + DAY_NS;
    let at = |start: u64, end: u64| {
        one(Span { start_time_unix_nano: start, end_time_unix_nano: end, ..valid() }).rejected
    };
    assert_eq!(at(late, late), 0);
    assert_eq!(at(late + 1, late + 1), 1);
    assert_eq!(at(ARRIVAL_NS, late + 1), 1);
}

#[test]
fn an_end_before_its_start_is_kept_and_lasts_nothing() {
    let decoded = one(Span { end_time_unix_nano: ARRIVAL_NS - 9, ..valid() });
    let row = spans_in(&decoded).rows[0];
    assert_eq!((row.start_ns, row.end_ns, row.duration_ns()), (ARRIVAL_NS, ARRIVAL_NS - 9, 0));
}

#[test]
fn a_value_nested_too_deep_rejects_its_span_and_64_levels_are_kept() {
    let nest = |levels: usize| {
        let mut value = AnyValue { value: Some(Any::IntValue(1)) };
        for _ in 0..levels {
            value = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        let pair = KeyValue { key: "deep".into(), value: Some(value), ..KeyValue::default() };
        one(Span { attributes: vec![pair], ..valid() })
    };
    assert_eq!(nest(64).rejected, 0);
    let decoded = nest(65);
    assert_eq!((decoded.accepted, decoded.rejected), (1, 1));
    assert!(decoded.reason.as_ref().unwrap().contains("nests deeper"));
    assert_eq!(spans_in(&decoded).attributes.get(0), b"", "nothing of it is left behind");
}

#[test]
fn text_that_is_not_utf8_is_kept_with_replacement_characters() {
    // name and an attribute's key and value hold the byte ff.
    let mut span = valid().encode_to_vec();
    span.extend([0x2a, 2, b'n', 0xff]);
    span.extend([0x4a, 9, 0x0a, 2, b'k', 0xff, 0x12, 3, 0x0a, 1, 0xff]);
    let mut body = span;
    for field in [0x12, 0x12, 0x0a] {
        let mut outer = vec![field, body.len() as u8];
        outer.extend(&body);
        body = outer;
    }
    let decoded = decode(&body).unwrap();
    let span = plain_span(&Row::from_batch(spans_in(&decoded), 0));
    assert_eq!(span.name, "n\u{fffd}");
    assert_eq!(span.attributes.keys().collect::<Vec<_>>(), ["k\u{fffd}"]);
}

#[test]
fn what_is_no_trace_request_is_refused_as_a_whole() {
    let error = decode(b"{\"resourceSpans\":[]}").unwrap_err();
    assert!(error.contains("ExportTraceServiceRequest"), "{error}");
}
