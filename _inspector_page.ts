/**
 * The page of the inspector: HTML, CSS and JavaScript as they are sent. What
 * others have named or written gets into it as text only.
 *
 * Internal: not an entry point of the package.
 *
 * @module
 */

/** The page, for a policy that lets only what has this nonce style and run. */
export function page(nonce: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inspector</title>
<link rel="icon" href="data:,">
<style nonce="${nonce}">${STYLE}</style>
</head>
<body>${BODY}<script type="module" nonce="${nonce}">${script()}</script>
</body>
</html>
`;
}

const STYLE = `
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --soft: #57606a; --paper: #fff; --card: #f3f5f7; --line: #c9d1d9; --edge: #7d8690;
  --bad: #c0132c; --good: #12703a; --focus: #0550ae;
  --c0: #0550ae; --c1: #8a4600; --c2: #6639ba; --c3: #12703a;
  --c4: #a0206f; --c5: #0b6e75; --c6: #6b5a00; --c7: #57606a;
  font: 15px/1.45 system-ui, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6edf3; --soft: #9da7b1; --paper: #0d1117; --card: #171d26; --line: #3d444d; --edge: #717a84;
    --bad: #ff7b80; --good: #56d37c; --focus: #79b8ff;
    --c0: #79b8ff; --c1: #f0a35e; --c2: #c5a3ff; --c3: #56d37c;
    --c4: #ff9bce; --c5: #5fd3da; --c6: #dcc34a; --c7: #9da7b1;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: .75rem; max-width: 80rem; color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.2rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 1.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: .8rem 0 .2rem; }
p { margin: .3rem 0; }
header, .bar { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; }
button, input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--edge); border-radius: .3rem; padding: .2rem .6rem; }
button { cursor: pointer; }
button:disabled { color: var(--soft); cursor: default; }
button[aria-pressed=true] { background: var(--focus); color: var(--paper); }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 1px; }
label { display: flex; gap: .3rem; align-items: center; }
label input { width: 9rem; min-width: 0; }
@media (max-width: 30rem) {
  label { flex: 1 0 100%; display: grid; grid-template-columns: 3.5rem 1fr; }
  label input { width: auto; }
}
.soft { color: var(--soft); }
.bad { color: var(--bad); }
.lost #live { filter: grayscale(1); }
.lost #connection { color: var(--bad); font-weight: bold; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .5rem; margin: .6rem 0; }
dl div { background: var(--card); border-radius: .3rem; padding: .3rem .6rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; font-size: 12px; }
svg text { fill: var(--ink); }
svg text.soft { fill: var(--soft); }
svg text.bad { fill: var(--bad); }
.box { fill: var(--card); stroke: var(--line); }
.held .box { stroke: var(--bad); stroke-width: 2; }
.track { fill: var(--line); }
.fill { fill: var(--good); }
.held .fill { fill: var(--bad); }
.arrow { fill: none; }
.link.idle { opacity: .7; }
.link.idle .arrow { stroke-dasharray: 2 4; }
.life { stroke: var(--line); stroke-dasharray: 3 3; }
.grid { stroke: var(--line); }
.plot { fill: none; stroke-width: 2; }
.plot.s1 { stroke-dasharray: 6 3; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); } .s6 { stroke: var(--c6); } .s7 { stroke: var(--c7); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.f4 { fill: var(--c4); } .f5 { fill: var(--c5); } .f6 { fill: var(--c6); } .f7 { fill: var(--c7); }
.sbad { stroke: var(--bad); stroke-dasharray: 5 3; } .fbad { fill: var(--bad); }
.legend { list-style: none; margin: .3rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.legend svg { display: inline-block; width: 1rem; height: .7rem; margin-right: .3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
thead th { white-space: nowrap; }
th, td { text-align: left; padding: .2rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top; min-width: 3.5rem; }
#events { list-style: none; margin: .5rem 0; padding: 0; border-top: 1px solid var(--line); }
#events > li { content-visibility: auto; contain-intrinsic-size: auto 3.4rem; display: flex; flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; padding: .25rem 0; border-bottom: 1px solid var(--line); }
#events time { font-variant-numeric: tabular-nums; color: var(--soft); }
.ways { flex-basis: 100%; color: var(--soft); font-size: .9rem; }
dialog { color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; width: min(60rem, calc(100vw - 1rem)); max-height: calc(100vh - 2rem); }
dialog::backdrop { background: #0008; }
dialog ol { padding-left: 1.5rem; }
dialog li { margin: .2rem 0; }
[aria-current=true] { font-weight: bold; }
`;

const BODY = `
<header>
<h1>Inspector</h1>
<span id="connection" role="status">Connecting</span>
</header>
<main id="live">
<dl id="totals"></dl>
<svg id="chart" role="img" height="90"></svg>
<div id="buses"></div>
<section id="serializers" aria-labelledby="serializersTitle" hidden>
<h2 id="serializersTitle">Serializers</h2>
<div class="scroll"><table><thead><tr><th scope="col">Name</th><th scope="col">Running</th><th scope="col">Waiting</th><th scope="col">Oldest</th></tr></thead><tbody id="serializerRows"></tbody></table></div>
</section>
<section aria-labelledby="eventsTitle">
<h2 id="eventsTitle">Events</h2>
<form id="filter" class="bar" role="search">
<label>Type <input id="byType" list="types" autocomplete="off" spellcheck="false"></label>
<label>Source <input id="bySource" list="sources" autocomplete="off" spellcheck="false"></label>
<label>Text <input id="byText" type="search" autocomplete="off" spellcheck="false"></label>
<button id="pause" type="button" aria-pressed="false">Pause</button>
<button id="newer" type="button" disabled>Newer</button>
<button id="older" type="button" disabled>Older</button>
<datalist id="types"></datalist><datalist id="sources"></datalist>
</form>
<p id="count" class="soft"></p>
<p id="sampled" class="soft" hidden></p>
<ol id="events" role="list" aria-labelledby="eventsTitle"></ol>
</section>
<p id="announce" role="status" class="soft"></p>
</main>
<dialog id="lineage" aria-labelledby="lineageTitle">
<div class="bar"><h2 id="lineageTitle">Lineage</h2><button id="close" type="button">Close</button></div>
<div id="about"></div>
<div id="diagram" class="scroll" tabindex="0" role="region" aria-label="Sequence diagram"></div>
<h3>From the first cause to the last effect</h3>
<ol id="family"></ol>
</dialog>
`;

// Without the characters that mean something to a template literal. A function,
// so that bundlers leave it out where nothing of it is used.
const script = () =>
  String.raw`
const KEEP = 10000;      // events
const ROWS = 50;         // of them in the list
const SLICE = 6;         // ms of work between two frames of the screen
const PUBLISHERS = 12;   // on the map
const SUBSCRIBERS = 16;
const ARROWS = 60;       // in a diagram
const WAYS = 100000;     // of all events that are kept
const NAMES = 500;       // publishers that are remembered, with their types
const SILENCE = 10000;   // ms without a frame, until the connection is made anew
const [PUBLISHED, QUEUED, DROPPED, DELIVERED, HANDLED, FAILED, UNHEARD] = [0, 1, 2, 3, 4, 5, 6];

const $ = (id) => document.getElementById(id);

/** An element of HTML. Children are elements, or text. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children);
  return element;
}

/** An element of SVG. */
function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  element.append(...children);
  return element;
}

/** Sets text only where it is another one: screen readers hear of each change. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes children of an element like these: what stays the same is left alone, so that it can be pointed at. */
function become(element, children) {
  const old = [...element.childNodes];
  children.forEach((next, n) => {
    const now = old[n];
    if (now === undefined) element.append(next);
    else if (now.nodeName !== next.nodeName) now.replaceWith(next);
    else if (next.nodeType === Node.TEXT_NODE) {
      if (now.data !== next.data) now.data = next.data;
    } else {
      for (const { name, value } of next.attributes) {
        if (now.getAttribute(name) !== value) now.setAttribute(name, value);
      }
      for (const { name } of [...now.attributes]) {
        if (!next.hasAttribute(name)) now.removeAttribute(name);
      }
      become(now, [...next.childNodes]);
    }
  });
  for (const gone of old.slice(children.length)) gone.remove();
}

/** About how wide a character is; those of East Asia are wider. */
const widthOf = (character) => character > "\u2e7f" ? 12.5 : 6.8;

/** About as much of a text as has room. */
function fit(text, pixels) {
  const characters = [...text];
  let left = pixels;
  const end = characters.findIndex((character) => (left -= widthOf(character)) < 0);
  return end === -1 ? text : characters.slice(0, Math.max(0, end - 1)).join("") + "…";
}

const number = new Intl.NumberFormat("en");
const many = (n) => number.format(Math.round(n));
const rate = (n) => n <= 0 ? "0/s" : n < 0.1 ? "<0.1/s" : n < 10 ? n.toFixed(1) + "/s" : many(n) + "/s";
const span = (ms) => ms < 0.01 ? "<0.01 ms" : ms < 1 ? ms.toFixed(2) + " ms" : ms < 100 ? ms.toFixed(1) + " ms"
  : ms < 1000 ? Math.round(ms) + " ms" : (ms / 1000).toFixed(1) + " s";
const clock = (time) => {
  const date = new Date(time);
  return isNaN(date) ? "?" : date.toTimeString().slice(0, 8) + "." + String(date.getMilliseconds()).padStart(3, "0");
};

// ------------------------------------------------------------------- model

let session;
let frame;               // the last one
let frames = 0;
let buses;               // what is known of each, by its place
let list, first;         // events, the oldest at "first"
let byId, effects;       // events by id; by the id of their cause
let seq;                 // of the next event
let colors;              // by type
let seconds;             // of the last minute: { second, published, delivered }
let kept;                // ways of events
let notSeen, away;       // events that were too many to be looked at; that came while the connection was lost
let matches, scanned;    // what the filter lets pass, of those before this seq

function reset() {
  frame = undefined;
  buses = [];
  list = []; first = 0;
  byId = new Map(); effects = new Map();
  seq = 0;
  colors = new Map();
  seconds = [];
  kept = notSeen = away = 0;
  matches = []; scanned = 0;
  view.anchor = Infinity;
}

const view = { paused: false, over: false, asked: false, anchor: Infinity, filter: ["", "", ""], shown: 0, announced: -Infinity, held: "" };

function colorOf(type) {
  let color = colors.get(type);
  if (color === undefined) {
    color = colors.size % 8;
    if (colors.size < 1000) colors.set(type, color);
  }
  return color;
}

function keep(given, place) {
  let event = byId.get(given.id);
  if (event !== undefined) return event;
  event = { ...given, seq: seq++, bus: place, at: undefined, ways: new Map(), unheard: false, matched: false, kept: true };
  byId.set(event.id, event);
  list.push(event);
  if (event.cause !== undefined) {
    const others = effects.get(event.cause);
    if (others === undefined) effects.set(event.cause, [event]);
    else others.push(event);
  }
  if (list.length - first > KEEP) forget();
  return event;
}

function forget() {
  const event = list[first];
  list[first++] = undefined;
  event.kept = false;
  kept -= event.ways.size;
  if (byId.get(event.id) === event) byId.delete(event.id);
  const others = effects.get(event.cause);
  if (others !== undefined) {
    if (others[0] === event) others.shift();
    else others.splice(others.indexOf(event), 1);
    if (others.length === 0) effects.delete(event.cause);
  }
  if (first >= KEEP) { list = list.slice(first); first = 0; }
}

/** Takes in frames, a slice at a time: what is left of the first one is at "step". */
const pending = [];
let step = 0, given = [], tally;

function takeIn(until) {
  while (pending.length > 0) {
    const next = pending[0];
    while (next.place < next.buses.length) {
      const bus = next.buses[next.place];
      if (step === 0) beginBus(bus);
      while (step < bus.steps.length) {
        const stop = Math.min(step + 200, bus.steps.length);
        while (step < stop) takeStep(bus, next.place, bus.steps[step++]);
        if (performance.now() > until) return;
      }
      endBus(bus, next.place, next.at);
      step = 0;
      next.place++;
    }
    for (const bus of next.buses) bus.steps = bus.events = undefined;
    frame = next;
    frames++;
    pending.shift();
    mark("totals", "chart", "serializers", "map", "rows", "diagram");
    if (performance.now() > until) return;
  }
}

function beginBus() {
  given = [];
  tally = { seen: 0, published: new Map(), delivered: new Map() };
}

function takeStep(bus, place, [kind, at, id, name, time, waited, depth, extra]) {
  const event = given[at] ??= keep(bus.events[at], place);
  const known = buses[place];
  if (kind === PUBLISHED) {
    event.at ??= time; // over a link it can come to a second bus
    tally.seen++;
    add(tally.published, event.source + "\0" + event.type, { source: event.source, type: event.type });
  } else if (kind === UNHEARD) event.unheard = true;
  else {
    const key = place + " " + (id ?? name); // links have no ids
    let way = event.ways.get(key);
    if (way === undefined) {
      event.ways.set(key, way = { name, bus: place, state: "queued" });
      if (event.kept) kept++;
      while (kept > WAYS && list.length - first > 1) forget();
    }
    way.gap = known === undefined ? 0 : known.gap;
    if (kind === QUEUED) way.depth = depth;
    else if (kind === DELIVERED) {
      way.state = extra ? "handling" : "delivered";
      way.waited = waited;
      way.delivered = time;
      add(tally.delivered, id + "\0" + event.type, { id, type: event.type });
    } else if (kind === DROPPED) {
      way.state = "dropped"; way.reason = extra; way.ended = time;
    } else {
      way.state = kind === HANDLED ? "handled" : "failed";
      way.took = waited === null || waited === undefined ? way.took : waited;
      way.ended = time;
      if (kind === FAILED) way.error = extra;
    }
  }
  if (!event.matched && event.seq < scanned && passes(event)) {
    event.matched = true;
    matches.splice(placeOf(matches, event.seq), 0, event);
  }
}

function add(map, key, about) {
  const entry = map.get(key);
  if (entry === undefined) map.set(key, { ...about, n: 1 });
  else entry.n++;
}

function endBus(bus, place, at) {
  let known = buses[place];
  if (known === undefined) {
    known = buses[place] = { anew: true, gap: 0, published: bus.published,
      publishers: new Map(), arrows: new Map(), subscriptions: new Map() };
  }
  const published = bus.published - known.published;
  const unseen = Math.max(0, published - tally.seen);
  if (known.anew) away += unseen;
  else notSeen += unseen;
  if (at < known.at) { // the clock was set back
    known.anew = true;
    seconds = [];
  }
  if (known.anew || !bus.whole) known.gap++; // what went on there was not seen to its end
  if (known.anew) { // counts of deliveries begin with a connection
    Object.assign(known, { anew: false, at, delivered: bus.delivered, samples: [] });
  }
  const delivered = bus.delivered - known.delivered, time = (at - known.at) / 1000;
  if (time > 0) {
    smooth(known.publishers, tally.published, published / tally.seen, time, at);
    const seen = [...tally.delivered.values()].reduce((sum, { n }) => sum + n, 0);
    smooth(known.arrows, tally.delivered, delivered / seen, time, at);
    note(Math.floor(at / 1000), published, delivered);
  }
  const subscriptions = new Map();
  for (const { id, delivered } of bus.subscriptions) {
    const before = known.subscriptions.get(id);
    const rate = before === undefined ? 0 : before.rate;
    const now = before === undefined || time <= 0 ? rate : (delivered - before.delivered) / time;
    subscriptions.set(id, { delivered, rate: follow(rate, now, time) });
  }
  Object.assign(known, { at, published: bus.published, delivered: bus.delivered, subscriptions });
  known.samples.push({ at, published: bus.published, delivered: bus.delivered });
  while (known.samples.length > 2 && known.samples[1].at <= at - 1000) known.samples.shift();
}

/** A rate that follows what it is now within seconds. */
function follow(rate, now, time) {
  const next = rate + (1 - Math.exp(-time / 1.5)) * (now - rate);
  return next < 0.005 ? 0 : next;
}

/** Takes what was counted into rates. */
function smooth(rates, counts, factor, time, at) {
  for (const [key, { n, ...about }] of counts) {
    let entry = rates.get(key);
    if (entry === undefined) {
      if (rates.size >= NAMES) continue;
      rates.set(key, entry = { ...about, rate: 0, at });
    }
    entry.n = n;
    entry.at = at;
  }
  for (const [key, entry] of rates) {
    entry.rate = follow(entry.rate, entry.n > 0 ? entry.n * Math.max(1, factor) / time : 0, time);
    entry.n = 0;
    if (entry.at < at - 60000) rates.delete(key);
  }
}

function note(second, published, delivered) {
  let last = seconds.at(-1);
  if (last === undefined || last.second !== second) {
    seconds.push(last = { second, published: 0, delivered: 0 });
    while (seconds[0].second <= second - 61) seconds.shift();
  }
  last.published += published;
  last.delivered += delivered;
}

// ------------------------------------------------------------------ filter

/** Where in a list that is in order an event is, or would be. */
function placeOf(events, seq) {
  let low = 0, high = events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle].seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

function passes(event) {
  const [type, source, text] = view.filter;
  if (type !== "" && !event.type.toLowerCase().includes(type)) return false;
  if (source !== "" && !event.source.toLowerCase().includes(source)) return false;
  if (text === "") return true;
  const parts = [event.type, event.source, event.id, event.cause ?? "", event.data];
  for (const { name, state, error, reason } of event.ways.values()) parts.push(name, state, error ?? "", reason ?? "");
  return parts.join("\n").toLowerCase().includes(text);
}

/** Looks through events that came since, or all of them after the filter has changed. */
function scan(until) {
  const oldest = first < list.length ? list[first].seq : seq;
  let gone = 0;
  while (gone < matches.length && matches[gone].seq < oldest) gone++;
  if (gone > 0) matches.splice(0, gone);
  if (scanned < oldest) scanned = oldest;
  while (scanned < seq) {
    const event = list[first + scanned - oldest];
    scanned++;
    event.matched = passes(event);
    if (event.matched) matches.push(event);
    if (scanned % 100 === 0 && performance.now() > until) return;
  }
}

// ------------------------------------------------------------- the screen

// One kind of work between two frames of the screen, so that none is long.
const due = new Set();
const work = {
  totals: drawTotals, chart: drawChart, serializers: drawSerializers,
  map: drawMaps, table: drawTables, rows: drawRows, names: drawNames, diagram: drawDiagram,
};
let scheduled = false;

function mark(...kinds) {
  for (const kind of kinds) due.add(kind);
  schedule();
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const until = performance.now() + SLICE;
    if (pending.length > 0) takeIn(until);
    if (scanned < seq && performance.now() < until) scan(until);
    for (const kind of due) {
      if (performance.now() > until) break;
      due.delete(kind);
      if (frame !== undefined) work[kind]();
    }
    if (pending.length > 0 || scanned < seq || due.size > 0) schedule();
  });
}

function drawTotals() {
  let published = 0, delivered = 0, dropped = 0, failed = 0, held = 0, sampled = false;
  frame.buses.forEach((bus, i) => {
    const { samples } = buses[i];
    const [then, now] = [samples[0], samples.at(-1)];
    const time = (now.at - then.at) / 1000;
    if (time > 0) {
      published += (now.published - then.published) / time;
      delivered += (now.delivered - then.delivered) / time;
    }
    dropped += bus.dropped;
    failed += bus.failed;
    held += bus.held;
    sampled ||= !bus.whole;
  });
  const rows = [
    ["Published", rate(published)], ["Delivered", rate(delivered)],
    ["Dropped", many(dropped), dropped > 0], ["Failed", many(failed), failed > 0],
    ["Hold publishers back", many(held), held > 0],
  ];
  const totals = $("totals");
  if (totals.childElementCount === 0) {
    for (const [name] of rows) totals.append(make("div", {}, make("dt", {}, name), make("dd", {})));
  }
  rows.forEach(([, text, bad], i) => {
    const value = totals.children[i].lastChild;
    say(value, text);
    value.className = bad ? "bad" : "";
  });
  $("sampled").hidden = notSeen + away === 0;
  say($("sampled"), [
    notSeen === 0 ? "" : "Sampled: " + many(notSeen) + " events are not listed, since there were too many to look at each. " +
      "Counts and totals are exact, rates by type are estimated." + (sampled ? "" : " Now each is looked at."),
    away === 0 ? "" : many(away) + " events are not listed, since they came while the connection was lost.",
  ].filter(Boolean).join(" "));
  const title = frame.buses.slice(0, 3).map(({ name }) => name).concat("Inspector").join(" – ");
  if (document.title !== title) document.title = title;
  announce();
}

/** Tells screen readers whose queue is full: what is new, and not more often than each five seconds. */
function announce() {
  const names = frame.buses.flatMap(({ subscriptions }) =>
    subscriptions.filter(({ waiting }) => waiting > 0).map(({ name }) => name));
  const held = names.slice(0, 5).join(", ") + (names.length > 5 ? " and others" : "");
  if (held === view.held || performance.now() < view.announced + 5000) return;
  view.held = held;
  view.announced = performance.now();
  say($("announce"), held === "" ? "Nobody holds publishers back any more" : "Holds publishers back: " + held);
}

function drawChart() {
  const chart = $("chart");
  const width = chart.getBoundingClientRect().width || 300, height = 90;
  const last = Math.floor(frame.at / 1000);
  const bySecond = new Map(seconds.map((one) => [one.second, one]));
  const all = [];
  for (let i = 60; i >= 1; i--) all.push(bySecond.get(last - i) ?? { published: 0, delivered: 0 });
  const most = Math.max(1, ...all.map(({ published, delivered }) => Math.max(published, delivered)));
  const line = (key, color) => draw("polyline", { class: "plot s" + color, points: all.map((one, i) =>
    (i * (width - 2) / 59 + 1).toFixed(1) + "," + (height - 4 - one[key] / most * (height - 24)).toFixed(1)).join(" ") });
  const { published, delivered } = all.at(-1);
  chart.setAttribute("viewBox", "0 0 " + width + " " + height);
  chart.setAttribute("aria-label", "The last minute: at most " + many(most) + " a second; in the last second " +
    many(published) + " published, " + many(delivered) + " delivered");
  become(chart, [
    draw("line", { class: "grid", x1: 0, x2: width, y1: 20, y2: 20 }),
    draw("line", { class: "grid", x1: 0, x2: width, y1: height - 4, y2: height - 4 }),
    draw("text", { class: "soft", x: 2, y: 14 }, many(most) + "/s"),
    draw("text", { class: "f0", x: width - 130, y: 14, "text-anchor": "end" }, "published"),
    draw("text", { class: "f1", x: width - 62, y: 14, "text-anchor": "end" }, "delivered"),
    draw("text", { class: "soft", x: width - 2, y: 14, "text-anchor": "end" }, "1 minute"),
    line("published", 0), line("delivered", 1),
  ]);
}

function drawSerializers() {
  const all = frame.serializers;
  $("serializers").hidden = all.length === 0;
  fill($("serializerRows"), all.map(({ name, running, waiting, closed, oldestSince }) => [
    name + (closed ? " (closed)" : ""), many(running), many(waiting),
    oldestSince === null ? "–" : frame.at - oldestSince < 200 ? "< 0.2 s" : span(frame.at - oldestSince),
  ]));
}

/** Writes rows into a table, changing no more than what has changed. */
function fill(body, rows, bad = () => false) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, i) => {
    let row = body.rows[i];
    if (row === undefined) {
      body.append(row = make("tr", {}, make("th", { scope: "row" })));
      for (let n = 1; n < cells.length; n++) row.insertCell();
    }
    cells.forEach((text, n) => say(row.cells[n], text));
    row.className = bad(i) ? "bad" : "";
  });
}

