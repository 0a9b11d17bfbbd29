#!/usr/bin/env python3
"""The walk from a metric to the trace to the log line, through Trefoil's HTTP API.

A chart shows that something is wrong, a trace shows where, a log line shows why. This script takes the same steps
as a person does in the UI, with nothing but Python's standard library:

    metric     p99 of every service, by PromQL; the slowest one is chosen
    exemplar   a slow request of that service, kept with its trace ID when it was measured
    trace      the whole request through all services; the span that spent the most time itself
    logs       what was written within that span, and within the whole trace

    examples/scripts/walk.py [--base http://127.0.0.1:4319] [--service NAME] [--range 5m]

Ends with status 1 and a sentence on standard error when a step finds nothing.
"""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

DURATION = "http_server_request_duration_seconds"
NS_PER_MS = 1_000_000


class Lost(Exception):
    """A step found nothing; the message says which and what to do."""


class Api:
    """Trefoil's query port."""

    def __init__(self, base):
        self.base = base.rstrip("/")

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        url = f"{self.base}{path}" + (f"?{query}" if query else "")
        try:
            with urllib.request.urlopen(url, timeout=15) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Lost(f"GET {url} answered {error.code}: {error.read().decode(errors='replace')}")
        except (urllib.error.URLError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise Lost(f"no answer from {self.base} ({reason}); is `trefoil serve` running?")

    def promql(self, query):
        """An instant query's vector: a list of (labels, number)."""
        answer = self.get("/prometheus/api/v1/query", query=query)
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def exemplars(self, query, seconds):
        """(labels of the series, exemplar) of all series that `query` selects."""
        now = time.time()
        answer = self.get(
            "/prometheus/api/v1/query_exemplars", query=query, start=now - seconds, end=now + 5
        )
        return [
            (series["seriesLabels"], exemplar)
            for series in answer["data"]
            for exemplar in series["exemplars"]
        ]


class Span:
    """A span of an OTLP/JSON trace with what the walk needs of it."""

    def __init__(self, service, raw):
        self.service = service
        self.id = raw["spanId"]
        self.parent = raw.get("parentSpanId", "")
        self.name = raw["name"]
        self.start = int(raw["startTimeUnixNano"])
        self.end = max(self.start, int(raw["endTimeUnixNano"]))
        self.failed = raw.get("status", {}).get("code") == 2
        self.attributes = {
            one["key"]: next(iter(one["value"].values()), None) for one in raw.get("attributes", [])
        }
        self.children = []

    @property
    def duration(self):
        return self.end - self.start

    @property
    def own(self):
        """Time that no child covers, ns."""
        own, reached = self.duration, self.start
        for child in sorted(self.children, key=lambda child: child.start):
            begin, end = max(child.start, reached), min(child.end, self.end)
            if end > begin:
                own -= end - begin
                reached = end
        return own


def spans_of(trace):
    """All spans of an OTLP/JSON trace, children linked to their parents; by start."""
    spans = []
    for resource in trace.get("resourceSpans", []):
        names = [
            one["value"].get("stringValue")
            for one in resource["resource"].get("attributes", [])
            if one["key"] == "service.name"
        ]
        for scope in resource["scopeSpans"]:
            spans += [Span(names[0] if names else "?", raw) for raw in scope["spans"]]
    by_id = {span.id: span for span in spans}
    for span in spans:
        if span.parent in by_id:
            by_id[span.parent].children.append(span)
    return sorted(spans, key=lambda span: span.start)


def ms(ns):
    return f"{ns / NS_PER_MS:.1f} ms"


def seconds_of(text):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        return float(text[:-1]) * units[text[-1]]
    except (KeyError, ValueError, IndexError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 5m") from None


def pick_service(api, wanted, range_text):
    """Step 1: the service with the highest p99, or the wanted one."""
    print(f"1. metric: p99 of {DURATION} over {range_text}")
    query = (
        f"histogram_quantile(0.99, sum by (job, le) (rate({DURATION}_bucket[{range_text}])))"
    )
    p99s = [(labels.get("job", "?"), p99) for labels, p99 in api.promql(query) if p99 == p99]
    if not p99s:
        raise Lost(
            f"no series {DURATION}_bucket in the last {range_text}: is the shop running "
            "(`trefoil demo`, or `trefoil-shop up`)?"
        )
    p99s.sort(key=lambda one: -one[1])
    chosen = wanted or p99s[0][0]
    for service, p99 in p99s:
        mark = "->" if service == chosen else "  "
        print(f"   {mark} {service:14} {p99 * 1000:8.1f} ms")
    if chosen not in [service for service, _ in p99s]:
        raise Lost(f"no service {chosen!r} has {DURATION}")
    return chosen


def pick_exemplar(api, service, seconds):
    """Step 2: the slowest measurement of the service that is still known with its trace."""
    selector = f'{DURATION}_bucket{{job="{service}"}}'
    print(f"2. exemplar: of {selector}")
    exemplars = api.exemplars(selector, seconds)
    with_trace = [one for one in exemplars if one[1]["labels"].get("trace_id")]
    if not with_trace:
        raise Lost(f"no exemplar of {service} in the last {seconds:.0f} s")
    labels, slowest = max(with_trace, key=lambda one: float(one[1]["value"]))
    trace_id = slowest["labels"]["trace_id"]
    print(
        f"   -> {labels.get('http_request_method', '')} {labels.get('http_route', '')}"
        f" took {float(slowest['value']) * 1000:.1f} ms in trace {trace_id}"
        f" (the slowest of {len(with_trace)})"
    )
    return trace_id


def show_trace(api, trace_id):
    """Step 3: the trace; returns its span with the most time of its own."""
    spans = spans_of(api.get(f"/api/traces/{trace_id}"))
    if not spans:
        raise Lost(f"trace {trace_id} has no spans")
    services = sorted({span.service for span in spans})
    print(f"3. trace: {len(spans)} spans of {', '.join(services)}")
    longest = max(spans, key=lambda span: span.own)
    known = {span.id for span in spans}

    def show(span, depth):
        mark = "->" if span is longest else "  "
        failed = "  ERROR" if span.failed else ""
        line = f"{'  ' * depth}{span.service}: {span.name}"
        print(f"   {mark} {line:60} {ms(span.duration):>12}{failed}")
        for child in sorted(span.children, key=lambda child: child.start):
            show(child, depth + 1)

    for span in spans:
        if span.parent not in known:
            show(span, 0)
    facts = {
        key: value
        for key, value in longest.attributes.items()
        if key.startswith("shop.") or key in ("server.address", "error.type")
    }
    told = ", ".join(f"{key}={value}" for key, value in facts.items())
    print(f"   most time itself: {longest.service}: {longest.name}, {ms(longest.own)} ({told})")
    return longest


def show_logs(api, trace_id, span):
    """Step 4: the log lines of the span, and the trace in all three signals."""
    logs = api.get("/api/logs", trace_id=trace_id, order="asc", limit=200)["logs"]
    if not logs:
        raise Lost(f"no log line carries the trace ID {trace_id}")
    own = [log for log in logs if log["span_id"] == span.id]
    print(f"4. logs: {len(logs)} lines in the trace, {len(own)} within the span")
    for log in logs:
        mark = "->" if log in own else "  "
        print(f"   {mark} {log['timestamp']} {log['severity_text']:5} {log['service']}: {log['body']}")
    context = api.get(f"/api/traces/{trace_id}/context")
    found = len(spans_of(context["trace"]))
    counts = [f"{found} spans", f"{len(context['logs'])} log lines"]
    counts += [f"{len(context['exemplars'])} exemplars", f"{len(context['services'])} services"]
    print(f"   all in one answer, /api/traces/{trace_id}/context: {', '.join(counts)}")
    if not found or not context["logs"]:
        raise Lost(f"the context of trace {trace_id} is not whole")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--base", default="http://127.0.0.1:4319", help="Trefoil's query port")
    parser.add_argument("--service", help="where to start (default: the highest p99)")
    parser.add_argument("--range", default="5m", help="how far to look back (default: 5m)")
    arguments = parser.parse_args()
    try:
        seconds = seconds_of(arguments.range)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    api = Api(arguments.base)
    try:
        service = pick_service(api, arguments.service, arguments.range)
        trace_id = pick_exemplar(api, service, seconds)
        span = show_trace(api, trace_id)
        show_logs(api, trace_id, span)
    except Lost as lost:
        print(f"walk.py: {lost}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
