// ioredis: every type, buffers, expiry, iterators.
"use strict";
const { assert, check, connect, run } = require("harness.cjs");

check("strings and numbers", async (r) => {
  assert.equal(await r.set("k", "v"), "OK");
  assert.equal(await r.get("k"), "v");
  assert.equal(await r.get("none"), null);
  assert.equal(await r.set("k", "w", "EX", 100, "NX"), null);
  assert.equal(await r.set("k", "w", "PX", 100000, "XX"), "OK");
  assert.ok((await r.pttl("k")) > 90000);
  assert.equal(await r.incrby("n", 5), 5);
  assert.equal(await r.incrbyfloat("f", 1.25), "1.25");
  assert.deepEqual(await r.mget("k", "none", "n"), ["w", null, "5"]);
});

check("buffers keep every byte", async (r) => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  await r.set(Buffer.from([0, 255, 13, 10]), bytes);
  assert.deepEqual(await r.getBuffer(Buffer.from([0, 255, 13, 10])), bytes);
});

check("hashes take objects and maps", async (r) => {
  assert.equal(await r.hset("h", { a: 1, b: "two" }), 2);
  assert.equal(await r.hset("h", new Map([["c", 3]])), 1);
  assert.deepEqual(await r.hgetall("h"), { a: "1", b: "two", c: "3" });
  assert.deepEqual(await r.hmget("h", "a", "z"), ["1", null]);
  assert.equal(await r.hincrby("h", "a", 2), 3);
});

check("lists, sets and sorted sets", async (r) => {
  await r.rpush("l", 1, 2, 3);
  assert.deepEqual(await r.lrange("l", 0, -1), ["1", "2", "3"]);
  assert.equal(await r.lmove("l", "m", "LEFT", "RIGHT"), "1");
  await r.sadd("s", "a", "b");
  assert.deepEqual((await r.smembers("s")).sort(), ["a", "b"]);
  await r.zadd("z", 1, "a", "2.5", "b", "+inf", "c");
  assert.deepEqual(await r.zrange("z", 0, -1, "WITHSCORES"), ["a", "1", "b", "2.5", "c", "inf"]);
  assert.deepEqual(await r.zrangebyscore("z", "(1", "+inf"), ["b", "c"]);
  assert.deepEqual(await r.zpopmin("z"), ["a", "1"]);
});

check("a scan stream gives every key", async (r) => {
  const names = Array.from({ length: 1500 }, (_, n) => `key:${n}`);
  await r.mset(names.flatMap((name) => [name, "v"]));
  const seen = new Set();
  for await (const batch of r.scanStream({ match: "key:*", count: 100 })) batch.forEach((name) => seen.add(name));
  assert.deepEqual([...seen].sort(), names.sort());
});

check("a hash scan stream gives every field", async (r) => {
  await r.hset("h", Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`f${n}`, n])));
  const found = {};
  for await (const batch of r.hscanStream("h")) for (let n = 0; n < batch.length; n += 2) found[batch[n]] = batch[n + 1];
  assert.equal(Object.keys(found).length, 1000);
  assert.equal(found.f999, "999");
});

check("errors reject with the server's words", async (r) => {
  await r.rpush("l", 1);
  await assert.rejects(r.get("l"), /WRONGTYPE Operation against a key holding the wrong kind of value/);
  await assert.rejects(r.call("NOSUCH"), /ERR unknown command 'NOSUCH'/i);
  await assert.rejects(r.call("GET"), /wrong number of arguments for 'get' command/);
});

check("databases and key prefixes", async (r) => {
  const two = connect({ db: 2 });
  await two.set("k", "two");
  assert.equal(await r.get("k"), null);
  const prefixed = connect({ db: 2, keyPrefix: "p:" });
  await prefixed.set("k", "x");
  assert.equal(await two.get("p:k"), "x");
});

check("blocking pops on a connection of their own", async (r) => {
  const { blocked } = require("harness.cjs");
  const waiter = connect();
  const answer = waiter.blpop("a", "b", 0);
  await blocked(r);
  await r.rpush("b", "x");
  assert.deepEqual(await answer, ["b", "x"]);
  assert.equal(await waiter.blpop("a", 0.05), null);
  const moved = waiter.blmove("from", "to", "LEFT", "RIGHT", 0);
  await blocked(r);
  await r.rpush("from", "y");
  assert.equal(await moved, "y");
  assert.deepEqual(await r.lrange("to", 0, -1), ["y"]);
});

run();
