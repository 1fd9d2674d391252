// What a person does on the page of the documentation, with an API key at hand: tries to submit a task, is refused, presses Authorize, tries
// again, and looks at what became of it.

import assert from "node:assert/strict";

import { chromium } from "playwright-core";

const { TASK_URL: url, TASK_API_KEY: key, CHROMIUM: executablePath } = process.env;

const browser = await chromium.launch({
  executablePath,
  // Chromium's own sandbox does not run as root, nor in most containers; the only page it shows is ours.
  chromiumSandbox: false,
  args: ["--disable-dev-shm-usage"],
});
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
const asked = [];
const complaints = [];
page.on("request", (request) => asked.push(request.url()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("console", (message) => {
  // That an answer was 401 is shown there too, and is meant.
  if (message.type() === "error" && !message.text().includes("status of 401")) {
    complaints.push(message.text());
  }
});

/** One operation on the page, opened and made ready to be tried. */
async function open(operation) {
  const block = page.locator(`#operations-Tasks-${operation}`);
  await block.locator(".opblock-summary-control").click();
  await block.getByRole("button", { name: "Try it out" }).click();
  return block;
}

/** Sends what is filled in; the status and the body that the page shows. */
async function execute(block) {
  const clear = block.getByRole("button", { name: "Clear" });
  if (await clear.isVisible()) {
    await clear.click();
  }
  await block.getByRole("button", { name: "Execute" }).click();
  const answer = block.locator(".live-responses-table .response");
  const status = await answer.locator(".response-col_status").first().innerText();
  const body = await answer.locator(".response-col_description .microlight, .response-col_description pre code").first().innerText();
  return { status: parseInt(status, 10), body: JSON.parse(body) };
}

await page.goto(`${url}/`);
assert.equal(page.url(), `${url}/docs`);
assert.equal(await page.title(), "Task Processor");

const submit = await open("submitTask");
await submit.locator("textarea.body-param__text").fill('{"payload":"Hello world!","priority":1}');
const refused = await execute(submit);
assert.equal(refused.status, 401);
assert.equal(refused.body.type, "urn:task-processor:problem:missing-api-key");

await page.locator(".scheme-container").getByRole("button", { name: "Authorize" }).click();
const dialog = page.locator(".modal-ux");
await dialog.locator("input").fill(key);
await dialog.locator("button.authorize").click();
await dialog.getByText("Logout").waitFor();
await dialog.locator("button.btn-done").click();

const created = await execute(submit);
assert.equal(created.status, 201);
assert.equal(created.body.status, "pending");

const read = await open("readTask");
const fill = (name, value) => read.locator(`tr[data-param-name="${name}"] input`).fill(value);
await fill("id", created.body.id);
await fill("wait", "30s");
const found = await execute(read);
assert.equal(found.status, 200);
assert.equal(found.body.taskId, created.body.id);
assert.equal(found.body.result, "!dlrow olleH (len=12)");

assert.deepEqual(complaints, []);
const elsewhere = asked.filter((address) => !address.startsWith(`${url}/`) && !address.startsWith("data:"));
assert.deepEqual(elsewhere, []);

await browser.close();
console.log("as the document says");
