// A page that follows tasks by an EventSource, in a real browser, while the service is restarted behind it.

import assert from "node:assert/strict";

import { chromium } from "playwright-core";

const { TASK_URL: url, CHROMIUM: executablePath } = process.env;

const browser = await chromium.launch({
  executablePath,
  // Chromium's own sandbox does not run as root, nor in most containers; the only pages it shows are ours.
  chromiumSandbox: false,
  args: ["--disable-dev-shm-usage"],
});
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
await page.goto(`${url}/health/live`);
const heard = await page.evaluate(
  async (url) =>
    new Promise((resolve) => {
      let ends = 0;
      const source = new EventSource(`${url}/events`);
      source.addEventListener("end", () => {
        ends += 1;
      });
      source.addEventListener("message", (message) => resolve({ ends, event: JSON.parse(message.data) }));
      source.addEventListener("error", () => {
        if (source.readyState === EventSource.CLOSED) resolve({ closed: true, ends });
      });
    }),
  url,
);
assert.equal(heard.event?.status, "done", JSON.stringify(heard));
assert.ok(heard.ends > 0, JSON.stringify(heard));

await browser.close();
console.log("as the page says");