// -------------------------------------------------------------------- map

const maps = [];

function mapOf(i) {
  if (maps[i] !== undefined) return maps[i];
  const id = "bus" + i;
  const map = {
    title: make("h2", { id }), svg: draw("svg", { role: "img" }), legend: make("ul", { class: "legend" }),
    note: make("p", { class: "soft" }), details: make("details", {}, make("summary", {}, "The map as a table")),
    subscriptions: make("tbody", {}), publishers: make("tbody", {}), links: make("p", { class: "soft" }),
  };
  const table = (caption, heads, body) => make("div", { class: "scroll" }, make("table", {},
    make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), body));
  map.details.append(
    table("Publishers", ["Source", "Type", "Rate"], map.publishers),
    table("Subscriptions", ["Name", "Types", "Queue", "Holds publishers back", "Delivered", "Dropped", "Failed"], map.subscriptions),
  );
  map.details.addEventListener("toggle", () => mark("table"));
  $("buses").append(make("section", { "aria-labelledby": id }, map.title, map.svg, map.legend, map.note, map.links, map.details));
  return maps[i] = map;
}

/** Publishers by what they publish, the busiest first; then in the order of names, so that they stay where they are. */
function publishersOf(known) {
  const sources = new Map();
  for (const { source, type, rate } of known.publishers.values()) {
    let entry = sources.get(source);
    if (entry === undefined) sources.set(source, entry = { source, rate: 0, types: [] });
    entry.rate += rate;
    entry.types.push({ type, rate });
  }
  const all = [...sources.values()];
  const shown = all.length <= PUBLISHERS ? all
    : all.sort((a, b) => b.rate - a.rate).slice(0, PUBLISHERS);
  for (const { types } of shown) types.sort((a, b) => a.type < b.type ? -1 : 1);
  return { shown: shown.sort((a, b) => a.source < b.source ? -1 : 1), more: all.length - shown.length };
}

