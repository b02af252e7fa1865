"use strict";
// How `rows` and `tokens` are written is told in microscope_page.py.
const [ORIGIN, HELD_OUT, TOKENS, TRAINED, CUT, SPANS] = [0, 1, 2, 3, 4, 5];
const IS_TRAINED = 1, IS_CONTROL = 2;
const LINE_PIXELS = 36, LINES_BEYOND = 8, TOKENS_AT_ONCE = 4000;
const SORT_KEYS = { file: null, tokens: TOKENS, trained: TRAINED, cut: CUT };
const HIDDEN = /[\n\t]|(?!\u200d)[\p{Cc}\p{Cf}\u2028\u2029]/gu;
const HIDDEN_OR_SPACE = /[ \p{Cc}\p{Cf}\u2028\u2029]/gu;

const byId = (id) => document.getElementById(id);
const rows = JSON.parse(byId("rows").textContent);
const [list, strip, reader, search, side, found] =
  ["list", "strip", "reader", "search", "side", "found"].map(byId);
const longest = rows.reduce((most, row) => Math.max(most, row[TOKENS]), 1);
const state = { order: rows.map((_, index) => index), sort: "file", descending: false, row: 0, mode: "text", query: "" };
const lowered = [];
let tokenLines;

const count = (number) => number.toLocaleString("en");
const textOf = (row) => row[SPANS].map((span) => span[2]).join("");
const loweredText = (index) => (lowered[index] ??= `${textOf(rows[index])}\n${rows[index][ORIGIN]}`.toLowerCase());

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const kindClass = (kind) => [kind & IS_TRAINED && "trained", kind & IS_CONTROL && "control"].filter(Boolean).join(" ");

// --- which rows, in which order -----------------------------------------------------------------------------

function arrange() {
  state.query = search.value.toLowerCase();
  const wanted = (row) => side.value === "" || (side.value === "cut" ? row[CUT] : String(row[HELD_OUT]) === side.value);
  const fits = (index) => wanted(rows[index]) && loweredText(index).includes(state.query);
  const key = SORT_KEYS[state.sort], sign = state.descending ? -1 : 1;
  const value = (index) => (key === null ? 0 : rows[index][key]);
  state.order = rows.map((_, index) => index).filter(state.query || side.value ? fits : () => true)
    .sort((a, b) => sign * (value(a) - value(b) || (key === null ? a - b : sign * (a - b))));
  found.textContent = `${state.order.length < rows.length ? `${count(state.order.length)} of ` : ""}${count(rows.length)} row${rows.length === 1 ? "" : "s"}`;
  for (const button of document.querySelectorAll("[data-sort]")) {
    const chosen = button.dataset.sort === state.sort;
    button.dataset.direction = chosen ? (state.descending ? "descending" : "ascending") : "";
    button.setAttribute("aria-pressed", chosen);
  }
  list.scrollTop = 0;
  select(state.order[0] ?? -1);
}

function sortBy(name) {
  state.descending = state.sort === name ? !state.descending : name !== "file";
  state.sort = name;
  arrange();
}

// --- the list: only the lines in sight are elements ----------------------------------------------------------

function drawList() {
  const first = Math.max(0, Math.floor(list.scrollTop / LINE_PIXELS) - LINES_BEYOND);
  const lines = Math.ceil(list.clientHeight / LINE_PIXELS) + 2 * LINES_BEYOND;
  strip.style.height = `${state.order.length * LINE_PIXELS}px`;
  strip.replaceChildren(...state.order.slice(first, first + lines).map((index, at) => line(index, first + at)));
}

function line(index, position) {
  const row = rows[index];
  const made = element("div", "line", element("span", "origin", element("bdi", "", row[ORIGIN])), maskPicture(row),
    element("span", "number", count(row[TOKENS])),
    element("span", "number", count(row[TRAINED])),
    element("span", "flags", ...(row[CUT] ? [element("b", "flag cut", "cut")] : []),
      ...(row[HELD_OUT] ? [element("b", "flag held", "val")] : [])),
    element("span", "excerpt", ...excerpt(index)));
  made.id = `row-${index}`;
  made.role = "option";
  made.title = row[ORIGIN];
  made.ariaPosInSet = position + 1;
  made.ariaSetSize = state.order.length;
  made.ariaSelected = index === state.row;
  made.style.transform = `translateY(${position * LINE_PIXELS}px)`;
  made.addEventListener("click", () => select(index));
  return made;
}

function maskPicture(row) {
  const namespace = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(namespace, "svg");
  picture.setAttribute("viewBox", `0 0 ${row[TOKENS]} 1`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  picture.style.width = `${100 * Math.sqrt(row[TOKENS] / longest)}%`;
  let at = 0;
  for (const [kind, tokens] of row[SPANS]) {
    const box = document.createElementNS(namespace, "rect");
    const place = { x: at, y: 0, width: tokens, height: 1, class: kindClass(kind) };
    for (const [name, value] of Object.entries(place)) box.setAttribute(name, value);
    picture.append(box);
    at += tokens;
  }
  return element("span", "mask", picture);
}

function excerpt(index) {
  const text = textOf(rows[index]);
  const at = state.query ? loweredText(index).indexOf(state.query) : -1;
  if (at < 0 || at >= text.length) {
    const trained = rows[index][SPANS].find((span) => span[0] === IS_TRAINED);
    return [trained ? trained[2].trimStart().slice(0, 160) : ""];
  }
  const end = at + state.query.length, from = Math.max(0, at - 10);
  return [(from ? "…" : "") + text.slice(from, at), element("mark", "", text.slice(at, end)), text.slice(end, end + 120)];
}

// --- one row --------------------------------------------------------------------------------------------------

function select(index) {
  state.row = index;
  const position = state.order.indexOf(index);
  const top = Math.max(0, position) * LINE_PIXELS, bottom = top + LINE_PIXELS;
  if (top < list.scrollTop) list.scrollTop = top;
  if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  drawList();
  list.setAttribute("aria-activedescendant", `row-${index}`);
  drawRow();
}

function drawRow() {
  const row = rows[state.row];
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
  }
  byId("origin").textContent = row ? row[ORIGIN] : "no row fits";
  byId("figures").textContent = row ? [row[HELD_OUT] ? "validation" : "train", `${count(row[TOKENS])} tokens`,
    `${count(row[TRAINED])} trained (${Math.round(100 * row[TRAINED] / row[TOKENS])} %)`,
    ...(row[CUT] ? ["prompt cut to fit"] : [])].join("  ·  ") : "";
  reader.className = state.mode;
  reader.scrollTop = 0;
  reader.replaceChildren();
  if (row) (state.mode === "text" ? drawText : drawTokens)(glyphsOf(state.row));
  highlight();
}

