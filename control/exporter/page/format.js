"use strict";

// Numbers as people read them: three digits, the unit that makes them short. A number that is not
// known is a dash.

const DASH = "—";
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const clockMinutes = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function known(number) {
  return number !== null && number !== undefined;
}

function digits(number) {
  const size = Math.abs(number);
  if (size === 0) return "0";
  if (size >= 100) return number.toFixed(0);
  if (size >= 10) return number.toFixed(1).replace(/\.0$/, "");
  return number.toFixed(2).replace(/\.?0+$/, "");
}

function scaled(number, step, units) {
  let unit = 0;
  // 999.5 would be rounded to 1000 of the smaller unit.
  while (Math.abs(number) >= 999.5 && unit < units.length - 1) {
    number /= step;
    unit += 1;
  }
  return [digits(number), units[unit]];
}

function count(number) {
  if (!known(number)) return DASH;
  if (Math.abs(number) < 99_999.5) {
    return Math.abs(number) >= 100 ? whole.format(number) : digits(number);
  }
  return scaled(number, 1000, ["", "k", "M", "G"]).join("");
}

function bytes(number) {
  return known(number) ? scaled(number, 1000, ["B", "kB", "MB", "GB", "TB"]).join(" ") : DASH;
}

function memory(number) {
  return known(number) ? scaled(number, 1024, ["B", "KiB", "MiB", "GiB"]).join(" ") : DASH;
}

function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds >= 0.9995) return `${digits(seconds)} s`;
  return scaled(seconds * 1e6, 1000, ["µs", "ms"]).join(" ");
}

function percent(share) {
  return known(share) ? `${(share * 100).toFixed(0)}%` : DASH;
}

function time(unix) {
  return clock.format(unix * 1000);
}

function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
