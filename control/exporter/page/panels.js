"use strict";

// Tables and lists. Rows are kept by key and only their texts change, so that focus, selection and
// a screen reader's place survive the next second. All text goes in as text, never as markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setTone(node, tone) {
  if (tone) node.dataset.tone = tone;
  else delete node.dataset.tone;
}

// Make the children of `parent` those of `items`, in their order; returns the nodes.
function keyed(parent, items, keyOf, make) {
  const before = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item, at) => {
    const key = String(keyOf(item, at));
    const node = before.get(key) ?? make(item);
    node.dataset.key = key;
    before.delete(key);
    return node;
  });
  for (const node of before.values()) node.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
  });
  return nodes;
}

function fillTable(id, items, keyOf, columns, empty) {
  const body = document.querySelector(`#${id} tbody`);
  const rows = items.length ? items : [null];
  const nodes = keyed(
    body,
    rows,
    (item) => (item ? keyOf(item) : "empty"),
    (item) =>
      item
        ? element("tr", {}, ...columns.map(makeCell))
        : element("tr", {}, element("td", { colspan: columns.length, class: "empty" }, empty)),
  );
  if (!items.length) return;
  items.forEach((item, row) => {
    columns.forEach((column, at) => column.update(nodes[row].children[at], item));
  });
}

function makeCell(column) {
  const cell = element(column.heading ? "th" : "td", column.heading ? { scope: "row" } : {});
  if (column.number) cell.className = "number";
  if (column.words) cell.className = "words";
  if (column.make) cell.append(column.make());
  return cell;
}

function text(show, options = {}) {
  return { ...options, update: (cell, item) => setText(cell, show(item)) };
}

function number(show, tone) {
  return {
    number: true,
    update: (cell, item) => {
      setText(cell, show(item));
      setTone(cell, tone?.(item));
    },
  };
}

// A small chart with its number beside it; hud.js draws the chart.
function lane(name, show, tone) {
  return {
    make: () =>
      element(
        "div",
        { class: "lane" },
        element("canvas", { "data-spark": name, "aria-hidden": "true" }),
        element("b"),
      ),
    update: (cell, worker) => {
      cell.querySelector("canvas").dataset.slot = worker.retired ? "" : worker.slot;
      setText(cell.querySelector("b"), show(worker));
      setTone(cell.querySelector("b"), tone?.(worker));
    },
  };
}

function named(main, aside) {
  return {
    heading: true,
    make: () => element("span", {}, element("b"), " ", element("small")),
    update: (cell, item) => {
      setText(cell.querySelector("b"), main(item));
      setText(cell.querySelector("small"), aside(item));
    },
  };
}

const above = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : "");

function workerText(worker, now) {
  if (!worker.pid) return `${worker.state ?? "gone"}: no process is heard`;
  const seat = worker.state && worker.state !== "running" ? `, ${worker.state}` : "";
  const times = worker.restarts ? `, ${plural(worker.restarts, "restart", "restarts")}` : "";
  const retired = worker.retired ? ", replaced" : "";
  const behind = known(worker.epoch) && worker.epoch < now.epoch;
  const change = behind ? `, has applied change ${worker.epoch} of ${now.epoch}` : "";
  return `pid ${worker.pid}, ${worker.phase}${retired}${seat}${times}${change}`;
}

const CORES = [
  named(
    (worker) => (worker.cpu >= 0 ? `${worker.cpu}` : DASH),
    () => "",
  ),
  {
    update: (cell, worker) => {
      setText(cell, `${worker.slot}: ${workerText(worker, state.now)}`);
      setTone(cell, !worker.pid || worker.state === "flapping" ? "bad" : "");
    },
  },
  lane(
    "load",
    (worker) => percent(worker.load),
    (worker) => above(worker.load, 0.9, 0.98),
  ),
  lane("sessions", (worker) => count(worker.sessions)),
  lane(
    "lag",
    (worker) => duration(worker.lag_s),
    (worker) => above(worker.lag_s, 0.05, 0.25),
  ),
  number((worker) => count(worker.sessions_per_s)),
  number((worker) => memory(worker.memory_bytes)),
  number(
    (worker) => `${worker.slabs_used} of ${worker.slabs}`,
    (worker) => above(worker.slabs_used / (worker.slabs || 1), 0.6, 0.9),
  ),
];

const HEALTH_TONE = {
  up: "good",
  failing: "warn",
  refused: "bad",
  down: "bad",
  ejected: "bad",
  drain: "warn",
  maint: "warn",
  unknown: "",
};
const WITH_REASON = new Set(["failing", "refused", "down", "ejected"]);

function serverAside(server) {
  const weight = known(server.weight) && server.weight !== 1 ? `, weight ${count(server.weight)}` : "";
  const address = server.name && server.name !== server.address ? `, ${server.address}` : "";
  return `${server.backend}${address}${server.backup ? ", backup" : ""}${weight}`;
}

const SERVERS = [
  named((server) => server.name || server.address, serverAside),
  {
    words: true,
    make: () => element("span", { class: "dot" }),
    update: (cell, server) => {
      const error = WITH_REASON.has(server.health) ? server.error : "";
      const since = server.since && server.health !== "up" ? ` since ${time(server.since)}` : "";
      const when = server.health === "refused" ? ` at ${time(server.failed_at)}` : since;
      const dot = cell.firstChild;
      setText(dot, `${server.health}${error && ` (${error})`}${when}`);
      setTone(dot, HEALTH_TONE[server.health]);
    },
  },
  number((server) => count(server.connections)),
  number((server) => count(server.connects_per_s)),
  number(
    (server) => count(server.errors_per_s),
    (server) => (server.errors_per_s ? "bad" : ""),
  ),
  number((server) => duration(server.connect.p99)),
  number((server) => duration(server.answer.p50)),
  number((server) => duration(server.answer.p99)),
];

