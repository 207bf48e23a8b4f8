"use strict";

// The page: hears /events, keeps the last 15 minutes, draws. A point is
//
//   [at, [sessions/s, requests/s, bytes/s from clients, bytes/s from servers, sessions, waiting],
//    [[p50, p99, p99.9] per histogram], [[slot, load, sessions, lag] per worker]]

const LOST_AFTER_MS = 4000;
const RETRY_MS = 2000;

const state = {
  points: [],
  events: [],
  now: null,
  span: 900,
  step: 1,
  latency: null, // the histogram that was chosen, by name; null: the first that has data
  cursor: null, // Unix time that is looked at; null: now
  heardAt: 0,
};

const FLOW = {
  sessionsPerS: 0,
  requestsPerS: 1,
  fromClients: 2,
  fromServers: 3,
  sessions: 4,
  waiting: 5,
};
const flow = (index) => (point) => point[1][index];
const nothing = "not counted here";

const CHARTS = {
  requests: {
    title: "Requests per second",
    format: count,
    least: 10,
    series: () => [{ values: flow(FLOW.requestsPerS), color: palette.one, fill: 0.3 }],
    value: (point) => count(point[1][FLOW.requestsPerS]),
    unit: () => "/s",
    aside: (point) => (known(point[1][FLOW.requestsPerS]) ? [] : [[null, nothing]]),
  },
  sessions: {
    title: "New sessions per second",
    format: count,
    least: 10,
    series: () => [{ values: flow(FLOW.sessionsPerS), color: palette.one, fill: 0.3 }],
    value: (point) => count(point[1][FLOW.sessionsPerS]),
    unit: () => "/s",
    aside: (point) => [
      [null, `${count(point[1][FLOW.sessions])} open`],
      [null, `${count(point[1][FLOW.waiting])} waiting`],
    ],
  },
  latency: {
    title: "Latency",
    format: duration,
    log: true,
    series: () => [
      { values: latencyAt(2), color: palette.tail, width: 0.85 },
      { values: latencyAt(1), color: palette.one, width: 1.2 },
      { values: latencyAt(0), color: palette.two, width: 0.85 },
    ],
    value: (point) => duration(latencyAt(1)(point)),
    unit: () => "p99",
    aside: (point) => [
      [palette.two, `p50 ${duration(latencyAt(0)(point))}`],
      [palette.tail, `p99.9 ${duration(latencyAt(2)(point))}`],
    ],
  },
  bytes: {
    title: "Bandwidth",
    format: bytes,
    least: 1000,
    series: () => [
      { values: flow(FLOW.fromServers), color: palette.one, fill: 0.3 },
      { values: flow(FLOW.fromClients), color: palette.two, fill: 0.3, below: true },
    ],
    value: (point) => bytes(point[1][FLOW.fromClients] + point[1][FLOW.fromServers]),
    unit: () => "/s",
    aside: (point) => [
      [palette.one, `↓ ${bytes(point[1][FLOW.fromServers])}/s to clients`],
      [palette.two, `↑ ${bytes(point[1][FLOW.fromClients])}/s to servers`],
    ],
  },
};

const SPARKS = {
  load: { index: 1, color: "one", most: () => 1 },
  sessions: { index: 2, color: "two", most: () => niceCeiling(Math.max(10, laneMost(2))) },
  lag: { index: 3, color: "tail", most: () => niceCeiling(Math.max(0.01, laneMost(3))) },
};

// --- data --------------------------------------------------------------------------------------

function latencyIndex() {
  const names = state.now.latency.map((each) => each.name);
  if (state.latency !== null) return names.indexOf(state.latency);
  const withData = names.findIndex((_, at) => state.points.some((p) => known(p[2][at]?.[1])));
  return Math.max(withData, 0);
}

function latencyAt(quantile) {
  const index = latencyIndex();
  return (point) => point[2][index]?.[quantile] ?? null;
}

function laneValue(slot, index) {
  return (point) => point[3].find((each) => each[0] === slot)?.[index] ?? null;
}

function laneMost(index) {
  let most = 0;
  for (const point of state.points) {
    for (const worker of point[3]) most = Math.max(most, worker[index] ?? 0);
  }
  return most;
}

