use super::*;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message as _;

mod model;
use model::Json;

fn traces(text: &str) -> ExportTraceServiceRequest {
    let transcoded = transcode(FrameKind::OtlpTraces, text.as_bytes()).unwrap();
    assert_eq!((transcoded.rejected, transcoded.reason), (0, None), "{text}");
    ExportTraceServiceRequest::decode(&*transcoded.protobuf).unwrap()
}

/// The one span whose fields are `fields`.
fn span(fields: &str) -> Span {
    let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
    traces(&text).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

/// The value of an attribute written as `json`.
fn value(json: &str) -> Option<Value> {
    let span = span(&format!(r#""attributes":[{{"key":"k","value":{json}}}]"#));
    span.attributes[0].value.clone().unwrap_or_default().value
}

/// Why a span with these fields, between two good ones, is left out.
fn rejected(fields: &str) -> String {
    let text = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"name":"a"}},{{{fields}}},{{"name":"b"}}]}}]}}]}}"#
    );
    let transcoded = transcode(FrameKind::OtlpTraces, text.as_bytes()).unwrap();
    let request = ExportTraceServiceRequest::decode(&*transcoded.protobuf).unwrap();
    let names: Vec<_> =
        request.resource_spans[0].scope_spans[0].spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["a", "b"], "{fields}");
    assert_eq!(transcoded.rejected, 1, "{fields}");
    transcoded.reason.unwrap()
}

