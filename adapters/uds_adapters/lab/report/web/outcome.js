"use strict";
// Results: numbers of each policy, differences, curves, cost.

// One entry per figure: `has` returns whether there is data, `draw` draws it in its box, `rows` returns its data as a table.

const figures = {};

figures.table = {
  has: () => view().summary.length > 0,
  draw: (box) => box.replaceChildren(table(summaryColumns(), view().summary)),
  rows: () => [summaryColumns().map((column) => column.title),
    ...view().summary.map((row) => summaryColumns().map((column) => column.of(row)))],
};

function summaryColumns() {
  const flagged = Object.keys(view().summary[0].flagged ?? {});
  const spread = (row) => (row.diverged ? `diverged, ${row.diverged} of ${row.seeds}`
    : row.interval ? `${number(row.interval[0])} to ${number(row.interval[1])}`
    : row.spread === null || row.spread === undefined ? "" : `sd ${number(row.spread, 2)}`);
  const columns = [
    { title: "policy", of: (row) => row.policy },
    { title: "held-out loss", of: (row) => row.loss, show: (row) => row.loss?.toFixed(3), more: spread, best: "low" },
    { title: "loss before", of: (row) => row.loss_before, show: (row) => row.loss_before?.toFixed(3) },
    { title: "accuracy", of: (row) => row.accuracy, show: (row) => percent(row.accuracy), best: "high" },
    { title: "exact match", of: (row) => row.exact_match, show: (row) => percent(row.exact_match), best: "high" },
    { title: "samples trained on", of: (row) => row.samples },
    { title: "tokens trained on", of: (row) => row.tokens?.trained },
    { title: "tokens scored", of: (row) => row.tokens?.forwarded_for_scoring },
    { title: "seconds", of: (row) => row.seconds?.total, show: (row) => number(row.seconds.total, 3), best: "low",
      more: (row) => (row.seconds.scoring > 0.05 * row.seconds.total ? `scoring ${number(row.seconds.scoring, 3)}` : "") },
    ...flagged.map((flag) => ({ title: `${words(flag)}, among chosen`, of: (row) => row.flagged[flag],
      show: (row) => percent(row.flagged[flag]) })),
  ];
  return columns.filter((column) => view().summary.some((row) => (column.of(row) ?? null) !== null));
}

function table(columns, rows) {
  const head = element("tr", {}, ...columns.map((column) => element("th", { scope: "col" }, column.title)));
  const made = element("table", {}, element("thead", {}, head));
  const body = element("tbody");
  for (const row of rows) {
    body.append(element("tr", {}, ...columns.map((column, n) => {
      const value = column.of(row);
      const shown = n === 0 ? [named(row.policy)] : [(column.show ?? (() => number(value)))(row) ?? "–"];
      const more = column.more?.(row);
      const cell = element("td", { class: isBest(column, value, rows) ? "best" : "" }, ...shown);
      if (more) cell.append(element("small", {}, more));
      return cell;
    })));
  }
  made.append(body);
  return made;
}

function named(policy) { // may break after the signs between options
  const pieces = policy.split(/(?<=[:,])/).flatMap((piece, n) => (n ? [element("wbr"), piece] : [piece]));
  return element("div", { class: "named" }, key(colour(policy)), element("span", {}, ...pieces));
}

function isBest(column, value, rows) {
  const values = rows.map(column.of).filter((other) => (other ?? null) !== null);
  if (!column.best || (value ?? null) === null || new Set(values).size < 2) return false;
  return value === (column.best === "low" ? Math.min(...values) : Math.max(...values));
}

figures.differences = {
  has: () => view().comparisons.length > 0,
  draw: (box) => {
    const rows = comparisons();
    const ends = rows.flatMap((row) => [row.low, row.high, row.difference, 0]);
    const height = 56 + 46 * rows.length;
    const made = chart(box, { height, x: { ...range(ends, { margin: 0.12 }), title: differenceTitle(rows[0].metric) },
      y: { low: 0, high: rows.length, bare: true }, label: "Differences between policies, with intervals" });
    made.add("line", { class: "zero", x1: made.X(0), x2: made.X(0), y1: made.area.top, y2: made.area.bottom });
    rows.forEach((row, n) => {
      const y = made.Y(rows.length - n - 0.68), sure = row.better === "policy" || row.better === "rival";
      const fill = sure ? colour(row.policy) : "var(--rest)";
      made.add("text", { class: "name halo", x: made.area.left, y: y - 13 },
        clipped(outcome(row), made.width));
      if ((row.low ?? null) !== null) {
        made.add("line", { x1: made.X(row.low), x2: made.X(row.high), y1: y, y2: y, style: `stroke:${fill};stroke-width:3;stroke-linecap:round` });
      }
      made.add("circle", { cx: made.X(row.difference), cy: y, r: 6, style: `fill:${fill}`, "data-tip":
        `${row.policy} − ${row.rival}\n${words(row.metric)} ${number(row.difference)}` +
        `${(row.low ?? null) === null ? "" : `, from ${number(row.low)} to ${number(row.high)}`}\n${row.seeds} seeds` });
    });
  },
  rows: () => [["policy", "rival", "metric", "difference", "low", "high", "seeds", "budget", "better"],
    ...view().comparisons.map((r) => [r.policy, r.rival, r.metric, r.difference, r.low, r.high, r.seeds, r.budget, r.better])],
};

