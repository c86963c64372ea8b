"use strict";
// The page as a whole: texts, notes, figures, and events.

const NOTES = {
  table: () => `Means over ${view().seeds > 1 ? `${view().seeds} seeds` : "the runs"}. ` + (figures.curves.has() ? "Held-out loss is in nats per token " +
    "of text that no run trained on: lower is better. The best quality and the shortest time are bold. " : "") +
    "Tokens scored is the cost of selection: all tokens of the candidates, prompts included. Tokens trained on counts only tokens with loss.",
  curves: () => (view().seeds > 1 ? `Thick lines are means over ${view().seeds} seeds, thin lines single seeds; a band is one standard deviation to either side.`
    : "One seed: it is not known how much of a difference is random.") + " Click a name to hide that policy.",
  overlap: () => "The fraction of the records chosen by either policy that both chose (Jaccard index): 1 means the same records, 0 none in common." +
    (view().seeds > 1 ? " On the diagonal: the policy compared with itself under another seed." : ""),
  lengths: () => `The last bar counts all longer records; the longest has ${number(view().lengths?.longest)} tokens.`,
};

function drawFigure(figure) {
  const name = figure.dataset.figure, { has, draw: drawIn, legend, policies } = figures[name];
  figure.hidden = !has();
  if (figure.hidden) return;
  const box = figure.querySelector(".legend");
  if (policies) box.replaceChildren(...policies().map(toggle));
  if (legend) {
    box.replaceChildren(...legend().map(([style, text]) => element("span", {},
      ...(style === "ramp" ? [element("i", { class: "ramp" })] : style ? [key(style)] : []), text)));
  }
  const note = figure.querySelector("[data-note]");
  if (note && NOTES[name]) note.textContent = NOTES[name]();
  drawIn(figure.querySelector(".plot"));
}

function toggle(policy) {
  const button = element("button", { type: "button", "aria-pressed": !state.hidden.has(policy) }, key(colour(policy)), policy);
  button.addEventListener("click", () => {
    if (!state.hidden.delete(policy)) state.hidden.add(policy);
    draw();
  });
  return button;
}

function drawWords() {
  document.getElementById("command").textContent = view().command;
  document.getElementById("explanations").replaceChildren(...view().explanations.flatMap(([name, sentence]) =>
    [element("dt", {}, name), element("dd", {}, sentence)]));
  document.getElementById("verdict").replaceChildren(...view().verdict.map((text) => element("p", {}, text)));
  document.getElementById("facts").replaceChildren(...view().facts.map(([name, value]) =>
    element("div", {}, element("dt", {}, words(name)), element("dd", {}, value))));
  for (const name of ["configuration", "versions"]) {
    document.getElementById(name).replaceChildren(...view()[name].map(([title, value]) =>
      element("tr", {}, element("td", {}, words(title)), element("td", {}, value))));
    document.getElementById(name).parentElement.hidden = !view()[name].length;
  }
  const preview = document.getElementById("preview");
  preview.innerHTML = view().preview ?? ""; // escaped where it was made
  preview.parentElement.hidden = !view().preview;
  const notes = document.getElementById("notes");
  notes.textContent = view().notes.join(" ");
  notes.hidden = !view().notes.length;
}

function draw() {
  settle();
  drawControls();
  document.querySelectorAll("figure[data-figure]").forEach(drawFigure);
  const sections = [...document.querySelectorAll("section[data-title]")];
  for (const section of sections) {
    section.hidden = ![...section.querySelectorAll("figure, .card, h1")].some((part) => !part.hidden);
  }
  document.getElementById("sections").replaceChildren(...sections.filter((section) => !section.hidden)
    .map((section) => element("a", { href: `#${section.id}` }, section.dataset.title)));
}

function openView(index) {
  state.view = index;
  state.hidden.clear();
  drawWords();
  drawFilters();
  draw();
}

function begin() {
  const root = document.documentElement, form = document.getElementById("filters");
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.style.colorScheme = now === "dark" ? "light" : "dark";
  });
  const menuOfViews = document.getElementById("view");
  menuOfViews.replaceChildren(...options(views.map((one, n) => [String(n), one.name]), "0"));
  menuOfViews.hidden = views.length < 2;
  menuOfViews.addEventListener("change", () => openView(Number(menuOfViews.value)));
  for (const figure of document.querySelectorAll("figure[data-figure]")) {
    const button = element("button", { type: "button", class: "csv", title: "Download the data behind this as CSV" }, "CSV");
    button.addEventListener("click", () => download(figure.dataset.figure, figures[figure.dataset.figure].rows()));
    figure.querySelector("figcaption").append(button);
  }
  const list = document.querySelector("[data-figure=records]");
  const again = (shown) => { state.shown = shown; drawFigure(list); };
  form.addEventListener("input", () => again(20));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("more").addEventListener("click", () => again(state.shown + 50));
  document.getElementById("start").addEventListener("change", (event) => set("start", event.target.checked));
  tips(document.getElementById("tip"));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) requestAnimationFrame(draw);
    width = innerWidth;
  });
  openView(0);
}

begin();
