
"use strict";
const items = [...document.querySelectorAll(".item")];
const texts = items.map((item) => item.textContent.toLowerCase());
const [tools, search, trend, unfold, found] = ["tools", "search", "trend", "unfold", "found"].map((id) =>
  document.getElementById(id));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  items.forEach((item, index) => {
    const fits = words.every((word) => texts[index].includes(word));
    item.hidden = !fits || (trend.value !== "" && item.dataset.trend !== trend.value);
    shown += item.hidden ? 0 : 1;
  });
  found.textContent = `${shown} of ${items.length}`;
}

function toggle() {
  const open = unfold.textContent === "Open all";
  items.forEach((item) => { item.open = open; });
  unfold.textContent = open ? "Close all" : "Open all";
}

if (tools) {
  tools.hidden = false;
  search.addEventListener("input", filter);
  trend.addEventListener("change", filter);
  unfold.addEventListener("click", toggle);
  filter();
}
