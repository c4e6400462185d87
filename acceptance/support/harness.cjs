// Checks for scenarios in JavaScript: a sentence and a function that throws if it is not true.
"use strict";
const assert = require("node:assert/strict");
const Redis = require("ioredis");

const at = { host: process.env.REDIS_HOST || "127.0.0.1", port: Number(process.env.REDIS_PORT || 6379) };
const PATIENCE_MS = 20_000;
const checks = [];
const open = [];

/** A client of the server under test; closed when its check ends. */
function connect(options = {}) {
  const client = new Redis({ ...at, maxRetriesPerRequest: 1, ...options });
  open.push(client);
  return client;
}

/** Registers a check. It is given a client and an empty server. */
function check(sentence, body) {
  checks.push({ sentence, body });
}

/** Waits for a condition that another connection brings about. */
async function until(condition, what) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Waits until that many clients are blocked. */
function blocked(client, count = 1) {
  const now = async () => Number(/blocked_clients:(\d+)/.exec(await client.info("clients"))[1]);
  return until(async () => (await now()) >= count, `${count} blocked clients`);
}

function limited(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the check did not end in time")), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Runs the checks in order; each starts with an empty server. */
async function run() {
  let failed = 0;
  for (const { sentence, body } of checks) {
    try {
      const client = connect();
      await client.flushall();
      await limited(body(client));
      console.log(`ok - ${sentence}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok - ${sentence}: ${String(error.stack).replaceAll("\n", " | ")}`);
    }
    open.splice(0).forEach((client) => client.disconnect());
  }
  process.exit(failed ? 1 : 0);
}

module.exports = { assert, blocked, check, connect, run, until };