function subscriptionsOf(bus) {
  const all = bus.subscriptions;
  const shown = all.length <= SUBSCRIBERS ? all : [...all].sort((a, b) =>
    b.waiting - a.waiting || b.failed - a.failed || b.delivered - a.delivered).slice(0, SUBSCRIBERS).sort((a, b) => a.id - b.id);
  return { shown, more: all.length - shown.length + bus.more };
}

/** What a subscription gets by types: shares as they were seen, of a rate that is known exactly. */
function flowsOf(seen, types, exactly) {
  const flows = seen.sort((a, b) => a.type < b.type ? -1 : 1).slice(0, 4);
  for (const type of types) {
    if (type !== "*" && flows.length < 4 && !flows.some((flow) => flow.type === type)) flows.push({ type, rate: 0 });
  }
  const sum = flows.reduce((sum, flow) => sum + flow.rate, 0);
  return flows.map(({ type, rate }) => ({ type, rate: sum > 0 ? rate * exactly / sum : exactly / flows.length }));
}

const typesOf = ({ types, moreTypes }) => types.join(", ") + (moreTypes > 0 ? " and " + many(moreTypes) + " more" : "");
const heldFor = ({ heldSince }) => heldSince === null ? "" : span(Math.max(0, frame.at - heldSince));
/** How many it holds back, and for how long; in fewer words, if there is no room. */
function heldText(count, time, room) {
  const text = "holds " + count + " back, " + time;
  return fit(text, room) === text ? text : count + " held, " + time;
}

