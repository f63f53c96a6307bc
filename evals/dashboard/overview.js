// The trials: what is spent, what is best, and a line of each.

const overview = {
  id: "trials",
  title: "Trials",
  build(root) {
    const parts = { tiles: make("div", { class: "tiles" }), lines: make("section", {}) };
    root.append(parts.tiles, parts.lines);
    return parts;
  },
  update(parts, view) {
    parts.tiles.replaceChildren(stateTile(view), spentTile(view), timeTile(view), bestTile(view));
    const columns = trialColumns(view.plan);
    const options = {
      name: "Trials",
      sort: sortOf(state.sort),
      picked: state.trial,
      onsort: (column) => view.change({ sort: nextSort(state.sort, column) }),
      onpick: (trial) => view.change({ trial: trial.name }),
    };
    parts.lines.replaceChildren(
      make("h2", {}, "Trials"),
      view.trials.length ? table(columns, view.trials, options) : nothing("No trial is left by these filters."),
    );
  },
};

function stateTile(view) {
  const byState = groups(view.trials, (trial) => trial.state);
  const present = STATES.filter((one) => byState.has(one));
  const bar = make(
    "div",
    { class: "states", "aria-hidden": "true" },
    present.map((one) =>
      make("i", { class: one, style: { flex: byState.get(one).length, background: "currentColor" } }),
    ),
  );
  const words = present.map((one) => `${byState.get(one).length} ${stateWords(one)}`).join(", ");
  const ended = view.trials.filter((trial) => ["done", "stopped", "failed"].includes(trial.state)).length;
  return tile("Trials ended", `${ended} of ${view.trials.length}`, words, bar);
}

function spentTile(view) {
  const training = view.trials.reduce((sum, trial) => sum + trial.training_flops, 0);
  const shared = view.plan.shared_curation_flops;
  return tile(
    "Compute spent",
    flops(training + shared),
    `${flops(training)} to train these trials, ${flops(shared)} to choose the pairs of all, shared work counted once`,
  );
}

function timeTile(view) {
  const seconds = view.trials.reduce((sum, trial) => sum + trial.worker_seconds, 0);
  const { started, finished } = view.plan;
  const until = finished
    ? `${duration(finished - started)} by the clock`
    : `running for ${duration(Math.max(0, view.snapshot.read - started))}`;
  return tile("Worker-hours", hours(seconds), until);
}

function bestTile(view) {
  const best = bestOf(view.trials);
  const title = `Best ${metricName(view.plan.metric)}`;
  if (!best) return tile(title, NONE, "no trial has been scored yet");
  const interval = span(best.metric);
  const name = make(
    "button",
    {
      type: "button",
      class: "name",
      "data-focus": "best",
      onclick: () => view.change({ trial: best.name, tab: "trial" }),
    },
    dot(methodColour(best.method)),
    best.name,
  );
  return tile(title, score(best.metric.value), interval ? `${interval} (95 % interval)` : "", name);
}

function tile(title, big, words, more) {
  return make(
    "div",
    { class: "tile" },
    make("div", { class: "soft" }, title),
    make("div", { class: "big" }, big),
    more || null,
    make("div", { class: "soft" }, words),
  );
}

function bestOf(trials) {
  const scored = trials.filter((trial) => trial.metric && isNumber(trial.metric.value));
  if (!scored.length) return null;
  return scored.reduce((best, trial) => (better(trial.metric, best.metric) ? trial : best));
}

const better = (one, other) => (one.higher_is_better ? one.value > other.value : one.value < other.value);

function trialColumns(plan) {
  return [
    {
      key: "name",
      title: "Trial",
      value: (trial) => trial.name,
      cell: (trial) =>
        make(
          "span",
          { class: "name" },
          make(
            "button",
            {
              type: "button",
              class: "name",
              "data-focus": `trial-${trial.name}`,
              onclick: (event) => {
                event.stopPropagation();
                main.change({ trial: trial.name, tab: "trial" });
              },
            },
            dot(methodColour(trial.method)),
            trial.name,
          ),
        ),
    },
    {
      key: "metric",
      title: metricName(plan.metric),
      number: true,
      value: (trial) => trial.metric?.value,
      cell: (trial) => valueCell(trial.metric),
    },
    {
      key: "state",
      title: "State",
      value: (trial) => STATES.indexOf(trial.state),
      cell: (trial) => stateMark(trial.state),
    },
    {
      key: "compute",
      title: "Compute",
      number: true,
      value: (trial) => compute(trial) || null,
      cell: (trial) => (compute(trial) ? flops(compute(trial)) : NONE),
    },
    { key: "epochs", title: "Epochs", number: true, value: progressOf, cell: epochsCell },
    {
      key: "pairs",
      title: "Pairs seen",
      number: true,
      value: (trial) => trial.pairs_seen || null,
      cell: (trial) => (trial.pairs_seen ? count(trial.pairs_seen) : NONE),
    },
    { key: "time", title: "Time", number: true, value: elapsed, cell: (trial) => duration(elapsed(trial)) },
    { key: "method", title: "Method", value: (trial) => trial.method, cell: (trial) => methodName(trial.method) },
    {
      key: "keep",
      title: "Fraction",
      number: true,
      value: (trial) => trial.keep,
      cell: (trial) => percent(trial.keep),
    },
    {
      key: "budget",
      title: "Budget",
      number: true,
      value: (trial) => trial.budget,
      cell: (trial) => budgetWords(trial.budget, plan.budget_unit),
    },
    {
      key: "seed",
      title: "Seed",
      number: true,
      value: (trial) => trial.seed,
      cell: (trial) => (trial.seed === null ? NONE : String(trial.seed)),
    },
  ];
}

const progressOf = (trial) => (isNumber(trial.epochs_done) && trial.epochs ? trial.epochs_done / trial.epochs : null);

function epochsCell(trial) {
  if (progressOf(trial) === null) return NONE;
  const done = Number.isInteger(trial.epochs_done) ? trial.epochs_done : trial.epochs_done.toFixed(1);
  const text = `${done} of ${trial.epochs}`;
  if (trial.state !== "running") return text;
  return [
    text,
    make(
      "span",
      { class: "progress", "aria-hidden": "true" },
      make("i", { style: { width: `${100 * Math.min(1, progressOf(trial))}%` } }),
    ),
  ];
}

// By the clock; of a trial that goes on, until the numbers were read.
function elapsed(trial) {
  if (!trial.started) return null;
  return Math.max(
    0,
    (trial.finished || (trial.state === "running" ? main.snapshot.read : lastLook(trial))) - trial.started,
  );
}

const lastLook = (trial) => trial.started + (trial.looks.length ? trial.looks[trial.looks.length - 1].seconds : 0);
