// Asks once a second, and shows the answer.

import { buttons, forgetToken, token } from "./orders.js";
import { Row } from "./rows.js";

const POLL_MS = 1000;
const POLL_HIDDEN_MS = 5000;
const HISTORY_AFTER_MS = 3000; // without news for so long, samples are missing
const PATIENCE_MS = 8000;
const OLD_MS = 5000;
const MOST_WANTED = 100; // the server gives the processes of at most 100 circuits at once

const at = (id) => document.getElementById(id);
const table = at("circuits");
const filter = at("filter");
const rows = new Map();

let heardAt = -Infinity; // when the server answered last
let readAt = -Infinity; // when the store did
let reading = null;
let failure = null;
let timer = 0;
let asking = false;

async function poll() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  const query = new URLSearchParams();
  if (performance.now() - heardAt > HISTORY_AFTER_MS) query.set("history", "1");
  const open = [...rows.values()].filter((row) => row.isOpen);
  open.sort((one, other) => one.askedAt - other.askedAt); // if there are too many, each has its turn
  for (const row of open.slice(0, MOST_WANTED)) {
    row.askedAt = performance.now();
    query.append("key", row.key);
  }
  try {
    const response = await fetch(`circuits.json?${query}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!response.ok) throw new Error(`the answer was ${response.status}`);
    show(await response.json());
    failure = null;
  } catch (error) {
    failure = error instanceof SyntaxError ? "it answered something else" : error.message;
  } finally {
    asking = false;
    tick();
    timer = setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
  }
}

function show(answer) {
  const now = performance.now();
  heardAt = now;
  reading = answer.reading;
  readAt = answer.age_s === null ? -Infinity : now - 1000 * answer.age_s;
  for (const data of reading.rows) {
    let row = rows.get(data.key);
    if (row === undefined) rows.set(data.key, (row = new Row(data.key, poll)));
    row.past.add(answer.history?.[data.key] ?? []);
    row.update(data, readAt);
    if (data.key in answer.members) row.details?.show(answer.members[data.key]);
  }
  const keys = new Set(reading.rows.map((data) => data.key));
  for (const [key, row] of rows) {
    if (keys.has(key)) continue;
    row.node.remove();
    rows.delete(key);
  }
  sort();
  summarize();
  offerOrders();
  choose();
}

// Brings the rows into the order of the server, moves as few as it can, and keeps the focus.
function sort() {
  const focused = document.activeElement;
  let place = table.tHead.nextElementSibling;
  for (const { key } of reading.rows) {
    const { node } = rows.get(key);
    if (node === place) place = place.nextElementSibling;
    else table.insertBefore(node, place);
  }
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function summarize() {
  const { main, rest, tone } = reading.headline;
  set(at("main"), main);
  set(at("rest"), rest);
  at("headline").dataset.tone = tone;
  document.title = `${main} – circuits`;
  table.hidden = reading.rows.length === 0;
  set(at("store"), reading.store);
  const told = token() ? "You may give orders." : "To give orders, open the address that ends in the token.";
  set(at("control"), reading.control ? told : "");
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function offerOrders() {
  const may = reading.control && token() !== null;
  if (!may && !reading.control) forgetToken();
  for (const row of rows.values()) {
    if (!row.isOpen) continue;
    const said = may ? row.data.mode : "";
    if (row.details.orders.dataset.mode === said) continue;
    const order = document.activeElement?.dataset.order;
    row.details.orders.dataset.mode = said;
    row.details.orders.replaceChildren(...(may ? buttons(row, ordered) : []));
    if (order) row.details.orders.querySelector(`[data-order=${order}]`)?.focus();
  }
}

function ordered(text) {
  set(at("said"), text);
  at("said").hidden = false;
  poll();
}

function choose() {
  const wanted = filter.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows.values()) {
    const fits = row.data.name.toLowerCase().includes(wanted);
    if (row.node.hidden === fits) row.node.hidden = !fits;
    shown += fits;
  }
  set(at("shown"), wanted ? `${shown} of ${rows.size}` : "");
}

function tick() {
  for (const row of rows.values()) row.tick();
  let problem = "";
  const old = performance.now() - readAt;
  const then = Number.isFinite(old) ? ` What is shown was so at ${new Date(Date.now() - old).toLocaleTimeString()}.` : "";
  if (failure !== null) problem = `The console does not answer: ${failure}.${then} If you had logged in, load the page again.`;
  else if (reading?.error) problem = `The store cannot be read: ${reading.error}.${then}`;
  else if (old > OLD_MS && reading) problem = `The store has not been read for a while.${then}`;
  set(at("problem"), problem);
  at("problem").hidden = !problem;
  document.body.classList.toggle("old", Boolean(problem));
}

filter.addEventListener("input", choose);
at("search").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", poll);
document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || at("confirm").open;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && event.target === filter) {
    filter.value = "";
    choose();
  }
});
window.addEventListener("hashchange", () => {
  token();
  poll();
});
token();
setInterval(tick, 500);
poll();