// Glyphs: [kind, text, ids].
function glyphsOf(index) {
  tokenLines ??= byId("tokens").textContent.split("\n");
  const [ids, lengths] = JSON.parse(tokenLines[index]);
  const glyphs = [];
  let token = 0;
  for (const [kind, tokens, text] of rows[index][SPANS]) {
    let at = 0, first = token;
    for (const end = token + tokens; token < end; token += 1) {
      if (lengths[token] === 0 && token + 1 < end) continue;
      glyphs.push([kind, text.slice(at, at + lengths[token]), ids.slice(first, token + 1)]);
      at += lengths[token];
      first = token + 1;
    }
  }
  return glyphs;
}

function drawText(glyphs) {
  let last = null, kindOfLast = -1;
  for (const [kind, text] of glyphs) {
    if (kind !== kindOfLast || kind & IS_CONTROL) {
      last = element("span", kindClass(kind));
      last.said = "";
      reader.append(last);
    }
    last.said += text;
    kindOfLast = kind;
  }
  for (const span of reader.children) span.append(...visible(span.said));
}

function drawTokens(glyphs) {
  const some = glyphs.splice(0, TOKENS_AT_ONCE);
  for (const [kind, text, ids] of some) {
    const said = element("span", "said", ...visible(text, true));
    reader.append(element("span", `token ${kindClass(kind)}`, said, element("small", "", ids.join(" "))));
    if (text.includes("\n")) reader.append(element("span", "break"));
  }
  if (!glyphs.length) return;
  const more = element("button", "more", `show ${count(Math.min(glyphs.length, TOKENS_AT_ONCE))} more`);
  more.addEventListener("click", () => { more.remove(); drawTokens(glyphs); });
  reader.append(more);
}

// Signs for what can't be seen are drawn by the style sheet. Line breaks and tabs of running text stay beside theirs;
// other control characters go, for some of them would turn the text around.
function visible(text, spaces = false) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(spaces ? HIDDEN_OR_SPACE : HIDDEN)) {
    const sign = element("span", "sign", !spaces && "\n\t".includes(match[0]) ? match[0] : "");
    sign.dataset.sign = signOf(match[0]);
    parts.push(text.slice(at, match.index), sign);
    at = match.index + match[0].length;
  }
  return [...parts, text.slice(at)];
}

function signOf(character) {
  const known = { "\n": "↵", "\t": "⇥", " ": "·", "\u007f": "␡" }[character];
  const code = character.codePointAt(0);
  return known ?? (code < 32 ? String.fromCodePoint(0x2400 + code) : `U+${code.toString(16).toUpperCase().padStart(4, "0")}`);
}

function highlight() {
  if (!CSS.highlights) return;
  CSS.highlights.delete("found");
  if (!state.query || state.row < 0) return;
  const walker = document.createTreeWalker(reader, NodeFilter.SHOW_TEXT), ranges = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, text = node.data.toLowerCase();
    for (let at = text.indexOf(state.query); at >= 0; at = text.indexOf(state.query, at + state.query.length)) {
      ranges.push(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: Math.min(at + state.query.length, node.length) }));
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  if (ranges.length) scrollTo(ranges[0]);
}

function scrollTo({ startContainer, startOffset }) {
  const place = document.createRange();
  place.setStart(startContainer, startOffset);
  const below = place.getBoundingClientRect().top - reader.getBoundingClientRect().top;
  if (below > reader.clientHeight / 2) reader.scrollTop = below - reader.clientHeight / 3;
}

// --- what the reader does -------------------------------------------------------------------------------------

function show(mode) {
  state.mode = mode;
  drawRow();
}

function move(event) {
  const page = Math.max(1, Math.floor(list.clientHeight / LINE_PIXELS) - 1), all = state.order.length;
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -all, End: all };
  if (!(event.key in steps) || !all) return;
  event.preventDefault();
  const target = Math.max(0, state.order.indexOf(state.row)) + steps[event.key];
  select(state.order[Math.min(Math.max(target, 0), all - 1)]);
}

function shortcut(event) {
  const writing = event.target.matches("input, select");
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); search.focus(); }
  if (event.key === "t") show(state.mode === "text" ? "tokens" : "text");
}

search.addEventListener("input", arrange);
side.addEventListener("change", arrange);
list.addEventListener("scroll", () => requestAnimationFrame(drawList));
list.addEventListener("keydown", move);
addEventListener("resize", drawList);
addEventListener("keydown", shortcut);
for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => sortBy(button.dataset.sort));
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => show(button.dataset.mode));
arrange();
requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); });
