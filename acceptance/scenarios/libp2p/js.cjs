// Our overlay and js-libp2p's Kademlia: both put, get, provide, find providers and find nodes of the other.
"use strict";
const { archipel, assert, check, crypto, first, load, open, peer, run, sign, signedName, until } = require("libp2p.cjs");

if (!process.env.ARCHIPEL_BIN) {
  console.log("skip - js-libp2p: it needs a node of ours");
  process.exit(0);
}

const text = (bytes) => Buffer.from(bytes).toString();
const hex = (text) => Buffer.from(text).toString("hex");
const connected = (node) => async () => (await node.p2p("peers")).json.contacts;

// One of ours and one of theirs know each other at first; others come later and know one of them.
const net = {};

check("a peer of js-libp2p takes our node into its routing table, and we take it into ours", async () => {
  net.ours = await archipel();
  net.theirs = await peer();
  const at = net.theirs.getMultiaddrs()[0].toString();
  assert.equal((await net.ours.p2p("connect", at)).json.peer, net.theirs.peerId.toString());
  await until(() => net.theirs.services.dht.routingTable.size > 0, "js took us in");
  await until(async () => (await connected(net.ours)()) > 0, "we took js in");
});

check("a value of ours is found by a peer of js-libp2p that came after it was put", async () => {
  const put = await net.ours.p2p("put", "menu", "soup");
  assert.equal(put.code, 0, put.stderr);
  assert.ok(put.json.result.stored >= 1);
  net.late = await peer();
  await net.late.dial(net.theirs.getMultiaddrs());
  await until(() => net.late.services.dht.routingTable.size > 0, "js took js in");
  const publisher = Buffer.from((await load("@libp2p/peer-id")).peerIdFromString(net.ours.id).publicKey.raw);
  const name = signedName(publisher, "menu");
  const found = await first(net.late.services.dht.get(name), (event) => event.name === "VALUE");
  assert.equal(text(open(name, found.value).payload), "soup");
});

check("a signed value of js-libp2p is found by a node of ours that came after it was put", async () => {
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  const publisher = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = signedName(publisher, "news");
  const expires = (BigInt(Date.now()) + 3_600_000n) * 1000n;
  const value = sign(privateKey, publisher, name, 7, expires, Buffer.from("from js"));
  for await (const _ of net.theirs.services.dht.put(name, value));
  net.second = await archipel();
  await net.second.p2p("connect", net.theirs.getMultiaddrs()[0].toString());
  const raw = (await load("@libp2p/crypto", "dist/src/keys/index.js")).publicKeyFromRaw(publisher);
  const id = (await load("@libp2p/peer-id")).peerIdFromPublicKey(raw).toString();
  await until(async () => (await connected(net.second)()) > 0, "the second knows js");
  const got = await net.second.p2p("get", `/archipel/${id}/news`);
  assert.equal(got.json?.result?.value_hex, hex("from js"), got.stderr);
  assert.equal(got.json.result.version.sequence, 7);
});

check("a public key is kept for js-libp2p, and by it for us", async () => {
  const key = await (await load("@libp2p/crypto", "dist/src/keys/index.js")).generateKeyPair("Ed25519");
  const { publicKeyToProtobuf } = await load("@libp2p/crypto", "dist/src/keys/index.js");
  const value = publicKeyToProtobuf(key.publicKey);
  const digest = crypto.createHash("sha256").update(value).digest();
  const multihash = Buffer.concat([Buffer.from([0x12, 0x20]), digest]);
  for await (const _ of net.late.services.dht.put(Buffer.concat([Buffer.from("/pk/"), multihash]), value));
  const { base58btc } = await load("multiformats", "dist/src/bases/base58.js");
  const got = await net.ours.p2p("get", `/pk/${base58btc.baseEncode(multihash)}`);
  assert.equal(got.json?.result?.value_hex, Buffer.from(value).toString("hex"), got.stderr);
});

check("a forged value is kept by none of ours", async () => {
  const { privateKey } = crypto.generateKeyPairSync("ed25519");
  const { publicKey } = crypto.generateKeyPairSync("ed25519");
  const publisher = publicKey.export({ format: "der", type: "spki" }).subarray(-32);
  const name = signedName(publisher, "forged");
  const expires = (BigInt(Date.now()) + 3_600_000n) * 1000n;
  const value = sign(privateKey, publisher, name, 1, expires, Buffer.from("lie"));
  // A peer that believes anything.
  const liar = await peer();
  liar.services.dht.validators.archipel = async () => {};
  liar.services.dht.selectors.archipel = () => 0;
  await liar.dial((await load("@multiformats/multiaddr")).multiaddr(net.ours.address));
  await until(() => liar.services.dht.routingTable.size > 0, "the liar took us in");
  const before = (await net.ours.p2p("peers")).json.values;
  let kept = 0;
  try {
    for await (const event of liar.services.dht.put(name, value)) {
      if (event.name === "PEER_RESPONSE" && event.messageName === "PUT_VALUE") kept += 1;
    }
  } catch (error) {
    assert.match(String(error), /put|sufficient|success/i);
  }
  assert.equal(kept, 0);
  assert.equal((await net.ours.p2p("peers")).json.values, before);
  await liar.stop();
});

check("content that we provide is found by js-libp2p, and the other way round", async () => {
  const { CID } = await load("multiformats", "dist/src/cid.js");
  const { sha256 } = await load("multiformats", "dist/src/hashes/sha2.js");
  const cid = async (words) => CID.createV1(0x55, await sha256.digest(Buffer.from(words)));
  assert.equal((await net.ours.p2p("provide", "our file")).code, 0);
  const found = await first(
    net.late.services.dht.findProviders(await cid("our file")),
    (event) => event.name === "PROVIDER" && event.providers.length > 0,
  );
  assert.equal(found.providers[0].id.toString(), net.ours.id);
  const theirs = await cid("their file");
  for await (const _ of net.late.services.dht.provide(theirs));
  const id = net.late.peerId.toString();
  await until(async () => {
    const got = await net.second.p2p("providers", theirs.toString());
    return got.json?.result?.providers.some((provider) => provider.peer === id);
  }, "we found the provider");
  // Control: what nobody provides is not found.
  assert.equal((await net.second.p2p("providers", "nobody's file")).code, 1);
});

check("nodes that never met find each other through a peer of the other kind", async () => {
  const found = await net.second.p2p("find", net.late.peerId.toString());
  assert.equal(found.json?.result?.found, true, found.stderr);
  const { peerIdFromString } = await load("@libp2p/peer-id");
  const event = await first(
    net.late.services.dht.findPeer(peerIdFromString(net.second.id)),
    (event) => event.name === "FINAL_PEER",
  );
  assert.equal(event.peer.id.toString(), net.second.id);
  assert.ok(event.peer.multiaddrs.length > 0);
});

check("a round trip to a peer of js-libp2p is measured", async () => {
  const ping = await net.ours.p2p("ping", net.theirs.peerId.toString());
  assert.ok(ping.json?.micros > 0, ping.stderr);
});

run();
