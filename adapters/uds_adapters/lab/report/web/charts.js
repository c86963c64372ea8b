"use strict";
// Charts: SVG elements, scales, axes, and a shared tooltip, whatever the data.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const large = Math.abs(value) >= 1e4;
  const style = large ? { notation: "compact", maximumSignificantDigits: 3 } : { maximumSignificantDigits: digits };
  return new Intl.NumberFormat("en", style).format(value).replace("-", "−");
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
}

function clipped(text, width) { // to a width in pixels; a letter takes about 7.7 at most
  const most = Math.max(3, Math.floor(width / 7.7));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n * step);
  return found.map((value) => Number(value.toPrecision(12)));
}

function range(values, { zero = false, margin = 0.06 } = {}) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const low = Math.min(...known), high = Math.max(...known);
  const more = high > low ? margin * (high - low) : Math.abs(high) * 0.1 || 1;
  return zero ? { low: Math.min(0, low), high: high + more / 2 } : { low: low - more, high: high + more };
}

function isPaired(box) { // whether another figure stands beside it, whose height it may fill
  const pair = box.closest(".pair");
  return pair !== null && box.clientWidth < 0.6 * pair.clientWidth;
}

// An empty chart in `box`: grid, ticks, titles. Returns the layer to draw on, and the scales of both axes.
function chart(box, { height = 340, x, y, label }) {
  const width = Math.max(260, box.clientWidth);
  const yTicks = y.bare ? [] : ticks(y.low, y.high, height / 70);
  const named = yTicks.map((value) => (y.format ?? number)(value));
  const left = y.bare ? 8 : 14 + 7 * Math.max(...named.map((text) => text.length));
  const area = { left, right: width - 12, top: y.title ? 26 : 8, bottom: height - (x.bare && !x.title ? 8 : 42) };
  const X = (value) => area.left + ((value - x.low) / (x.high - x.low)) * (area.right - area.left);
  const Y = (value) => area.bottom - ((value - y.low) / (y.high - y.low)) * (area.bottom - area.top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  yTicks.forEach((value, n) => {
    svg.append(drawn("line", { class: "grid", x1: area.left, x2: area.right, y1: Y(value), y2: Y(value) }));
    svg.append(drawn("text", { x: area.left - 8, y: Y(value) + 4, "text-anchor": "end" }, named[n]));
  });
  for (const value of x.bare ? [] : ticks(x.low, x.high, width / 80)) {
    svg.append(drawn("line", { class: "axis", x1: X(value), x2: X(value), y1: area.bottom, y2: area.bottom + 5 }));
    svg.append(drawn("text", { x: X(value), y: area.bottom + 19, "text-anchor": "middle" }, number(value)));
  }
  if (!x.bare) svg.append(drawn("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  if (y.title) svg.append(drawn("text", { x: 0, y: 12 }, y.title));
  if (x.title) svg.append(drawn("text", { x: area.right, y: height - 4, "text-anchor": "end" }, x.title));
  const layer = drawn("g");
  svg.append(layer);
  box.replaceChildren(svg);
  return { svg, layer, X, Y, area, width, add: (name, attributes, ...children) => {
    const made = drawn(name, attributes, ...children);
    layer.append(made);
    return made;
  } };
}

function path(points) {
  return points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function band(lower, upper) {
  return `${path(lower)}L${path(upper.toReversed()).slice(1)}Z`;
}

function ramp(fraction) { // a shade of the accent colour, for a number in [0, 1]
  return `color-mix(in oklab, var(--accent) ${(100 * fraction).toFixed(0)}%, var(--card))`;
}

// Elements with a `data-tip` show it under the mouse, a finger, or keyboard focus.
function tips(tip) {
  const show = (event) => {
    const target = event.target.closest?.("[data-tip]");
    tip.hidden = !target;
    if (!target) return;
    tip.textContent = target.dataset.tip;
    const box = target.getBoundingClientRect();
    const at = event.clientX ? { x: event.clientX, y: event.clientY } : { x: box.x + box.width / 2, y: box.y };
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(innerWidth - width - 6, at.x + 12))}px`;
    tip.style.top = `${at.y - height - 12 < 4 ? at.y + 16 : at.y - height - 12}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("focusin", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
}

function download(name, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const text = rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  const link = element("a", { download: `${name}.csv`, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
