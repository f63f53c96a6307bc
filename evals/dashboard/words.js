// Numbers and names as people read them.

const UNITS = [
  [1e21, "Z"],
  [1e18, "E"],
  [1e15, "P"],
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];
const STATES = ["done", "stopped", "failed", "unreadable", "trained", "running", "waiting"];
const STATE_WORDS = { trained: "trained, not scored yet", stopped: "stopped early", unreadable: "cannot be read" };
const SPELLING = { auroc: "AUROC", iou: "IoU", bleu: "BLEU", rouge: "ROUGE", f1: "F1", dice: "Dice" };
const NONE = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const count = (value) => (isNumber(value) ? Math.round(value).toLocaleString("en-US") : NONE);
const counted = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
const score = (value) => (isNumber(value) ? value.toFixed(3) : NONE);
const percent = (share) => (isNumber(share) ? `${Number((100 * share).toPrecision(3))} %` : NONE);
const stateWords = (state) => STATE_WORDS[state] || state;
const methodName = (method) =>
  method === null ? NONE : method === "full" ? "full (all pairs)" : method.replaceAll("_", " ");

function short(value) {
  if (!isNumber(value)) return NONE;
  for (const [size, letter] of UNITS) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(3))} ${letter}`;
  }
  return `${Number(value.toPrecision(3))} `;
}

const flops = (value) => (isNumber(value) ? `${short(value)}FLOP` : NONE);
const pairs = (value) => (isNumber(value) && value >= 1e4 ? short(value).replace(" ", "\u202f").trim() : count(value));

function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

function hours(seconds) {
  const value = seconds / 3600;
  return value >= 100 ? count(value) : value.toFixed(1);
}

function moment(seconds) {
  if (!isNumber(seconds)) return NONE;
  return new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

const span = (one) => (one && isNumber(one.low) && isNumber(one.high) ? `${score(one.low)} to ${score(one.high)}` : "");

function metricName(key) {
  if (key === "validation_loss") return "validation loss";
  const [benchmark, ...rest] = key.split(".");
  const words = rest
    .join(".")
    .replaceAll("_", " ")
    .replace(/[a-z]+\d*/g, (word) => SPELLING[word] || word);
  const plainer = words.replace("recall at ", "recall@").replace(/ rare$/, " of rare findings");
  return `${plainer}, ${benchmark.replace("zero_shot", "zero-shot").replaceAll("_", " ")}`;
}

function budgetWords(budget, unit) {
  if (!isNumber(budget)) return NONE;
  if (unit === "passes") return `${budget} ${budget === 1 ? "pass" : "passes"}`;
  return unit === "flops" ? flops(budget) : `${pairs(budget)} pairs`;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const toItsEnd = (trial) => trial.state === "done";
const compute = (trial) => trial.training_flops + trial.curation_flops;

// plotly reads a little HTML in text, and names are other people's.
function plain(text, most = 60) {
  const line = String(text).split(/\s+/).join(" ");
  const cut = line.length <= most ? line : `${line.slice(0, most - 1)}…`;
  return cut.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function mean(values) {
  const known = values.filter(isNumber);
  return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}

function groups(values, keyOf) {
  const found = new Map();
  for (const value of values) {
    const key = keyOf(value);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(value);
  }
  return found;
}
