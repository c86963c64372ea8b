"use strict";
// Records, on the map and as a list.

figures.map = {
  has: () => view().map.length > 0,
  legend: () => {
    const { most, text } = mapped();
    return [["", text], ...(most > 1 || state.colour === "length" ? [["ramp", `0 to ${number(most)}`]] : [[ramp(1), "yes"]])];
  },
  draw: (box) => {
    const { of, most, text } = mapped(), rows = view().records.rows;
    const height = Math.max(300, Math.min(520, box.clientWidth));
    const made = chart(box, { height, x: { ...range(view().map.map((point) => point.x)), bare: true },
      y: { ...range(view().map.map((point) => point.y)), bare: true }, label: `Map of the records: ${text}` });
    const points = view().map.map((point) => ({ ...point, value: of(rows[point.row]) })).sort((a, b) => a.value - b.value);
    for (const { x, y, row, value } of points) {
      const style = value > 0 ? `fill:${ramp(0.25 + (0.75 * value) / most)};stroke:var(--card);stroke-width:.7` : "fill:var(--card);stroke:var(--rest);stroke-width:1";
      made.add("circle", { cx: made.X(x), cy: made.Y(y), r: 5, style, "data-tip":
        `${rows[row].text.slice(0, 160)}\nline ${rows[row].line}, ${rows[row].length} tokens\n${chosenBy(rows[row])}` });
    }
  },
  rows: () => [["x", "y", "line", "length", ...view().policies], ...view().map.map((point) => {
    const row = view().records.rows[point.row];
    return [point.x, point.y, row.line, row.length, ...row.chosen];
  })],
};

function mapped() { // meaning of the colours of the map
  const index = view().policies.indexOf(state.colour);
  const of = state.colour === "length" ? (row) => row.length
    : index >= 0 ? (row) => row.chosen[index] : (row) => Number(row.flags.includes(state.colour.slice(5)));
  const text = state.colour === "length" ? "tokens" : index >= 0 ? `times chosen by ${state.colour}` : words(state.colour);
  return { of, text, most: Math.max(1, ...view().map.map((point) => of(view().records.rows[point.row]))) };
}

function chosenBy(row) {
  const names = view().policies.map((policy, n) => (row.chosen[n] ? `${policy} ${row.chosen[n]}×` : "")).filter(Boolean);
  return names.length ? `chosen by ${names.join(", ")}` : "never chosen";
}

figures.records = {
  has: () => view().records.rows.length > 0,
  draw: (box) => {
    const matches = matching();
    const { total, rows } = view().records;
    box.replaceChildren(...matches.slice(0, state.shown).map(record));
    if (!matches.length) box.append(element("p", { class: "empty" }, "No record matches all filters."));
    document.getElementById("more").hidden = matches.length <= state.shown;
    document.querySelector("[data-note=records]").textContent = `${matches.length.toLocaleString("en")} records match.` +
      (rows.length < total ? ` The page contains ${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")}, evenly spaced, and all on the map.` : "");
  },
  rows: () => [["line", "length", "trained", "properties", "near-duplicate of line", ...view().policies.map((policy) => `chosen by ${policy}`), "text"],
    ...matching().map((row) => [row.line, row.length, row.trained, row.flags.join(" "), row.duplicate_of, ...row.chosen, row.text])],
};

const filters = () => Object.fromEntries(new FormData(document.getElementById("filters")));

function matching() {
  const { by, without, order, flag, words: search } = filters();
  const index = (policy) => view().policies.indexOf(policy);
  const total = (row) => row.chosen.reduce((sum, count) => sum + count, 0);
  const often = (row) => (by && by !== "any" ? row.chosen[index(by)] : total(row));
  const chose = (row, who) => (who === "any" ? total(row) > 0 : row.chosen[index(who)] > 0);
  const orders = { line: () => 0, most: (a, b) => often(b) - often(a), least: (a, b) => often(a) - often(b),
    longest: (a, b) => b.length - a.length, shortest: (a, b) => a.length - b.length };
  return view().records.rows.filter((row) => (!by || chose(row, by)) && (!without || !chose(row, without))
    && (!flag || (flag === "duplicate" ? row.duplicate_of !== null : row.flags.includes(flag)))
    && row.text.toLowerCase().includes(search.toLowerCase())).sort(orders[order]);
}

function record(row) {
  const about = [`line ${row.line}`, `${row.length} tokens`].map((text) => element("span", {}, text));
  about.push(...view().policies.map((policy, n) => element("span", { class: row.chosen[n] ? "" : "never" }, key(row.chosen[n] ? colour(policy) : "var(--line)"),
    `${policy} ${row.chosen[n] ? `${row.chosen[n]}×` : "never"}`)));
  about.push(...row.flags.map((flag) => element("span", { class: "flag" }, words(flag))));
  if (row.duplicate_of !== null) about.push(element("span", { class: "flag" }, `repeats line ${row.duplicate_of}`));
  return element("article", { class: "record" }, element("p", {}, ...marked(row.text)), element("div", { class: "about" }, ...about));
}

function marked(text) { // with the search words highlighted
  const search = filters().words.toLowerCase();
  if (!search) return [text];
  const pieces = [];
  let from = 0;
  for (let at = text.toLowerCase().indexOf(search); at >= 0; at = text.toLowerCase().indexOf(search, from)) {
    pieces.push(text.slice(from, at), element("mark", {}, text.slice(at, at + search.length)));
    from = at + search.length;
  }
  return [...pieces, text.slice(from)];
}

function drawFilters() {
  const form = document.getElementById("filters").elements;
  const chosen = filters();
  const policies = same(view().policies);
  form.by.replaceChildren(...options([["", "anything"], ["any", "any policy"], ...policies], chosen.by));
  form.without.replaceChildren(...options([["", "anything"], ["any", "any policy"], ...policies], chosen.without));
  form.flag.replaceChildren(...options([["", "any"], ...same(flags()), ["duplicate", "near-duplicate"]], chosen.flag));
}
