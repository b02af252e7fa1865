
"use strict";
const byId = (id) => document.getElementById(id);
const items = [...document.querySelectorAll(".item")];
const [tools, search, category, trend, sort, left, right, unfold, found] =
  ["tools", "search", "category", "trend", "sort", "left", "right", "unfold", "found"].map(byId);
const MOST_CELLS = 4e6;  // of the table behind a diff
let texts;

// --- which prompts, in which order ---------------------------------------------------------------------------

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) texts ??= new Map(items.map((item) => [item, item.textContent.toLowerCase()]));
  const at = trend.value.indexOf(":"), field = trend.value.slice(0, at), wanted = trend.value.slice(at + 1);
  let shown = 0;
  for (const item of items) {
    const fits = words.every((word) => texts.get(item).includes(word))
      && (!category.value || item.dataset.category === category.value)
      && (!trend.value || item.dataset[field] === wanted);
    item.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  found.textContent = `${shown} of ${items.length}`;
}

function arrange() {
  const [field, direction] = sort.value.split(":"), sign = direction === "down" ? -1 : 1;
  const place = new Map(items.map((item, index) => [item, index]));
  const value = (item) => (field && item.dataset[field] !== "" ? sign * Number(item.dataset[field]) : Infinity);
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    return x === y ? place.get(a) - place.get(b) : x - y;
  };
  for (const list of document.querySelectorAll(".items")) {
    list.append(...items.filter((item) => item.parentElement === list).sort(order));
  }
}

function toggle() {
  const open = unfold.textContent === "Open all";
  for (const item of items) item.open = open;
  unfold.textContent = open ? "Close all" : "Open all";
}

function offer(select, values, texts = values) {
  values.forEach((value, index) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = texts[index];
    select.append(option);
  });
}

// --- differences between two answers, word by word -----------------------------------------------------------

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const lines = (text) => text.split(/(?<=\n)/u);

function compare(before, after) {
  const [a, b] = [words(before), words(after)];
  return small(a, b) ? changes(a, b) : changes(lines(before), lines(after));
}

const small = (a, b) => a.length * b.length <= MOST_CELLS;

// The longest common subsequence: [kind, text], kind " ", "-" or "+".
function changes(a, b) {
  let start = 0, tail = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  while (tail < a.length - start && tail < b.length - start && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const [x, y] = [a.slice(start, a.length - tail), b.slice(start, b.length - tail)];
  const middle = small(x, y) ? common(x, y) : [...x.map((t) => ["-", t]), ...y.map((t) => ["+", t])];
  const same = (part) => part.map((text) => [" ", text]);
  return [...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - tail))];
}

function common(a, b) {
  const wide = b.length + 1, table = new Uint32Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      table[i * wide + j] = a[i] === b[j] ? table[(i + 1) * wide + j + 1] + 1
        : Math.max(table[(i + 1) * wide + j], table[i * wide + j + 1]);
    }
  }
  const found = [];
  for (let i = 0, j = 0; i < a.length || j < b.length;) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push([" ", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && table[(i + 1) * wide + j] >= table[i * wide + j + 1])) { found.push(["-", a[i]]); i += 1; }
    else { found.push(["+", b[j]]); j += 1; }
  }
  return found;
}

function textOf(item, who) {
  const answer = [...item.querySelectorAll(".answer")].find((one) => one.dataset.who === who);
  return answer?.querySelector("p").textContent;
}

function drawDiff(item) {
  item.querySelector(".diff")?.remove();
  if (!item.open || !left.value || !right.value || left.value === right.value) return;
  const [before, after] = [left.value, right.value].map((who) => textOf(item, who));
  if (before === undefined || after === undefined) return;
  const block = document.createElement("div"), head = document.createElement("h4"), body = document.createElement("p");
  block.className = "said diff";
  head.textContent = `From ${left.value} to ${right.value}`;
  let last = null, kindOfLast = "";
  for (const [kind, text] of compare(before, after)) {
    if (kind !== kindOfLast) {
      last = document.createElement({ " ": "span", "-": "del", "+": "ins" }[kind]);
      body.append(last);
    }
    last.append(text);
    kindOfLast = kind;
  }
  block.append(head, body);
  item.querySelector(".columns").after(block);
}

const drawDiffs = () => items.forEach(drawDiff);

if (tools) {
  tools.hidden = false;
  const distinct = (list) => [...new Set(list)];
  offer(category, distinct(items.map((item) => item.dataset.category)));
  const who = distinct([...document.querySelectorAll(".answer")].map((one) => one.dataset.who));
  offer(left, who);
  offer(right, who);
  const isThere = (value) => {
    const at = value.indexOf(":");
    return items.some((item) => item.dataset[value.slice(0, at)] === value.slice(at + 1));
  };
  for (const option of [...trend.options]) if (option.value && !isThere(option.value)) option.remove();
  const hasKey = (value) => items.some((item) => item.dataset[value.split(":")[0]]);
  for (const option of [...sort.options]) if (option.value && !hasKey(option.value)) option.remove();
  search.addEventListener("input", filter);
  category.addEventListener("change", filter);
  trend.addEventListener("change", filter);
  sort.addEventListener("change", arrange);
  left.addEventListener("change", drawDiffs);
  right.addEventListener("change", drawDiffs);
  unfold.addEventListener("click", toggle);
  for (const item of items) item.addEventListener("toggle", () => drawDiff(item));
  filter();
}
document.documentElement.dataset.ready = Math.round(performance.now());