const thick = (rate) => rate <= 0 ? 1.5 : Math.min(14, 1.5 + 2.6 * Math.log10(1 + rate));

function arrow(x1, y1, x2, y2, rate, type, title) {
  const middle = (x1 + x2) / 2, color = colorOf(type), width = thick(rate), tip = 5 + width / 2;
  return draw("g", { class: "link" + (rate > 0 ? "" : " idle"), "data-type": type, "data-width": width.toFixed(1) },
    draw("title", {}, title),
    draw("path", { class: "arrow s" + color, "stroke-width": width.toFixed(1),
      d: "M" + x1 + " " + y1 + " C" + middle + " " + y1 + " " + middle + " " + y2 + " " + (x2 - tip) + " " + y2 }),
    draw("path", { class: "f" + color, d: "M" + x2 + " " + y2 + " l" + -tip * 1.4 + " " + -tip + " v" + 2 * tip + " z" }));
}

function drawMaps() {
  while (maps.length > frame.buses.length) maps.pop().title.parentElement.remove();
  frame.buses.forEach(drawMap);
  if (maps.some(({ details }) => details.open)) due.add("table");
  if (frames % 10 === 1) due.add("names");
}

function drawMap(bus, i) {
  const known = buses[i], map = mapOf(i);
  say(map.title, bus.name + (bus.closed ? " (closed)" : ""));
  const publishers = publishersOf(known), subscriptions = subscriptionsOf(bus);
  const width = Math.max(280, map.svg.getBoundingClientRect().width);
  const isNarrow = width < 600;
  const leftWidth = Math.min(220, width * .3), rightWidth = Math.min(300, width * .42), busWidth = isNarrow ? 36 : 110;
  const busX = leftWidth + (width - leftWidth - rightWidth - busWidth) / 2, rightX = width - rightWidth;
  const HIGH = 62, leftHeights = publishers.shown.map(({ types }) => Math.max(34, 16 + 14 * Math.min(4, types.length)));
  const leftHeight = leftHeights.reduce((sum, high) => sum + high + 8, 0);
  const height = Math.max(90, leftHeight, subscriptions.shown.length * (HIGH + 8)) + 4;
  const inputs = Math.max(1, publishers.shown.reduce((n, { types }) => n + Math.min(4, types.length), 0));
  const parts = [], arrows = [];
  let y = (height - leftHeight) / 2 + 4, input = 0;
  publishers.shown.forEach(({ source, rate: all, types }, n) => {
    const high = leftHeights[n];
    parts.push(draw("g", { class: "publisher" }, draw("title", {}, source + ", " + rate(all)),
      draw("rect", { class: "box", x: 1, y, width: leftWidth - 2, height: high, rx: 5 }),
      draw("text", { x: 7, y: y + 14 }, fit(source, leftWidth - 12)),
      draw("text", { class: "soft", x: 7, y: y + 28 }, rate(all))));
    types.slice(0, 4).forEach((one, k) => {
      const to = height / 2 + (++input - (inputs + 1) / 2) * Math.min(12, (height - 20) / inputs);
      arrows.push(arrow(leftWidth, y + 12 + k * 14, busX, to, one.rate, one.type, source + " publishes " + one.type + ", " + rate(one.rate)));
    });
    y += high + 8;
  });
  const samples = known.samples, time = (samples.at(-1).at - samples[0].at) / 1000;
  const busAt = { x: busX + busWidth / 2, "text-anchor": "middle",
    ...isNarrow && { transform: "rotate(-90 " + (busX + busWidth / 2) + " " + height / 2 + ")" } };
  parts.push(draw("g", { class: "bus" }, draw("title", {}, bus.name),
    draw("rect", { class: "box", x: busX, y: 4, width: busWidth, height: height - 8, rx: 8 }),
    draw("text", { ...busAt, y: height / 2 - 4 }, fit(bus.name, (isNarrow ? height : busWidth) - 12)),
    draw("text", { ...busAt, class: "soft", y: height / 2 + 12 },
      time > 0 ? rate((samples.at(-1).published - samples[0].published) / time) : "")));
  const rates = new Map();
  for (const { id, type, rate } of known.arrows.values()) {
    if (!rates.has(id)) rates.set(id, []);
    rates.get(id).push({ type, rate });
  }
  let top = (height - subscriptions.shown.length * (HIGH + 8)) / 2 + 4, n = 0;
  for (const one of subscriptions.shown) {
    const { id, name, types, size, capacity, waiting, dropped, failed, peak } = one;
    const exactly = known.subscriptions.get(id)?.rate ?? 0; // it may be of the next frame already
    const flows = flowsOf(rates.get(id) ?? [], types, exactly);
    const from = height / 2 + (++n - (subscriptions.shown.length + 1) / 2) * Math.min(14, (height - 20) / subscriptions.shown.length);
    flows.forEach((flow, k) => arrows.push(arrow(busX + busWidth, from, rightX, top + HIGH / 2 + (k - (flows.length - 1) / 2) * 12,
      flow.rate, flow.type, name + " gets " + flow.type + ", " + rate(flow.rate))));
    const held = waiting > 0, room = capacity ?? Math.max(1, peak), bar = rightWidth - 14;
    const depth = size + (capacity === null ? "" : "/" + capacity);
    parts.push(draw("g", { class: "subscription" + (held ? " held" : ""), "data-name": name },
      draw("title", {}, name + ": " + typesOf(one)),
      draw("rect", { class: "box", x: rightX + 1, y: top, width: rightWidth - 2, height: HIGH, rx: 5 }),
      draw("text", { x: rightX + 7, y: top + 14 }, fit(name, bar - 7 * depth.length - 6)),
      draw("text", { class: held ? "bad" : "soft", x: rightX + rightWidth - 7, y: top + 14, "text-anchor": "end" }, depth),
      draw("rect", { class: "track", x: rightX + 7, y: top + 20, width: bar, height: 8, rx: 3 }),
      draw("rect", { class: "fill", x: rightX + 7, y: top + 20, width: Math.min(1, size / room) * bar, height: 8, rx: 3 }),
      draw("text", { class: held ? "bad" : "soft", x: rightX + 7, y: top + 41 },
        held ? heldText(waiting, heldFor(one), bar) : fit(rate(exactly), bar)),
      draw("text", { class: dropped + failed > 0 ? "bad" : "soft", x: rightX + 7, y: top + 54 },
        fit(dropped + failed > 0 ? [dropped > 0 ? many(dropped) + " dropped" : "", failed > 0 ? many(failed) + " failed" : ""].filter(Boolean).join(", ")
          : many(one.delivered) + " delivered", bar))));
    top += HIGH + 8;
  }
  const held = bus.subscriptions.filter(({ waiting }) => waiting > 0).map(({ name }) => name);
  map.svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  map.svg.setAttribute("height", height);
  map.svg.setAttribute("aria-label", "Map of " + bus.name + ": " + publishers.shown.length + " publishers, " +
    bus.subscriptions.length + " subscriptions" + (held.length > 0 ? "; publishers wait for " + held.slice(0, 5).join(", ") : "") + ". All of it is in the table below");
  become(map.svg, [...arrows, ...parts]);
  drawLegend(map, known);
  say(map.note, [publishers.more > 0 ? many(publishers.more) + " more publishers" : "",
    subscriptions.more > 0 ? many(subscriptions.more) + " more subscriptions" : ""].filter(Boolean).join(", "));
  say(map.links, bus.links.map(({ name, state, sent, received, lost }) =>
    name + ": " + state + ", " + many(sent) + " sent, " + many(received) + " received, " + many(lost) + " lost").join("; "));
}

