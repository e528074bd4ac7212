// The rows of the table. All text from the store becomes text of the page, never markup.

import { COLUMNS, Past, duration, number, paths, share, total } from "./figures.js";

const HEIGHT = 28;
const MUCH = 0.1; // the share of failures that is shown as if it mattered; thresholds are not known here
const SVG = "http://www.w3.org/2000/svg";

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function drawing(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function clock(seconds_ago) {
  const then = new Date(Date.now() - 1000 * seconds_ago);
  const date = then.toDateString() === new Date().toDateString() ? "" : `${then.toLocaleDateString()} `;
  return date + then.toLocaleTimeString();
}

// One circuit: its row, and below it the details, if they are open.
export class Row {
  past = new Past();
  askedAt = 0; // when its processes were asked for last
  order = null;

  constructor(key, onToggle) {
    this.key = key;
    this.node = element("tbody", { role: "rowgroup" });
    this.button = element("button", { type: "button", className: "name", "aria-expanded": "false" });
    this.button.addEventListener("click", () => {
      this.toggle();
      onToggle();
    });
    this.badge = element("span", { className: "badge" });
    this.why = element("span", { className: "why" });
    this.why.id = `why-${key}`;
    this.button.setAttribute("aria-describedby", this.why.id);
    this.svg = drawing("svg", { viewBox: `0 0 ${COLUMNS * 4} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "bars" });
    this.bars = {};
    for (const kind of ["succeeded", "failed", "rejected"]) {
      this.bars[kind] = this.svg.appendChild(drawing("path", { class: kind }));
    }
    this.calls = element("span", { className: "calls" });
    const cell = (label, ...children) => element("td", { role: "cell", "data-label": label }, ...children);
    this.cells = {
      state: cell("State", this.badge),
      name: element("th", { role: "rowheader", scope: "row" }, this.button, this.why),
      probes: cell("Probes"),
      since: cell("Since"),
      minute: cell("Last minute", this.svg, this.calls),
      failed: cell("Failed"),
      slow: cell("Slow"),
      rejected: cell("Rejected"),
      processes: cell("Processes"),
    };
    for (const kind of ["probes", "since", "failed", "slow", "rejected"]) this.cells[kind].classList.add("number");
    for (const kind of ["failed", "rejected", "processes"]) this.cells[kind].classList.add(kind);
    this.cells.minute.classList.add("minute");
    this.cells.state.classList.add("state");
    this.row = element("tr", { role: "row" }, ...Object.values(this.cells));
    this.node.append(this.row);
  }

  get isOpen() {
    return this.details !== undefined;
  }

  toggle() {
    this.button.setAttribute("aria-expanded", String(!this.isOpen));
    if (this.isOpen) {
      this.details.node.remove();
      this.details = undefined;
    } else {
      this.details = new Details(this.key, this.row.children.length);
      this.button.setAttribute("aria-controls", this.details.node.id);
      this.node.append(this.details.node);
    }
  }

  // What the server says of this circuit, and when, on the clock of this page, that was so.
  update(data, readAt) {
    this.data = data;
    this.readAt = readAt;
    if (data.sample) this.past.add([data.sample]);
    if (data.order && !(this.order && this.order.at > readAt - 1000 * data.order.ago_s + 500)) {
      this.order = { ...data.order, at: readAt - 1000 * data.order.ago_s };
    }
    this.node.dataset.kind = data.kind;
    this.node.dataset.tone = data.tone;
    say(this.badge, data.word);
    say(this.button, data.name || "(no name)");
    say(this.why, data.kind === "closed" ? "" : [data.meaning, data.cause].filter(Boolean).join(" · "));
    this.why.hidden = data.kind === "closed";
    const columns = this.past.columns();
    const counted = total(columns);
    for (const [kind, path] of Object.entries(paths(columns, HEIGHT))) {
      if (this.bars[kind].getAttribute("d") !== path) this.bars[kind].setAttribute("d", path);
    }
    say(this.calls, counted.calls ? `${number(counted.calls)} call${counted.calls === 1 ? "" : "s"}` : counted.rejected ? "" : "no calls");
    say(this.cells.failed, share(counted.failures, counted.calls));
    say(this.cells.slow, share(counted.slow, counted.calls));
    say(this.cells.rejected, number(counted.rejected));
    this.cells.failed.classList.toggle("much", counted.failures > MUCH * counted.calls);
    this.cells.rejected.classList.toggle("much", counted.rejected > 0);
    say(this.cells.processes, data.members || "none now");
    this.tick();
  }

  // What changes by the second, though nothing new has been read.
  tick() {
    const { data } = this;
    const passed = (performance.now() - this.readAt) / 1000;
    let probes = "";
    if (data.retry_s !== null) probes = `in ${Math.max(0, Math.ceil(data.retry_s - passed))} s`;
    else if (data.kind === "half_open") probes = `${data.probes} out`;
    say(this.cells.probes, probes);
    say(this.cells.since, data.since_s === null ? "" : duration(data.since_s + passed));
    if (this.isOpen) this.details.update(data, this.order, passed);
  }
}

class Details {
  constructor(key, width) {
    this.facts = element("dl");
    this.orders = element("div", { className: "orders" });
    this.list = element("tbody");
    this.members = element(
      "table",
      { className: "members" },
      element("caption", {}, "Processes"),
      element(
        "thead",
        {},
        element("tr", {}, ...["Host", "Process", "Its own state", "Joined", "Last seen"].map((head) => element("th", { scope: "col" }, head))),
      ),
      this.list,
    );
    this.members.hidden = true; // until they are known
    this.body = element("div", { className: "details" }, this.facts, this.orders, this.members);
    this.node = element("tr", { role: "row" }, element("td", { role: "cell", colSpan: width }, this.body));
    this.node.id = `details-${key}`;
  }

  update(data, order, passed) {
    const facts = [
      ["For callers", data.meaning],
      ["Why", data.reason || "nobody has said"],
      ["By", data.by],
      ["Since", data.since_s === null ? "it is known" : clock(data.since_s + passed)],
      ["Last order", order && `${order.what}, by ${order.by || "somebody"}, ${clock((performance.now() - order.at) / 1000)}`],
    ].filter(([, text]) => text);
    const text = JSON.stringify(facts);
    if (this.facts.dataset.said !== text) {
      this.facts.dataset.said = text;
      this.facts.replaceChildren(...facts.flatMap(([name, fact]) => [element("dt", {}, name), element("dd", {}, fact)]));
    }
  }

  show(members) {
    this.members.hidden = members.length === 0;
    const cells = members.map((one) => [one.host, String(one.pid), one.state, since(one.since_s), since(one.seen_s)]);
    const text = JSON.stringify(cells);
    if (this.list.dataset.said === text) return;
    this.list.dataset.said = text;
    this.list.replaceChildren(
      ...cells.map((row, index) =>
        element("tr", { className: members[index].by_itself ? "by-itself" : "" }, ...row.map((cell) => element("td", {}, cell))),
      ),
    );
  }
}

function since(seconds) {
  if (seconds === null) return "";
  return seconds < 1.5 ? "now" : `${duration(seconds)} ago`;
}
