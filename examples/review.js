"use strict";
// A choice is {label, at}. An empty label drops the image. An image without a choice is undecided.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const [done, counts, save, filter, undecided, by, saved, forget, notKept, noMatch] = [
  "done", "counts", "save", "filter", "undecided", "by", "saved", "forget", "not-kept", "no-match",
].map(id => document.getElementById(id));
const items = [...document.querySelectorAll(".item")];
const choices = sheet.rows.map(() => null);
let current = 0;

// A choice is stored under its output, image and version, so that an image that changed needs a new choice.
const keyOf = row => JSON.stringify(["pvtv2-review", sheet.output, row.id, row.etag]);
const BY = JSON.stringify(["pvtv2-review", "by"]);

function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function keep(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(value));
  } catch {
    notKept.hidden = false;
  }
}

// ---- Choices

function choose(index, label) {
  if (choices[index]?.label === label) return;
  choices[index] = label === null ? null : { label, at: new Date().toISOString() };
  keep(keyOf(sheet.rows[index]), choices[index]);
  show(index);
}

function show(index) {
  const item = items[index], label = choices[index]?.label;
  const kind = label === undefined ? "" : label === "" ? "dropped" : label === sheet.rows[index].label ? "confirmed" : "changed";
  item.dataset.choice = kind;
  item.querySelector(".verdict").textContent = { dropped: "dropped", confirmed: `✓ ${label}`, changed: `→ ${label}` }[kind] ?? "";
  item.querySelector("[data-do=confirm]")?.setAttribute("aria-pressed", kind === "confirmed");
  item.querySelector("[data-do=drop]").setAttribute("aria-pressed", kind === "dropped");
  item.querySelector("input").value = kind === "changed" ? label : "";
  count();
}

function count() {
  const decided = choices.filter(Boolean).length;
  done.value = decided;
  counts.textContent = `${decided} of ${items.length} decided`;
  save.disabled = decided === 0;
  saved.textContent = "";
}

const actions = {
  confirm: index => sheet.rows[index].label && choose(index, sheet.rows[index].label),
  drop: index => choose(index, ""),
  skip: index => choose(index, null),
};

function act(name, index) {
  actions[name](index);
  moveOn(index);
}

/** Chooses the label that was typed; an empty field withdraws the label that was typed before. */
function take(index) {
  const label = items[index].querySelector("input").value.trim();
  if (label) choose(index, label);
  else if (items[index].dataset.choice === "changed") choose(index, null);
}

// ---- Moving between images

const visible = () => items.flatMap((item, index) => (item.parentElement.hidden ? [] : [index]));

function go(index, focus = true) {
  items[current].tabIndex = -1;
  current = index;
  items[index].tabIndex = 0;
  if (focus) items[index].focus();
}

function move(steps) {
  const shown = visible(), at = shown.indexOf(current) + steps;
  if (shown[at] !== undefined) go(shown[at]);
}

/** Moves to the next image; the settings may hide the image that was decided. */
function moveOn(index) {
  const shown = visible(), next = shown[shown.indexOf(index) + 1] ?? index;
  arrange();
  if (!items[next].parentElement.hidden) go(next);
}

function arrange() {
  items.forEach((item, index) => {
    const isOther = filter.value && sheet.rows[index].label !== filter.value;
    item.parentElement.hidden = isOther || (undecided.checked && choices[index] !== null);
  });
  const shown = visible();
  noMatch.hidden = shown.length > 0 || items.length === 0;
  if (shown.length && !shown.includes(current)) go(shown[0], false);
}

function numColumns() {
  const tops = visible().map(index => items[index].getBoundingClientRect().top);
  return tops.filter(top => top === tops[0]).length;
}

const keys = {
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), k: () => move(-1), j: () => move(1),
  ArrowUp: () => move(-numColumns()), ArrowDown: () => move(numColumns()),
  Enter: () => act("confirm", current), d: () => act("drop", current), s: () => act("skip", current),
  l: () => items[current].querySelector("input").focus(),
};
sheet.quick.forEach((label, index) => {
  keys[index + 1] = () => {
    choose(current, label);
    moveOn(current);
  };
});

document.addEventListener("keydown", event => {
  const index = items.indexOf(event.target.closest(".item")), isField = event.target.matches("input, select, button, a, summary");
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isField && event.target.matches(".item input") && ["Enter", "Escape"].includes(event.key)) {
    event.preventDefault();
    if (event.key === "Enter") take(index);
    else show(index);
    if (event.key === "Enter" && choices[index]) moveOn(index);
    else go(index);
  } else if (!isField && items.length && !items[current].parentElement.hidden && Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
});

items.forEach((item, index) => {
  item.addEventListener("focusin", () => go(index, false));
  item.querySelector("input").addEventListener("change", () => take(index));
  item.querySelectorAll("[data-do]").forEach(button => button.addEventListener("click", () => act(button.dataset.do, index)));
});
filter.addEventListener("change", arrange);
undecided.addEventListener("change", arrange);
by.addEventListener("input", () => keep(BY, by.value));
forget.addEventListener("click", () => {
  if (!confirm("Forget all choices on this page?")) return;
  sheet.rows.forEach((_, index) => choose(index, null));
  arrange();
});

// ---- Saving: CSV as in RFC 4180, every field in quotes

save.addEventListener("click", () => {
  const decided = sheet.rows.flatMap((row, index) => (choices[index] ? [{ ...row, ...choices[index] }] : []));
  const lines = decided.map(row => [row.id, row.label, row.etag ?? "", by.value.trim(), row.at]);
  const quoted = [["image_id", "label", "source_etag", "by", "at"], ...lines].map(line =>
    line.map(field => `"${field.replaceAll('"', '""')}"`).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([quoted.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" }));
  link.download = `overrides-${new Date().toISOString().replace(/[-:]|\.\d+/g, "")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  saved.textContent = `${decided.length} ${decided.length === 1 ? "row" : "rows"} saved as ${link.download}`;
});

by.value = kept(BY) ?? "";
sheet.rows.forEach((row, index) => {
  const choice = kept(keyOf(row));
  if (typeof choice?.label === "string" && typeof choice.at === "string") choices[index] = choice;
  if (choices[index]) show(index);
});