function drawLegend(map, known) {
  const types = new Map();
  for (const { type, rate } of known.publishers.values()) types.set(type, (types.get(type) ?? 0) + rate);
  const shown = [...types].slice(0, 12);
  while (map.legend.childElementCount > shown.length) map.legend.lastChild.remove();
  shown.forEach(([type, sum], n) => {
    let item = map.legend.children[n];
    if (item === undefined) {
      map.legend.append(item = make("li", {}, draw("svg", { viewBox: "0 0 16 10", "aria-hidden": "true" },
        draw("rect", { width: 16, height: 10, rx: 2 })), make("bdi", {}), make("span", {})));
    }
    item.firstChild.firstChild.setAttribute("class", "f" + colorOf(type));
    say(item.children[1], type);
    say(item.lastChild, " " + rate(sum));
  });
}

function drawTables() {
  frame.buses.forEach((bus, i) => {
    const map = mapOf(i);
    if (!map.details.open) return;
    const all = [...buses[i].publishers.values()];
    const publishers = all.slice(0, 100).map(({ source, type, rate: each }) => [source, type, rate(each)]);
    if (all.length > 100) publishers.push([many(all.length - 100) + " more", "", ""]);
    fill(map.publishers, publishers);
    const subscriptions = bus.subscriptions;
    const rows = subscriptions.map((one) => [
      one.name, typesOf(one), many(one.size) + (one.capacity === null ? "" : " of " + many(one.capacity)),
      one.waiting > 0 ? many(one.waiting) + ", for " + heldFor(one) : "no",
      many(one.delivered), many(one.dropped), many(one.failed),
    ]);
    if (bus.more > 0) rows.push([many(bus.more) + " more", "", "", "", "", "", ""]);
    fill(map.subscriptions, rows, (n) => subscriptions[n]?.waiting > 0);
  });
}

