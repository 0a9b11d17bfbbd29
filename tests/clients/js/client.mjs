// Tells the story of ../README.md with the JavaScript SDK, over OTLP/HTTP with JSON.
//
// Usage: node client.mjs SERVICE TIME_NS, with OTEL_EXPORTER_OTLP_ENDPOINT set.

import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { SeverityNumber } from '@opentelemetry/api-logs';
import { OTLPLogExporter } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import {
  AggregationType,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';

const [service, timeText] = process.argv.slice(2);
const timeNs = BigInt(timeText);

const resource = resourceFromAttributes({
  'service.name': service,
  'service.version': '1.2.3',
  'service.instance.id': 'i-1',
  'host.cpus': 8,
});

/** The story's time plus some milliseconds, as the SDK takes it: seconds and nanoseconds. */
function at(milliseconds) {
  const ns = timeNs + BigInt(milliseconds) * 1_000_000n;
  return [Number(ns / 1_000_000_000n), Number(ns % 1_000_000_000n)];
}

function acknowledged(signal, more) {
  process.stdout.write(`${JSON.stringify({ signal, ...more })}\n`);
}

/** Returns a context in which the child span is current. */
async function sendTraces() {
  const provider = new BasicTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  });
  const tracer = provider.getTracer('story', '0.9');
  const elsewhere = {
    traceId: '0af7651916cd43dd8448eb211c80319c',
    spanId: 'b7ad6b7169203331',
    traceFlags: TraceFlags.SAMPLED,
    isRemote: true,
  };
  const root = tracer.startSpan(
    'root',
    {
      kind: SpanKind.SERVER,
      startTime: at(0),
      links: [{ context: elsewhere, attributes: { reason: 'retry', attempt: 2 } }],
      attributes: {
        text: 'grüße 🍀',
        empty: '',
        yes: true,
        no: false,
        int: 42,
        negative: -7,
        double: 2.5,
        texts: ['a', 'b'],
        ints: [1, 2, 3],
        doubles: [0.5, 1.5],
        bools: [true, false],
      },
    },
    ROOT_CONTEXT,
  );
  root.addEvent('first', { n: 1, ok: true }, at(10));
  root.recordException(new TypeError('no such card'), at(20));
  const child = tracer.startSpan(
    'child',
    { kind: SpanKind.CLIENT, startTime: at(50) },
    trace.setSpan(ROOT_CONTEXT, root),
  );
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'it broke' });
  child.end(at(150));
  root.setStatus({ code: SpanStatusCode.OK });
  root.end(at(250));
  await provider.forceFlush();
  acknowledged('traces', {
    trace_id: root.spanContext().traceId,
    root_span_id: root.spanContext().spanId,
    child_span_id: child.spanContext().spanId,
  });
  await provider.shutdown();
  return trace.setSpan(ROOT_CONTEXT, child);
}

async function sendLogs(inChild) {
  const provider = new LoggerProvider({
    resource,
    processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })],
  });
  const logger = provider.getLogger('story', '0.9');
  ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'].forEach((severity, n) => {
    logger.emit({
      timestamp: at(n),
      context: inChild,
      severityText: severity,
      severityNumber: SeverityNumber[severity],
      body: `the story is at ${severity}`,
      attributes: { n },
      eventName: 'story.told',
    });
  });
  logger.emit({
    timestamp: at(10),
    context: ROOT_CONTEXT,
    severityText: 'INFO',
    severityNumber: SeverityNumber.INFO,
    body: { kind: 'structured', count: 3 },
    attributes: {
      bytes: new Uint8Array([0x00, 0xff, 0x10]),
      list: ['a', 1, 2.5, true],
      map: { inner: 1, deep: { list: ['x', 2] } },
    },
  });
  await provider.forceFlush();
  acknowledged('logs');
  await provider.shutdown();
}

async function sendMetrics(inChild) {
  const reader = new PeriodicExportingMetricReader({
    exporter: new OTLPMetricExporter(),
    exportIntervalMillis: 3_600_000,
  });
  const provider = new MeterProvider({
    resource,
    readers: [reader],
    views: [
      {
        instrumentName: 'client.size',
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
      },
    ],
  });
  const meter = provider.getMeter('story', '0.9');
  const requests = meter.createCounter('client.requests', {
    unit: '{request}',
    description: 'Requests made.',
  });
  requests.add(3, { k: 'v' }, inChild);
  requests.add(2, { k: 'w' }, inChild);
  const active = meter.createUpDownCounter('client.active', {
    unit: '{request}',
    description: 'Requests under way.',
  });
  active.add(5, {}, inChild);
  active.add(-2, {}, inChild);
  meter
    .createGauge('client.temperature', { unit: 'Cel', description: 'How warm it is.' })
    .record(21.5, {}, inChild);
  const duration = meter.createHistogram('client.duration', {
    unit: 's',
    description: 'How long.',
    advice: { explicitBucketBoundaries: [0.01, 0.1, 1] },
  });
  for (const value of [0.003, 0.3, 7]) duration.record(value, {}, inChild);
  const size = meter.createHistogram('client.size', { unit: 'By', description: 'How much.' });
  for (const value of [1, 2, 4, 8]) size.record(value, {}, inChild);
  await provider.forceFlush();
  acknowledged('metrics');
  // The last collection at shutdown repeats the same totals.
  await provider.shutdown();
}

const inChild = await sendTraces();
await sendLogs(inChild);
await sendMetrics(inChild);
