// The walk the product is made for, driven as a person would: from a slow service on the Overview to its p99 chart,
// to a trace, to the span that is slow, to its log lines and back. After the first page only links are clicked.
//
//   node walk.mjs [BASE_URL]            default $BASE_URL or http://127.0.0.1:4319
//
// The shop behind the server must be under load. With SHOP_URL (the gateway, such as http://127.0.0.1:7100) the walk
// first looks at the healthy shop and then switches slow payment on itself; without it, slow payment must be on.

import { BASE_URL, Failure, byTestId, eventually, expect, openPage, run, screenshot } from "./harness.mjs";

const SERVICE = "payment";
const SERVICES_MIN = 5;
const ms = (ns) => `${Math.round(ns / 1e6)} ms`;

await run("walk", async ({ browser, step }) => {
  const { page, complaints } = await openPage(browser);
  const row = byTestId(page, "service-row", `[data-service="${SERVICE}"]`);
  const answers = new Map();
  page.on("response", async (response) => {
    const { pathname } = new URL(response.url());
    if (pathname.startsWith("/api/") && response.ok()) {
      // A body can be gone when its page was left; then nobody asks for it either.
      await response.json().then((body) => answers.set(pathname, body), () => {});
    }
  });

  await step("the overview lists the shop's services with their rates", async () => {
    await page.goto(`${BASE_URL}/`);
    const { seen } = await eventually(
      `${SERVICES_MIN} services with a rate`,
      async () => {
        await page.reload();
        await byTestId(page, "service-row").first().waitFor({ timeout: 5_000 }).catch(() => {});
        const names = await byTestId(page, "service-row").evaluateAll((rows) => rows.map((row) => row.dataset.service));
        const busy = (answers.get("/api/services")?.services ?? []).filter((service) => service.rate > 0);
        return { ok: names.length >= SERVICES_MIN && busy.length >= SERVICES_MIN, seen: names.join(", ") || "none" };
      },
      { withinMs: 90_000, everyMs: 2_000 },
    );
    return seen;
  });

  if (process.env.SHOP_URL) {
    await step("slow payment is switched on in the shop", async () => {
      // A step needs something before it: half a minute of healthy figures.
      await eventually(
        `${SERVICE} has a healthy past`,
        async () => {
          const { services } = await (await fetch(`${BASE_URL}/api/services`)).json();
          const points = services.find((one) => one.name === SERVICE)?.p99_series ?? [];
          const seen = points.filter((value) => value !== null).length;
          return { ok: seen >= 4, seen: `${seen} points` };
        },
        { withinMs: 120_000, everyMs: 2_000 },
      );
      await screenshot(page, "walk-0-healthy");
      const answer = await fetch(`${process.env.SHOP_URL}/scenarios/slow-payment`, {
        method: "PUT",
        headers: { "content-type": "application/json" },
        body: '{"on":true}',
      });
      expect(answer.ok, `the shop answered ${answer.status}: ${await answer.text()}`);
    });
  }

  await step("the slow service stands out on the overview", async () => {
    const { seen } = await eventually(
      `the row of ${SERVICE} is marked slow`,
      async () => {
        await page.reload();
        await row.waitFor();
        const classes = (await row.getAttribute("class")) ?? "";
        return { ok: /\b(slow|failing)\b/.test(classes), seen: `class "${classes}"` };
      },
      { withinMs: 240_000, everyMs: 3_000 },
    );
    await screenshot(page, "walk-1-overview");
    return seen;
  });

  await step("its page shows the step in p99", async () => {
    await row.getByRole("link").first().click();
    await page.waitForURL(`**/service/${SERVICE}*`);
    const line = byTestId(page, "chart-p99").locator("path.p99");
    await line.waitFor({ state: "attached" });
    const { step: found } = await eventually(`p99 of ${SERVICE} steps up`, async () => {
      const found = stepOf(answers.get(`/api/services/${SERVICE}`)?.series ?? []);
      return { ok: found !== null && (await line.getAttribute("d")).includes("L"), seen: "no step in the series", step: found };
    }, { withinMs: 180_000 });
    await byTestId(page, "heatmap").waitFor();
    await screenshot(page, "walk-2-service");
    return `${ms(found.before)} to ${ms(found.after)}`;
  });

  let traceId;
  await step("an exemplar dot leads to its trace", async () => {
    const dots = byTestId(page, "exemplar-dot");
    await dots.first().waitFor();
    const durations = await dots.evaluateAll((all) => all.map((dot) => Number(dot.dataset.durationNs)));
    const slowest = durations.indexOf(Math.max(...durations));
    const href = await dots.nth(slowest).getAttribute("href");
    traceId = href?.match(/\/trace\/([0-9a-f]{32})/)?.[1];
    expect(traceId, `the dot's address names no trace: ${href}`);
    // Dots may lie on one another, and the page redraws itself: the link is followed by its address.
    await page.locator(`[data-testid="exemplar-dot"][href="${href}"]`).first().dispatchEvent("click");
    await page.waitForURL(`**/trace/${traceId}*`);
    return `${durations.length} dots, slowest ${ms(durations[slowest])}, trace ${traceId}`;
  });

  let span;
  await step(`the waterfall shows a span of ${SERVICE} as the one that takes the time`, async () => {
    await byTestId(page, "span-row").first().waitFor();
    const context = await eventually("the trace arrives", async () => {
      const context = answers.get(`/api/traces/${traceId}/context`);
      return { ok: context !== undefined, seen: "no answer", context };
    });
    const [longest] = bySelfTime(context.context.trace);
    expect(
      longest.service === SERVICE,
      `most time of its own has "${longest.name}" of ${longest.service} (${ms(longest.own)}), not a span of ${SERVICE}`,
    );
    span = longest;
    const bar = byTestId(page, "span-row", `[data-span-id="${span.id}"]`);
    await bar.waitFor();
    expect((await bar.getAttribute("data-service")) === SERVICE, "the row names another service");
    expect(Number(await bar.getAttribute("data-duration-ns")) === span.duration, "the row has another duration");
    await screenshot(page, "walk-3-trace");
    return `"${span.name}" ${ms(span.duration)}`;
  });

  let line;
  await step("one click on the span shows its log lines", async () => {
    await byTestId(page, "span-row", `[data-span-id="${span.id}"]`).click();
    await byTestId(page, "span-details").waitFor();
    const lines = byTestId(page, "span-log");
    await lines.first().waitFor();
    line = (await lines.first().innerText()).trim();
    expect(line !== "", "the span's log line is empty");
    await screenshot(page, "walk-4-span-logs");
    return `${await lines.count()} lines, "${line.replace(/\s+/g, " ").slice(0, 80)}"`;
  });

  await step("a log line leads to the logs", async () => {
    await byTestId(page, "span-log").first().getByRole("link").first().click();
    await page.waitForURL(/\/logs\b/);
    await byTestId(page, "log-row").first().waitFor();
    await screenshot(page, "walk-5-logs");
  });

  await step("and a line in the logs leads back to the trace", async () => {
    await byTestId(page, "log-trace-link").first().click();
    await page.waitForURL(`**/trace/${traceId}*`);
    await byTestId(page, "span-row").first().waitFor();
    await screenshot(page, "walk-6-back");
  });

  await step("no page complained", () => {
    if (complaints.length > 0) throw new Failure(complaints.join("\n  "));
  });
});

