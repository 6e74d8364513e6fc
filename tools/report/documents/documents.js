// Samples of documents: a search and three filters over the records of documents.py, shown a few at a time. Texts reach the page as text nodes
// and in no other way; what does not show itself in them was spelled out when the page was made.
"use strict";
const AT_A_TIME = 20;
const FACETS = { source: "Source", reason: "Reason", side: "Side" };
const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const flat = (segments) => segments.map((each) => (typeof each === "string" ? each : typeof each === "number" ? " " : each[1])).join("");

const blanks = (text) => text.replaceAll(" ", "␣").replaceAll("\t", "⇥").replaceAll("\n", "⏎");

function haystack(record) {
  const twin = record.twin ? `${record.twin.id} ${flat(record.twin.text)}` : "";
  const values = (record.values || []).map(([column, value]) => `${column} ${flat(value)}`).join(" ");
  return [record.id, record.file, record.source, record.reason, record.side, values, (record.notes || []).join(" "), flat(record.text), twin].join("\n").toLowerCase();
}

function marked([kind, text, replacement], legend) {
  const label = legend[kind] ? legend[kind][0] : "";
  if (replacement === undefined) return element("mark", { className: `kind-${kind}`, title: label, textContent: text });
  const edit = element("span", { className: "edit", title: label }, element("del", { textContent: text.trim() ? text : blanks(text) }));
  if (replacement) edit.append(element("ins", { textContent: replacement }));
  return edit;
}

function shownText(segments, legend, code, name) {
  const pieces = segments.map((each) =>
    typeof each === "string" ? each : typeof each === "number" ? element("span", { className: "gap", textContent: `⋯ ${counted(each, "character", "characters")} ⋯` }) : marked(each, legend));
  const text = element("div", { className: code ? "text code" : "text", dir: code ? "ltr" : "auto", tabIndex: 0 }, ...pieces);
  if (!segments.length) text.append(element("span", { className: "gap", textContent: "the text is empty" }));
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", name);
  return text;
}

function place(record) {
  const parts = [`${record.file} row ${record.row.toLocaleString("en")}`, counted(record.bytes, "byte", "bytes")];
  if (record.tokens !== undefined) parts.push(counted(record.tokens, "token", "tokens"));
  return element("p", { className: "place", dir: "auto", textContent: parts.join(" · ") });
}

function why(record) {
  const list = element("dl", { className: "why" });
  for (const [column, value, limits] of record.values || []) {
    const shown = element("dd", { dir: "auto" }, element("strong", {}, ...value.map((each) => (typeof each === "string" ? each : marked(each, [["what the pattern finds"]])))));
    if (limits) shown.append(element("span", { className: "limit", textContent: ` rule: ${limits}` }));
    list.append(element("div", {}, element("dt", { textContent: column }), shown));
  }
  return list;
}

function remarks(record) {
  const said = [...(record.notes || [])];
  if (record.first) said.push(`what dropped it first: ${record.first}`);
  if (record.also) said.push(`these hold too: ${record.also.join(", ")}`);
  return said.map((text) => element("p", { className: "remark", dir: "auto", textContent: text }));
}

function legendOf(record) {
  if (!record.legend) return [];
  const edited = record.side === "edited";
  const entries = record.legend.map(([label, times], kind) =>
    element("li", {}, edited ? element("span", { className: "edit", textContent: label }) : element("mark", { className: `kind-${kind}`, textContent: label }), ` ${counted(times, "place", "places")}`));
  return [element("ul", { className: "legend" }, ...entries)];
}

function card(record, id) {
  const title = element("h4", { id, dir: "auto", textContent: record.id });
  const chips = element("p", { className: "chips" },
    element("span", { className: `chip side ${record.side.replaceAll(" ", "-")}`, textContent: record.side }),
    element("span", { className: "chip", textContent: record.source }), element("span", { className: "chip reason", textContent: record.reason }));
  const text = shownText(record.text, record.legend || [], record.code, `Text of ${record.id}`);
  const body = [text];
  if (record.twin) {
    const twin = shownText(record.twin.text, record.legend || [], record.code, `Text of its twin ${record.twin.id}`);
    const side = (name, shown, inner) => element("div", {}, element("h5", { dir: "auto", textContent: name }), place(shown), inner);
    body.splice(0, 1, element("div", { className: "twins" }, side("Dropped", record, text), side(`Stays: ${record.twin.id} of ${record.twin.source}`, record.twin, twin)));
  }
  const rule = record.rule ? [element("p", { className: "rule" }, "The rule drops where ", element("code", { textContent: record.rule }))] : [];
  const article = element("article", { className: record.twin ? "document with-twin" : "document" }, chips, title, ...(record.twin ? [] : [place(record)]), why(record), ...rule, ...remarks(record), ...legendOf(record), ...body);
  article.setAttribute("aria-labelledby", id);
  return element("li", {}, article);
}