fn syntax_error(text: &str) -> String {
    transcode(FrameKind::OtlpTraces, text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn every_kind_of_value_is_read() {
    for (json, expected) in [
        (
            r#"{"stringValue":"a\"\\\/\b\f\n\r\té😀"}"#,
            Value::StringValue("a\"\\/\u{8}\u{c}\n\r\té😀".into()),
        ),
        (r#"{"stringValue":"\u0000\ud800x"}"#, Value::StringValue("\0\u{fffd}x".into())),
        (r#"{"boolValue":true}"#, Value::BoolValue(true)),
        (r#"{"boolValue":false}"#, Value::BoolValue(false)),
        (r#"{"intValue":"-9223372036854775808"}"#, Value::IntValue(i64::MIN)),
        (r#"{"intValue":9223372036854775807}"#, Value::IntValue(i64::MAX)),
        (r#"{"intValue":0}"#, Value::IntValue(0)),
        (r#"{"intValue":1.5e3}"#, Value::IntValue(1500)),
        (r#"{"intValue":"7.0"}"#, Value::IntValue(7)),
        (r#"{"doubleValue":-0.5}"#, Value::DoubleValue(-0.5)),
        (r#"{"doubleValue":7}"#, Value::DoubleValue(7.0)),
        (r#"{"doubleValue":"1e300"}"#, Value::DoubleValue(1e300)),
        (r#"{"doubleValue":"Infinity"}"#, Value::DoubleValue(f64::INFINITY)),
        (r#"{"doubleValue":"-Infinity"}"#, Value::DoubleValue(f64::NEG_INFINITY)),
        (r#"{"bytesValue":"+/8="}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytesValue":"-_8"}"#, Value::BytesValue(vec![0xfb, 0xff])),
        (r#"{"bytesValue":""}"#, Value::BytesValue(vec![])),
    ] {
        assert_eq!(value(json), Some(expected), "{json}");
    }
    assert!(matches!(value(r#"{"doubleValue":"NaN"}"#), Some(Value::DoubleValue(v)) if v.is_nan()));
    for empty in ["{}", "null", r#"{"stringValue":null}"#, r#"{"string_value":"snake"}"#] {
        assert_eq!(value(empty), None, "{empty}");
    }
    let Some(Value::ArrayValue(array)) =
        value(r#"{"arrayValue":{"values":[{"intValue":1},{},null,{"stringValue":"x"}]}}"#)
    else {
        panic!("not an array")
    };
    let of = |value: &AnyValue| value.value.clone();
    assert_eq!(
        array.values.iter().map(of).collect::<Vec<_>>(),
        [Some(Value::IntValue(1)), None, None, Some(Value::StringValue("x".into()))]
    );
    assert!(
        matches!(value(r#"{"arrayValue":{}}"#), Some(Value::ArrayValue(a)) if a.values.is_empty())
    );
    assert!(matches!(value(r#"{"kvlistValue":{"values":[]}}"#), Some(Value::KvlistValue(_))));
}

#[test]
fn the_span_of_the_interface_description_is_read() {
    let span = span(
        r#""traceId":"0AF7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","parentSpanId":"00f067aa0ba902b7",
        "name":"POST /pay","kind":2,"startTimeUnixNano":"1700000000000000000","endTimeUnixNano":1700000000180000000,
        "status":{"code":2,"message":"card declined"},"flags":257,
        "attributes":[{"key":"http.response.status_code","value":{"intValue":"500"}}],
        "events":[{"timeUnixNano":"1700000000090000000","name":"exception",
            "attributes":[{"key":"exception.type","value":{"stringValue":"Declined"}}]}]"#,
    );
    assert_eq!(span.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(span.trace_id.len(), 16);
    assert_eq!(span.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!((span.kind, span.flags), (2, 257));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 180_000_000);
    let status = span.status.unwrap();
    assert_eq!((status.code, &*status.message), (2, "card declined"));
    assert_eq!(span.events[0].attributes[0].key, "exception.type");
}

#[test]
fn empty_requests_and_envelopes_are_read() {
    for text in ["{}", r#"{"resourceSpans":null}"#, r#" { "resourceSpans" : [ ] } "#] {
        assert_eq!(traces(text), ExportTraceServiceRequest::default());
    }
    assert_eq!(
        traces(r#"{"resourceSpans":[{"resource":null,"scopeSpans":[null,{}]}]}"#).resource_spans[0]
            .scope_spans
            .len(),
        2
    );
}

#[test]
fn unknown_keys_are_stepped_over_whatever_they_hold() {
    let span = span(
        r#""trace_id":"00","nested":{"a":[1,{"b":null}],"c":"}"},"list":[[],{}],"name":"n","x":-1.5e-3,"y":true"#,
    );
    assert_eq!(span, Span { name: "n".into(), ..Span::default() });
}

#[test]
fn of_duplicate_keys_the_last_counts() {
    let span = span(
        r#""name":"first","attributes":[{"key":"a"},{"key":"b"}],"kind":1,"name":"second",
        "attributes":[{"key":"c"}],"kind":3,"status":{"code":1},"status":{"message":"m"},"flags":1,"flags":null"#,
    );
    assert_eq!((&*span.name, span.kind, span.flags), ("second", 3, 0));
    assert_eq!(span.attributes.iter().map(|a| &*a.key).collect::<Vec<_>>(), ["c"]);
    let status = span.status.unwrap();
    assert_eq!((status.code, &*status.message), (0, "m"));
}

#[test]
fn a_record_that_can_not_be_read_costs_only_itself() {
    for (fields, reason) in [
        (r#""traceId":"xyz""#, "not hex"),
        (r#""traceId":"0af""#, "not hex"),
        (r#""kind":"SPAN_KIND_SERVER""#, "enums are numbers"),
        (r#""startTimeUnixNano":"-1""#, "out of range"),
        (r#""startTimeUnixNano":"18446744073709551616""#, "out of range"),
        (r#""startTimeUnixNano":"soon""#, "integer"),
        (r#""name":5"#, "a string"),
        (r#""attributes":{}"#, "an array"),
        (r#""status":[]"#, "an object"),
        (r#""flags":1.5"#, "integer"),
        (r#""attributes":[{"key":"k","value":{"bytesValue":"*"}}]"#, "base64"),
        (r#""attributes":[{"key":"k","value":{"doubleValue":1e999}}]"#, "out of range"),
        (r#""attributes":[{"key":"k","value":{"boolValue":"true"}}]"#, "true or false"),
        (r#""events":[{"timeUnixNano":[]}],"links":[{"traceId":"00"}]"#, "a number"),
    ] {
        let found = rejected(fields);
        assert!(found.contains(reason), "{fields}: {found}");
    }
}

#[test]
fn ids_of_any_length_are_passed_on_for_the_decoders_to_judge() {
    assert_eq!(span(r#""traceId":"00ff""#).trace_id, [0, 255]);
    assert_eq!(span(r#""traceId":"""#).trace_id, [0u8; 0]);
}

#[test]
fn a_wrong_value_outside_the_records_refuses_the_request() {
    let text = r#"{"resourceSpans":[{"schemaUrl":5}]}"#;
    assert!(syntax_error(text).contains("at byte 31: expected a string"), "{}", syntax_error(text));
}

#[test]
fn text_that_is_not_json_is_refused_with_the_place() {
    for text in [
        "",
        " ",
        "{",
        "[]",
        "null",
        "1",
        r#"{"a""#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a":1}}"#,
        r#"{"a":1} x"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[1 2]}"#,
        r#"{"a":"b}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":tru}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":+1}"#,
        r#"{"a":1e}"#,
        r#"{"a":NaN}"#,
        "{a:1}",
        r#"{"resourceSpans":[}"#,
        r#"{"resourceSpans":[{]}"#,
        "{\"a\":\"\n\"}",
        r#"{"a":"\"#,
        r#"{"a":"\u12"#,
    ] {
        let fault = transcode(FrameKind::OtlpTraces, text.as_bytes()).unwrap_err();
        assert!(fault.at <= text.len(), "{text}: {fault:?}");
    }
}

fn nested(levels: usize) -> String {
    let mut text = String::from(r#"{"stringValue":"core"}"#);
    for level in 0..levels {
        text = match level % 2 {
            0 => format!(r#"{{"arrayValue":{{"values":[{text}]}}}}"#),
            _ => format!(r#"{{"kvlistValue":{{"values":[{{"key":"k","value":{text}}}]}}}}"#),
        };
    }
    text
}

#[test]
fn nesting_to_sixty_four_is_kept_deeper_costs_the_record_and_absurd_nesting_the_request() {
    for levels in [1, 64] {
        let json = format!(r#""attributes":[{{"key":"k","value":{}}}]"#, nested(levels));
        let text = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{json}}}]}}]}}]}}"#);
        let transcoded = transcode(FrameKind::OtlpTraces, text.as_bytes()).unwrap();
        assert_eq!(transcoded.rejected, 0, "{levels}");
        assert!(transcoded.protobuf.windows(4).any(|window| window == b"core"), "{levels}");
    }
    let deep = |levels| format!(r#""attributes":[{{"key":"k","value":{}}}]"#, nested(levels));
    assert!(rejected(&deep(NESTING_MAX + 1)).contains("nests deeper"));
    for absurd in [
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{}}}]}}]}}]}}"#, deep(1000)),
        format!(r#"{{"x":{}"#, "[".repeat(200_000)),
        format!(r#"{{"x":{}"#, r#"{"y":"#.repeat(200_000)),
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"value":{}"#,
            r#"{"arrayValue":{"values":["#.repeat(200_000)
        ),
    ] {
        assert!(syntax_error(&absurd).contains("nested deeper"));
    }
}

#[test]
fn long_messages_get_longer_length_prefixes() {
    for len in [0, 1, 100, 126, 127, 128, 129, 16_000, 16_383, 16_384, 3_000_000] {
        let name = "n".repeat(len);
        assert_eq!(span(&format!(r#""name":"{name}","kind":1"#)).name.len(), len);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn traces_in_json_are_the_same_traces_in_protobuf(request in model::traces()) {
        let transcoded = transcode(FrameKind::OtlpTraces, request.json().to_string().as_bytes()).unwrap();
        let back = ExportTraceServiceRequest::decode(&*transcoded.protobuf).unwrap();
        prop_assert_eq!(request, back);
        prop_assert_eq!(transcoded.rejected, 0);
    }

    #[test]
    fn logs_in_json_are_the_same_logs_in_protobuf(request in model::logs()) {
        let transcoded = transcode(FrameKind::OtlpLogs, request.json().to_string().as_bytes()).unwrap();
        let back = ExportLogsServiceRequest::decode(&*transcoded.protobuf).unwrap();
        prop_assert_eq!(request, back);
    }

    #[test]
    fn metrics_in_json_are_the_same_metrics_in_protobuf(request in model::metrics()) {
        let transcoded = transcode(FrameKind::OtlpMetrics, request.json().to_string().as_bytes()).unwrap();
        let back = ExportMetricsServiceRequest::decode(&*transcoded.protobuf).unwrap();
        prop_assert_eq!(request, back);
    }

    #[test]
    fn no_text_makes_the_transcoder_panic(text in "[\\[\\]{}:,\"a-z0-9.\\\\ -]{0,60}") {
        let _ = transcode(FrameKind::OtlpTraces, text.as_bytes());
    }

    #[test]
    fn a_damaged_request_is_an_error_or_a_smaller_request(
        request in model::traces(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = request.json().to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = transcode(FrameKind::OtlpTraces, &text);
        if let Ok(transcoded) = transcode(FrameKind::OtlpTraces, &text[..at]) {
            prop_assert!(transcoded.protobuf.len() <= text.len());
        }
    }
}
