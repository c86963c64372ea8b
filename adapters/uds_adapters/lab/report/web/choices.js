"use strict";
// Choices: scores, overlap, lengths, and properties of the chosen records.

figures.scores = {
  has: () => Object.keys(view().scores).length > 0,
  legend: () => [[colour(state.scored), `chosen by ${state.scored}`], ["var(--rest)", "other candidates"]],
  draw: (box) => {
    const points = view().scores[state.scored][state.part];
    const values = points.flatMap((point) => [...(point.chosen ?? []), ...(point.rest ?? [])]);
    const made = chart(box, { height: 320, x: { ...range(points.map((point) => point.step), { margin: 0 }), title: "step" },
      y: { ...range(values), title: `${words(state.part)}, minus its pool's median` }, label: `${words(state.part)} of candidates over time` });
    for (const [group, style] of [["rest", "var(--rest)"], ["chosen", colour(state.scored)]]) {
      const known = points.filter((point) => point[group]);
      const at = (level) => known.map((point) => [made.X(point.step), made.Y(point[group][level])]);
      if (!known.length) continue;
      made.add("path", { class: "band", d: band(at(0), at(2)), style: `fill:${style};opacity:.22` });
      made.add("path", { class: "mean", d: path(at(1)), style: `fill:none;stroke:${style};stroke-width:2.2` });
      known.forEach((point, n) => made.add("circle", { cx: at(1)[n][0], cy: at(1)[n][1], r: 7, fill: "transparent", "data-tip":
        `${group === "rest" ? "the rest" : "chosen"}, step ${number(point.step)}\n` +
        `median ${number(point[group][1])}\n80 % from ${number(point[group][0])} to ${number(point[group][2])}` }));
    }
  },
  rows: () => [["policy", "part", "step", "group", "10 %", "median", "90 %"],
    ...Object.entries(view().scores).flatMap(([policy, parts]) => Object.entries(parts).flatMap(([part, points]) =>
      points.flatMap((point) => ["chosen", "rest"].filter((group) => point[group]).map((group) => [policy, part, point.step, group, ...point[group]]))))],
};

