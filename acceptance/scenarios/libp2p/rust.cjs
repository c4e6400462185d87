// Our overlay and rust-libp2p's Kademlia: both put, get, provide, find providers and find nodes of the other.
"use strict";
const { archipel, assert, check, crypto, hasRust, load, open, run, rust, sign, signedName, until } = require("libp2p.cjs");

if (!process.env.ARCHIPEL_BIN || !hasRust) {
  console.log("skip - rust-libp2p: it needs a node of ours and the peer of acceptance/libp2p-kad");
  process.exit(0);
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const net = {};

async function known(one) {
  await until(async () => (await one.ask("contacts")).contacts > 0, "the peer of rust-libp2p has a contact");
}

async function multihash(words) {
  const { sha256 } = await load("multiformats", "dist/src/hashes/sha2.js");
  return (await sha256.digest(Buffer.from(words))).bytes;
}

check("a peer of rust-libp2p takes our node into its routing table, and we take it into ours", async () => {
  net.ours = await archipel();
  [net.theirs] = (await rust()).peers;
  assert.equal((await net.ours.p2p("connect", net.theirs.address)).json.peer, net.theirs.id);
  await known(net.theirs);
  await until(async () => (await net.ours.p2p("peers")).json.contacts > 0, "it is a contact of ours");
});

check("a value of ours is found by a peer of rust-libp2p that came after it was put", async () => {
  const put = await net.ours.p2p("put", "menu", "soup");
  assert.equal(put.json?.result?.stored, 1, put.stderr);
  [net.late] = (await rust()).peers;
  await net.late.ask("dial", net.theirs.address);
  await known(net.late);
  const { peerIdFromString } = await load("@libp2p/peer-id");
  const name = signedName(Buffer.from(peerIdFromString(net.ours.id).publicKey.raw), "menu");
  const { value } = await net.late.ask("get", hex(name));
  assert.equal(open(name, Buffer.from(value, "hex")).payload.toString(), "soup");
});

check("a value of rust-libp2p is found by a node of ours that came after it was put", async () => {
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  const publisher = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = signedName(publisher, "news");
  const expires = (BigInt(Date.now()) + 3_600_000n) * 1000n;
  const value = sign(privateKey, publisher, name, 7, expires, Buffer.from("from rust"));
  assert.equal((await net.late.ask("put", hex(name), hex(value))).stored, true);
  net.second = await archipel();
  await net.second.p2p("connect", net.theirs.address);
  await until(async () => (await net.second.p2p("peers")).json.contacts > 0, "the second has a contact");
  const { publicKeyFromRaw } = await load("@libp2p/crypto", "dist/src/keys/index.js");
  const id = (await load("@libp2p/peer-id")).peerIdFromPublicKey(publicKeyFromRaw(publisher));
  const got = await net.second.p2p("get", `/archipel/${id}/news`);
  assert.equal(got.json?.result?.value_hex, hex("from rust"), got.stderr);
});

check("a forged value of rust-libp2p is kept by none of ours", async () => {
  const publisher = crypto.generateKeyPairSync("ed25519").publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = signedName(publisher, "forged");
  const before = (await net.ours.p2p("peers")).json.values;
  await net.theirs.ask("put", hex(name), hex("no signature"));
  assert.equal((await net.ours.p2p("peers")).json.values, before);
});

check("content that we provide is found by rust-libp2p, and the other way round", async () => {
  assert.equal((await net.ours.p2p("provide", "our file")).code, 0);
  const ours = hex(await multihash("our file"));
  await until(async () => (await net.late.ask("providers", ours)).providers.includes(net.ours.id), "it found us");
  const theirs = hex(await multihash("their file"));
  assert.equal((await net.late.ask("provide", theirs)).provided, true);
  await until(async () => {
    const got = await net.second.p2p("providers", "their file");
    return got.json?.result?.providers.some((provider) => provider.peer === net.late.id);
  }, "we found it");
  // Control: what nobody provides is not found.
  assert.deepEqual((await net.late.ask("providers", hex(await multihash("nobody's file")))).providers, []);
});

check("nodes that never met find each other through a peer of the other kind", async () => {
  const found = await net.second.p2p("find", net.late.id);
  assert.equal(found.json?.result?.found, true, found.stderr);
  assert.ok((await net.late.ask("find", net.second.id)).nodes.includes(net.second.id));
});

run();
