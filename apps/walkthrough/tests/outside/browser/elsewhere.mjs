// A page of an origin that the service names, and a page of one that it does not, in a real browser: what each may ask and read.

import assert from "node:assert/strict";
import { createServer } from "node:http";

import { chromium } from "playwright-core";

const { TASK_URL: url, TASK_API_KEY: key, PAGE_PORT: port, CHROMIUM: executablePath } = process.env;

/** Serves an empty page; the origin it has. */
async function serve(port) {
  const server = createServer((_request, answer) => {
    answer.setHeader("content-type", "text/html");
    answer.end("<title>Elsewhere</title><link rel=icon href=data:,>");
  });
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  server.unref();
  return `http://127.0.0.1:${server.address().port}`;
}

const browser = await chromium.launch({
  executablePath,
  // Chromium's own sandbox does not run as root, nor in most containers; the only pages it shows are ours.
  chromiumSandbox: false,
  args: ["--disable-dev-shm-usage"],
});

/** A page of this origin. */
async function open(origin) {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  await page.goto(origin);
  return page;
}

const named = await open(await serve(Number(port)));
const found = await named.evaluate(
  async ({ url, key }) => {
    const authorization = `Bearer ${key}`;
    const refused = await fetch(`${url}/tasks`);
    const created = await fetch(`${url}/tasks`, {
      method: "POST",
      headers: { authorization, "content-type": "application/json", "idempotency-key": "elsewhere" },
      body: JSON.stringify({ payload: "Hello world!" }),
    });
    const read = await fetch(`${url}${created.headers.get("location")}?wait=30s`, { headers: { authorization } });
    const tag = read.headers.get("etag");
    const same = await fetch(read.url, { headers: { authorization, "if-none-match": tag }, cache: "no-store" });
    const stream = await fetch(`${url}/events`, { headers: { authorization, "last-event-id": "0" } });
    const chunk = await stream.body.getReader().read();
    return {
      refused: { status: refused.status, ...(await refused.json()), asks: refused.headers.get("www-authenticate") },
      created: created.status,
      read: await read.json(),
      same: same.status,
      stream: new TextDecoder().decode(chunk.value),
    };
  },
  { url, key },
);
assert.equal(found.refused.status, 401);
assert.equal(found.refused.type, "urn:task-processor:problem:missing-api-key");
assert.equal(found.refused.asks, 'Bearer realm="task-processor"');
assert.equal(found.created, 201);
assert.equal(found.read.result, "!dlrow olleH (len=12)");
assert.equal(found.same, 304);
// What follows at once may come in the same piece.
assert.ok(found.stream.startsWith("retry: 2000\n\n"), found.stream);

const other = await open(await serve(0));
const outcome = await other.evaluate(
  async (url) => fetch(`${url}/health/live`).then((answer) => answer.status, (error) => error.name),
  url,
);
assert.equal(outcome, "TypeError");

await browser.close();
console.log("as the settings say");