// The point that is looked at: the nearest to the cursor, else the latest.
function current() {
  const { points, cursor } = state;
  if (cursor === null) return points[points.length - 1];
  return points.reduce((best, point) =>
    Math.abs(point[0] - cursor) < Math.abs(best[0] - cursor) ? point : best,
  );
}

function trim() {
  const oldest = state.now.at - state.span;
  while (state.points.length && state.points[0][0] < oldest) state.points.shift();
}

// --- drawing -----------------------------------------------------------------------------------

function view() {
  const cursor = state.cursor === null ? null : current();
  return { ...state, now: state.now.at, cursor };
}

function drawAll() {
  if (document.hidden || !state.points.length) return;
  const seen = view();
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const chart = CHARTS[figure.dataset.chart];
    drawChart(figure.querySelector("canvas"), seen, { ...chart, series: chart.series() });
  }
  for (const canvas of document.querySelectorAll("[data-spark]")) {
    if (!canvas.dataset.slot) continue;
    const { index, color, most } = SPARKS[canvas.dataset.spark];
    const values = laneValue(Number(canvas.dataset.slot), index);
    const series = { values, color: palette[color], fill: 0.25, width: 0.85 };
    drawSpark(canvas, seen, series, most());
  }
}

function showNumbers() {
  const point = current();
  if (!point) return;
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const chart = CHARTS[figure.dataset.chart];
    setText(figure.querySelector(".value b"), chart.value(point));
    setText(figure.querySelector(".value span"), chart.unit());
    const aside = figure.querySelector(".aside");
    const parts = chart.aside(point);
    const nodes = keyed(
      aside,
      parts,
      (part, at) => at,
      () => element("span"),
    );
    parts.forEach(([color, words], at) => {
      setText(nodes[at], words);
      nodes[at].style.color = color ?? "";
    });
  }
}

function showHeader() {
  const { now } = state;
  const phase = document.getElementById("phase");
  setText(phase, now.phase === "unknown" ? "no controller" : now.phase);
  setTone(phase, now.phase === "serving" && !now.not_ready ? "good" : "warn");
  const epoch = known(now.epoch) ? `epoch ${now.epoch}, ` : "";
  setText(document.getElementById("meta"), `${epoch}version ${now.version}`);
  const { requests_per_s: requests, sessions_per_s: sessions } = now.total;
  const rate = known(requests) ? `${count(requests)} req/s` : `${count(sessions)} sessions/s`;
  document.title = `${rate}, ${phase.textContent} · Aegis`;
}

function showLink() {
  const lost = Date.now() - state.heardAt > LOST_AFTER_MS;
  document.body.dataset.link = lost ? "lost" : "live";
  const link = document.getElementById("link");
  if (!state.heardAt) setText(link, "connecting");
  else if (lost) setText(link, `the exporter is not heard since ${time(state.heardAt / 1000)}`);
  else if (state.cursor !== null) setText(link, `at ${time(current()[0])}, Escape returns to now`);
  else setText(link, `live, ${time(state.now.at)}`);
}

function showLatencies() {
  const select = document.getElementById("latency");
  const options = state.now.latency.map((each) => each.name);
  keyed(
    select,
    options,
    (name) => name,
    (name) => element("option", { value: name }, name.replaceAll("_", " ")),
  );
  const chosen = options[latencyIndex()];
  if (select.value !== chosen) select.value = chosen;
}

function showAll() {
  trim();
  showHeader();
  showFindings(state.now);
  showTables(state.now);
  showPools(state.now);
  showLatencies();
  showMoment();
}

function showMoment() {
  showNumbers();
  showLink();
  markEvents(state.cursor === null ? null : current());
  drawAll();
}