/** What filters could be. */
function drawNames() {
  const sources = new Set(), types = new Set();
  for (const { publishers } of buses) {
    for (const { source, type } of publishers.values()) {
      if (sources.size < 100) sources.add(source);
      if (types.size < 100) types.add(type);
    }
  }
  for (const [id, names] of [["types", types], ["sources", sources]]) {
    const list = $(id);
    const text = JSON.stringify([...names]);
    if (list.dataset.names === text) continue;
    list.dataset.names = text;
    list.replaceChildren(...[...names].map((value) => make("option", { value })));
  }
}

// ------------------------------------------------------------------- rows

const isOpen = ({ state }) => state === "queued" || state === "handling";

/** What became of an event at a subscription. */
function wayOf(way) {
  const unseen = isOpen(way) && way.gap < buses[way.bus].gap;
  const parts = [
    way.state === "failed" ? "failed: " + way.error
      : way.state === "dropped" ? "dropped, " + way.reason
      : way.state === "queued" ? (way.depth === undefined ? "queued" : "queued at " + way.depth)
      : way.state === "handling" ? "in hand" : way.state,
    way.waited === undefined || way.waited === null ? "" : "waited " + span(way.waited),
    way.took === undefined || way.took === null ? "" : "took " + span(way.took),
    unseen ? "then not looked at" : "",
  ];
  return parts.filter(Boolean).join(", ");
}

