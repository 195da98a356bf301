// The rows chosen for comparison, pieces of pages that come later, and the note that there is something new.
// Pages work without it, but for choosing rows and for nearest rows. It runs after keys.js, once the page is parsed.
"use strict";

const MOST = 4;
const CHOSEN = "chosen rows";

// --- rows chosen for comparison, over all pages of this tab ---

const chosen = () => JSON.parse(sessionStorage.getItem(CHOSEN) || "[]");

function choose(rows) {
  sessionStorage.setItem(CHOSEN, JSON.stringify(rows));
  showChosen();
}

function showChosen() {
  const rows = chosen();
  for (const box of document.querySelectorAll(".choose")) {
    box.checked = rows.some((row) => row.id === box.value);
    box.disabled = !box.checked && rows.length >= MOST;
  }
  element("tray").hidden = rows.length === 0 || location.pathname === "/compare";
  element("tray").querySelector("ul").replaceChildren(...rows.map(pictureOf));
  const enough = rows.length >= 2;
  const link = element("compare");
  link.href = "/compare?" + rows.map((row) => "row=" + row.id).join("&");
  link.setAttribute("aria-disabled", String(!enough));
  link.textContent = enough ? `Compare ${rows.length}` : "Choose one more";
}

function pictureOf(row) {
  const item = document.createElement("li");
  const made = document.createElement(row.picture ? "img" : "span");
  if (row.picture) {
    made.src = row.picture;
    made.alt = row.id.slice(0, 8);
    made.className = "pixels";
  } else {
    made.textContent = row.id.slice(0, 4);
    made.className = "nothing";
  }
  item.append(made);
  return item;
}

document.addEventListener("change", ({ target }) => {
  if (!target.classList.contains("choose")) return;
  const others = chosen().filter((row) => row.id !== target.value);
  choose(target.checked ? [...others, { id: target.value, picture: target.dataset.picture }] : others);
});
element("clear").addEventListener("click", () => choose([]));
window.addEventListener("pageshow", showChosen); // also when the page comes back from the browser's memory
showChosen();

// --- pieces that are computed in the background ---

async function load(address) {
  const answer = await fetch(address);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

async function showPiece(button) {
  for (const other of document.querySelectorAll("[data-piece]")) other.setAttribute("aria-pressed", other === button);
  const piece = element("piece");
  for (;;) {
    const found = await load(button.dataset.piece);
    if (button.getAttribute("aria-pressed") !== "true") return; // another was chosen meanwhile
    piece.replaceChildren(...found.body.childNodes);
    if (!piece.querySelector("[data-again]")) return;
    await new Promise((done) => setTimeout(done, 700));
  }
}

async function waitForPage() {
  while (document.querySelector("[data-reload]")) {
    await new Promise((done) => setTimeout(done, 900));
    const found = await load(location.href);
    element("main").replaceChildren(...found.getElementById("main").childNodes);
  }
  showChosen();
}

for (const button of document.querySelectorAll("[data-piece]")) {
  button.addEventListener("click", () => showPiece(button));
}
if (document.querySelector("[data-reload]")) waitForPage();

// --- what an extraction adds meanwhile ---

async function lookForNew() {
  const state = await fetch("/status").then((answer) => answer.json()).catch(() => null);
  const trouble = state ? state.trouble : "The server has ended. Start `sur view` again, and load this page.";
  element("trouble").hidden = !trouble;
  element("trouble").textContent = trouble;
  if (!state) return;
  const computed = state.done < state.to_do ? ` · ${state.done} of ${state.to_do} partitions` : "";
  const reading = state.partitions_read < state.partitions_total ? " so far" : "";
  element("standing").textContent = `${state.rows.toLocaleString("en")} rows${reading}${computed}`;
  element("fresh").hidden = String(state.number) === document.body.dataset.number;
}
element("fresh").addEventListener("click", () => location.reload());
setInterval(lookForNew, 4000);
lookForNew();
