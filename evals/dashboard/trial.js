// All that is known of one trial.

const trialPanel = {
  id: "trial",
  title: "One trial",
  build(root) {
    const parts = { controls: make("div", { class: "controls" }), body: make("div", {}) };
    root.append(parts.controls, parts.body);
    return parts;
  },
  update(parts, view) {
    parts.controls.replaceChildren(view.picker());
    const trial = view.selected;
    if (!trial) {
      parts.body.replaceChildren(make("section", {}, nothing("Select a trial, here or in any table or plot.")));
      return;
    }
    const later = make("div", { class: "columns" }, make("section", {}, nothing("Reading its subset …")));
    parts.body.replaceChildren(
      make("div", { class: "columns" }, stateCard(trial, view.plan), ledgerCard(trial, view.plan)),
      later,
      make("div", { class: "columns" }, looksCard(trial), scoresCard(trial)),
    );
    view
      .details(trial)
      .then((details) => later.replaceChildren(...subsetCards(trial, details.subset)))
      .catch((error) =>
        later.replaceChildren(make("section", {}, nothing(`Its subset could not be read: ${error.message}`))),
      );
  },
};

function stateCard(trial, plan) {
  const settings = Object.entries(trial.settings).map(([key, value]) => [key, String(value)]);
  const stands =
    trial.methods.length > 1
      ? `${methodName(trial.method)}; stands for ${trial.methods.map(methodName).join(", ")}`
      : methodName(trial.method);
  return make(
    "section",
    {},
    make("h2", {}, trial.name),
    trial.reason ? make("p", { class: trial.state === "failed" ? "problem" : "soft" }, trial.reason) : null,
    facts([
      ["State", stateMark(trial.state)],
      ["Method", stands],
      ["Fraction kept", percent(trial.keep)],
      ["Budget", budgetWords(trial.budget, plan.budget_unit)],
      ["Seed", trial.seed === null ? NONE : String(trial.seed)],
      ...settings,
      ["Recipe", plan.recipe],
    ]),
  );
}

function ledgerCard(trial, plan) {
  return card(
    "Spent",
    null,
    facts([
      ["Training", flops(trial.training_flops)],
      ["Choosing pairs", trial.curation_flops ? `${flops(trial.curation_flops)}, as if for it alone` : "nothing"],
      ["Together", flops(compute(trial))],
      ["Pairs kept", isNumber(trial.pairs_kept) ? `${count(trial.pairs_kept)} of ${count(plan.train_pairs)}` : NONE],
      ["Pairs seen", count(trial.pairs_seen)],
      ["Epochs", epochsText(trial)],
      ["Started", moment(trial.started)],
      ["Ended", moment(trial.finished)],
      ["By the clock", duration(elapsed(trial))],
      ["Worker-hours", hours(trial.worker_seconds)],
      ["Tries", String(trial.tries || NONE)],
    ]),
  );
}

const epochsText = (trial) => (progressOf(trial) === null ? NONE : `${trial.epochs_done} of ${trial.epochs}`);

function looksCard(trial) {
  if (!trial.looks.length) return card("Looks", null, nothing("None yet: the first comes with its first checkpoint."));
  const columns = [
    { key: "epoch", title: "Epoch", number: true, cell: (look) => String(look.epoch) },
    { key: "pairs", title: "Pairs seen", number: true, cell: (look) => count(look.pairs) },
    { key: "flops", title: "Compute", number: true, cell: (look) => flops(look.flops) },
    { key: "loss", title: "Loss", number: true, cell: (look) => score(look.loss) },
    { key: "validation", title: "Validation", number: true, cell: (look) => score(look.validation) },
    { key: "seconds", title: "After", number: true, cell: (look) => duration(look.seconds) },
    { key: "workers", title: "Workers", number: true, cell: (look) => String(look.workers) },
  ];
  return card("Looks", null, table(columns, trial.looks, { name: "Looks" }));
}

function scoresCard(trial) {
  const rows = Object.entries(trial.metrics).map(([key, one]) => ({ key, one }));
  if (!rows.length) return card("Scores", null, nothing("Not scored yet."));
  const columns = [
    { key: "metric", title: "On validation data", cell: (row) => metricName(row.key) },
    { key: "value", title: "Value (95 % interval)", number: true, cell: (row) => valueCell(row.one) },
  ];
  return card("Scores", null, table(columns, rows, { name: "Scores" }));
}

function subsetCards(trial, subset) {
  if (!trial.subset)
    return [card("Its pairs", null, nothing(trial.method === "full" ? "It trains on every pair." : "Not chosen yet."))];
  if (!subset) return [card("Its pairs", null, nothing(`${trial.subset} is not written to its end yet.`))];
  return [datasetsCard(subset), prototypesCard(subset)];
}

function datasetsCard(subset) {
  const rows = keptRows(subset.datasets);
  return card(
    "Kept by dataset",
    `${count(subset.counts.kept)} of ${counted(subset.counts.pairs, "pair")}. Its audit: ${subset.path}/audit.html`,
    rows.length ? bars(rows) : nothing("The audit has no datasets."),
  );
}

// Of the kept pairs, how many each prototype stands for: even use is a good sign, an empty one is not.
function prototypesCard(subset) {
  const clusters = Object.entries(subset.clusters).filter(([name]) => name !== "unknown");
  if (!clusters.length) return card("Use of prototypes", null, nothing("This method has no prototypes or clusters."));
  const kept = clusters.reduce((sum, [, one]) => sum + one.kept, 0);
  const most = Math.max(...clusters.map(([, one]) => one.kept), 1);
  const rows = clusters
    .sort((a, b) => Number(a[0]) - Number(b[0]))
    .map(([name, one]) => [name, one.kept / most, `${count(one.kept)} (${percent(kept ? one.kept / kept : null)})`]);
  return card(
    "Use of prototypes",
    "Kept pairs of each at the end of the choice. How they moved before is not recorded.",
    bars(rows),
  );
}

function keptRows(found) {
  const largest = Math.max(...Object.values(found).map((one) => one.fraction || 0), 1e-9);
  return Object.entries(found).map(([name, one]) => [
    name,
    (one.fraction || 0) / largest,
    `${percent(one.fraction)} of ${count(one.pairs)}`,
  ]);
}
