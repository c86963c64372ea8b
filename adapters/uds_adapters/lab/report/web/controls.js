"use strict";
// State of the page, and the controls that change it.

const views = JSON.parse(document.getElementById("data").textContent);
const state = { view: 0, start: false, hidden: new Set(), shown: 20 };
const METRICS = {
  loss: { title: "held-out loss (nats per token)", short: "loss", better: "low" },
  accuracy: { title: "accuracy", short: "accuracy", better: "high" },
  exact_match: { title: "exact match", short: "exact match", better: "high" },
};
const ALONG = { samples: "samples trained on", tokens: "tokens trained on", seconds: "seconds of training" };
const TIMES = { scoring: "scoring candidates", forward_backward: "forward and backward", rest: "rest: optimizer, data" };

const view = () => views[state.view];
const isFull = (policy) => /(^|: )full$/.test(policy);
const colour = (policy) => (isFull(policy) ? "var(--full)" : `var(--p${view().policies.filter((name) => !isFull(name)).indexOf(policy) % 10})`);
const visible = (rows) => rows.filter((row) => !state.hidden.has(row.policy));
const words = (name) => name.replaceAll("_", " ").replace("heldout", "held-out").replace(/^flag:/, "");
const key = (style) => element("i", { class: "key", style: `background:${style}` });
const same = (names) => names.map((name) => [name, words(name)]);

// The controls, each with the values for which there is data.

const controls = {
  metric: { label: "Metric", values: () => view().curves.metrics.map((name) => [name, METRICS[name].short]) },
  along: { label: "Cost", values: () => same(view().curves.along) },
  scored: { label: "Policy", menu: true, policies: true, values: () => same(Object.keys(view().scores)) },
  part: { label: "Part of the score", menu: true, values: () => same(Object.keys(view().scores[state.scored] ?? {})) },
  measured: { label: "Policy", menu: true, policies: true, values: () => same(view().policies) },
  colour: { label: "Coloured by", menu: true, policies: true, values: () => [
    ...view().policies.map((policy) => [policy, `chosen by ${policy}`]),
    ...flags().map((flag) => [`flag:${flag}`, `property: ${flag}`]), ["length", "length"],
  ] },
};

function flags() {
  return [...new Set(view().records.rows.flatMap((row) => row.flags))].sort();
}

function settle() { // every control has a value that exists; of policies, UDS or the last
  for (const [name, control] of Object.entries(controls)) {
    const values = control.values().map(([value]) => value);
    const wanted = control.policies ? values.find((value) => value.includes("uds")) ?? view().policies.at(-1) : values[0];
    if (!values.includes(state[name])) state[name] = values.includes(wanted) ? wanted : values[0];
  }
}

function drawControls() {
  for (const box of document.querySelectorAll("[data-control]")) {
    const made = box.dataset.control.split(" ").map((name) => [name, controls[name], controls[name].values()]);
    box.replaceChildren(...made.filter(([, , values]) => values.length > 1).map(([name, control, values]) =>
      control.menu ? menu(name, control.label, values) : segments(name, control.label, values)));
  }
}

function segments(name, label, values) {
  const buttons = values.map(([value, text]) => {
    const button = element("button", { type: "button", "data-value": value, "aria-pressed": value === state[name] }, text);
    button.addEventListener("click", () => set(name, value));
    return button;
  });
  return element("div", { class: "segments", role: "group", "aria-label": label, "data-name": name }, ...buttons);
}

function menu(name, label, values) {
  const select = element("select", { "aria-label": label, "data-name": name }, ...options(values, state[name]));
  select.addEventListener("change", () => set(name, select.value));
  return select;
}

function options(values, chosen) {
  return values.map(([value, text]) => {
    const made = element("option", { value }, text);
    made.selected = value === chosen;
    return made;
  });
}

function set(name, value) {
  state[name] = value;
  draw();
}
