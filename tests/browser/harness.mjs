// What the browser tests share: one headless Chromium, a record of everything the page complained about, steps that
// say what they were about to see when they fail, and screenshots under target/screenshots.

import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
export const SCREENSHOTS = process.env.SCREENSHOTS ?? join(ROOT, "target", "screenshots");
export const BASE_URL = (process.argv[2] ?? process.env.BASE_URL ?? "http://127.0.0.1:4319").replace(/\/$/, "");

/** A condition the page did not meet; its message is all that is printed. */
export class Failure extends Error {}

export function expect(condition, message) {
  if (!condition) throw new Failure(message);
}

/** Starts Debian's Chromium (or `CHROMIUM`). No GPU is assumed: charts are drawn by the CPU, as in CI. */
export async function launch() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  try {
    return await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
    });
  } catch (error) {
    throw new Failure(
      `cannot start ${executablePath} (apt-get install chromium, or set CHROMIUM to a browser):\n${error.message}`,
    );
  }
}

/**
 * Opens a page that keeps what it complained about in `complaints`: exceptions, console errors (violations of the
 * Content-Security-Policy among them) and failed requests. Aborted requests are none: leaving a view aborts its own.
 */
export async function openPage(browser, { width = 1440, height = 900, colorScheme = "dark" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme,
    reducedMotion: "reduce",
    timezoneId: "UTC",
    locale: "en-GB",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("requestfailed", (request) => {
    const reason = request.failure()?.errorText ?? "";
    if (!reason.includes("ERR_ABORTED")) complaints.push(`request: ${request.url()}: ${reason}`);
  });
  return { context, page, complaints };
}

export async function screenshot(page, name, options = {}) {
  mkdirSync(SCREENSHOTS, { recursive: true });
  const path = join(SCREENSHOTS, `${name}.png`);
  await page.screenshot({ path, ...options });
  return path;
}

/** The element with this `data-testid`, narrowed by a further CSS selector on the same element. */
export function byTestId(page, id, selector = "") {
  return page.locator(`[data-testid="${id}"]${selector}`);
}

/** Asks again and again until `probe` gives something true; its last word is in the failure. */
export async function eventually(what, probe, { withinMs = 30_000, everyMs = 500 } = {}) {
  const end = Date.now() + withinMs;
  let last;
  for (;;) {
    last = await probe();
    if (last.ok) return last;
    if (Date.now() > end) throw new Failure(`${what}: not within ${withinMs / 1000} s; last seen: ${last.seen}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** Runs `main` and ends the process: 0, or 1 after naming the step that failed. */
export async function run(title, main) {
  let current = "start";
  const steps = [];
  const step = async (name, body) => {
    current = name;
    const started = Date.now();
    const note = await body();
    steps.push(name);
    console.log(`  ok  ${name}${note ? `: ${note}` : ""} (${Date.now() - started} ms)`);
  };
  console.log(`${title} at ${BASE_URL}`);
  let browser;
  try {
    browser = await launch();
    await main({ browser, step });
    console.log(`passed: ${steps.length} steps; screenshots in ${SCREENSHOTS}`);
  } catch (error) {
    // Playwright's messages say what was waited for; a stack helps only with our own mistakes.
    const told = error instanceof Failure || /^(page|locator|browserContext)\./.test(error.message ?? "");
    const words = told ? error.message.replace(/\x1b\[\d+m/g, "") : (error.stack ?? String(error));
    console.error(`FAILED at "${current}": ${words}`);
    for (const context of browser?.contexts() ?? []) {
      for (const page of context.pages()) {
        console.error(`  page was at ${page.url()}`);
        await screenshot(page, "failure").then(
          (path) => console.error(`  see ${path}`),
          () => {},
        );
      }
    }
    process.exitCode = 1;
  } finally {
    await browser?.close();
  }
}
