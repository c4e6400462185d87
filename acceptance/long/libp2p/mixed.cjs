// Fifty peers of two kinds in one network: values are found while a fifth of the peers is killed.
"use strict";
const { archipel, assert, crypto, first, load, open, peer, sign, signedName, until } = require("libp2p.cjs");

const OURS = 20;
const THEIRS = 30;
const VALUES = 20;
const GETS = 100;
// Of all gets, in percent.
const FOUND_MIN = 99;

if (!process.env.ARCHIPEL_BIN) {
  console.log("skip - fifty peers: it needs nodes of ours");
  process.exit(0);
}

/** Runs `work` for each number below `count`, a few at a time. */
async function each(count, work, atOnce = 8) {
  const results = new Array(count);
  let next = 0;
  const worker = async () => {
    for (let n = next++; n < count; n = next++) results[n] = await work(n);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}

async function join() {
  const firstOne = await archipel();
  const flags = ["--set", `p2p.peers=${firstOne.address}`];
  const others = await each(OURS - 1, () => archipel(flags), 4);
  const ours = [firstOne, ...others];
  const { multiaddr } = await load("@multiformats/multiaddr");
  const theirs = await each(THEIRS, async () => {
    const one = await peer();
    await one.dial(multiaddr(firstOne.address));
    return one;
  });
  await each(OURS, (n) => until(async () => (await ours[n].p2p("peers")).json.contacts > 0, "a node of ours joined"));
  await each(THEIRS, (n) => until(() => theirs[n].services.dht.routingTable.size > 0, "a peer of js-libp2p joined"));
  return { ours, theirs };
}

/** Puts values, half of them from each kind; gives their names as each kind writes them. */
async function put({ ours, theirs }) {
  const { peerIdFromString, peerIdFromPublicKey } = await load("@libp2p/peer-id");
  const { publicKeyFromRaw } = await load("@libp2p/crypto", "dist/src/keys/index.js");
  return each(VALUES, async (n) => {
    const [label, payload] = [`value-${n}`, `payload ${n}`];
    if (n % 2 === 0) {
      const node = ours[n % OURS];
      const done = await node.p2p("put", label, payload);
      assert.equal(done.code, 0, done.stderr);
      const bytes = signedName(Buffer.from(peerIdFromString(node.id).publicKey.raw), label);
      return { text: done.json.result.name, bytes, payload };
    }
    const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
    const publisher = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
    const bytes = signedName(publisher, label);
    const expires = (BigInt(Date.now()) + 3_600_000n) * 1000n;
    const value = sign(privateKey, publisher, bytes, 1, expires, Buffer.from(payload));
    for await (const _ of theirs[n % THEIRS].services.dht.put(bytes, value));
    return { text: `/archipel/${peerIdFromPublicKey(publicKeyFromRaw(publisher))}/${label}`, bytes, payload };
  });
}

/** Gets a value by a peer of one kind; why it was not found, or nothing. */
async function missing({ ours, theirs }, n, value) {
  if (n % 2 === 0) {
    const got = await ours[n % ours.length].p2p("get", value.text);
    const found = got.json?.result?.value_hex === Buffer.from(value.payload).toString("hex");
    return found ? undefined : `ours: ${JSON.stringify(got)}`;
  }
  try {
    const dht = theirs[n % theirs.length].services.dht;
    const event = await first(dht.get(value.bytes, { signal: AbortSignal.timeout(60_000) }), (e) => e.name === "VALUE");
    assert.equal(Buffer.from(open(value.bytes, event.value).payload).toString(), value.payload);
    return undefined;
  } catch (error) {
    return `theirs: ${error}`;
  }
}

(async () => {
  let net;
  const sentence = `${OURS} nodes of ours and ${THEIRS} peers of js-libp2p find ${FOUND_MIN} % of values while a fifth is killed`;
  try {
    net = await join();
    const values = await put(net);
    // Every fifth of each kind goes, while the rest asks.
    const stays = { ours: net.ours.filter((_, n) => n % 5 !== 4), theirs: net.theirs.filter((_, n) => n % 5 !== 4) };
    const leave = async () => {
      net.ours.filter((_, n) => n % 5 === 4).forEach((node) => node.kill());
      await Promise.all(net.theirs.filter((_, n) => n % 5 === 4).map((one) => one.stop()));
    };
    // Two gets of each turn, one of each kind, are for one value.
    const get = (n) => missing(stays, n, values[Math.floor(n / 2) % VALUES]);
    const [reasons] = await Promise.all([each(GETS, get), leave()]);
    const failed = reasons.filter(Boolean);
    const count = GETS - failed.length;
    assert.ok(count * 100 >= FOUND_MIN * GETS, `${count} of ${GETS} were found; ${failed.slice(0, 3).join("; ")}`);
    // Control: what nobody put is not found.
    assert.equal((await stays.ours[0].p2p("get", "no such value")).code, 1);
    console.log(`ok - ${sentence}`);
    console.log(`${count} of ${GETS} gets found`);
  } catch (error) {
    console.log(`not ok - ${sentence}: ${String(error.stack).replaceAll("\n", " | ")}`);
    process.exit(1);
  }
  process.exit(0);
})();
