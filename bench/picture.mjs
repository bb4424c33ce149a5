// Draws ../docs/bench.svg from results.json: for the main shapes, what ours and
// its peers cost, as times the floor, on each runtime.
//
//   deno run --allow-read --allow-write picture.mjs
//
// It is plain SVG with two sets of colours, of which a browser takes the one
// that fits its page.
import { readFileSync, writeFileSync } from "node:fs";

/** What is shown, if it has been measured: the floor comes first in each group. */
const PANELS = [
  ["Queue: one sender, one reader", "queue_peers", "spsc"],
  ["Queue: from hand to hand", "queue_peers", "rendezvous"],
  ["Queue: four senders, four readers", "queue_peers", "mpmc"],
  ["Queue: there and back again", "queue_peers", "ping-pong"],
  [
    "Serializer: requests one by one",
    "serializer",
    "one after another, synchronous",
  ],
  ["Serializer: a burst of requests", "serializer", "burst, asynchronous"],
  ["Bus: 10 readers; floor: one queue", "bus", "for await, 10"],
  ["Bus: 1,000 readers; floor: one queue", "bus", "for await, 1000"],
];
const OURS = ["queue", "trust", "detect", "bus"];
const FLOORS = ["floor", "bare chain"];
/** In the colours of light pages and of dark ones. */
const HOSTS = {
  Deno: { light: "#1864ab", dark: "#74c0fc", mark: circle },
  Bun: { light: "#d9480f", dark: "#ffa94d", mark: square },
  "Node 20": { light: "#868e96", dark: "#adb5bd", mark: triangle },
  "Node 24": { light: "#2b8a3e", dark: "#69db7c", mark: diamond },
};

const WIDTH = 800;
const GAP = 24;
const PANEL = (WIDTH - 3 * GAP) / 2;
const LABELS = 140; // of the width of a panel
const ROW = 18;
const TITLE = 26;
const AXIS = 22;
const LEGEND = 62;

const { modules } = JSON.parse(
  readFileSync(new URL("results.json", import.meta.url), "utf8"),
);
const panels = PANELS.map(([title, module, shape]) => ({
  title,
  rows: rowsOf(module, shape),
})).filter(({ rows }) => rows.length > 0);
const values = panels.flatMap(({ rows }) =>
  rows.flatMap(({ times }) => Object.values(times))
);
const least = Math.min(0.5, ...values) * 0.9;
const most = Math.max(...values) * 1.1;
writeFileSync(new URL("../docs/bench.svg", import.meta.url), picture());

/** Who has done a shape: ours first, then the fastest. */
function rowsOf(module, shape) {
  const groups = modules.find((result) => result.module === module)?.groups ??
    [];
  const rows = new Map();
  for (const { name, benches } of groups) {
    if (name !== shape && !name.startsWith(`${shape}, beside `)) continue;
    const [floor] = benches;
    for (const { bench, ...by } of benches) {
      // The first group has the say, where a bench is in several.
      if (rows.has(bench) || FLOORS.includes(bench)) continue;
      if (bench === floor.bench && module === "bus") continue; // one queue
      const times = Object.fromEntries(
        Object.keys(HOSTS).map((host) => [host, by[host]?.times])
          .filter(([_, times]) => times !== undefined),
      );
      if (Object.keys(times).length > 0) rows.set(bench, { bench, times });
    }
  }
  const rank = ({ bench, times }) => [
    OURS.includes(bench) ? 0 : 1,
    Math.min(...Object.values(times)),
  ];
  return [...rows.values()].sort((a, b) => {
    const [ours, fast] = rank(a);
    const [theirs, faster] = rank(b);
    return ours - theirs || fast - faster;
  });
}

