// The scores of the sweep: trials beside each other on every benchmark.

const board = {
  id: "scores",
  title: "Scores",
  build(root) {
    const parts = { body: make("div", {}) };
    root.append(
      card(
        "Scores on validation data",
        "The sweep's choices follow from these; test data stays unseen. Below each number its 95 % interval over " +
          "patients; bold is the best of a column.",
        parts.body,
      ),
    );
    return parts;
  },
  update(parts, view) {
    const scored = view.trials.filter((trial) => Object.keys(trial.metrics).length);
    const names = [...new Set(scored.flatMap((trial) => Object.keys(trial.metrics)))].sort();
    // The metric that the sweep concludes by comes first.
    names.sort((a, b) => (b === view.plan.metric) - (a === view.plan.metric));
    if (!scored.length) {
      parts.body.replaceChildren(nothing("No trial has been scored yet."));
      return;
    }
    const best = new Map(names.map((name) => [name, bestValue(scored, name)]));
    const columns = [
      trialColumns(view.plan)[0],
      ...names.map((name) => ({
        key: name,
        title: metricName(name),
        number: true,
        value: (trial) => trial.metrics[name]?.value,
        cell: (trial) => valueCell(trial.metrics[name]),
      })),
    ];
    const fallback = names.length ? `${lowerIsBetter(scored, names[0]) ? "" : "-"}${names[0]}` : "";
    parts.body.replaceChildren(
      table(columns, scored, {
        name: "Scores",
        sort: sortOf(state.scores || fallback),
        picked: state.trial,
        best: (column, trial) =>
          best.has(column.key) && isNumber(column.value(trial)) && column.value(trial) === best.get(column.key),
        onsort: (column) => view.change({ scores: nextSort(state.scores || fallback, column) }),
        onpick: (trial) => view.change({ trial: trial.name }),
      }),
    );
  },
};

const lowerIsBetter = (trials, name) => trials.some((trial) => trial.metrics[name]?.higher_is_better === false);

function bestValue(trials, name) {
  const values = trials.map((trial) => trial.metrics[name]?.value).filter(isNumber);
  return lowerIsBetter(trials, name) ? Math.min(...values) : Math.max(...values);
}
