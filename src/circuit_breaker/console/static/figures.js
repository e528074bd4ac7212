// What a circuit has done in the last minute. Samples come from the server: [at, epoch, successes, failures, slow,
// rejected], with totals that begin at 0 in each epoch. Several workers may answer in turn, each with what it has read.

export const MINUTE_S = 60;
export const COLUMNS = 30;
const SET_BACK_S = 10; // the store's clock, by more than workers' readings can be apart
const [AT, EPOCH, SUCCESSES, FAILURES, SLOW, REJECTED] = [0, 1, 2, 3, 4, 5];

export class Past {
  samples = [];

  add(samples) {
    for (const sample of samples) {
      const newest = this.samples.at(-1);
      if (newest && sample[AT] < newest[AT] - MINUTE_S - SET_BACK_S) this.samples = [];
      if (newest && sample[AT] <= newest[AT]) this.#insert(sample);
      else this.samples.push(sample);
    }
    const begin = this.samples.length ? this.samples.at(-1)[AT] - MINUTE_S : 0;
    while (this.samples.length > 1 && this.samples[1][AT] < begin) this.samples.shift();
  }

  #insert(sample) {
    const index = this.samples.findIndex((each) => each[AT] >= sample[AT]);
    if (index < 0) this.samples.push(sample);
    else if (this.samples[index][AT] !== sample[AT]) this.samples.splice(index, 0, sample);
  }

  // The last minute as columns, the newest last; what a long gap counted is spread over it.
  columns() {
    const columns = Array.from({ length: COLUMNS }, () => ({ successes: 0, failures: 0, slow: 0, rejected: 0 }));
    if (!this.samples.length) return columns;
    const width = MINUTE_S / COLUMNS;
    const begin = this.samples.at(-1)[AT] - MINUTE_S;
    for (let i = 1; i < this.samples.length; i++) {
      const [before, sample] = [this.samples[i - 1], this.samples[i]];
      const counted = since(before, sample);
      const lasts = sample[AT] - before[AT];
      for (let column = Math.floor(Math.max(0, before[AT] - begin) / width); column < COLUMNS; column++) {
        const starts = begin + column * width;
        if (starts >= sample[AT]) break;
        const share = Math.max(0, Math.min(sample[AT], starts + width) - Math.max(before[AT], starts)) / lasts;
        for (const kind in counted) columns[column][kind] += share * counted[kind];
      }
    }
    return columns;
  }
}

function since(before, sample) {
  const grown = (field) => (sample[EPOCH] === before[EPOCH] ? Math.max(0, sample[field] - before[field]) : sample[field]);
  return { successes: grown(SUCCESSES), failures: grown(FAILURES), slow: grown(SLOW), rejected: grown(REJECTED) };
}

export function total(columns) {
  const sum = (kind) => Math.round(columns.reduce((all, column) => all + column[kind], 0));
  const [successes, failures] = [sum("successes"), sum("failures")];
  return { calls: successes + failures, failures, slow: sum("slow"), rejected: sum("rejected") };
}

// Three paths: what succeeded at the bottom, what failed on it, what was rejected on top.
export function paths(columns, height) {
  const most = Math.max(...columns.map((column) => column.successes + column.failures + column.rejected));
  const drawn = { succeeded: "", failed: "", rejected: "" };
  if (!(most > 0)) return drawn;
  columns.forEach((column, index) => {
    let y = height;
    const bar = (kind, number) => {
      if (number <= 0) return;
      const size = Math.max(1.5, (number / most) * height); // one failure among thousands shows, too
      drawn[kind] += `M${index * 4} ${(y - size).toFixed(2)}h3v${size.toFixed(2)}h-3z`;
      y -= size;
    };
    bar("succeeded", column.successes);
    bar("failed", column.failures);
    bar("rejected", column.rejected);
  });
  return drawn;
}

export function number(value) {
  return value ? value.toLocaleString("en") : "";
}

// A share in percent; one that is not 0 does not look like it.
export function share(part, whole) {
  if (!whole) return "";
  return part > 0 && part < whole / 100 ? "<1%" : `${Math.round((100 * part) / whole)}%`;
}

// A time in at most two units.
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const [large, size, small, part] = whole < 86400 ? ["h", 3600, "min", 60] : ["d", 86400, "h", 3600];
  const rest = Math.floor((whole % size) / part);
  return `${Math.floor(whole / size)} ${large}` + (rest ? ` ${rest} ${small}` : "");
}
