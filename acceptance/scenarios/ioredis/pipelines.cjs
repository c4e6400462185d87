// ioredis: pipelines, transactions, automatic pipelining, publish and subscribe.
"use strict";
const { assert, check, connect, run, until } = require("harness.cjs");

check("a pipeline answers in order, with its errors in place", async (r) => {
  const answers = await r.pipeline().set("a", 1).incr("a").lpush("a", 1).get("a").exec();
  assert.deepEqual([answers[0], answers[1], answers[3]], [[null, "OK"], [null, 2], [null, "2"]]);
  assert.match(answers[2][0].message, /WRONGTYPE/);
});

check("a pipeline of twenty thousand commands", async (r) => {
  const pipeline = r.pipeline();
  for (let n = 0; n < 10_000; n++) pipeline.set(`k${n}`, n).get(`k${n}`);
  const answers = await pipeline.exec();
  assert.ok(answers.every(([error]) => error === null));
  assert.deepEqual(answers.filter((_, n) => n % 2).map(([, value]) => Number(value)), Array.from({ length: 10_000 }, (_, n) => n));
});

check("a transaction is all in one", async (r) => {
  assert.deepEqual(await r.multi().set("a", 1).incr("a").get("a").exec(), [[null, "OK"], [null, 2], [null, "2"]]);
  await assert.rejects(r.multi().set("a", 1).call("GET").exec(), /EXECABORT|wrong number/);
});

check("a watched key that changes gives null", async (r) => {
  const other = connect();
  await r.set("k", 1);
  await r.watch("k");
  await other.set("k", 2);
  assert.equal(await r.multi().set("k", 3).exec(), null);
  assert.equal(await r.get("k"), "2");
});

check("automatic pipelining keeps each answer with its question", async () => {
  const auto = connect({ enableAutoPipelining: true });
  await Promise.all(Array.from({ length: 1000 }, (_, n) => auto.set(`k${n}`, n)));
  const values = await Promise.all(Array.from({ length: 1000 }, (_, n) => auto.get(`k${n}`)));
  assert.deepEqual(values.map(Number), Array.from({ length: 1000 }, (_, n) => n));
});

check("messages and patterns reach a subscriber", async (r) => {
  const subscriber = connect();
  const found = [];
  subscriber.on("message", (channel, text) => found.push(`${channel}=${text}`));
  subscriber.on("pmessage", (pattern, channel, text) => found.push(`${pattern}/${channel}=${text}`));
  assert.equal(await subscriber.subscribe("news", "other"), 2);
  assert.equal(await subscriber.psubscribe("n*"), 3);
  assert.equal(await r.publish("news", "hello"), 2);
  await until(() => found.length >= 2, "both messages");
  assert.deepEqual(found.sort(), ["n*/news=hello", "news=hello"]);
  await subscriber.unsubscribe("news", "other");
  await subscriber.punsubscribe("n*");
  assert.equal(await subscriber.get("k"), null);
});

check("monitoring values of a client", async (r) => {
  const named = connect({ connectionName: "worker-7" });
  await named.ping();
  assert.match(await r.client("LIST"), /name=worker-7/);
  assert.equal(await named.client("GETNAME"), "worker-7");
});

run();