figures.overlap = {
  has: () => view().overlap !== null,
  draw: (box) => {
    const names = view().policies, width = box.clientWidth;
    const left = Math.min(0.36 * width, 26 + 7.7 * Math.max(...names.map((name) => name.length)));
    const cell = Math.min(Math.max(92, isPaired(box) ? 294 / names.length : 0), (width - left - 2) / names.length);
    const short = names.some((name) => 7.7 * name.length > cell - 4); // then columns are numbered, and row names start with the number
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${26 + cell * names.length}`, height: 26 + cell * names.length,
      role: "img", "aria-label": "Overlap between policies" });
    names.forEach((name, row) => {
      svg.append(drawn("text", { class: "name", x: left - 8, y: 26 + cell * (row + 0.5) + 4, "text-anchor": "end" },
        clipped(short ? `${row + 1} ${name}` : name, left - 8)));
      svg.append(drawn("text", { class: "name", x: left + cell * (row + 0.5), y: 16, "text-anchor": "middle" }, short ? String(row + 1) : name));
      names.forEach((other, column) => {
        const value = view().overlap[row][column], known = value !== null;
        const x = left + cell * column, y = 26 + cell * row;
        svg.append(drawn("rect", { x: x + 1, y: y + 1, width: cell - 2, height: cell - 2, rx: 5, "data-tip":
          `${name} and ${other}${row === column ? ", another seed" : ""}\n${known ? `${number(value, 3)} of the records chosen by either` : "only one seed"}`,
          style: `fill:${known ? ramp(0.08 + 0.92 * value) : "none"};stroke:var(--line)` }));
        if (cell > 30) {
          svg.append(drawn("text", { x: x + cell / 2, y: y + cell / 2 + 4, "text-anchor": "middle", "pointer-events": "none",
            style: `fill:var(${known && value > 0.7 ? "--on-accent" : "--ink"})` }, known ? value.toFixed(2) : "–"));
        }
      });
    });
    box.replaceChildren(svg);
  },
  rows: () => [["policy", ...view().policies], ...view().policies.map((name, row) => [name, ...view().overlap[row]])],
};

figures.lengths = {
  has: () => view().lengths !== null,
  legend: () => [[colour(state.measured), "chosen"], ["var(--rest)", "the rest"]],
  draw: (box) => {
    const { start, width, policies } = view().lengths;
    const fractions = policies.find((row) => row.policy === state.measured);
    const all = [...(fractions.chosen ?? []), ...(fractions.rest ?? [])];
    const bins = (fractions.chosen ?? fractions.rest ?? []).length;
    const beside = isPaired(box) ? box.closest(".pair").querySelector("[data-figure=overlap] svg")?.clientHeight ?? 0 : 0;
    const made = chart(box, { height: Math.max(320, beside - 40), label: "Lengths of records", x: { low: start, high: start + width * Math.max(1, bins), title: "tokens of a record" },
      y: { low: 0, high: 1.08 * Math.max(1e-9, ...all), title: "fraction of the records", format: percent } });
    for (const [group, style] of [["rest", "var(--rest)"], ["chosen", colour(state.measured)]]) {
      const outline = (fractions[group] ?? []).flatMap((fraction, n) => [[start + n * width, fraction], [start + (n + 1) * width, fraction]]);
      const points = outline.map(([x, y]) => [made.X(x), made.Y(y)]);
      if (!points.length) continue;
      const base = [[points[0][0], made.Y(0)], [points.at(-1)[0], made.Y(0)]];
      made.add("path", { d: band(base, points), style: `fill:${style};opacity:.2` });
      made.add("path", { d: path(points), style: `fill:none;stroke:${style};stroke-width:2` });
    }
    for (let n = 0; n < bins; n += 1) {
      made.add("rect", { x: made.X(start + n * width), width: made.X(width) - made.X(0), y: made.area.top, height: made.area.bottom - made.area.top,
        fill: "transparent", "data-tip": `${start + n * width} to ${start + (n + 1) * width - 1} tokens\nchosen ${percent(fractions.chosen?.[n])}, the rest ${percent(fractions.rest?.[n])}` });
    }
  },
  rows: () => [["policy", "tokens from", "fraction of the chosen", "fraction of the rest"], ...view().lengths.policies.flatMap((row) =>
    (row.chosen ?? row.rest ?? []).map((_, n) => [row.policy, view().lengths.start + n * view().lengths.width, row.chosen?.[n], row.rest?.[n]]))],
};

figures.statistics = {
  has: () => view().statistics.length > 0,
  draw: (box) => box.replaceChildren(table(statisticsColumns(), view().statistics)),
  rows: () => [statisticsColumns().map((column) => column.title),
    ...view().statistics.map((row) => statisticsColumns().map((column) => column.of(row)))],
};

function statisticsColumns() {
  const named = Object.keys(view().statistics[0]).filter((name) => name.startsWith("flag:"));
  return [
    { title: "policy", of: (row) => row.policy },
    { title: "records", of: (row) => (row.kind === "rest" ? "the rest" : "chosen"), show: (row) => (row.kind === "rest" ? "the rest" : "chosen") },
    { title: "how many", of: (row) => row.records, show: (row) => number(Math.round(row.records)) },
    { title: "tokens", of: (row) => row.length, show: (row) => number(row.length, 3) },
    { title: "tokens with loss", of: (row) => row.trained, show: (row) => number(row.trained, 3) },
    ...named.map((name) => ({ title: words(name), of: (row) => row[name], show: (row) => percent(row[name]) })),
    { title: "near-duplicates", of: (row) => row.duplicates, show: (row) => percent(row.duplicates) },
    { title: "with their original", of: (row) => row.with_original, show: (row) => percent(row.with_original) },
  ];
}
