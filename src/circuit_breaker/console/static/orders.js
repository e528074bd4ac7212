// Orders: what they will mean is said before they are given, and the circuit is named.

import { element } from "./rows.js";

const KEPT = "circuit-breaker-token";

export const ORDERS = {
  force_open: {
    label: "Force open",
    go: (name) => `Force ${name} open`,
    mode: "forced_open",
    means: (all) => `${all} will reject every call until another order. Nothing reaches the dependency, and nobody probes whether it works again.`,
  },
  force_closed: {
    label: "Force closed",
    go: (name) => `Force ${name} closed`,
    mode: "forced_closed",
    means: (all) => `${all} will admit every call until another order, however many fail. Callers wait for a dependency that may be down, and it gets the full load.`,
  },
  auto: {
    label: "Automatic",
    go: (name) => `Let ${name} decide for itself`,
    mode: "auto",
    means: (all) => `The forced mode ends. The circuit begins closed: ${all} will admit calls, and it opens by itself if they fail.`,
  },
  reset: {
    label: "Reset",
    go: (name) => `Reset ${name}`,
    mode: null,
    means: (all) => `The circuit closes now, in automatic mode, and starts counting anew: ${all} will admit calls. If they fail, it opens again.`,
  },
};

// The token stands behind the # of the address, which is sent to nobody. It is kept for this tab, and taken out of sight.
export function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEPT);
}

export function forgetToken() {
  sessionStorage.removeItem(KEPT);
}

function everyone(processes) {
  return processes > 1 ? `all ${processes} processes` : "every process";
}

// The four buttons for a row; those that would change nothing are disabled.
export function buttons(row, onOrder) {
  return Object.entries(ORDERS).map(([order, { label, mode }]) => {
    const button = element("button", { type: "button", className: "order", "data-order": order }, label);
    button.disabled = row.data.mode === mode;
    button.addEventListener("click", () => ask(row, order, onOrder));
    return button;
  });
}

function ask(row, order, onOrder) {
  const dialog = document.getElementById("confirm");
  const [go, cancel, refusal] = ["go", "cancel", "refusal"].map((id) => document.getElementById(id));
  const { name, processes, key } = row.data;
  const text = ORDERS[order].means(everyone(processes));
  document.getElementById("question").textContent = `${ORDERS[order].go(name)}?`;
  document.getElementById("consequence").textContent = text[0].toUpperCase() + text.slice(1);
  go.textContent = ORDERS[order].go(name);
  go.disabled = false;
  refusal.hidden = true;
  cancel.onclick = () => dialog.close();
  go.onclick = async () => {
    go.disabled = true;
    const refused = await send(key, order);
    if (!dialog.open) return;
    if (refused === null) {
      dialog.close();
      onOrder(`${name}: ${ORDERS[order].label.toLowerCase()} was ordered.`);
    } else {
      refusal.textContent = `Nothing was changed: ${refused}.`;
      refusal.hidden = false;
      go.disabled = false;
    }
  };
  dialog.showModal();
}

// Gives an order; returns why it was refused, or null.
async function send(key, order) {
  try {
    const response = await fetch("orders", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Circuit-Breaker-Token": token() ?? "" },
      body: JSON.stringify({ key, order }),
      signal: AbortSignal.timeout(10_000),
    });
    if (response.ok) return null;
    const said = await response.json().catch(() => ({}));
    return said.error ?? `the answer was ${response.status}`;
  } catch (error) {
    return `the console does not answer (${error.message})`;
  }
}
