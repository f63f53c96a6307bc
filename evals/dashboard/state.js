// What is shown stands in the address, after the #: a reload and a shared link keep it.

const FILTERS = { method: "Method", keep: "Fraction", budget: "Budget", seed: "Seed", state: "State" };
const state = readState();

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = {
    tab: given.get("tab") || "trials",
    trial: given.get("trial"),
    sort: given.get("sort") || "",
    scores: given.get("scores") || "",
    x: given.get("x") === "flops" ? "flops" : "pairs",
    subset: given.get("subset"),
  };
  for (const name of Object.keys(FILTERS)) found[name] = given.getAll(name);
  return found;
}

function writeState() {
  const next = new URLSearchParams();
  for (const name of ["tab", "trial", "sort", "scores", "subset"]) if (state[name]) next.set(name, state[name]);
  if (state.x !== "pairs") next.set("x", state.x);
  for (const name of Object.keys(FILTERS)) state[name].forEach((value) => next.append(name, value));
  const address = new URL(location.href);
  address.searchParams.delete("token");
  address.hash = next.toString();
  history.replaceState(null, "", address);
}

// "-metric" is the metric, highest first.
const sortOf = (text) => (text ? { key: text.replace(/^-/, ""), down: text.startsWith("-") } : null);

function nextSort(text, column) {
  const sort = sortOf(text);
  const first = column.number ? "-" : "";
  if (!sort || sort.key !== column.key) return `${first}${column.key}`;
  return sort.down ? column.key : `-${column.key}`;
}

function matches(trial, without) {
  return Object.keys(FILTERS).every((name) => {
    if (name === without || !state[name].length) return true;
    const own = name === "method" ? [trial.method, ...trial.methods] : [trial[name]];
    return own.some((value) => state[name].includes(String(value)));
  });
}