const isBad = ({ state }) => state === "failed" || state === "dropped";

function writeRow(item, event) {
  const [time, button, source, data, ways] = item.children;
  say(time, clock(event.time));
  say(button, event.type);
  say(source, "from " + event.source);
  say(data, event.data);
  const shown = [...event.ways.values()].slice(0, 8);
  const texts = event.unheard ? ["heard by nobody"] : shown.map((way) => way.name + ": " + wayOf(way));
  if (event.ways.size > 8) texts.push(event.ways.size - 8 + " more");
  while (ways.childElementCount > texts.length) ways.lastChild.remove();
  texts.forEach((text, n) => {
    if (ways.children[n] === undefined) ways.append(make("div", {}));
    say(ways.children[n], text);
    ways.children[n].className = event.unheard || shown[n] && isBad(shown[n]) ? "bad" : "";
  });
}

function drawRows() {
  const rows = $("events");
  const still = view.paused || view.over || rows.contains(document.activeElement);
  const at = view.anchor === Infinity ? matches.length : placeOf(matches, view.anchor + 1);
  const counted = matches.length;
  $("newer").disabled = view.anchor === Infinity;
  $("older").disabled = at <= ROWS;
  say($("count"), (scanned < seq ? "Looking through " : many(counted) + " of ") + many(list.length - first) + " events kept" +
    (view.anchor !== Infinity ? ", older ones shown" : view.paused ? ", paused" : still ? ", held still while you are at it" : ""));
  if (view.asked && scanned === seq) {
    view.asked = false;
    say($("announce"), many(counted) + " of " + many(list.length - first) + " events");
  }
  if (still && !view.redraw) return;
  view.redraw = false;
  const shown = matches.slice(Math.max(0, at - ROWS), at).reverse();
  const old = new Map([...rows.children].map((item) => [item.event, item]));
  const items = shown.map((event) => {
    let item = old.get(event);
    if (item === undefined) {
      item = make("li", {}, make("time", {}), make("button", { type: "button", "aria-haspopup": "dialog" }),
        make("span", {}), make("span", { class: "soft" }), make("div", { class: "ways" }));
      item.event = event;
    }
    old.delete(event);
    writeRow(item, event);
    return item;
  });
  for (const item of old.values()) item.remove();
  items.forEach((item, n) => {
    if (rows.children[n] !== item) rows.insertBefore(item, rows.children[n] ?? null);
  });
}

// ---------------------------------------------------------------- lineage

let shownEvent;

function lineageOf(event) {
  const before = [], seen = new Set([event]);
  for (let one = event; (one = byId.get(one.cause)) !== undefined && !seen.has(one);) {
    seen.add(one);
    before.unshift(one);
  }
  const after = [event];
  for (const one of after) { // it grows
    for (const effect of effects.get(one.id) ?? []) {
      if (seen.has(effect) || after.length > 500) continue;
      seen.add(effect);
      after.push(effect);
    }
  }
  return { causes: before, effects: after.slice(1).sort((a, b) => a.seq - b.seq) };
}

function showLineage(event) {
  shownEvent = event;
  say($("lineageTitle"), "Lineage of " + event.type);
  if (!$("lineage").open) $("lineage").showModal();
  due.delete("diagram");
  drawDiagram();
}

/** Lists a family; whoever is in it already stays where the focus may be. */
function drawFamily(family) {
  const list = $("family");
  const old = new Map([...list.children].map((item) => [item.event, item]));
  const items = family.map((one) => {
    let item = old.get(one);
    if (item === undefined) {
      const button = make("button", { type: "button" }, one.type);
      button.addEventListener("click", () => {
        showLineage(one);
        $("close").focus();
      });
      item = make("li", {}, button, " from " + one.source + ", " + clock(one.time), make("div", {}));
      item.event = one;
    }
    old.delete(one);
    item.firstChild.setAttribute("aria-current", one === shownEvent);
    const ways = [...one.ways.values()].slice(0, 20);
    const texts = item.lastChild;
    while (texts.childElementCount > ways.length) texts.lastChild.remove();
    ways.forEach((way, n) => {
      if (texts.children[n] === undefined) texts.append(make("div", {}));
      say(texts.children[n], way.name + ": " + wayOf(way));
      texts.children[n].className = isBad(way) ? "bad" : "soft";
    });
    return item;
  });
  for (const item of old.values()) item.remove();
  items.forEach((item, n) => {
    if (list.children[n] !== item) list.insertBefore(item, list.children[n] ?? null);
  });
}

