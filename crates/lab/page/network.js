// The page of a network on this machine: follows /events and draws what it says.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
// The rate is that of the last seconds, because a range of commits comes all at once.
const RATE_MS = 5 * 1000;

// For each node, its counts of fetched blocks in the last seconds.
const fetched = new Map();

function rate(name, at, blocks) {
  const known = (fetched.get(name) || []).filter(([then]) => at - then <= RATE_MS);
  known.push([at, blocks]);
  fetched.set(name, known);
  const [[first, before]] = known;
  // A node that was started again counts anew.
  return at > first && blocks >= before ? ((blocks - before) * 1000) / (at - first) : 0;
}

function draw(kind, parent, attributes) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent.append(made);
  return made;
}

function showGraph(nodes, names) {
  const graph = element("graph");
  graph.replaceChildren();
  const places = new Map(nodes.map((node, index) => {
    const angle = (2 * Math.PI * index) / nodes.length - Math.PI / 2;
    return [node.name, [200 * Math.cos(angle), 200 * Math.sin(angle)]];
  }));
  const transfers = [];
  for (const node of nodes) {
    for (const peer of node.status ? node.status.peers : []) {
      const other = names.get(peer.peer_id);
      if (!peer.outbound || !other) continue;
      const [[x1, y1], [x2, y2]] = [places.get(node.name), places.get(other)];
      const ranges = peer.serving ? peer.serving.in_flight : 0;
      draw("line", graph, { x1, y1, x2, y2, class: ranges > 0 ? "serving" : "idle" });
      if (ranges > 0) transfers.push(`${other} serves ${ranges} range${ranges === 1 ? "" : "s"} of commits to ${node.name}`);
    }
  }
  for (const node of nodes) {
    const [cx, cy] = places.get(node.name);
    draw("circle", graph, { cx, cy, r: 10, class: node.is_well ? "good" : "bad" });
    const label = draw("text", graph, { x: cx * 1.18, y: cy * 1.18 });
    label.textContent = `${node.name} ${node.status ? count(node.status.height) : "–"}`;
  }
  return transfers;
}

function showNetwork({ at_ms: at, nodes }) {
  const answering = nodes.filter((node) => node.status);
  const names = new Map(answering.map((node) => [node.status.peer_id, node.name]));
  const highest = Math.max(0, ...answering.map((node) => node.status.height));
  const sick = nodes.filter((node) => !node.is_well);
  element("verdict").className = `verdict ${sick.length === 0 ? "good" : "bad"}`;
  element("sentence").textContent = sick.length === 0
    ? `All ${nodes.length} nodes are well; the highest commit is ${count(highest)}.`
    : `Of ${nodes.length} nodes, ${sick.length} are not well: ${sick.map((node) => node.name).join(", ")}.`;
  const transfers = showGraph(nodes, names);
  element("no-transfers").hidden = transfers.length > 0;
  element("transfers").replaceChildren(...transfers.map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  }));
  element("nodes").replaceChildren(...nodes.map((node) => {
    const row = document.createElement("tr");
    const page = document.createElement("a");
    [page.href, page.textContent] = [`http://${node.admin}/`, node.name];
    cell(row, "").append(page);
    const { status } = node;
    cell(row, status ? count(status.height) : "–", "number");
    const bar = document.createElement("progress");
    [bar.max, bar.value] = [Math.max(1, highest), status ? status.height : 0];
    bar.ariaLabel = `height of ${node.name}`;
    cell(row, "").append(bar);
    const blocks = status && status.state_sync ? status.state_sync.blocks_fetched : 0;
    cell(row, status ? count(Math.round(rate(node.name, at, blocks))) : "–", "number");
    cell(row, status ? count(status.peers.length) : "–", "number");
    cell(row, status ? count(status.epoch) : "–", "number");
    cell(row, status ? status.explanation : "does not answer", node.is_well ? "text" : "text alarm");
    return row;
  }));
}

const source = new EventSource("/events");
source.addEventListener("network", (event) => showNetwork(JSON.parse(event.data)));
source.addEventListener("error", () => {
  element("verdict").className = "verdict bad";
  element("sentence").textContent = "The network has ended. The page shows it as it was last.";
});