function comparisons() {
  const fitting = view().comparisons.filter((row) => row.metric === state.metric);
  return fitting.length ? fitting : view().comparisons;
}

function differenceTitle(metric) {
  const better = METRICS[metric]?.better;
  const side = better ? `; the first is better ${better === "low" ? "left" : "right"} of zero` : "";
  return `difference in ${METRICS[metric]?.short ?? words(metric)}${side}`;
}

function outcome(row) {
  const folder = row.policy.match(/^.*?: /)?.[0] ?? ""; // written once where several are joined
  const rival = row.rival.startsWith(folder) ? row.rival.slice(folder.length) : row.rival;
  if (row.better === "policy") return `${row.policy} is better than ${rival}`;
  if (row.better === "rival") return `${row.policy} is worse than ${rival}`;
  return `${row.policy} and ${rival}: ${row.seeds > 1 ? "not distinguishable" : "one seed, not known"}`;
}

figures.curves = {
  has: () => view().curves.policies.length > 0 && view().curves.along.length > 0,
  draw: (box) => {
    const lines = visible(view().curves.policies);
    const later = (points) => (state.start || points.length < 2 ? points : points.slice(1));
    const values = lines.flatMap((line) => [
      ...later(line.mean).flatMap((point) => Object.values(point[state.metric])),
      ...line.seeds.flatMap((seed) => later(seed.points).map((point) => point[state.metric]))]);
    const made = chart(box, { height: 380, label: "Held-out numbers along training",
      x: { ...range(lines.flatMap((line) => [line, ...line.seeds].flatMap((one) => (one.mean ?? one.points).map((point) => point[state.along]))),
        { zero: true }), title: ALONG[state.along] },
      y: { ...range(values.length ? values : [0, 1]), title: METRICS[state.metric].title } });
    for (const line of lines) drawCurve(made, line, later);
  },
  rows: () => [["policy", "seed", ...view().curves.along, ...view().curves.metrics],
    ...view().curves.policies.flatMap((line) => line.seeds.flatMap((seed) => seed.points.map((point) =>
      [line.policy, seed.seed, ...[...view().curves.along, ...view().curves.metrics].map((name) => point[name])])))],
  policies: () => view().curves.policies.map((line) => line.policy),
};

function drawCurve(made, line, later) {
  const at = (point, name) => [made.X(point[state.along]), made.Y(point[state.metric][name])];
  const stroke = `stroke:${colour(line.policy)};fill:none`;
  const mean = later(line.mean);
  if (line.seeds.length > 1) {
    const area = band(mean.map((point) => at(point, "low")), mean.map((point) => at(point, "high")));
    made.add("path", { d: area, class: "band", style: `fill:${colour(line.policy)};opacity:.16` });
    for (const seed of line.seeds) {
      const points = later(seed.points).map((point) => [made.X(point[state.along]), made.Y(point[state.metric])]);
      made.add("path", { d: path(points), style: `${stroke};opacity:.4;stroke-width:1` });
    }
  }
  made.add("path", { d: path(mean.map((point) => at(point, "mean"))), class: "mean", style: `${stroke};stroke-width:2.5;stroke-linejoin:round` });
  for (const point of mean) {
    const [cx, cy] = at(point, "mean");
    const { mean: value, low, high } = point[state.metric];
    const tip = `${line.policy}\n${words(state.metric)} ${number(value)}${low === null ? "" : ` (${number(low)} to ${number(high)})`}\n` +
      `at ${number(point[state.along])} ${ALONG[state.along]}`;
    made.add("circle", { cx, cy, r: 3.2, style: `fill:${colour(line.policy)}` });
    made.add("circle", { cx, cy, r: 10, fill: "transparent", "data-tip": tip });
  }
}