function drawDiagram() {
  const event = shownEvent;
  if (event === undefined) return;
  const { causes, effects } = lineageOf(event);
  const top = causes[0] ?? event;
  const about = [
    ["Id", event.id], ["Source", event.source], ["Time", clock(event.time)],
    ["Data", event.data], ["Cause", event.cause ?? "none"], ["Trace", event.trace],
    ["Published on", event.origin],
    ["Not in this recording", top.cause === undefined || byId.has(top.cause) ? undefined : "the cause " + top.cause],
  ].filter(([, text]) => text !== undefined);
  const lines = about.map(([name, text]) => name + ": " + text);
  while ($("about").childElementCount > lines.length) $("about").lastChild.remove();
  lines.forEach((line, n) => {
    if ($("about").children[n] === undefined) $("about").append(make("p", {}));
    say($("about").children[n], line);
  });

  // Arrows in the order of time: published ones, then what became of them.
  const family = [...causes, event, ...effects];
  drawFamily(family.slice(0, 200));
  const arrows = [];
  for (const one of family) {
    const time = one.at ?? -Infinity;
    arrows.push({ time, who: one.source, bus: one.bus, toBus: true, text: one.type, type: one.type, first: one.cause === undefined, own: one === event });
    for (const way of one.ways.values()) {
      arrows.push({ time: way.delivered ?? way.ended ?? (one.at ?? 0), who: way.name, bus: way.bus, toBus: false, text: one.type + ": " + wayOf(way),
        type: one.type, bad: isBad(way), own: one === event });
    }
    if (one.unheard) arrows.push({ time, who: undefined, bus: one.bus, text: one.type + ": heard by nobody", bad: true, own: one === event });
  }
  arrows.sort((a, b) => a.time - b.time);
  const shown = arrows.slice(0, ARROWS);
  const left = [], middle = [], right = []; // buses stand in the middle, by their places
  for (const { who, bus, toBus, first: begins } of shown) {
    if (!middle.includes(bus)) middle.push(bus);
    if (who === undefined || left.includes(who) || right.includes(who)) continue;
    (toBus && begins ? left : right).push(who);
  }
  const people = [...left, ...middle, ...right], ROW = 30;
  const STEP = Math.max(130, Math.min(230, Math.floor($("diagram").clientWidth / people.length)));
  const x = (who) => STEP / 2 + people.indexOf(who) * STEP;
  const width = people.length * STEP, height = 40 + ROW * (shown.length + 1);
  const parts = people.flatMap((who) => [
    draw("line", { class: "life", x1: x(who), x2: x(who), y1: 30, y2: height }),
    draw("rect", { class: "box", x: x(who) - STEP / 2 + 4, y: 4, width: STEP - 8, height: 24, rx: 5 }),
    draw("text", { x: x(who), y: 20, "text-anchor": "middle" }, fit(typeof who === "number" ? frame.buses[who]?.name ?? "bus" : who, STEP - 14)),
  ]);
  const lines2 = shown.map(({ who, bus, toBus, text, type, bad, own }, n) => {
    const y = 40 + ROW * n + 20;
    const [from, to] = who === undefined ? [x(bus), x(bus) + 40] : toBus ? [x(who), x(bus)] : [x(bus), x(who)];
    const color = bad ? "bad" : colorOf(type), way = to > from ? 1 : -1;
    const room = Math.max(STEP, Math.abs(to - from)) - 8;
    return draw("g", { class: "step" + (own ? " own" : "") }, draw("title", {}, text),
      draw("text", { class: bad ? "bad" : "", x: (from + to) / 2, y: y - 5, "text-anchor": "middle", "font-weight": own ? "bold" : "normal" }, fit(text, own ? room * .88 : room)),
      draw("line", { class: "s" + color, x1: from, x2: to, y1: y, y2: y, "stroke-width": own ? 2.5 : 1.5 }),
      draw("path", { class: "f" + color, d: "M" + to + " " + y + " l" + -8 * way + " -5 v10 z" }));
  });
  let svg = $("diagram").firstChild;
  if (svg === null) $("diagram").append(svg = draw("svg", { role: "img" }), make("p", { class: "soft" }));
  for (const [name, value] of Object.entries({ viewBox: "0 0 " + width + " " + height, width, height,
    "aria-label": "Sequence diagram: " + shown.map(({ who, toBus, text }) => who === undefined ? text : toBus ? who + " publishes " + text : who + " gets " + text).join("; ") })) {
    svg.setAttribute(name, value);
  }
  svg.style.setProperty("width", width + "px");
  become(svg, [...parts, ...lines2]);
  say($("diagram").lastChild, arrows.length > shown.length ? arrows.length - shown.length + " more arrows" : "");
}

// --------------------------------------------------------------- controls

$("events").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button !== null) showLineage(button.closest("li").event);
});
$("close").addEventListener("click", () => $("lineage").close());
$("lineage").addEventListener("close", () => shownEvent = undefined);

function redraw() {
  view.redraw = true;
  mark("rows");
}

function pause(paused) {
  view.paused = paused;
  $("pause").setAttribute("aria-pressed", paused);
  if (!paused) view.anchor = Infinity;
  redraw();
}
$("pause").addEventListener("click", () => pause(!view.paused));
$("older").addEventListener("click", () => {
  const at = view.anchor === Infinity ? matches.length : placeOf(matches, view.anchor + 1);
  const next = matches[at - ROWS - 1];
  if (next === undefined) return;
  pause(true);
  view.anchor = next.seq;
  redraw();
});
$("newer").addEventListener("click", () => {
  const next = matches[placeOf(matches, view.anchor + 1) + ROWS - 1];
  view.anchor = next === undefined || next === matches.at(-1) ? Infinity : next.seq;
  redraw();
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("filter").addEventListener("input", () => {
  view.filter = ["byType", "bySource", "byText"].map((id) => $(id).value.trim().toLowerCase());
  view.anchor = Infinity;
  matches = [];
  scanned = 0;
  view.asked = true;
  redraw();
});
// A list that moves cannot be read, nor clicked.
for (const [type, over] of [["pointerenter", true], ["pointerleave", false]]) {
  $("events").addEventListener(type, () => {
    view.over = over;
    mark("rows");
  });
}
for (const type of ["focusin", "focusout"]) $("events").addEventListener(type, () => mark("rows"));
addEventListener("resize", () => mark("chart", "map"));
document.addEventListener("visibilitychange", schedule);

// ------------------------------------------------------------- connection

let source, heard = performance.now(), retry;

function connected(text, lost) {
  say($("connection"), text);
  document.body.classList.toggle("lost", lost);
}

function connect() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("events");
  heard = performance.now();
  source.addEventListener("hello", ({ data }) => {
    heard = performance.now();
    connected("Connected", false);
    const hello = JSON.parse(data);
    pending.length = step = 0;
    if (hello.session !== session) { // another server, with ids of its own
      if (session !== undefined) $("lineage").close();
      session = hello.session;
      reset();
      $("events").replaceChildren();
      redraw();
    }
    for (const known of buses) known.anew = true; // nobody looked meanwhile
  });
  source.addEventListener("message", ({ data }) => {
    heard = performance.now();
    const next = JSON.parse(data);
    next.place = 0;
    pending.push(next);
    if (pending.length > 50) { // it takes too long: the steps of one are left out
      pending.splice(1, 1);
      for (const bus of pending[1].buses) bus.whole = false;
    }
    if (document.hidden) takeIn(Infinity);
    else schedule();
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      connected("Refused, perhaps since too many pages are open; trying again", true); // a browser does not tell why
      clearTimeout(retry);
      retry = setTimeout(connect, 2000);
    } else connected("Disconnected, trying again", true);
  });
}

setInterval(() => { // a connection can end without a word, or never begin
  if (source.readyState !== EventSource.CLOSED && performance.now() - heard > SILENCE) {
    connected("Disconnected, trying again", true);
    connect();
  }
}, 1000);
addEventListener("pagehide", () => source.close()); // also if the page may come back
addEventListener("pageshow", ({ persisted }) => persisted && connect());
reset();
connect();
`;