// The words sought, highlighted in what is shown, where the browser can do so without touching the texts' nodes.
const highlighted = new Map();
function highlight(box, list, words) {
  if (!window.Highlight || !CSS.highlights) return;
  const ranges = [];
  const walker = document.createTreeWalker(list, NodeFilter.SHOW_TEXT);
  while (words.length && walker.nextNode()) {
    const node = walker.currentNode, text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue; // letters that grow in lower case: places would be off
    for (const word of words) for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) ranges.push(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: at + word.length }));
  }
  highlighted.set(box, ranges);
  CSS.highlights.set("sought", new Highlight(...[...highlighted.values()].flat()));
}

// What is marked further down in a text is in sight all the same.
function toEvidence(text) {
  const first = text.querySelector("mark, .edit");
  if (first && first.offsetTop + 48 > text.clientHeight) text.scrollTop = first.offsetTop - text.clientHeight / 3;
}

function fill(box) {
  const records = DATA.documents[box.id];
  if (!records.length) return box.append(element("p", { className: "absent", textContent: "There are no samples." }));
  const texts = records.map(haystack);
  const search = element("input", { type: "search", autocomplete: "off", spellcheck: false, placeholder: "words in texts, ids, reasons" });
  const selects = Object.fromEntries(Object.keys(FACETS).map((name) => [name, element("select", {})]));
  const clear = element("button", { type: "button", textContent: "Clear" });
  const label = (name, control) => {
    control.id = `${box.id}-${name.toLowerCase()}`;
    return element("div", { className: "field" }, element("label", { htmlFor: control.id, textContent: name }), control);
  };
  const controls = element("form", { className: "controls" }, label("Search", search), ...Object.entries(FACETS).map(([name, title]) => label(title, selects[name])), clear);
  controls.setAttribute("role", "search");
  controls.setAttribute("aria-label", box.dataset.title);
  const status = element("p", { className: "status" });
  status.setAttribute("role", "status");
  const list = element("ol", { className: "results" });
  const more = element("button", { type: "button", className: "more" });
  box.append(controls, status, list, more);

  let found = [], words = [];
  const fits = (record, but) => Object.keys(FACETS).every((name) => name === but || !selects[name].value || record[name] === selects[name].value);
  const said = (number) => words.every((word) => texts[number].includes(word));
  function options(name) {
    const chosen = selects[name].value, times = new Map();
    records.forEach((record, number) => times.set(record[name], (times.get(record[name]) || 0) + (fits(record, name) && said(number) ? 1 : 0)));
    const every = [...times].filter(([value, count]) => count || value === chosen);
    selects[name].replaceChildren(element("option", { value: "", textContent: "all" }), ...every.map(([value, count]) => element("option", { value, textContent: `${value} (${count})` })));
    selects[name].value = chosen;
  }
  function showMore() {
    const first = list.children.length;
    list.append(...found.slice(first, first + AT_A_TIME).map((number) => card(records[number], `${box.id}-${number}`)));
    [...list.children].slice(first).forEach((item) => item.querySelectorAll(".text").forEach(toEvidence));
    const left = found.length - list.children.length;
    more.hidden = !left;
    more.textContent = `Show ${Math.min(left, AT_A_TIME)} more of ${left}`;
    highlight(box, list, words);
    return list.children[first];
  }
  function apply() {
    words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    Object.keys(FACETS).forEach(options);
    found = records.map((_, number) => number).filter((number) => fits(records[number]) && said(number));
    status.textContent = `${found.length} of ${counted(records.length, "sample", "samples")}`;
    list.replaceChildren();
    showMore();
  }
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  clear.addEventListener("click", () => { controls.reset(); apply(); search.focus(); });
  more.addEventListener("click", () => { const next = showMore(); next.tabIndex = -1; next.focus(); });
  apply();
}
document.querySelectorAll("div.documents").forEach(fill);
