"""Tells the story of ../README.md with the Python SDK.

Usage: client.py grpc|http SERVICE TIME_NS, with OTEL_EXPORTER_OTLP_ENDPOINT set.
"""

import json
import sys

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

PROTOCOL, SERVICE, TIME_NS = sys.argv[1], sys.argv[2], int(sys.argv[3])
MS = 1_000_000

if PROTOCOL == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    OPTIONS = {}
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    OPTIONS = {"compression": Compression.Gzip}

RESOURCE = Resource(
    {
        "service.name": SERVICE,
        "service.version": "1.2.3",
        "service.instance.id": "i-1",
        "host.cpus": 8,
    }
)


def acknowledged(signal, **more):
    print(json.dumps({"signal": signal, **more}), flush=True)


def send_traces():
    """Returns a context in which the child span is current."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**OPTIONS)))
    tracer = provider.get_tracer("story", "0.9")
    elsewhere = SpanContext(
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    root = tracer.start_span(
        "root",
        kind=SpanKind.SERVER,
        start_time=TIME_NS,
        links=[Link(elsewhere, {"reason": "retry", "attempt": 2})],
        attributes={
            "text": "grüße 🍀",
            "empty": "",
            "yes": True,
            "no": False,
            "int": 42,
            "negative": -7,
            "big": 9_007_199_254_740_993,
            "double": 2.5,
            "texts": ["a", "b"],
            "ints": [1, 2, 3],
            "doubles": [0.5, 1.5],
            "bools": [True, False],
            "bytes": b"\x00\xff\x10",
            "map": {"inner": 1, "deep": {"list": ["x", 2]}},
        },
    )
    root.add_event("first", {"n": 1, "ok": True}, timestamp=TIME_NS + 10 * MS)
    root.record_exception(ValueError("no such card"), timestamp=TIME_NS + 20 * MS)
    in_root = trace.set_span_in_context(root)
    child = tracer.start_span(
        "child", in_root, kind=SpanKind.CLIENT, start_time=TIME_NS + 50 * MS
    )
    child.set_status(Status(StatusCode.ERROR, "it broke"))
    child.end(TIME_NS + 150 * MS)
    root.set_status(Status(StatusCode.OK))
    root.end(TIME_NS + 250 * MS)
    provider.force_flush()
    acknowledged(
        "traces",
        trace_id=f"{root.get_span_context().trace_id:032x}",
        root_span_id=f"{root.get_span_context().span_id:016x}",
        child_span_id=f"{child.get_span_context().span_id:016x}",
    )
    provider.shutdown()
    return trace.set_span_in_context(child)


def send_logs(in_child):
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(**OPTIONS)))
    logger = provider.get_logger("story", "0.9")
    for n, severity in enumerate(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]):
        logger.emit(
            LogRecord(
                timestamp=TIME_NS + n * MS,
                context=in_child,
                severity_text=severity,
                severity_number=SeverityNumber[severity],
                body=f"the story is at {severity}",
                attributes={"n": n},
                event_name="story.told",
            )
        )
    logger.emit(
        LogRecord(
            timestamp=TIME_NS + 10 * MS,
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            body={"kind": "structured", "count": 3},
            attributes={
                "bytes": b"\x00\xff\x10",
                "list": ["a", 1, 2.5, True],
                "map": {"inner": 1, "deep": {"list": ["x", 2]}},
            },
        )
    )
    provider.force_flush()
    acknowledged("logs")
    provider.shutdown()


def send_metrics(in_child):
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(**OPTIONS), export_interval_millis=3_600_000
    )
    provider = MeterProvider(
        metric_readers=[reader],
        resource=RESOURCE,
        views=[
            View(
                instrument_name="client.size",
                aggregation=ExponentialBucketHistogramAggregation(),
            )
        ],
    )
    meter = provider.get_meter("story", "0.9")
    requests = meter.create_counter("client.requests", "{request}", "Requests made.")
    requests.add(3, {"k": "v"}, context=in_child)
    requests.add(2, {"k": "w"}, context=in_child)
    active = meter.create_up_down_counter("client.active", "{request}", "Requests under way.")
    active.add(5, context=in_child)
    active.add(-2, context=in_child)
    meter.create_gauge("client.temperature", "Cel", "How warm it is.").set(21.5, context=in_child)
    duration = meter.create_histogram(
        "client.duration", "s", "How long.", explicit_bucket_boundaries_advisory=[0.01, 0.1, 1]
    )
    for value in [0.003, 0.3, 7]:
        duration.record(value, context=in_child)
    size = meter.create_histogram("client.size", "By", "How much.")
    for value in [1, 2, 4, 8]:
        size.record(value, context=in_child)
    provider.force_flush()
    acknowledged("metrics")
    # The last collection at shutdown repeats the same totals.
    provider.shutdown()


def main():
    in_child = send_traces()
    send_logs(in_child)
    send_metrics(in_child)


main()