figures.frontier = {
  has: () => figures.curves.has(),
  draw: (box) => {
    const lines = visible(view().curves.policies);
    const ends = lines.map((line) => ({ policy: line.policy, x: line.mean.at(-1)[state.along], y: line.mean.at(-1)[state.metric].mean,
      seeds: line.seeds.map((seed) => [seed.points.at(-1)[state.along], seed.points.at(-1)[state.metric]]) }));
    const all = ends.flatMap((end) => [[end.x, end.y], ...end.seeds]);
    const made = chart(box, { height: 340, label: "Quality against cost",
      x: { ...range(all.map(([x]) => x).concat(0), { zero: true, margin: 0.16 }), title: ALONG[state.along] },
      y: { ...range(all.length ? all.map(([, y]) => y) : [0, 1], { margin: 0.14 }), title: METRICS[state.metric].title } });
    const best = unbeaten(ends).map((end) => [made.X(end.x), made.Y(end.y)]);
    made.add("path", { d: path(best), style: "fill:none;stroke:var(--strong-line);stroke-width:1.5;stroke-dasharray:5 4" });
    for (const end of ends) {
      for (const [x, y] of end.seeds) made.add("circle", { cx: made.X(x), cy: made.Y(y), r: 3, style: `fill:${colour(end.policy)};opacity:.5` });
      made.add("circle", { cx: made.X(end.x), cy: made.Y(end.y), r: 7, style: `fill:${colour(end.policy)};stroke:var(--card);stroke-width:1.5`,
        "data-tip": `${end.policy}\n${words(state.metric)} ${number(end.y)}\n${number(end.x)} ${ALONG[state.along]}` });
    }
    nameDots(made, ends);
  },
  rows: () => [["policy", "seed", ...view().curves.along, ...view().curves.metrics],
    ...view().curves.policies.flatMap((line) => line.seeds.map((seed) => [line.policy, seed.seed,
      ...[...view().curves.along, ...view().curves.metrics].map((name) => seed.points.at(-1)[name])]))],
};

function unbeaten(ends) { // in order of cost, each better than all cheaper ones
  const sign = METRICS[state.metric].better === "low" ? 1 : -1;
  const sorted = [...ends].sort((a, b) => a.x - b.x || sign * (a.y - b.y));
  return sorted.filter((end, n) => sorted.slice(0, n).every((before) => sign * end.y < sign * before.y));
}

function nameDots(made, ends) { // names stand right of their dots, or left near the edge, 15 pixels apart
  const taken = [];
  for (const end of [...ends].sort((a, b) => b.y - a.y)) {
    const right = made.X(end.x) < made.area.left + 0.6 * (made.area.right - made.area.left);
    let y = made.Y(end.y) + 4;
    while (taken.some(([side, other]) => side === right && Math.abs(other - y) < 15)) y += 3;
    taken.push([right, y]);
    const room = (right ? made.area.right - made.X(end.x) : made.X(end.x) - made.area.left) - 12;
    made.add("text", { class: "name halo", x: made.X(end.x) + (right ? 12 : -12), y, "text-anchor": right ? "start" : "end",
      style: `fill:${colour(end.policy)}` }, clipped(end.policy, room));
  }
}

figures.time = {
  has: () => view().summary.some((row) => row.seconds?.total > 0),
  legend: () => Object.values(TIMES).map((text, n) => [`var(--t${n})`, text]),
  draw: (box) => {
    const rows = visible(view().summary).filter((row) => row.seconds?.total > 0);
    const most = Math.max(1e-9, ...rows.map((row) => row.seconds.total));
    const height = 50 + Math.max(46 * rows.length, isPaired(box) ? Math.min(300, 74 * rows.length) : 0);
    const thick = 0.37 * (height - 50) / Math.max(1, rows.length);
    const made = chart(box, { height, x: { low: 0, high: most, title: "seconds per run" },
      y: { low: 0, high: rows.length, bare: true }, label: "Seconds per run, by activity" });
    rows.forEach((row, n) => {
      const y = made.Y(rows.length - n - 0.42);
      const total = `${number(row.seconds.total, 3)} s`;
      made.add("text", { class: "name", x: made.area.left, y: y - 6 }, clipped(row.policy, made.width - 80));
      made.add("text", { x: made.area.right, y: y - 6, "text-anchor": "end" }, total);
      let from = 0;
      Object.keys(TIMES).forEach((part, index) => {
        const seconds = row.seconds[part] ?? 0;
        if (seconds <= 0) return;
        made.add("rect", { x: made.X(from), y, width: made.X(from + seconds) - made.X(from), height: thick, rx: 2,
          style: `fill:var(--t${index})`, "data-tip": `${row.policy}\n${TIMES[part]}: ${number(seconds, 3)} s of ${total}` });
        from += seconds;
      });
    });
  },
  rows: () => [["policy", ...Object.keys(TIMES), "total"],
    ...view().summary.map((row) => [row.policy, ...[...Object.keys(TIMES), "total"].map((part) => row.seconds?.[part])])],
};
