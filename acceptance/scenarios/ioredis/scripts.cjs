// ioredis: commands defined in Lua, in the manner of job queues that keep their whole logic in scripts.
"use strict";
const { assert, blocked, check, connect, run } = require("harness.cjs");

// A queue of our own: a list of waiting ids, one of active ids, a sorted set of delayed ones, a hash each.
const add = {
  numberOfKeys: 4,
  lua: `
    local id = redis.call("INCR", KEYS[1])
    local options = cmsgpack.unpack(ARGV[3])
    local key = ARGV[1] .. id
    redis.call("HSET", key, "data", ARGV[2], "attempts", 0, "options", cjson.encode(options))
    if options.delay and options.delay > 0 then
      redis.call("ZADD", KEYS[3], tonumber(ARGV[4]) + options.delay, id)
    elseif options.lifo then
      redis.call("RPUSH", KEYS[2], id)
    else
      redis.call("LPUSH", KEYS[2], id)
    end
    redis.call("PUBLISH", KEYS[4], cjson.encode({ event = "added", id = tostring(id) }))
    return tostring(id)`,
};

const promote = {
  numberOfKeys: 2,
  lua: `
    local due = redis.call("ZRANGEBYSCORE", KEYS[1], 0, ARGV[1], "LIMIT", 0, 100)
    if #due > 0 then
      redis.call("ZREM", KEYS[1], unpack(due))
      redis.call("LPUSH", KEYS[2], unpack(due))
    end
    local next = redis.call("ZRANGE", KEYS[1], 0, 0, "WITHSCORES")
    return { #due, next[2] or false }`,
};

const take = {
  numberOfKeys: 2,
  lua: `
    local id = redis.call("RPOPLPUSH", KEYS[1], KEYS[2])
    if not id then return nil end
    local key = ARGV[1] .. id
    if not redis.call("SET", key .. ":lock", ARGV[2], "PX", ARGV[3], "NX") then
      return redis.error_reply("LOCKED job " .. id)
    end
    redis.call("HINCRBY", key, "attempts", 1)
    return { id, redis.call("HGETALL", key) }`,
};

const finish = {
  numberOfKeys: 2,
  lua: `
    local key = ARGV[1] .. ARGV[2]
    if redis.call("GET", key .. ":lock") ~= ARGV[3] then return -2 end
    redis.call("DEL", key .. ":lock")
    if redis.call("LREM", KEYS[1], -1, ARGV[2]) == 0 then return -3 end
    redis.call("ZADD", KEYS[2], ARGV[4], ARGV[2])
    redis.call("HSET", key, "returned", ARGV[5], "finished", ARGV[4])
    local old = redis.call("ZREVRANGE", KEYS[2], 2, -1)
    for _, id in ipairs(old) do redis.call("DEL", ARGV[1] .. id) end
    redis.call("ZREMRANGEBYRANK", KEYS[2], 0, -3)
    return 0`,
};

/** A queue without delay is packed as a fixmap with one true flag or none. */
const options = { plain: Buffer.from([0x80]), lifo: Buffer.from([0x81, 0xa4, ...Buffer.from("lifo"), 0xc3]), later: Buffer.from([0x81, 0xa5, ...Buffer.from("delay"), 0x64]) };

function queue(r) {
  Object.entries({ add, promote, take, finish }).forEach(([name, script]) => r.defineCommand(name, script));
  return {
    add: (data, how = "plain", now = 0) => r.add("q:id", "q:wait", "q:delayed", "q:events", "q:", data, options[how], now),
    promote: (now) => r.promote("q:delayed", "q:wait", now),
    take: (token) => r.take("q:wait", "q:active", "q:", token, 30000),
    finish: (id, token, now) => r.finish("q:active", "q:done", "q:", id, token, now, "done"),
  };
}

check("jobs are taken in order and finished once", async (r) => {
  const q = queue(r);
  assert.deepEqual([await q.add("one"), await q.add("two"), await q.add("first", "lifo")], ["1", "2", "3"]);
  const [id, fields] = await q.take("token");
  assert.equal(id, "3");
  const job = Object.fromEntries(fields.flatMap((name, n) => (n % 2 ? [] : [[name, fields[n + 1]]])));
  assert.deepEqual(job, { data: "first", attempts: "1", options: '{"lifo":true}' });
  assert.equal(await q.finish(id, "wrong", 10), -2);
  assert.equal(await q.finish(id, "token", 10), 0);
  assert.equal(await q.finish(id, "token", 10), -2);
  assert.equal((await q.take("token"))[0], "1");
  assert.equal((await q.take("token"))[0], "2");
  assert.equal(await q.take("token"), null);
  assert.deepEqual(await r.lrange("q:active", 0, -1), ["2", "1"]);
});

check("delayed jobs are promoted when they are due", async (r) => {
  const q = queue(r);
  await q.add("later", "later", 1000);
  assert.equal(await q.take("token"), null);
  assert.deepEqual(await q.promote(1099), [0, "1100"]);
  assert.deepEqual(await q.promote(1100), [1, null]);
  assert.equal((await q.take("token"))[0], "1");
});

check("only the newest finished jobs are kept", async (r) => {
  const q = queue(r);
  for (let n = 1; n <= 5; n++) {
    await q.add(`job ${n}`);
    const [id] = await q.take("token");
    assert.equal(await q.finish(id, "token", n), 0);
  }
  assert.deepEqual(await r.zrange("q:done", 0, -1), ["4", "5"]);
  assert.deepEqual((await r.keys("q:[0-9]*")).sort(), ["q:4", "q:5"]);
});

check("four workers share a thousand jobs without taking one twice", async (r) => {
  const q = queue(r);
  await Promise.all(Array.from({ length: 1000 }, (_, n) => q.add(`job ${n}`)));
  const worker = async (name) => {
    const own = queue(connect());
    const taken = [];
    for (let job = await own.take(name); job; job = await own.take(name)) {
      taken.push(Number(job[0]));
      assert.equal(await own.finish(job[0], name, taken.length), 0);
    }
    return taken;
  };
  const taken = (await Promise.all(["a", "b", "c", "d"].map(worker))).flat();
  assert.deepEqual(taken.sort((a, b) => a - b), Array.from({ length: 1000 }, (_, n) => n + 1));
  assert.equal(await r.llen("q:active"), 0);
});

check("a script wakes a blocked worker", async (r) => {
  const q = queue(r);
  const worker = connect();
  const job = worker.brpoplpush("q:wait", "q:active", 0);
  await blocked(r);
  await q.add("now");
  assert.equal(await job, "1");
});

check("a defined command survives a script flush", async (r) => {
  r.defineCommand("twice", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)" });
  assert.equal(await r.twice("n", 4), 8);
  await r.script("FLUSH");
  assert.equal(await r.twice("n", 1), 10);
  const answers = await r.pipeline().twice("n", 1).get("n").exec();
  assert.deepEqual(answers, [[null, 12], [null, "12"]]);
});

check("errors of a script reject with its words", async (r) => {
  r.defineCommand("broken", { numberOfKeys: 0, lua: "return redis.error_reply('QUEUE is paused')" });
  await assert.rejects(r.broken(), /QUEUE is paused/);
});

run();
