//! The OTLP messages as tables: which JSON key is which protobuf field.
//!
//! Source: opentelemetry-proto 1.x, `common/v1`, `resource/v1`, `trace/v1`, `logs/v1`, `metrics/v1`; key names are
//! the lowerCamelCase ones of the protobuf JSON mapping. Keys that are not here are ignored, among them those that
//! only profiles use (`entityRefs`, string-table indexes).

/// A message: the fields it may have.
pub(super) struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

pub(super) struct Field {
    pub key: &'static str,
    pub number: u32,
    pub kind: Kind,
    pub shape: Shape,
}

/// Once, several times, or several times with each element a record (span, log record, data point): one that can't
/// be read is left out without the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Many,
    Records,
}

/// How a value stands in JSON and on the wire.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Base64,
    /// Trace or span id: hex in any case.
    HexId,
    Bool,
    /// Enum number, never its name.
    Enum,
    Uint32,
    Uint64,
    Int64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Message(&'static Message),
    /// `AnyValue`: the one place where messages nest without end.
    Any,
}

const fn one(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, shape: Shape::One }
}

const fn many(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, shape: Shape::Many }
}

const fn records(key: &'static str, number: u32, message: &'static Message) -> Field {
    Field { key, number, kind: Kind::Message(message), shape: Shape::Records }
}

pub(super) static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        one("stringValue", 1, Kind::Text),
        one("boolValue", 2, Kind::Bool),
        one("intValue", 3, Kind::Int64),
        one("doubleValue", 4, Kind::Double),
        one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Kind::Base64),
    ],
};

static ARRAY_VALUE: Message =
    Message { name: "ArrayValue", fields: &[many("values", 1, Kind::Any)] };

static KEY_VALUE_LIST: Message =
    Message { name: "KeyValueList", fields: &[many("values", 1, Kind::Message(&KEY_VALUE))] };

static KEY_VALUE: Message =
    Message { name: "KeyValue", fields: &[one("key", 1, Kind::Text), one("value", 2, Kind::Any)] };

const ATTRIBUTES: Kind = Kind::Message(&KEY_VALUE);

static RESOURCE: Message = Message {
    name: "Resource",
    fields: &[many("attributes", 1, ATTRIBUTES), one("droppedAttributesCount", 2, Kind::Uint32)],
};

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        one("name", 1, Kind::Text),
        one("version", 2, Kind::Text),
        many("attributes", 3, ATTRIBUTES),
        one("droppedAttributesCount", 4, Kind::Uint32),
    ],
};

