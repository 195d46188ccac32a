// The status page: follows /events and shows what it says. No library, no other host.
"use strict";

// As long as the node keeps samples: 15 minutes.
const KEPT_MS = 15 * 60 * 1000;
// The curve of a node that has just started is as wide as this.
const LEAST_WIDTH_MS = 60 * 1000;
// Events that are kept, as in the node.
const KEPT_EVENTS = 100;
// The rate is that of the last seconds, because a range of commits comes all at once.
const RATE_MS = 10 * 1000;
// The node is said to be silent after this time without an event.
const SILENT_MS = 5 * 1000;

const show = (id, text) => { if (element(id).textContent !== text) element(id).textContent = text; };
const short = (peer) => peer.slice(0, 8);
const bytes = (value) => {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${value.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
};
const time = (ms) => {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return `${Math.floor(ms)} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
};

let samples = [];
let events = [];
let peers = [];
let sorting = { column: 2, descending: true };
let heard = 0;

// The columns of the table of peers: title, value to sort by, text, whether it is a number.
const serving = (peer, field) => (peer.serving ? peer.serving[field] : null);
const columns = [
  ["peer", (peer) => peer.peer_id, (peer) => short(peer.peer_id), false],
  ["direction", direction, direction, false],
  ["height", (peer) => serving(peer, "highest"), (peer) => count(serving(peer, "highest")), true],
  ["lowest commit", (peer) => serving(peer, "lowest"), (peer) => count(serving(peer, "lowest")), true],
  ["round trip", (peer) => serving(peer, "round_trip_ms"), (peer) => trip(serving(peer, "round_trip_ms")), true],
  ["serving us", (peer) => serving(peer, "in_flight"), (peer) => count(serving(peer, "in_flight")), true],
  ["served", (peer) => serving(peer, "served"), (peer) => count(serving(peer, "served")), true],
  ["score", (peer) => serving(peer, "score"), (peer) => count(serving(peer, "score")), true],
  ["trusted", (peer) => (peer.trusted ? "yes" : "no"), (peer) => (peer.trusted ? "yes" : "no"), false],
];

function trip(ms) {
  return ms === null || ms === undefined ? "–" : `${ms} ms`;
}

function direction(peer) {
  if (peer.outbound && peer.inbound) return "both";
  return peer.outbound ? "we ask it" : "it asks us";
}

// What is on the page stays while it is the same: a selection of text in it stays, too.
const drawn = new Map();
function isDrawn(id, value) {
  const text = JSON.stringify(value);
  if (drawn.get(id) === text) return true;
  drawn.set(id, text);
  return false;
}

function rows(id, list, fill) {
  if (isDrawn(id, list)) return;
  const made = list.map((item) => {
    const row = document.createElement("tr");
    fill(row, item);
    return row;
  });
  element(id).replaceChildren(...made);
}

function makeHeader() {
  const header = document.querySelector("#peer-table thead tr");
  columns.forEach(([title, , , isNumber], index) => {
    const head = document.createElement("th");
    head.scope = "col";
    if (isNumber) head.className = "number";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.addEventListener("click", () => {
      const descending = sorting.column === index ? !sorting.descending : isNumber;
      sorting = { column: index, descending };
      showPeers();
    });
    head.append(button);
    header.append(head);
  });
}

function showPeers() {
  document.querySelectorAll("#peer-table th").forEach((head, index) => {
    if (index !== sorting.column) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
  });
  const wanted = element("filter").value.trim().toLowerCase();
  const value = columns[sorting.column][1];
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    // A peer without a value comes last in both directions.
    if (x === y) return a.peer_id < b.peer_id ? -1 : 1;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * (sorting.descending ? -1 : 1);
  };
  const holds = (peer) => [peer.peer_id, ...columns.map(([, , text]) => text(peer))].join(" ").toLowerCase().includes(wanted);
  const shown = peers.filter(holds).sort(compare);
  show("peers-count", shown.length === peers.length ? `(${peers.length})` : `(${shown.length} of ${peers.length})`);
  if (isDrawn("peers", shown)) return;
  const body = document.querySelector("#peer-table tbody");
  body.replaceChildren(...shown.map((peer) => {
    const row = document.createElement("tr");
    columns.forEach(([, , text, isNumber], index) => {
      const made = cell(row, text(peer), isNumber ? "number" : "");
      if (index === 0) made.title = peer.peer_id;
    });
    return row;
  }));
}

function rate(field) {
  const last = samples[samples.length - 1];
  const first = samples.find((sample) => sample.at_ms >= last.at_ms - RATE_MS);
  // The counts begin anew when StateSync is restarted.
  if (!first || last.at_ms <= first.at_ms || last[field] < first[field]) return 0;
  return ((last[field] - first[field]) * 1000) / (last.at_ms - first.at_ms);
}

function drawCurve() {
  const last = samples[samples.length - 1];
  const width = Math.max(LEAST_WIDTH_MS, last.at_ms - samples[0].at_ms);
  const from = last.at_ms - width;
  const heights = samples.map((sample) => sample.height);
  const bottom = Math.min(...heights);
  const top = Math.max(bottom + 1, ...samples.map((sample) => Math.max(sample.height, sample.target)));
  const point = (field) => (sample) => {
    const x = (900 * (sample.at_ms - from)) / width;
    const y = 195 - (190 * (Math.max(bottom, sample[field]) - bottom)) / (top - bottom);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  const line = (field) => `M${samples.map(point(field)).join("L")}`;
  element("curve-height").setAttribute("d", line("height"));
  element("curve-target").setAttribute("d", line("target"));
  show("curve-caption", `Height (solid) and target (dashed), ${count(bottom)} to ${count(top)}. The width is ${time(width)}.`);
}

function showTree(child, depth, list) {
  list.push([child, depth]);
  child.children.forEach((below) => showTree(below, depth + 1, list));
}

// For each verdict: word in the title of the window, look, words.
const VERDICTS = {
  "well": ["well", "good", "The node is well"],
  "needs-attention": ["ATTENTION", "waiting", "The node needs attention"],
  "not-well": ["NOT WELL", "bad", "The node is not well"],
};

const STATES = { "backing-off": "restarting soon", "given-up": "given up" };

function exit(last) {
  if (!last) return "";
  return last.reason ? `${last.exit}: ${last.reason}` : last.exit;
}

function showNode(news) {
  const { status } = news;
  heard = Date.now();
  const [title, look, sentence] = VERDICTS[news.verdict];
  document.title = `${title}: ${status.explanation}`;
  element("verdict").className = `verdict ${look}`;
  show("sentence", `${sentence}: ${status.explanation}.`);
  show("advice", news.advice ? `What to do: ${news.advice}` : "");
  element("advice").hidden = !news.advice;
  show("identity", `Peer ${status.peer_id} on ${status.address}, chain ${status.chain_id}`);
  show("height", count(status.height));
  show("target", count(status.target));
  show("percent", `${status.percent} %`);
  show("executor", count(status.executor.index));
  show("epoch", count(status.epoch));
  element("network").hidden = !status.network_explanation;
  show("network-text", status.network_explanation || "");
  samples = samples.concat(news.samples).filter((sample) => sample.at_ms > news.at_ms - KEPT_MS);
  if (samples.length > 0) {
    show("blocks-rate", count(Math.round(rate("blocks"))));
    show("bytes-rate", (rate("bytes") / 1e6).toFixed(1));
    drawCurve();
  }
  showResources(news.resources, status);
  events = events.concat(news.events).slice(-KEPT_EVENTS);
  showEvents();
  peers = status.peers;
  showPeers();
  element("bans").hidden = status.banned.length === 0;
  const bans = status.banned.map((ban) => [ban.peer, ban.reason, time(Math.max(0, ban.until_ms - news.at_ms))]);
  rows("ban-rows", bans, (row, [peer, reason, left]) => {
    cell(row, short(peer)).title = peer;
    cell(row, reason, "text");
    cell(row, left, "number");
  });
  const tree = [];
  showTree(status.tree, 0, tree);
  const children = tree.map(([child, depth]) => ({ ...child, children: [], depth, lasts: time(child.in_state_ms), in_state_ms: 0 }));
  rows("tree", children, (row, child) => {
    const isUp = child.state === "running";
    cell(row, child.name).style.paddingLeft = `${0.6 + child.depth * 1.2}rem`;
    cell(row, STATES[child.state] || child.state, isUp ? "" : "alarm");
    cell(row, child.lasts, "number");
    cell(row, child.mailbox === null ? "" : count(child.mailbox), "number");
    cell(row, count(child.restarts), child.restarts > 0 ? "number alarm" : "number");
    cell(row, exit(child.last_exit), "text");
  });
  show("updated", `updated ${new Date(news.at_ms).toLocaleTimeString("en-GB")}`);
}

function showResources(resources, status) {
  const list = [
    ["store on disk", bytes(resources.store_bytes), `${bytes(resources.free_bytes)} free`],
    ["memory of the process", bytes(resources.memory_bytes), ""],
  ];
  const memory = status.peer_memory;
  if (memory) {
    const held = memory.connections + memory.handshakes + memory.known_peers + memory.unread_answers;
    list.push(["memory held for peers", bytes(held), bytes(memory.budget)]);
  }
  if (status.state_sync) list.push(["fetched, not yet stored", bytes(status.state_sync.bytes_in_flight), ""]);
  rows("resources", list, (row, [what, now, bound]) => {
    cell(row, what);
    cell(row, now, "number");
    cell(row, bound, "number");
  });
}

function showEvents() {
  if (isDrawn("events", events)) return;
  element("no-events").hidden = events.length > 0;
  const made = [...events].reverse().map((event) => {
    const line = document.createElement("li");
    const at = document.createElement("time");
    const date = new Date(event.at_ms);
    at.dateTime = date.toISOString();
    at.textContent = date.toLocaleTimeString("en-GB");
    line.append(at, event.text);
    if (event.kind === "restart" || event.kind === "ban" || event.kind === "stuck") line.className = event.kind;
    return line;
  });
  element("events").replaceChildren(...made);
}

function sayIfSilent() {
  if (heard === 0 || Date.now() - heard < SILENT_MS) return;
  document.title = "NO ANSWER";
  element("verdict").className = "verdict bad";
  show("sentence", `The node has not answered for ${time(Date.now() - heard)}. The page tries again until it does.`);
  show("advice", "What to do: see whether the process runs, and read the end of its log.");
  element("advice").hidden = false;
}

function follow() {
  const source = new EventSource("/events");
  let isFirst = true;
  source.addEventListener("node", (event) => {
    const news = JSON.parse(event.data);
    // The first event of a connection has the whole history of the node, which may be a new process.
    if (isFirst) { samples = []; events = []; isFirst = false; }
    showNode(news);
  });
  source.addEventListener("error", () => {
    isFirst = true;
    // The browser tries again by itself unless the node refused, say because too many pages are open.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  });
}

makeHeader();
element("filter").addEventListener("input", showPeers);
setInterval(sayIfSilent, 1000);
follow();
