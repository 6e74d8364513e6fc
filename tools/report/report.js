// Draws the charts of the page from the data in it, and makes its controls work. A chart is drawn when it comes near the window, the
// others when the browser has time; all colours are the page's own, so a change of theme redraws nothing.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const WIDTH = 640; // px of a chart; the page scales it down where there is less room
const COLOURS = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#ff9da6", "#9d755d", "#8a8f98"];
const LINE = "#8886";
const CONFIG = {
  background: null, font: "system-ui, sans-serif", view: { stroke: null }, range: { category: COLOURS },
  axis: { labelColor: "currentColor", titleColor: "currentColor", domainColor: LINE, tickColor: LINE, gridColor: "#8883", labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500, labelLimit: 220 },
  legend: { labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 11, titleFontSize: 12, titleFontWeight: 500, labelLimit: 260 },
  header: { labelColor: "currentColor", titleColor: "currentColor" }, title: { color: "currentColor", fontSize: 12, fontWeight: 500 }, text: { color: "currentColor" },
  rule: { color: "currentColor" },
};

function rowsOf(columns) {
  const names = Object.keys(columns);
  return names.length ? columns[names[0]].map((_, row) => Object.fromEntries(names.map((name) => [name, columns[name][row]]))) : [];
}

async function draw(figure) {
  if (figure.dataset.drawn) return;
  figure.dataset.drawn = "begun";
  const { title, columns, spec, caption } = DATA.charts[figure.id];
  const facets = spec.facet || spec.columns || spec.hconcat || spec.vconcat || spec.repeat;
  const whole = { width: facets ? undefined : WIDTH, ...spec, $schema: "https://vega.github.io/schema/vega-lite/v6.json", data: { values: rowsOf(columns) }, description: `${title}. ${caption}` };
  try {
    await vegaEmbed(figure.querySelector(".drawing"), whole, { ast: true, renderer: "svg", actions: false, config: CONFIG, tooltip: { disableDefaultStyle: false } });
    figure.dataset.drawn = "done";
  } catch (error) {
    figure.dataset.drawn = "failed";
    figure.querySelector(".drawing").textContent = `This chart could not be drawn (${error.message}); its data is below.`;
    console.error(title, error);
  }
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function showData(details) {
  if (!details.open || details.querySelector("table")) return;
  const { title, columns } = DATA.charts[details.closest("figure").id];
  const names = Object.keys(columns);
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
  const shown = (value) => (value === null ? "–" : typeof value === "number" ? number.format(value) : String(value));
  const body = rowsOf(columns).map((row) => element("tr", {}, ...names.map((name) => element("td", { className: typeof row[name] === "number" ? "number" : "", textContent: shown(row[name]) }))));
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col", textContent: name.replaceAll("_", " ") })));
  const region = element("div", { className: "scroll", tabIndex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", `Data of ${title}`);
  details.append(region);
}

const THEMES = ["as the system", "light", "dark"];
function theme(button) {
  const next = (THEMES.indexOf(button.dataset.theme || THEMES[0]) + 1) % THEMES.length;
  button.dataset.theme = THEMES[next];
  button.textContent = `Theme: ${THEMES[next]}`;
  if (next) document.documentElement.dataset.theme = THEMES[next];
  else delete document.documentElement.dataset.theme;
}

const figures = [...document.querySelectorAll("figure.chart")];
const near = new IntersectionObserver((seen) => seen.filter((entry) => entry.isIntersecting).forEach((entry) => { near.unobserve(entry.target); draw(entry.target); }), { rootMargin: "300px" });
figures.forEach((figure) => near.observe(figure));
const later = figures.slice();
function drawNext() {
  const figure = later.shift();
  if (figure) draw(figure).then(() => requestIdleCallback(drawNext, { timeout: 500 }));
  else document.documentElement.dataset.drawn = "all";
}
window.addEventListener("load", () => requestIdleCallback(drawNext, { timeout: 500 }));

document.querySelectorAll("details.data").forEach((details) => details.addEventListener("toggle", () => showData(details)));
document.getElementById("theme").addEventListener("click", (event) => theme(event.currentTarget));

// A link to a section that is folded opens it; so does printing.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const folded = target && (target.querySelector(":scope > details") || target.closest("details"));
  if (folded) folded.open = true;
}
window.addEventListener("hashchange", unfold);
unfold();
let closed = [];
window.addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("main details:not([open]):not(.data)")]; closed.forEach((each) => { each.open = true; }); });
window.addEventListener("afterprint", () => closed.forEach((each) => { each.open = false; }));
