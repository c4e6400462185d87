// What a peer of the overlay may not do, and that a node of ours serves others all the same.
"use strict";
const { archipel, assert, check, crypto, hasRust, load, peer, run, rust, sign, signedName, until } =
  require("libp2p.cjs");

if (!process.env.ARCHIPEL_BIN || !hasRust) {
  console.log("skip - hostile peers: it needs a node of ours and the peers of acceptance/libp2p-kad");
  process.exit(0);
}

const KAD = "/ipfs/kad/1.0.0";
const MESSAGE_BYTES_MAX = 16 * 1024;
const STREAMS_MAX = 32;
// Peers that one answer may tell of.
const PEERS_MAX = 20;
// Bytes of a value.
const VALUE_BYTES_MAX = 12 * 1024;
// Records that one sender may keep here.
const SENDER_RECORDS_MAX = 128;
// Questions that a peer may ask at once.
const QUESTIONS_BURST = 2000;
const net = {};

function varint(number) {
  const bytes = [];
  let rest = number;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

/** A protobuf field of bytes. */
const field = (number, bytes) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
const kind = (number) => Buffer.from([0x08, number]);
const framed = (message) => Buffer.concat([varint(message.length), message]);
const findNode = (key) => framed(Buffer.concat([kind(4), field(2, key)]));

/** PUT_VALUE, whose kind is left out because it is 0. */
const put = (name, value) => framed(Buffer.concat([field(2, name), field(3, Buffer.concat([field(1, name), field(2, value)]))]));

/** A stream, what it has brought, and whether it has ended. */
async function open(connection) {
  return heard(await connection.newStream(KAD));
}

function heard(stream) {
  // It may have been reset already.
  const got = { stream, bytes: Buffer.alloc(0), ended: stream.status !== "open" };
  stream.addEventListener("message", (event) => {
    const chunk = event.data.subarray();
    got.bytes = Buffer.concat([got.bytes, chunk]);
  });
  stream.addEventListener("close", () => (got.ended = true));
  return got;
}

/** The values of a message's fields of bytes that have this number. */
function fields(message, number) {
  const found = [];
  let at = 0;
  const varint = () => {
    let [result, shift] = [0, 1];
    for (;;) {
      const byte = message[at++];
      result += (byte & 0x7f) * shift;
      shift *= 128;
      if (byte < 0x80) return result;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const value = varint();
    if (tag % 8 !== 2) continue;
    if (tag === number * 8 + 2) found.push(message.subarray(at, at + value));
    at += value;
  }
  return found;
}

/** How many whole messages have come. */
function messages(bytes) {
  let [count, at] = [0, 0];
  while (at < bytes.length) {
    let [length, shift] = [0, 1];
    for (;;) {
      const byte = bytes[at++];
      if (byte === undefined) return count;
      length += (byte & 0x7f) * shift;
      shift *= 128;
      if (byte < 0x80) break;
    }
    at += length;
    if (at <= bytes.length) count += 1;
  }
  return count;
}

/** Sends bytes and waits until the stream is reset without an answer. */
async function isRefused(bytes, what) {
  const got = await open(net.connection);
  got.stream.send(bytes);
  await until(() => got.ended, `the stream ended: ${what}`);
  assert.equal(got.bytes.length, 0, what);
}

check("questions behind each other on one stream are answered in full", async () => {
  net.ours = await archipel();
  net.theirs = await peer();
  const { multiaddr } = await load("@multiformats/multiaddr");
  net.connection = await net.theirs.dial(multiaddr(net.ours.address));
  const got = await open(net.connection);
  got.stream.send(Buffer.concat([1, 2, 3].map((n) => findNode(Buffer.from([n])))));
  await until(() => messages(got.bytes) === 3, "three answers came");
  // In pieces, the last byte late.
  const [whole, split] = [findNode(Buffer.from("pieces")), 3];
  got.stream.send(whole.subarray(0, split));
  await net.ours.p2p("id");
  assert.equal(messages(got.bytes), 3);
  got.stream.send(whole.subarray(split));
  await until(() => messages(got.bytes) === 4, "the fourth answer came");
  await got.stream.close();
});

check("what is no message, or too long, is not answered and its stream is reset", async () => {
  await isRefused(varint(MESSAGE_BYTES_MAX + 1), "a length above the limit");
  await isRefused(Buffer.from([0xff, 0xff, 0xff, 0xff]), "a length without an end");
  await isRefused(framed(Buffer.from("no protobuf at all")), "garbage");
  await isRefused(framed(kind(9)), "an unknown kind");
  await isRefused(framed(kind(4)), "a question about nothing");
  await isRefused(framed(kind(5)), "the ping that nobody uses");
  const long = Buffer.concat([kind(4), field(2, Buffer.alloc(1025))]);
  await isRefused(framed(long), "a key above the limit");
});

check("nobody can say of another what it provides", async () => {
  const multihash = Buffer.concat([Buffer.from([0x12, 0x20]), crypto.createHash("sha256").update("loot").digest()]);
  const other = (await peer()).peerId.toMultihash().bytes;
  const own = net.theirs.peerId.toMultihash().bytes;
  const told = (id) => framed(Buffer.concat([kind(2), field(2, multihash), field(9, field(1, Buffer.from(id)))]));
  await isRefused(told(other), "another's content");
  assert.equal((await net.ours.p2p("providers", "loot")).code, 1);
  // Control: its own it can.
  const got = await open(net.connection);
  got.stream.send(told(own));
  const id = net.theirs.peerId.toString();
  await until(async () => {
    const found = (await net.ours.p2p("providers", "loot")).json.result;
    return found.providers.some((provider) => provider.peer === id);
  }, "its own content is known");
  await got.stream.close();
});

check("of the streams that a peer opens, 32 are served at once and others are reset", async () => {
  const { multiaddr } = await load("@multiformats/multiaddr");
  const connection = await (await peer()).dial(multiaddr(net.ours.address));
  const question = findNode(Buffer.from("busy"));
  const asked = async () => {
    const got = await open(connection);
    if (!got.ended) got.stream.send(question);
    return got;
  };
  const all = await Promise.all(Array.from({ length: STREAMS_MAX }, asked));
  await until(() => all.every((got) => messages(got.bytes) === 1), "all 32 are served");
  // The others rest, as they may for ten seconds.
  const further = await asked();
  await until(() => further.ended, "the thirty-third is reset");
  assert.equal(further.bytes.length, 0);
  // Control: with a place free there is one more.
  all.pop().stream.abort(new Error("enough"));
  let again;
  await until(async () => {
    again = await asked();
    await until(() => again.ended || messages(again.bytes) === 1, "it is served or reset");
    return !again.ended;
  }, "one more is served");
  await connection.close();
});

check("a peer that only asks is answered and told to nobody", async () => {
  const asks = await peer({ clientMode: true });
  const { multiaddr } = await load("@multiformats/multiaddr");
  const connection = await asks.dial(multiaddr(net.ours.address));
  const got = await open(connection);
  got.stream.send(findNode(Buffer.from("x")));
  await until(() => messages(got.bytes) === 1, "it was answered");
  const id = asks.peerId.toString();
  const known = (await net.ours.p2p("peers")).json.connected.find((one) => one.peer === id);
  assert.ok(known, "it is connected");
  assert.notEqual(known.serves, true);
  // Control: the one that serves is a contact, and the only one.
  await until(async () => (await net.ours.p2p("peers")).json.contacts >= 1, "the other is a contact");
  assert.equal((await net.ours.p2p("find", id)).json.result.found, false);
});

/** A name of a new publisher, and how to sign a value under it. */
function publisher(label) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  const key = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = signedName(key, label);
  const signed = (sequence, seconds, payload) => {
    const expires = (BigInt(Date.now()) + BigInt(seconds) * 1000n) * 1000n;
    return sign(privateKey, key, name, sequence, expires, payload);
  };
  return { name, signed };
}

/** Puts a value through a new stream; true if it is kept, false if the stream is reset instead. */
async function isKept(connection, name, value) {
  const got = await open(connection);
  got.stream.send(put(name, value));
  await until(() => got.ended || messages(got.bytes) === 1, "a value is kept or refused");
  const kept = messages(got.bytes) === 1;
  if (kept) got.stream.close();
  return kept;
}

check("forged, expired, replayed, oversized and nameless records are refused, and the log says why", async () => {
  const { multiaddr } = await load("@multiformats/multiaddr");
  net.strict = await archipel(["--set", "log.level=debug"]);
  net.sender = await peer({ clientMode: true });
  net.link = await net.sender.dial(multiaddr(net.strict.address));
  const reasons = () => net.strict.log.filter((line) => line.message === "a peer's record is refused").map((line) => line.why);
  const [ours, other] = [publisher("news"), publisher("news")];
  const current = ours.signed(7, 3600, Buffer.from("now"));
  const table = [
    // What is put, and why it is refused; what is kept has no reason.
    [ours.name, current, undefined],
    [ours.name, current, undefined],
    [ours.name, ours.signed(6, 3600, Buffer.from("then")), "a newer version is known"],
    [ours.name, ours.signed(8, -1, Buffer.from("late")), "the record has expired"],
    [ours.name, other.signed(8, 3600, Buffer.from("lie")), "the signature does not hold"],
    [other.name, current, "the signature does not hold"],
    [Buffer.from("/unknown/name"), current, "the name is not valid"],
    [ours.name, ours.signed(8, 3600, Buffer.alloc(VALUE_BYTES_MAX)), `where ${VALUE_BYTES_MAX} are the most`],
    [ours.name, ours.signed(8, 3600, Buffer.from("newer")), undefined],
  ];
  for (const [name, value, why] of table) {
    const before = reasons().length;
    assert.equal(await isKept(net.link, name, value), why === undefined, why);
    if (why) await until(() => reasons().length > before, "the reason is logged");
    assert.equal(reasons().length, before + (why ? 1 : 0));
    if (why) assert.ok(reasons().at(-1).includes(why), `${reasons().at(-1)}, where it should be: ${why}`);
  }
  assert.equal((await net.strict.p2p("peers")).json.values, 1);
});

check("one sender has its share of what is kept, and another has one too", async () => {
  const { multiaddr } = await load("@multiformats/multiaddr");
  const put = (connection) => {
    const { name, signed } = publisher("much");
    return isKept(connection, name, signed(1, 3600, Buffer.from("x")));
  };
  // One is there already.
  for (let n = 1; n < SENDER_RECORDS_MAX; n++) assert.ok(await put(net.link), `record ${n}`);
  assert.equal(await put(net.link), false);
  assert.equal((await net.strict.p2p("peers")).json.values, SENDER_RECORDS_MAX);
  const why = net.strict.log.filter((line) => line.why).at(-1).why;
  assert.equal(why, "the sender has its share");
  const another = await (await peer({ clientMode: true })).dial(multiaddr(net.strict.address));
  assert.ok(await put(another));
});

check("a stream that says nothing whole is given up, and one that asks now and then is not", async () => {
  const [idle, half, lively] = await Promise.all([1, 2, 3].map(() => open(net.link)));
  const question = findNode(Buffer.from("slow"));
  half.stream.send(question.subarray(0, question.length - 1));
  let asked = 0;
  await until(async () => {
    if (messages(lively.bytes) === asked) {
      lively.stream.send(question);
      asked += 1;
    }
    return idle.ended && half.ended;
  }, "both are given up");
  assert.equal(idle.bytes.length + half.bytes.length, 0);
  await until(() => messages(lively.bytes) === asked, "all of the lively one's are answered");
  assert.equal(lively.ended, false);
});

check("a peer that asks more often than it may is not answered for a while, and others are", async () => {
  const { multiaddr } = await load("@multiformats/multiaddr");
  const connection = await (await peer({ clientMode: true })).dial(multiaddr(net.strict.address));
  const flood = Buffer.concat(Array.from({ length: 500 }, () => findNode(Buffer.from("flood"))));
  const streams = [];
  await until(async () => {
    // What is written waits for the other end, so this is as fast as answers are.
    if (streams.length === 0 || streams.at(-1).ended || streams.length < STREAMS_MAX / 2) {
      const got = await open(connection);
      streams.push(got);
      if (!got.ended) got.stream.send(flood);
    }
    return streams.some((got) => got.ended);
  }, "one of its streams is reset");
  const answers = streams.reduce((sum, got) => sum + messages(got.bytes), 0);
  assert.ok(answers >= QUESTIONS_BURST, `${answers} were answered before that`);
  const other = await open(net.link);
  other.stream.send(findNode(Buffer.from("calm")));
  await until(() => messages(other.bytes) === 1, "another peer is answered");
});

check("an answer tells of at most 20 peers", async () => {
  const { peers } = await rust(PEERS_MAX + 5);
  await Promise.all(peers.map((one) => one.ask("dial", net.strict.address)));
  await until(async () => (await net.strict.p2p("peers")).json.contacts > PEERS_MAX, "more are contacts");
  const got = await open(net.link);
  got.stream.send(findNode(Buffer.from("all")));
  await until(() => messages(got.bytes) === 1, "it is answered");
  // Behind a length of two bytes.
  assert.equal(fields(got.bytes.subarray(2), 8).length, PEERS_MAX);
});

check("our questions to a peer go over few streams, and over another when it gives those up", async () => {
  const ours = await archipel();
  const { peerIdFromPublicKey } = await load("@libp2p/peer-id");
  const { publicKeyFromRaw } = await load("@libp2p/crypto", "dist/src/keys/index.js");
  const values = new Map();
  const names = Array.from({ length: 21 }, (_, n) => {
    const { name, signed } = publisher(`value ${n}`);
    values.set(name.toString("hex"), signed(1, 3600, Buffer.from("x")));
    return `/archipel/${peerIdFromPublicKey(publicKeyFromRaw(name.subarray(10, 42)))}/value ${n}`;
  });
  const streams = [];
  let answered = 0;
  const serves = await peer({
    serve: (stream) => {
      streams.push(stream);
      const asks = heard(stream);
      let [count, at] = [0, 0];
      stream.addEventListener("message", () => {
        if (messages(asks.bytes) === count) return;
        // Who asks waits for the answer before it asks again.
        const question = asks.bytes.subarray(at + 1);
        [count, at] = [count + 1, asks.bytes.length];
        const key = fields(question, 2)[0];
        const value = values.get(key.toString("hex"));
        answered += value ? 1 : 0;
        const record = value ? field(3, Buffer.concat([field(1, key), field(2, value)])) : Buffer.alloc(0);
        stream.send(framed(Buffer.concat([question.subarray(0, 2), field(2, key), record])));
      });
    },
  });
  await ours.p2p("connect", serves.getMultiaddrs()[0].toString());
  await until(async () => (await ours.p2p("peers")).json.contacts === 1, "it is a contact");
  const get = async (name) => {
    const got = await ours.p2p("get", name);
    assert.equal(got.json?.result?.value_hex, "78", JSON.stringify(got));
  };
  for (const name of names.slice(1)) await get(name);
  assert.equal(answered, 20);
  // Four at most are used in turn; one that rested for five seconds is exchanged.
  assert.ok(streams.length <= 8, `${streams.length} streams for 20 values`);
  streams.forEach((stream) => stream.abort(new Error("enough")));
  await get(names[0]);
  assert.equal(answered, 21);
  await serves.stop();
});

check("answers that nobody waits for, or that tell of too many, change nothing", async () => {
  const { multiaddr } = await load("@multiformats/multiaddr");
  const ours = await archipel();
  const known = async () => (await ours.p2p("peers")).json.known;
  const madeUp = () => field(8, field(1, Buffer.concat([Buffer.from("002408011220", "hex"), crypto.randomBytes(32)])));
  const answer = (count) => framed(Buffer.concat([kind(4), ...Array.from({ length: count }, madeUp)]));
  // As a question: it is one, and what else it says does not count.
  const connection = await (await peer({ clientMode: true })).dial(multiaddr(ours.address));
  const got = await open(connection);
  got.stream.send(framed(Buffer.concat([kind(4), field(2, Buffer.from("key")), madeUp(), madeUp()])));
  await until(() => messages(got.bytes) === 1, "it is answered as a question");
  assert.equal(await known(), 1);
  // As answers, of peers that are asked while they are new.
  const table = [
    // What is said to each question, and how many are known of then.
    [() => answer(PEERS_MAX + 1), 0],
    [() => answer(3), 3],
    [() => Buffer.concat([answer(3), answer(3)]), 3],
  ];
  for (const [say, more] of table) {
    let questions = 0;
    const liar = await peer({
      serve: (stream) => {
        const asks = heard(stream);
        stream.addEventListener("message", () => {
          const asked = messages(asks.bytes);
          // The first question alone is answered in this way.
          if (asked > 0 && questions++ === 0) stream.send(say());
          else if (asked > 0) stream.abort(new Error("enough"));
        });
      },
    });
    const fresh = await archipel();
    await fresh.p2p("connect", liar.getMultiaddrs()[0].toString());
    await until(() => questions > 0, "it was asked");
    // A lookup that is over has heard all that it will.
    await fresh.p2p("find", liar.peerId.toString());
    assert.equal((await fresh.p2p("peers")).json.known, 1 + more);
    fresh.kill();
    await liar.stop();
  }
});

run();