pub(super) static TRACES: Message = Message {
    name: "ExportTraceServiceRequest",
    fields: &[many("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))],
};

static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        records("spans", 2, &SPAN),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static SPAN: Message = Message {
    name: "Span",
    fields: &[
        one("traceId", 1, Kind::HexId),
        one("spanId", 2, Kind::HexId),
        one("traceState", 3, Kind::Text),
        one("parentSpanId", 4, Kind::HexId),
        one("name", 5, Kind::Text),
        one("kind", 6, Kind::Enum),
        one("startTimeUnixNano", 7, Kind::Fixed64),
        one("endTimeUnixNano", 8, Kind::Fixed64),
        many("attributes", 9, ATTRIBUTES),
        one("droppedAttributesCount", 10, Kind::Uint32),
        many("events", 11, Kind::Message(&SPAN_EVENT)),
        one("droppedEventsCount", 12, Kind::Uint32),
        many("links", 13, Kind::Message(&SPAN_LINK)),
        one("droppedLinksCount", 14, Kind::Uint32),
        one("status", 15, Kind::Message(&SPAN_STATUS)),
        one("flags", 16, Kind::Fixed32),
    ],
};

static SPAN_EVENT: Message = Message {
    name: "Span.Event",
    fields: &[
        one("timeUnixNano", 1, Kind::Fixed64),
        one("name", 2, Kind::Text),
        many("attributes", 3, ATTRIBUTES),
        one("droppedAttributesCount", 4, Kind::Uint32),
    ],
};

static SPAN_LINK: Message = Message {
    name: "Span.Link",
    fields: &[
        one("traceId", 1, Kind::HexId),
        one("spanId", 2, Kind::HexId),
        one("traceState", 3, Kind::Text),
        many("attributes", 4, ATTRIBUTES),
        one("droppedAttributesCount", 5, Kind::Uint32),
        one("flags", 6, Kind::Fixed32),
    ],
};

static SPAN_STATUS: Message = Message {
    name: "Status",
    fields: &[one("message", 2, Kind::Text), one("code", 3, Kind::Enum)],
};

pub(super) static LOGS: Message = Message {
    name: "ExportLogsServiceRequest",
    fields: &[many("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))],
};

static RESOURCE_LOGS: Message = Message {
    name: "ResourceLogs",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeLogs", 2, Kind::Message(&SCOPE_LOGS)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static SCOPE_LOGS: Message = Message {
    name: "ScopeLogs",
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        records("logRecords", 2, &LOG_RECORD),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static LOG_RECORD: Message = Message {
    name: "LogRecord",
    fields: &[
        one("timeUnixNano", 1, Kind::Fixed64),
        one("severityNumber", 2, Kind::Enum),
        one("severityText", 3, Kind::Text),
        one("body", 5, Kind::Any),
        many("attributes", 6, ATTRIBUTES),
        one("droppedAttributesCount", 7, Kind::Uint32),
        one("flags", 8, Kind::Fixed32),
        one("traceId", 9, Kind::HexId),
        one("spanId", 10, Kind::HexId),
        one("observedTimeUnixNano", 11, Kind::Fixed64),
        one("eventName", 12, Kind::Text),
    ],
};

pub(super) static METRICS: Message = Message {
    name: "ExportMetricsServiceRequest",
    fields: &[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))],
};

static RESOURCE_METRICS: Message = Message {
    name: "ResourceMetrics",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static SCOPE_METRICS: Message = Message {
    name: "ScopeMetrics",
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("metrics", 2, Kind::Message(&METRIC)),
        one("schemaUrl", 3, Kind::Text),
    ],
};

static METRIC: Message = Message {
    name: "Metric",
    fields: &[
        one("name", 1, Kind::Text),
        one("description", 2, Kind::Text),
        one("unit", 3, Kind::Text),
        one("gauge", 5, Kind::Message(&GAUGE)),
        one("sum", 7, Kind::Message(&SUM)),
        one("histogram", 9, Kind::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        one("summary", 11, Kind::Message(&SUMMARY)),
        many("metadata", 12, ATTRIBUTES),
    ],
};

static GAUGE: Message =
    Message { name: "Gauge", fields: &[records("dataPoints", 1, &NUMBER_POINT)] };

static SUM: Message = Message {
    name: "Sum",
    fields: &[
        records("dataPoints", 1, &NUMBER_POINT),
        one("aggregationTemporality", 2, Kind::Enum),
        one("isMonotonic", 3, Kind::Bool),
    ],
};

static HISTOGRAM: Message = Message {
    name: "Histogram",
    fields: &[
        records("dataPoints", 1, &HISTOGRAM_POINT),
        one("aggregationTemporality", 2, Kind::Enum),
    ],
};

static EXPONENTIAL_HISTOGRAM: Message = Message {
    name: "ExponentialHistogram",
    fields: &[
        records("dataPoints", 1, &EXPONENTIAL_HISTOGRAM_POINT),
        one("aggregationTemporality", 2, Kind::Enum),
    ],
};

static SUMMARY: Message =
    Message { name: "Summary", fields: &[records("dataPoints", 1, &SUMMARY_POINT)] };

static NUMBER_POINT: Message = Message {
    name: "NumberDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("asDouble", 4, Kind::Double),
        many("exemplars", 5, Kind::Message(&EXEMPLAR)),
        one("asInt", 6, Kind::Sfixed64),
        many("attributes", 7, ATTRIBUTES),
        one("flags", 8, Kind::Uint32),
    ],
};

static HISTOGRAM_POINT: Message = Message {
    name: "HistogramDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("bucketCounts", 6, Kind::Fixed64),
        many("explicitBounds", 7, Kind::Double),
        many("exemplars", 8, Kind::Message(&EXEMPLAR)),
        many("attributes", 9, ATTRIBUTES),
        one("flags", 10, Kind::Uint32),
        one("min", 11, Kind::Double),
        one("max", 12, Kind::Double),
    ],
};

static EXPONENTIAL_HISTOGRAM_POINT: Message = Message {
    name: "ExponentialHistogramDataPoint",
    fields: &[
        many("attributes", 1, ATTRIBUTES),
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        one("scale", 6, Kind::Sint32),
        one("zeroCount", 7, Kind::Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Kind::Uint32),
        many("exemplars", 11, Kind::Message(&EXEMPLAR)),
        one("min", 12, Kind::Double),
        one("max", 13, Kind::Double),
        one("zeroThreshold", 14, Kind::Double),
    ],
};

static BUCKETS: Message = Message {
    name: "Buckets",
    fields: &[one("offset", 1, Kind::Sint32), many("bucketCounts", 2, Kind::Uint64)],
};

static SUMMARY_POINT: Message = Message {
    name: "SummaryDataPoint",
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("quantileValues", 6, Kind::Message(&VALUE_AT_QUANTILE)),
        many("attributes", 7, ATTRIBUTES),
        one("flags", 8, Kind::Uint32),
    ],
};

static VALUE_AT_QUANTILE: Message = Message {
    name: "ValueAtQuantile",
    fields: &[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)],
};

static EXEMPLAR: Message = Message {
    name: "Exemplar",
    fields: &[
        one("timeUnixNano", 2, Kind::Fixed64),
        one("asDouble", 3, Kind::Double),
        one("spanId", 4, Kind::HexId),
        one("traceId", 5, Kind::HexId),
        one("asInt", 6, Kind::Sfixed64),
        many("filteredAttributes", 7, ATTRIBUTES),
    ],
};
