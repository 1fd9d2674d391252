// What a client in TypeScript does, with types generated of the document. The compiler holds every request and every answer against them.

import assert from "node:assert/strict";

import createClient from "openapi-fetch";

import type { components, paths } from "./task-processor.js";

type Task = components["schemas"]["TaskResult"] | components["schemas"]["TaskDetails"];

const baseUrl = process.env["TASK_URL"];
const key = process.env["TASK_API_KEY"];
assert(baseUrl !== undefined && key !== undefined);

const client = createClient<paths>({
  baseUrl,
  headers: { authorization: `Bearer ${key}` },
});

/** Waits until a task is done. */
async function result(id: string): Promise<string> {
  const { data, error } = await client.GET("/tasks/{id}", {
    params: { path: { id }, query: { wait: "30s" } },
  });
  assert(data !== undefined, error?.detail);
  // Of the forms of a task the result alone is without the payload.
  assert(!("payload" in data), `${id} is not done`);
  assert.equal(data.taskId, id);
  assert(!Number.isNaN(Date.parse(data.processedAt)));
  return data.result;
}

async function submit(payload: string): Promise<string> {
  const { data, error, response } = await client.POST("/tasks", {
    body: { payload, priority: 1 },
  });
  assert(data !== undefined, error?.detail);
  assert.equal(response.status, 201);
  assert.equal(response.headers.get("location"), `/tasks/${data.id}`);
  const status: "pending" = data.status;
  assert.equal(status, "pending");
  return data.id;
}

// One task, and its result.
assert.equal(await result(await submit("Hello world!")), "!dlrow olleH (len=12)");

// The same request twice is one task.
const repeated = {
  params: { header: { "Idempotency-Key": crypto.randomUUID() } },
  body: { payload: "once" },
} as const;
const first = await client.POST("/tasks", repeated);
const second = await client.POST("/tasks", repeated);
assert(first.data !== undefined);
assert.equal(second.data?.id, first.data.id);

// Many tasks at once.
const batch = await client.POST("/tasks/batch", {
  body: ["ab", "cd"].map((payload) => ({ payload })),
});
assert(batch.data !== undefined, batch.error?.detail);
assert.deepEqual(
  await Promise.all(batch.data.map(({ id }) => result(id))),
  ["ba (len=2)", "dc (len=2)"],
);

// A task that waits for its time is called off.
const runAt = new Date(Date.now() + 3_600_000).toISOString();
const later = await client.POST("/tasks", { body: { payload: "later", runAt } });
assert(later.data !== undefined, later.error?.detail);
const path = { id: later.data.id };
const cancelled = await client.POST("/tasks/{id}/cancel", { params: { path } });
assert.equal(cancelled.data?.status, "cancelled");
const retried = await client.POST("/tasks/{id}/retry", { params: { path } });
assert.equal(retried.response.status, 409);
assert.equal(retried.error?.taskStatus, "cancelled");
const whole = await client.GET("/tasks/{id}", {
  params: { path, query: { view: "full" } },
});
assert(whole.data !== undefined && "status" in whole.data);
assert.equal(whole.data.status, "cancelled");

// A list, page by page.
const listed: string[] = [];
let cursor: string | undefined;
do {
  const page = await client.GET("/tasks", {
    params: { query: { limit: 2, ...(cursor !== undefined && { cursor }) } },
  });
  assert(page.data !== undefined, page.error?.detail);
  listed.push(...page.data.tasks.map(({ id }) => id));
  cursor = page.data.next ?? undefined;
} while (cursor !== undefined);
assert.equal(listed.length, 5);
for (const { id } of batch.data) {
  assert(listed.includes(id));
}
const ofStatus = await client.GET("/tasks", {
  params: { query: { status: "cancelled" } },
});
assert.deepEqual(ofStatus.data?.tasks.map(({ id }) => id), [path.id]);

// What is wrong is said field by field.
const refused = await client.POST("/tasks", { body: { payload: "x", priority: 11 } });
assert.equal(refused.response.status, 400);
assert.equal(refused.error?.type, "urn:task-processor:problem:invalid-task");
assert.deepEqual(refused.error.errors?.map(({ field }) => field), ["priority"]);

// Nobody gets in without a key.
const stranger = createClient<paths>({ baseUrl });
const unknown = await stranger.GET("/tasks/{id}", { params: { path } });
assert.equal(unknown.response.status, 401);
assert.equal(unknown.error?.type, "urn:task-processor:problem:missing-api-key");

const metrics = await client.GET("/metrics");
assert(typeof metrics.data === "object");
assert.equal(metrics.data.totalTasks, 4);

// What this file never says at run time, the compiler must refuse.
export function misuses(task: Task): void {
  // @ts-expect-error: a priority is a number
  void client.POST("/tasks", { body: { payload: "x", priority: "1" } });
  // @ts-expect-error: a payload is needed
  void client.POST("/tasks", { body: {} });
  // @ts-expect-error: only one of the two forms has a result that is a text
  task.result.length;
}

console.log("as the document says");
