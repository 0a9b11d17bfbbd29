// Every page, dark and light, wide and narrow: nothing complains, nothing is cut, nothing keeps people out (axe). Then
// what the keyboard can do: the metrics explorer's completion, its mistakes, and the tree of a trace.
//
//   node pages.mjs [BASE_URL]           default $BASE_URL or http://127.0.0.1:4319
//
// The shop behind the server must be under load for half a minute.

import axe from "axe-core";
import { BASE_URL, Failure, byTestId, eventually, expect, openPage, run, screenshot } from "./harness.mjs";

const HEAT = "sum by (le) (rate(http_server_request_duration_seconds_bucket[1m]))";
const RATE = "sum by (job) (rate(http_server_request_duration_seconds_count[1m]))";
const explore = (query) => `/explore?q=${encodeURIComponent(query)}`;

await run("pages", async ({ browser, step }) => {
  let trace;
  await step("there are traces with logs, and metrics", async () => {
    await eventually(
      "a trace of several services with logs, and a rate",
      async () => {
        const { traces } = await json("/api/traces?service=payment");
        for (const { trace_id } of traces) {
          const { logs } = await json(`/api/traces/${trace_id}/context`);
          trace = { id: trace_id, span: logs.find((log) => log.span_id !== "")?.span_id };
          if (trace.span) break;
        }
        const rates = await json(`/prometheus/api/v1/query?query=${encodeURIComponent(RATE)}`);
        return { ok: trace?.span && rates.data.result.length > 0, seen: `${traces.length} traces` };
      },
      { withinMs: 120_000, everyMs: 2_000 },
    );
  });

  const pages = {
    overview: "/",
    service: "/service/payment",
    traces: "/traces",
    trace: `/trace/${trace.id}?span=${trace.span}`,
    logs: "/logs",
    metrics: "/explore",
    lines: explore(RATE),
    heat: explore(HEAT),
    mistake: explore("sum(raet(up[5m]))"),
    sql: `/sql?q=${encodeURIComponent("select service_name, count(*) as spans from spans group by service_name")}`,
    nowhere: "/nowhere",
  };
  for (const colorScheme of ["dark", "light"]) {
    for (const width of [1440, 800]) {
      await step(`all pages, ${colorScheme}, ${width} px wide`, async () => {
        const { context, page, complaints } = await openPage(browser, { width, height: 900, colorScheme });
        page.setDefaultTimeout(60_000);
        const problems = [];
        for (const [name, path] of Object.entries(pages)) {
          await page.goto(BASE_URL + path);
          await page.locator("h1, .state").first().waitFor();
          await page.locator(".loading").waitFor({ state: "detached" });
          await screenshot(page, `pages-${name}-${colorScheme}-${width}`);
          const cut = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
          if (cut > 0) problems.push(`${name}: ${cut} px stand out on the right`);
          problems.push(...(await barriers(page)).map((problem) => `${name}: ${problem}`));
        }
        // A mistake in a query is answered with 400, of which Chromium tells the console.
        problems.push(...complaints.filter((complaint) => !/status of 400/.test(complaint)));
        await context.close();
        if (problems.length > 0) throw new Failure(problems.join("\n  "));
      });
    }
  }

  const { page } = await openPage(browser);
  const field = byTestId(page, "promql-query");

  await step("the explorer completes metrics, labels and values by keyboard", async () => {
    await page.goto(`${BASE_URL}/explore`);
    await page.locator(".catalogue").waitFor();
    await field.focus();
    await field.pressSequentially("sum by (job) (rat");
    await option(page, "rate").waitFor();
    await field.press("Enter");
    await field.pressSequentially("request_duration_seconds_cou");
    await option(page, "http_server_request_duration_seconds_count").waitFor();
    while (!(await chosen(page)).includes("http_server_request_duration_seconds_count")) await field.press("ArrowDown");
    await field.press("Tab");
    await field.pressSequentially("{jo");
    await option(page, "job").waitFor();
    await field.press("Tab");
    await option(page, "payment").waitFor();
    await field.pressSequentially("paym");
    await field.press("Tab");
    await field.pressSequentially("}[1m]");
    await field.press("Escape");
    const wanted = 'sum by (job) (rate(http_server_request_duration_seconds_count{job="payment"}[1m]))';
    // The parenthesis that the function came with closes the aggregation's too.
    await field.press("End");
    await field.pressSequentially(")");
    expect((await field.inputValue()) === wanted, `the field holds ${await field.inputValue()}`);
    await field.press("Enter");
    await byTestId(page, "chart-promql").locator("path").first().waitFor({ state: "attached" });
    return wanted;
  });

  await step("a mistake is shown where it is", async () => {
    await field.fill("sum(raet(up[5m]))");
    await field.press("Escape");
    await field.press("Control+Enter");
    const mistake = byTestId(page, "query-mistake");
    await mistake.waitFor();
    const [line, carets] = (await mistake.locator("pre").textContent()).split("\n");
    expect(carets.indexOf("^") === line.indexOf("raet"), `the caret stands wrong:\n${line}\n${carets}`);
    expect((await mistake.textContent()).includes("Did you mean rate?"), "there is no advice");
    return carets.trim();
  });

  await step("a histogram is a heat map whose dots lead to traces", async () => {
    await page.goto(BASE_URL + explore(HEAT));
    await byTestId(page, "heat-promql").waitFor();
    const dot = byTestId(page, "exemplar-dot").first();
    await dot.waitFor();
    await dot.dispatchEvent("click");
    await page.waitForURL("**/trace/*");
    await byTestId(page, "span-row").first().waitFor();
  });

  await step("the tree of a trace is folded by keyboard, and stays folded", async () => {
    await page.goto(`${BASE_URL}/trace/${trace.id}`);
    const tree = page.getByRole("tree");
    const rows = byTestId(page, "span-row");
    await rows.first().waitFor();
    const before = await rows.count();
    await tree.focus();
    await tree.press("Home");
    await tree.press("ArrowLeft");
    await eventually("one row", async () => ({ ok: (await rows.count()) === 1, seen: `${await rows.count()} rows` }));
    expect((await rows.first().getAttribute("aria-expanded")) === "false", "the row does not say that it is folded");
    // Longer than the page's refresh.
    await page.waitForTimeout(11_000);
    expect((await rows.count()) === 1, "the refresh unfolded it");
    await tree.press("ArrowRight");
    await eventually("all rows", async () => ({ ok: (await rows.count()) === before, seen: `${await rows.count()} rows` }));
    return `${before} rows`;
  });

  await step("a service with dots in its name has an address", async () => {
    const answer = await page.goto(`${BASE_URL}/service/shop.example.com`);
    expect(answer.status() === 200, `it answers ${answer.status()}`);
  });
});

async function json(path) {
  return (await fetch(BASE_URL + path)).json();
}

/** The completion of that text. */
function option(page, text) {
  return page.locator("#completions [role=option]", { has: page.locator("code", { hasText: new RegExp(`^${text}$`) }) });
}

async function chosen(page) {
  return (await page.locator("#completions [aria-selected=true]").textContent()) ?? "";
}

/** What axe finds wrong with the page by WCAG 2 A and AA. */
async function barriers(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }),
  );
  return violations.map(({ id, help, nodes }) => `${id} (${help}): ${nodes[0].target} and ${nodes.length - 1} more`);
}
