// What a peer of the overlay may not do, and that a node of ours serves others all the same.
"use strict";
const { archipel, assert, check, crypto, load, peer, run, until } = require("libp2p.cjs");

if (!process.env.ARCHIPEL_BIN) {
  console.log("skip - hostile peers: it needs a node of ours");
  process.exit(0);
}

const KAD = "/ipfs/kad/1.0.0";
const MESSAGE_BYTES_MAX = 16 * 1024;
const STREAMS_MAX = 32;
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

/** A stream, what it has brought, and whether it has ended. */
async function open(connection) {
  const stream = await connection.newStream(KAD);
  // It may have been reset already.
  const got = { stream, bytes: Buffer.alloc(0), ended: stream.status !== "open" };
  stream.addEventListener("message", (event) => {
    const chunk = event.data.subarray();
    got.bytes = Buffer.concat([got.bytes, chunk]);
  });
  stream.addEventListener("close", () => (got.ended = true));
  return got;
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

run();
