"use strict";

// Charts on canvas. All share one time axis: `span` seconds that end at `now`.
//
//   series: [{ values: point => number or null, color, width?, fill?, below? }]
//
// A series `below` is drawn downwards from the middle; a gap in the data is a gap in the line.

const GAP_S = 3.5;

// Of the root's font size, so that a wall's charts are a desk's, larger.
let palette = {};
let labelPx = 11;
let linePx = 1.5;

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = [
    "grid",
    "line",
    "text",
    "dim",
    "card",
    "one",
    "two",
    "tail",
    "good",
    "warn",
    "bad",
  ];
  palette = Object.fromEntries(
    names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
  const rem = parseFloat(style.fontSize);
  [labelPx, linePx] = [rem * 0.7, rem * 0.095];
  palette.font = getComputedStyle(document.body).fontFamily;
}

function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineJoin = "round";
  return { context, width, height };
}

// The next number whose half is a short one too.
function niceCeiling(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 1.6, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= number * 0.9999);
}

function largest(points, series) {
  let most = 0;
  for (const each of series) {
    for (const point of points) most = Math.max(most, each.values(point) ?? 0);
  }
  return most;
}

function linearScale(points, series, top, bottom, least) {
  const most = niceCeiling(Math.max(largest(points, series) * 1.02, least));
  const mirrored = series.some((each) => each.below);
  const zero = mirrored ? (top + bottom) / 2 : bottom;
  const at = (value, below) => zero + ((below ? bottom - zero : top - zero) * value) / most;
  const ticks = mirrored ? [most, 0, -most] : [most, most / 2, 0];
  return {
    zero,
    at,
    ticks: ticks.map((tick) => ({ value: Math.abs(tick), y: at(Math.abs(tick), tick < 0) })),
  };
}