// --- the stream --------------------------------------------------------------------------------

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("opening", ({ data }) => {
    const opening = JSON.parse(data);
    state.points = opening.points;
    state.events = opening.events;
    state.now = opening.now;
    state.span = opening.span_s;
    state.step = opening.step_s;
    state.heardAt = Date.now();
    showEvents(state.events);
    showAll();
  });
  source.addEventListener("tick", ({ data }) => {
    const tick = JSON.parse(data);
    state.points.push(tick.point);
    state.now = tick.now;
    state.heardAt = Date.now();
    if (tick.events) {
      state.events = tick.events;
      showEvents(state.events);
    }
    showAll();
  });
  source.addEventListener("error", () => {
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    setTimeout(listen, RETRY_MS);
  });
}

// --- looking back ------------------------------------------------------------------------------

function lookAt(unix) {
  if (!state.now) return;
  const latest = state.now.at;
  state.cursor =
    unix === null || unix > latest - state.step / 2 ? null : Math.max(unix, latest - state.span);
  for (const figure of document.querySelectorAll("[data-chart]")) describe(figure);
  showMoment();
}

// What a screen reader says of a chart: it is a slider along the last 15 minutes.
function describe(figure) {
  const point = current();
  if (!point) return;
  const canvas = figure.querySelector("canvas");
  const chart = CHARTS[figure.dataset.chart];
  const aside = chart.aside(point).map(([, words]) => words.replace(/[↓↑] /, ""));
  const when = state.cursor === null ? "now" : time(point[0]);
  canvas.setAttribute("aria-valuenow", String(Math.round(point[0] - state.now.at)));
  canvas.setAttribute(
    "aria-valuetext",
    [when, `${chart.value(point)} ${chart.unit()}`, ...aside].join(", "),
  );
}

const KEYS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -60, PageDown: 60 };

function onKey(event) {
  const from = state.cursor ?? state.now?.at;
  if (event.key === "Escape" || event.key === "End") lookAt(null);
  else if (event.key === "Home") lookAt(from - state.span);
  else if (event.key in KEYS) {
    const steps = KEYS[event.key] * (event.shiftKey ? 10 : 1);
    lookAt(from + steps * state.step);
  } else return;
  event.preventDefault();
}

function onPointer(event) {
  if (!state.now) return;
  const { right, width } = event.currentTarget.getBoundingClientRect();
  lookAt(state.now.at - ((right - event.clientX) / (width - gutter())) * state.span);
}

function prepareCharts() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const canvas = figure.querySelector("canvas");
    const attributes = {
      tabindex: 0,
      role: "slider",
      "aria-label": `${CHARTS[figure.dataset.chart].title}, the last 15 minutes`,
      "aria-valuemin": -900,
      "aria-valuemax": 0,
      "aria-valuenow": 0,
      "aria-valuetext": "no data yet",
    };
    for (const [name, value] of Object.entries(attributes)) canvas.setAttribute(name, value);
    canvas.addEventListener("keydown", onKey);
    canvas.addEventListener("focus", () => describe(figure));
    canvas.addEventListener("pointermove", onPointer);
    canvas.addEventListener("pointerdown", onPointer);
    canvas.addEventListener("pointerleave", () => lookAt(null));
  }
}

// --- theme -------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const systemIsLight = matchMedia("(prefers-color-scheme: light)");

function storedTheme() {
  try {
    const stored = localStorage.getItem("aegis-theme");
    return THEMES.includes(stored) ? stored : "auto";
  } catch {
    return "auto"; // storage may be forbidden
  }
}

let theme = storedTheme();

function applyTheme() {
  const light = theme === "light" || (theme === "auto" && systemIsLight.matches);
  document.documentElement.dataset.theme = light ? "light" : "dark";
  setText(document.getElementById("theme"), `Theme: ${theme}`);
  readPalette();
  if (state.now) showMoment();
}

document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("aegis-theme", theme);
  } catch {
    // Then it holds as long as the page.
  }
  applyTheme();
});

document.getElementById("latency").addEventListener("change", (event) => {
  state.latency = event.target.value;
  showMoment();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.cursor !== null) lookAt(null);
});
document.addEventListener("visibilitychange", drawAll);
systemIsLight.addEventListener("change", applyTheme);
new ResizeObserver(() => {
  readPalette();
  drawAll();
}).observe(document.body);
setInterval(() => state.heardAt && showLink(), 1000);

prepareCharts();
applyTheme();
listen();
