//! OTLP/JSON of traces, as `/api/traces/{id}` answers it: hex IDs, 64-bit integers as strings, defaults left out.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding"; `trace/v1/trace.proto`.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TracesData {
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceSpans {
    pub resource: Resource,
    pub scope_spans: Vec<ScopeSpans>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_url: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    pub attributes: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSpans {
    pub scope: Scope,
    pub spans: Vec<Span>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_url: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_state: String,
    /// Empty for a root span.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_span_id: String,
    pub name: String,
    /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub kind: i32,
    #[serde(with = "u64_text")]
    pub start_time_unix_nano: u64,
    #[serde(with = "u64_text")]
    pub end_time_unix_nano: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_events_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_links_count: u32,
    #[serde(skip_serializing_if = "Status::is_unset")]
    pub status: Status,
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
}

impl Span {
    /// End minus start, ns; 0 when the end lies before the start.
    pub fn duration_ns(&self) -> u64 {
        self.end_time_unix_nano.saturating_sub(self.start_time_unix_nano)
    }

    pub fn is_error(&self) -> bool {
        self.status.code == 2
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    #[serde(with = "u64_text")]
    pub time_unix_nano: u64,
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_state: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<KeyValue>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: u32,
}

/// 0 unset, 1 ok, 2 error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "is_zero_i32")]
    pub code: i32,
}

impl Status {
    fn is_unset(&self) -> bool {
        self.code == 0 && self.message.is_empty()
    }
}

/// An attribute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    pub key: String,
    pub value: AnyValue,
}

/// A value as OTLP/JSON tells it, its type in front: `{"stringValue":…}`, `{}` for none.
///
/// Source: OTLP, `common/v1/common.proto`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Told")]
pub enum AnyValue {
    #[default]
    Empty,
    Str(String),
    Bool(bool),
    /// A string in JSON.
    Int(i64),
    /// A number in JSON, or `NaN`, `Infinity`, `-Infinity`.
    Double(f64),
    /// Base64.
    Bytes(String),
    Array(Vec<AnyValue>),
    Map(Vec<KeyValue>),
}

/// What `arrayValue` and `kvlistValue` hold.
#[derive(Serialize, Deserialize)]
struct Values<V> {
    #[serde(default)]
    values: V,
}

impl Serialize for AnyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(usize::from(*self != Self::Empty)))?;
        match self {
            Self::Empty => {}
            Self::Str(text) => object.serialize_entry("stringValue", text)?,
            Self::Bool(value) => object.serialize_entry("boolValue", value)?,
            Self::Int(number) => object.serialize_entry("intValue", &Text(number))?,
            Self::Double(number) if number.is_finite() => {
                object.serialize_entry("doubleValue", number)?;
            }
            Self::Double(number) => object.serialize_entry("doubleValue", name_of(*number))?,
            Self::Bytes(base64) => object.serialize_entry("bytesValue", base64)?,
            Self::Array(values) => object.serialize_entry("arrayValue", &Values { values })?,
            Self::Map(pairs) => object.serialize_entry("kvlistValue", &Values { values: pairs })?,
        }
        object.end()
    }
}

/// Written as a string.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Protobuf JSON's names for doubles that JSON numbers can't hold.
fn name_of(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// An [`AnyValue`] as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number<i64>>,
    double_value: Option<Number<f64>>,
    bytes_value: Option<String>,
    array_value: Option<Values<Vec<AnyValue>>>,
    kvlist_value: Option<Values<Vec<KeyValue>>>,
}

impl From<Told> for AnyValue {
    fn from(told: Told) -> Self {
        let text = told.string_value.map(Self::Str);
        text.or(told.bool_value.map(Self::Bool))
            .or(told.int_value.map(|number| Self::Int(number.0)))
            .or(told.double_value.map(|number| Self::Double(number.0)))
            .or(told.bytes_value.map(Self::Bytes))
            .or(told.array_value.map(|array| Self::Array(array.values)))
            .or(told.kvlist_value.map(|map| Self::Map(map.values)))
            .unwrap_or_default()
    }
}

/// Written as a number or a string.
struct Number<T>(T);

impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Number(T),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl AnyValue {
    /// As plain JSON: what a person expects to read.
    pub fn plain(&self) -> Value {
        match self {
            Self::Empty => Value::Null,
            Self::Str(text) | Self::Bytes(text) => text.as_str().into(),
            Self::Bool(value) => (*value).into(),
            Self::Int(number) => (*number).into(),
            Self::Double(number) if number.is_finite() => (*number).into(),
            Self::Double(number) => name_of(*number).into(),
            Self::Array(values) => values.iter().map(Self::plain).collect(),
            Self::Map(pairs) => {
                pairs.iter().map(|pair| (pair.key.clone(), pair.value.plain())).collect()
            }
        }
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_zero_i32(value: &i32) -> bool {
    *value == 0
}

/// 64-bit integers: written as strings, read as strings or numbers.
mod u64_text {
    use super::*;

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Number::deserialize(deserializer).map(|number| number.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_span_is_written_as_otlp_json_has_it_and_read_back() {
        let span = Span {
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
            span_id: "b7ad6b7169203331".into(),
            name: "POST /pay".into(),
            kind: 2,
            start_time_unix_nano: 1_700_000_000_000_000_000,
            end_time_unix_nano: 1_700_000_000_180_000_000,
            status: Status { code: 2, message: "card declined".into() },
            ..Span::default()
        };
        let json = serde_json::to_value(&span).unwrap();
        assert_eq!(
            json,
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
                "name": "POST /pay", "kind": 2,
                "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000180000000",
                "status": {"message": "card declined", "code": 2}
            })
        );
        assert_eq!(serde_json::from_value::<Span>(json).unwrap(), span);
    }

    #[test]
    fn values_are_written_as_otlp_json_has_them_and_read_back() {
        let map = vec![KeyValue { key: "n".into(), value: AnyValue::Int(-1) }];
        for (value, json, plain) in [
            (AnyValue::Empty, json!({}), Value::Null),
            (AnyValue::Str("a".into()), json!({"stringValue": "a"}), json!("a")),
            (AnyValue::Bool(false), json!({"boolValue": false}), json!(false)),
            (AnyValue::Int(i64::MIN), json!({"intValue": "-9223372036854775808"}), json!(i64::MIN)),
            (AnyValue::Double(2.0), json!({"doubleValue": 2.0}), json!(2.0)),
            (
                AnyValue::Double(f64::NEG_INFINITY),
                json!({"doubleValue": "-Infinity"}),
                json!("-Infinity"),
            ),
            (AnyValue::Bytes("AAE=".into()), json!({"bytesValue": "AAE="}), json!("AAE=")),
            (
                AnyValue::Array(vec![AnyValue::Bool(true), AnyValue::Map(map)]),
                json!({"arrayValue": {"values": [
                    {"boolValue": true},
                    {"kvlistValue": {"values": [{"key": "n", "value": {"intValue": "-1"}}]}}
                ]}}),
                json!([true, {"n": -1}]),
            ),
        ] {
            assert_eq!(serde_json::to_value(&value).unwrap(), json);
            assert_eq!(serde_json::from_value::<AnyValue>(json).unwrap(), value);
            assert_eq!(value.plain(), plain);
        }
        let read = |json| serde_json::from_value::<AnyValue>(json).unwrap();
        assert_eq!(read(json!({"intValue": 7})), AnyValue::Int(7));
        assert_eq!(read(json!({"arrayValue": {}})), AnyValue::Array(Vec::new()));
        assert!(matches!(read(json!({"doubleValue": "NaN"})), AnyValue::Double(n) if n.is_nan()));
    }
}