// Decades from the smallest to the largest value there is.
function logScale(points, series, top, bottom) {
  let [low, high] = [Infinity, 0];
  for (const each of series) {
    for (const point of points) {
      const value = each.values(point);
      if (value > 0) [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
  }
  if (!high) [low, high] = [1e-4, 1e-1];
  const first = Math.floor(Math.log10(low));
  const last = Math.max(Math.ceil(Math.log10(high)), first + 1);
  const at = (value) =>
    bottom + ((top - bottom) * (Math.log10(Math.max(value, 10 ** first)) - first)) / (last - first);
  const ticks = [];
  for (let power = last; power >= first; power--) {
    ticks.push({ value: 10 ** power, y: at(10 ** power) });
  }
  return { zero: bottom, at, ticks };
}

// Lines a few pixels apart: what lies between two of them is their mean, with a shadow from the
// least to the most. The groups are those of the clock, so that they stay while they move.
function groupPoints(points, values, seconds) {
  const runs = [];
  let run = null;
  let group = null;
  let before = -Infinity;
  for (const point of points) {
    const value = values(point);
    const at = point[0];
    if (!known(value)) {
      run = null;
      continue;
    }
    if (run === null || at - before > GAP_S) {
      run = [];
      runs.push(run);
      group = null;
    }
    before = at;
    const key = Math.floor(at / seconds);
    if (group === null || group.key !== key) {
      group = { key, at: 0, sum: 0, count: 0, least: value, most: value };
      run.push(group);
    }
    group.at += at;
    group.sum += value;
    group.count += 1;
    group.least = Math.min(group.least, value);
    group.most = Math.max(group.most, value);
  }
  return runs;
}

function tracePath(context, view, each, x, scale, width) {
  const seconds = Math.max(1, Math.round((view.span / width) * 2 * linePx));
  for (const groups of groupPoints(view.points, each.values, seconds)) {
    const xs = groups.map((group) => x(group.at / group.count));
    const ys = (of) => groups.map((group) => scale.at(of(group), each.below));
    const mean = ys((group) => group.sum / group.count);
    const most = ys((group) => group.most);
    if (each.fill) {
      const peak = Math[each.below ? "max" : "min"](...most);
      const gradient = context.createLinearGradient(0, peak, 0, scale.zero);
      gradient.addColorStop(0, withAlpha(each.color, each.fill));
      gradient.addColorStop(1, withAlpha(each.color, each.fill / 8));
      context.fillStyle = gradient;
      fillBetween(context, xs, mean, new Array(xs.length).fill(scale.zero));
    }
    context.fillStyle = withAlpha(each.color, 0.22);
    fillBetween(
      context,
      xs,
      most,
      ys((group) => group.least),
    );
    context.strokeStyle = each.color;
    context.lineWidth = (each.width ?? 1) * linePx;
    context.beginPath();
    context.moveTo(xs[0] - (xs.length === 1 ? 1 : 0), mean[0]);
    xs.forEach((px, at) => context.lineTo(px, mean[at]));
    context.stroke();
  }
}

function fillBetween(context, xs, upper, lower) {
  context.beginPath();
  context.moveTo(xs[0], lower[0]);
  xs.forEach((px, at) => context.lineTo(px, upper[at]));
  for (let at = xs.length - 1; at >= 0; at--) context.lineTo(xs[at], lower[at]);
  context.fill();
}

function withAlpha(hex, alpha) {
  return (
    hex +
    Math.round(alpha * 255)
      .toString(16)
      .padStart(2, "0")
  );
}

function drawTimes(context, width, height, now, span, x) {
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  const step = width < 24 * labelPx ? 600 : 300;
  for (let at = Math.ceil((now - span) / step) * step; at < now; at += step) {
    const px = x(at);
    context.strokeStyle = palette.grid;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(Math.round(px) + 0.5, 0);
    context.lineTo(Math.round(px) + 0.5, height - labelPx - 6);
    context.stroke();
    if (px < gutter() || px > width - 1.7 * labelPx) continue;
    context.fillStyle = palette.dim;
    context.fillText(clockMinutes.format(at * 1000), px, height - 2);
  }
}

// Where the data begin: the same in all charts, so that one moment is in one column.
function gutter() {
  return 4.2 * labelPx;
}

function drawScale(context, width, scale, format) {
  const left = gutter();
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.lineWidth = 1;
  let lowest = -Infinity;
  for (const { value, y } of scale.ticks) {
    context.strokeStyle = value === 0 ? palette.line : palette.grid;
    context.beginPath();
    context.moveTo(left, Math.round(y) + 0.5);
    context.lineTo(width, Math.round(y) + 0.5);
    context.stroke();
    if (y - lowest < 1.4 * labelPx) continue;
    lowest = y;
    context.fillStyle = palette.dim;
    context.fillText(format(value), left - 0.6 * labelPx, y);
  }
}

function drawEvents(context, bottom, events, x) {
  for (const event of events) {
    if (event.severity === "info" && event.kind !== "reload") continue;
    const px = Math.round(x(event.at)) + 0.5;
    const color = palette[event.severity] ?? palette.dim;
    context.strokeStyle = withAlpha(color, 0.55);
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(px, 0);
    context.lineTo(px, bottom);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = color;
    context.beginPath();
    context.arc(px, bottom, 1.7 * linePx, 0, 2 * Math.PI);
    context.fill();
  }
}

function drawCursor(context, height, px, dots) {
  context.strokeStyle = palette.dim;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(Math.round(px) + 0.5, 0);
  context.lineTo(Math.round(px) + 0.5, height);
  context.stroke();
  for (const [y, color] of dots) {
    context.fillStyle = color;
    context.strokeStyle = palette.card;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(px, y, 2.6 * linePx, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}

// A large chart with axes. `view`: { points, events, now, span, cursor: point or null }.
function drawChart(canvas, view, { series, format, log = false, least = 1 }) {
  const { context, width, height } = prepare(canvas);
  if (!width || !height) return;
  context.font = `${labelPx}px ${palette.font}`;
  const [top, bottom] = [0.6 * labelPx, height - labelPx - 8];
  const room = width - 1 - gutter();
  const x = (at) => width - 1 - ((view.now - at) / view.span) * room;
  const scale = log
    ? logScale(view.points, series, top, bottom)
    : linearScale(view.points, series, top, bottom, least);
  drawScale(context, width, scale, format);
  drawTimes(context, width, height, view.now, view.span, x);
  drawEvents(context, bottom, view.events, x);
  for (const each of series) tracePath(context, view, each, x, scale, room);
  if (view.cursor) {
    const dots = series
      .map((each) => [each.values(view.cursor), each])
      .filter(([value]) => known(value))
      .map(([value, each]) => [scale.at(value, each.below), each.color]);
    drawCursor(context, bottom, x(view.cursor[0]), dots);
  }
}

// A lane's small chart: no axes, its scale given, a line where the cursor is.
function drawSpark(canvas, view, series, most) {
  const { context, width, height } = prepare(canvas);
  if (!width || !height) return;
  const [top, bottom] = [2, height - 1];
  const x = (at) => width - 1 - ((view.now - at) / view.span) * (width - 1);
  const at = (value) => bottom + ((top - bottom) * Math.min(value, most)) / most;
  context.fillStyle = palette.grid;
  context.fillRect(0, bottom, width, 1);
  tracePath(context, view, series, x, { zero: bottom, at }, width);
  if (view.cursor) {
    const value = series.values(view.cursor);
    drawCursor(context, height, x(view.cursor[0]), known(value) ? [[at(value), series.color]] : []);
  }
}
