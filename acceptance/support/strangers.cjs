// Peers that nobody knows connect to a node of ours, each once: its memory stays what it was.
"use strict";
const fs = require("node:fs");
const { archipel, assert, check, hasRust, run, rust, until } = require("libp2p.cjs");

const AT_ONCE = 32;
// Peers that a node knows at once, at most.
const PEERS_MAX = 8192;
const GROWTH_BYTES_MAX = 10 * 1024 * 1024;

const resident = (pid) => Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))[1]) * 1024;

/** Runs the scenario with so many of them. */
module.exports = function strangers(count) {
  if (!process.env.ARCHIPEL_BIN || !hasRust) {
    console.log("skip - strangers: it needs a node of ours and the peers of acceptance/libp2p-kad");
    process.exit(0);
  }

  check(`${count} connections with fresh ids let a node grow by at most ${GROWTH_BYTES_MAX} bytes`, async () => {
    const ours = await archipel();
    const [theirs] = (await rust()).peers;
    await theirs.ask("strangers", ours.address, 1, 1);
    const before = resident(ours.pid);
    await theirs.ask("strangers", ours.address, count, AT_ONCE);
    const after = resident(ours.pid);
    console.log(`${before} bytes before, ${after} after`);
    const connected = async () => (await ours.p2p("peers")).json;
    await until(async () => (await connected()).connected.length === 0, "all are gone");
    // Of those who are gone few are remembered.
    const { known } = await connected();
    assert.ok(known <= PEERS_MAX, `${known} are known`);
    assert.ok(after - before <= GROWTH_BYTES_MAX, `it grew by ${after - before} bytes`);
    // It serves as before.
    await theirs.ask("dial", ours.address);
    await until(async () => (await connected()).contacts > 0, "a peer that stays is a contact");
  });

  run();
};