/**
 * The largest step in p99: the quiet level before it and the level after it (ns), or null when p99 never
 * doubled. Medians of both sides, at least two points each, so that one slow
 * request is no step.
 */
function stepOf(series) {
  const p99 = series.map((point) => point.p99_ns).filter((value) => value !== null && value !== undefined);
  const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
  let best = null;
  for (let cut = 2; cut <= p99.length - 2; cut++) {
    const [before, after] = [median(p99.slice(0, cut)), median(p99.slice(cut))];
    if (after >= 2 * before && (best === null || after / before > best.after / best.before)) best = { before, after };
  }
  return best;
}

/** Spans of an OTLP/JSON trace by the time that no child covers, longest first. */
function bySelfTime(trace) {
  const spans = trace.resourceSpans.flatMap((group) => {
    const name = group.resource.attributes.find((attribute) => attribute.key === "service.name");
    return group.scopeSpans.flatMap((scope) =>
      scope.spans.map((span) => ({
        id: span.spanId,
        parent: span.parentSpanId ?? "",
        name: span.name,
        service: name?.value.stringValue ?? "",
        start: BigInt(span.startTimeUnixNano),
        end: BigInt(span.endTimeUnixNano),
      })),
    );
  });
  const children = new Map(spans.map((span) => [span.id, []]));
  for (const span of spans) children.get(span.parent)?.push(span);
  for (const span of spans) {
    span.duration = Number(span.end - span.start);
    span.own = span.duration;
    let reached = span.start;
    const inside = children.get(span.id).sort((a, b) => (a.start < b.start ? -1 : 1));
    for (const child of inside) {
      const from = child.start > reached ? child.start : reached;
      const to = child.end < span.end ? child.end : span.end;
      if (to > from) {
        span.own -= Number(to - from);
        reached = to;
      }
    }
  }
  return spans.sort((a, b) => b.own - a.own);
}
