"""Sends one instrument of every kind with the Python SDK.

Usage: metrics.py cumulative|delta, with OTEL_EXPORTER_OTLP_ENDPOINT set. Everything is recorded in two rounds, each
exported at once, within a sampled span whose IDs are fixed.
"""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

TEMPORALITY = AggregationTemporality[sys.argv[1].upper()]
RESOURCE = Resource(
    {
        "service.namespace": "shop",
        "service.name": "api",
        "service.instance.id": "i-1",
        "host.name": "host-a",
        "host.cpus": 8,
    }
)
ORDER = {"http.request.method": "GET", "1st": 1, "_x": True, "a--b": 0.5, "empty": ""}


def main():
    exporter = OTLPMetricExporter(
        preferred_temporality={Counter: TEMPORALITY, Histogram: TEMPORALITY}
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    exponential = View(
        instrument_name="payload.size", aggregation=ExponentialBucketHistogramAggregation()
    )
    provider = MeterProvider(metric_readers=[reader], resource=RESOURCE, views=[exponential])
    meter = provider.get_meter("lib", "1.2", "https://example.invalid/1", {"lib.mode": "fast"})
    span = SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    context = trace.set_span_in_context(NonRecordingSpan(span))

    orders = meter.create_counter("shop.orders", "{order}", "Orders placed.")
    traffic = meter.create_counter("queue.total.bytes", "By", "Bytes queued.")
    failures = meter.create_counter("failures", "1", "What went wrong.")
    active = meter.create_up_down_counter("http.server.active_requests", "{request}", "Under way.")
    temperature = meter.create_gauge("room.temperature", "Cel", "How warm it is.")
    utilization = meter.create_gauge("cpu.utilization", "1", "How busy it is.")
    meter.create_observable_counter(
        "cpu.time", [lambda _: [Observation(12.5)]], "s", "Time spent."
    )
    meter.create_observable_gauge(
        "disk.read", [lambda _: [Observation(4096)]], "By/s", "How fast it reads."
    )
    duration = meter.create_histogram(
        "http.server.request.duration",
        "s",
        "How long requests take.",
        explicit_bucket_boundaries_advisory=[0.01, 0.1, 1],
    )
    size = meter.create_histogram("payload.size", "By", "How much is sent.")

    for round_orders, durations, sizes in [(3, [0.003, 0.3], [1, 4]), (2, [7], [8])]:
        orders.add(round_orders, ORDER, context=context)
        traffic.add(1000)
        failures.add(1)
        active.add(round_orders)
        temperature.set(21.5)
        utilization.set(0.25)
        for value in durations:
            duration.record(value, context=context)
        for value in sizes:
            size.record(value, context=context)
        provider.force_flush()
    provider.shutdown()


main()
