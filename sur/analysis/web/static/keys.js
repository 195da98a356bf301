// Keys. It runs before the body is parsed, so that no key is lost to a page that is shown but not yet read whole:
// what is pressed earlier is done when everything else, view.js too, is there.
"use strict";

const element = (id) => document.getElementById(id);
let parsed = false;
const ready = new Promise((done) => document.addEventListener("DOMContentLoaded", done)).then(() => (parsed = true));

function step(by) {
  const rows = [...document.querySelectorAll("tr[data-row]")];
  const at = rows.indexOf(document.activeElement.closest("tr[data-row]"));
  const next = rows[Math.min(Math.max(at + by, 0), rows.length - 1)];
  if (next) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
}

function follow(relation) {
  const link = document.querySelector(`link[rel="${relation}"]`);
  if (link) location.assign(link.href);
}

function chooseHere() {
  const row = document.activeElement.closest("tr[data-row]");
  const boxes = (row || document).querySelectorAll(".choose");
  if (boxes.length === 1) boxes[0].click(); // the row in focus, or the row that the page is about
}

const keys = {
  "/": () => document.querySelector(".find input").select(),
  "?": () => element("keys").showModal(),
  ArrowLeft: () => follow("prev"),
  ArrowRight: () => follow("next"),
  j: () => step(1),
  k: () => step(-1),
  x: () => chooseHere(),
  c: () => element("compare").getAttribute("aria-disabled") === "false" && location.assign(element("compare").href),
  Escape: () => choose([]),
  Enter: () => location.assign(document.activeElement.dataset.row),
};

const isField = (at) => at.matches("input:not([type=checkbox]), select, textarea");

// Does what the key stands for where the focus is now; returns whether it stood for anything there.
function act(key) {
  const at = document.activeElement;
  const help = element("keys");
  if (help.open || isField(at)) {
    if (key === "Escape") help.open ? help.close() : at.blur();
    return false;
  }
  if (key === "Enter" && !at.dataset.row) return false;
  keys[key]();
  return true;
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || !keys[key]) return;
  if (parsed) {
    if (act(key)) event.preventDefault();
  } else if (!isField(target)) {
    event.preventDefault();
    ready.then(() => act(key));
  }
});
ready.then(() => element("help").addEventListener("click", keys["?"]));