function picture() {
  const heights = [];
  panels.forEach(({ rows }, i) => {
    const height = TITLE + rows.length * ROW + AXIS;
    heights[i >> 1] = Math.max(heights[i >> 1] ?? 0, height);
  });
  const top = (line) =>
    heights.slice(0, line).reduce((sum, height) => sum + height + GAP, LEGEND);
  const height = top(heights.length);
  const colours = (scheme) =>
    Object.entries(HOSTS).map(([host, colour]) =>
      `.${className(host)} { fill: ${colour[scheme]}; }`
    ).join(" ");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-labelledby="title">
<title id="title">What queues, serializers and buses cost, as times the floor</title>
<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #343a40; }
.title { font-weight: 600; font-size: 13px; }
.ours { font-weight: 700; }
.small { font-size: 10.5px; fill: #5c636a; }
.back { fill: #ffffff; }
.band { fill: #e7f0fa; }
.line { stroke: #dee2e6; stroke-width: 1; }
.floor { stroke: #868e96; stroke-width: 1.5; }
${colours("light")}
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small { fill: #9da7b1; }
.back { fill: #0d1117; }
.band { fill: #172a41; }
.line { stroke: #30363d; }
.floor { stroke: #8b949e; }
${colours("dark")}
}
</style>
<rect class="back" width="${WIDTH}" height="${height}" rx="6"/>
${legend()}
${
    panels.map((panel, i) =>
      `<g transform="translate(${GAP + (i % 2) * (PANEL + GAP)} ${
        top(i >> 1)
      })">\n${drawn(panel)}\n</g>`
    ).join("\n")
  }
</svg>
`;
}

function legend() {
  const marks = Object.entries(HOSTS).map(([host, { mark }], i) =>
    `<g transform="translate(${WIDTH - 330 + i * 80} 27)">${
      mark(host, 0, 0, 4)
    }<text x="9" y="4">${host}</text></g>`
  );
  return [
    `<text class="title" x="${GAP}" y="31">Cost of an operation, as times the floor</text>`,
    `<text class="small" x="${GAP}" y="48">The floor, 1×, is what the language charges for the same without a library. Further left is faster; the scale is logarithmic.</text>`,
    ...marks,
  ].join("\n");
}

function drawn({ title, rows }) {
  const bottom = TITLE + rows.length * ROW;
  const ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]
    .filter((tick) => tick >= least && tick <= most);
  const hosts = Object.keys(HOSTS);
  return [
    `<text class="title" x="0" y="14">${escaped(title)}</text>`,
    ...rows.map(({ bench }, i) =>
      OURS.includes(bench)
        ? `<rect class="band" x="-6" y="${TITLE + i * ROW}" width="${
          PANEL + 12
        }" height="${ROW}" rx="3"/>`
        : ""
    ),
    ...ticks.map((tick) =>
      `<line class="${tick === 1 ? "floor" : "line"}" x1="${x(tick)}" x2="${
        x(tick)
      }" y1="${TITLE}" y2="${bottom}"/>` +
      `<text class="small" text-anchor="middle" x="${x(tick)}" y="${
        bottom + 14
      }">${tick}×</text>`
    ),
    ...rows.map(({ bench, times }, i) => {
      const y = TITLE + (i + 0.5) * ROW;
      const isOurs = OURS.includes(bench);
      return `<text${isOurs ? ' class="ours"' : ""} x="0" y="${y + 4}">${
        escaped(bench)
      }</text>` +
        Object.entries(times).map(([host, value]) =>
          // Each runtime has a lane of its own, so that none hides another.
          HOSTS[host].mark(host, x(value), y + (hosts.indexOf(host) - 1.5) * 3)
        ).join("");
    }),
  ].filter(Boolean).join("\n");
}

/** The place of a value in its panel. */
function x(value) {
  const part = Math.log(value / least) / Math.log(most / least);
  return round(LABELS + part * (PANEL - LABELS));
}

function circle(host, x, y, r = 2.8) {
  return `<circle class="${className(host)}" cx="${x}" cy="${y}" r="${r}"/>`;
}

function square(host, x, y, r = 2.8) {
  return `<rect class="${className(host)}" x="${round(x - r)}" y="${
    round(y - r)
  }" width="${2 * r}" height="${2 * r}"/>`;
}

function triangle(host, x, y, r = 2.8) {
  return polygon(host, [[x, y - r], [x + r, y + r], [x - r, y + r]]);
}

function diamond(host, x, y, r = 2.8) {
  const d = r * 1.25;
  return polygon(host, [[x, y - d], [x + d, y], [x, y + d], [x - d, y]]);
}

function polygon(host, points) {
  return `<polygon class="${className(host)}" points="${
    points.map((point) => point.map(round).join()).join(" ")
  }"/>`;
}

function className(host) {
  return host.toLowerCase().replace(" ", "");
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function round(value) {
  return Number(value.toFixed(1));
}