const LISTENERS = [
  text((listener) => listener.name, { heading: true }),
  number((listener) => count(listener.sessions)),
  number((listener) => count(listener.sessions_per_s)),
  number((listener) => `${bytes(listener.from_clients_bytes_per_s)}/s`),
  number((listener) => `${bytes(listener.from_servers_bytes_per_s)}/s`),
  text(
    ({ closed_per_s: closed }) =>
      Object.entries(closed)
        .map(([reason, rate]) => `${reason} ${count(rate)}/s`)
        .join(", ") || DASH,
    { words: true },
  ),
];

function showTables(now) {
  fillTable("cores", now.workers, (w) => `${w.slot}-${w.pid}`, CORES, "No worker is heard.");
  const servers = now.backends.flatMap((backend) =>
    backend.servers.map((server) => ({ ...server, backend: backend.name })),
  );
  fillTable("servers", servers, (s) => `${s.backend} ${s.address}`, SERVERS, "None yet.");
  fillTable("listeners", now.listeners, (l) => l.name, LISTENERS, "None yet.");
}

const PIPE_STATES = ["active", "idle", "alone", "connecting"];

function showPools(now) {
  const pools = now.backends.flatMap((backend) =>
    backend.pools.map((pool) => ({ ...pool, backend })),
  );
  const place = document.getElementById("pools");
  const rows = pools.length ? pools : [null];
  const nodes = keyed(
    place,
    rows,
    (pool) => (pool ? `${pool.backend.name} ${pool.protocol}` : "empty"),
    (pool) => (pool ? makePool() : element("p", { class: "empty" }, "No listener shares pipes.")),
  );
  if (pools.length) pools.forEach((pool, at) => updatePool(nodes[at], pool));
}

function makePool() {
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  for (const state of PIPE_STATES) bar.append(element("span", { "data-state": state }));
  return element(
    "section",
    { class: "pool" },
    element("h3", {}, element("span"), element("small")),
    bar,
    element("ul", { class: "keys states" }),
    element("ul", { class: "keys pins" }),
  );
}

function updatePool(node, pool) {
  const { backend, pipes } = pool;
  const total = Object.values(pipes).reduce((sum, pipe) => sum + pipe, 0);
  setText(node.querySelector("h3 span"), `${backend.name}, ${pool.protocol}`);
  const wait = backend.longest_wait_s ? ` up to ${duration(backend.longest_wait_s)}` : "";
  const waiting = backend.waiting
    ? `, ${plural(backend.waiting, "client waits", "clients wait")}${wait}`
    : "";
  const flow = known(pool.requests_per_s) ? `, ${count(pool.requests_per_s)} requests/s` : "";
  const small = node.querySelector("small");
  const owed = pool.in_flight ? `, ${count(pool.in_flight)} in flight` : "";
  setText(small, `${plural(total, "pipe", "pipes")}${flow}${owed}${waiting}`);
  setTone(small, backend.waiting ? "warn" : "");
  for (const part of node.querySelectorAll(".bar span")) {
    part.style.width = `${(100 * (pipes[part.dataset.state] ?? 0)) / (total || 1)}%`;
  }
  showKeys(
    node.querySelector(".states"),
    PIPE_STATES.map((state) => [state, count(pipes[state] ?? 0)]),
    true,
  );
  const happened = [["pinned", pool.pins], ["lost", pool.losses], ["error", pool.errors]];
  const pairs = happened.flatMap(([what, counts]) =>
    Object.entries(counts)
      .filter(([, times]) => times > 0)
      .map(([why, times]) => [`${what}: ${why}`, count(times)]),
  );
  showKeys(node.querySelector(".pins"), pairs, false);
}

function showKeys(list, pairs, states) {
  const items = keyed(
    list,
    pairs,
    ([name]) => name,
    ([name]) => element("li", states ? { "data-state": name } : {}, element("b"), ` ${name}`),
  );
  pairs.forEach(([, value], at) => setText(items[at].firstChild, value));
}

function showFindings(now) {
  const findings = now.findings.length
    ? now.findings
    : [{ key: "none", severity: "good", text: "Nothing stands out." }];
  const list = document.getElementById("findings");
  const before = new Set([...list.children].map((node) => node.dataset.key));
  const nodes = keyed(
    list,
    findings,
    (finding) => finding.key,
    () => element("li"),
  );
  findings.forEach((finding, at) => {
    setText(nodes[at], finding.text);
    setTone(nodes[at], finding.severity);
  });
  // Read out what is new, not every change of a number in it.
  const fresh = findings.filter((finding) => !before.has(finding.key));
  if (fresh.length) {
    setText(document.getElementById("announce"), fresh.map((each) => each.text).join(" "));
  }
}

function showEvents(events) {
  const rows = events.length ? [...events].reverse() : [null];
  keyed(
    document.getElementById("events"),
    rows,
    (event) => (event ? `${event.at} ${event.text}` : "empty"),
    (event) =>
      event
        ? element(
            "li",
            { "data-at": event.at },
            element("time", { datetime: new Date(event.at * 1000).toISOString() }, time(event.at)),
            element("span", { "data-tone": event.severity }, event.text),
          )
        : element("li", {}, "Nothing has changed in the last 15 minutes."),
  );
}

function markEvents(cursor) {
  for (const item of document.querySelectorAll("#events li[data-at]")) {
    const near = cursor !== null && Math.abs(item.dataset.at - cursor[0]) <= 5;
    item.dataset.near = near ? "yes" : "no";
  }
}
