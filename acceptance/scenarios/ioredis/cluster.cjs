// ioredis as a client of Redis Cluster: three nodes of `archipel cluster dev`, of which one is killed and started again.
"use strict";
const { spawn } = require("node:child_process");
const path = require("node:path");
const readline = require("node:readline");
const Redis = require("ioredis");
const { assert, check, run, until } = require("harness.cjs");

if (!process.env.ARCHIPEL_BIN) {
  console.log("skip - a cluster: the server that runs is in none");
  process.exit(0);
}

const KEYS = 200;
const children = [];
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));

/** Starts the cluster at an offset where nothing listens; gives what it says of its nodes. */
async function start() {
  for (let attempt = 0; attempt < 5; attempt++) {
    const offset = 15_780 + 10 * Math.floor(Math.random() * 800);
    const dir = path.join(process.env.SCRATCH, `dev-${attempt}`);
    const words = ["cluster", "dev", "--json", "--dir", dir, "--port-offset", `${offset}`];
    // Its nodes end when it does: its end of their input is closed then.
    const child = spawn(process.env.ARCHIPEL_BIN, words, { stdio: ["pipe", "pipe", "ignore"] });
    children.push(child);
    const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { value } = await lines.next();
    if (value) return JSON.parse(value).nodes;
  }
  throw new Error("no cluster could be started");
}

async function main() {
  const nodes = await start();
  const at = nodes.map((node) => ({ host: "127.0.0.1", port: 6380 + node.port_offset }));
  const cluster = new Redis.Cluster(at, { redisOptions: { maxRetriesPerRequest: 3 } });
  cluster.on("error", () => {});

  check("keys are found where the cluster says", async () => {
    for (let n = 0; n < KEYS; n++) assert.equal(await cluster.set(`i:${n}`, n), "OK");
    for (let n = 0; n < KEYS; n++) assert.equal(await cluster.get(`i:${n}`), `${n}`);
    assert.equal(cluster.nodes("all").length, 3);
  });

  check("a node that is killed loses no acknowledged write, and returns", async () => {
    process.kill(nodes[0].pid, "SIGKILL");
    const acknowledged = [];
    for (let n = 0; n < KEYS; n++) {
      const answer = await cluster.set(`j:${n}`, n).catch(() => undefined);
      if (answer === "OK") acknowledged.push(n);
    }
    assert.ok(acknowledged.length > KEYS / 2, `${acknowledged.length} of ${KEYS} writes were acknowledged`);
    for (const n of acknowledged) assert.equal(await cluster.get(`j:${n}`), `${n}`);
    const [program, ...words] = nodes[0].restart.split(" ");
    children.push(spawn(program, words, { stdio: "ignore" }));
    const own = new Redis({ ...at[0], retryStrategy: () => 50, maxRetriesPerRequest: null });
    own.on("error", () => {});
    await until(async () => (await own.cluster("INFO")).includes("cluster_state:ok"), "it serves again");
    own.disconnect();
  });

  await run();
}

main();
