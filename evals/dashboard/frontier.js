// What a score costs: every trial's metric against its compute, the best for each price, and means by fraction.

const frontier = {
  id: "frontier",
  title: "Frontier",
  build(root) {
    const parts = {
      head: make("div", {}),
      plot: make("div", {}),
      none: make("div", {}),
      maps: make("div", { class: "multiples" }),
      mapLead: make("p", { class: "soft" }),
    };
    root.append(
      card("Score against compute", null, parts.head, parts.none, parts.plot),
      card("Mean by fraction and budget", null, parts.mapLead, parts.maps),
    );
    parts.heat = new Map();
    return parts;
  },
  update(parts, view) {
    const scored = view.trials.filter((trial) => trial.metric && isNumber(trial.metric.value) && compute(trial) > 0);
    const budgets = budgetsOf(view.all);
    const without = view.trials.length - scored.length;
    parts.head.replaceChildren(
      make(
        "p",
        { class: "soft" },
        "Compute: training and what choosing its pairs would cost that trial alone. The line joins trials that no " +
          "cheaper one beats. Hollow: stopped early." +
          (without ? ` ${counted(without, "trial")} ${without === 1 ? "has" : "have"} no score yet.` : ""),
      ),
      keys([...methodKeys(scored), ...budgetKeys(budgets, view.plan.budget_unit)]),
    );
    parts.none.replaceChildren(scored.length ? "" : nothing("No trial has been scored yet."));
    parts.plot.hidden = !scored.length;
    if (scored.length) drawFrontier(parts.plot, scored, budgets, view);
    drawHeatMaps(parts, scored.filter(toItsEnd), view);
  },
};

function drawFrontier(place, scored, budgets, view) {
  const line = paretoLine(scored);
  const traces = [
    {
      x: line.map(compute),
      y: line.map((trial) => trial.metric.value),
      mode: "lines",
      hoverinfo: "skip",
      line: { color: colour("soft"), width: 1.5, dash: "dot", shape: "hv" },
    },
  ];
  for (const [method, trials] of groups(scored, (trial) => trial.method)) {
    const hue = methodColour(method);
    traces.push({
      x: trials.map(compute),
      y: trials.map((trial) => trial.metric.value),
      mode: "markers",
      customdata: trials.map((trial) => trial.name),
      text: trials.map((trial) => trialHover(trial, view.plan)),
      hovertemplate: HOVER,
      marker: {
        color: hue,
        symbol: trials.map((trial) => symbolOf(trial, budgets)),
        size: trials.map((trial) => (trial.name === state.trial ? 16 : 10)),
        line: {
          color: trials.map((trial) => edgeOf(trial, hue)),
          width: 1.5,
        },
      },
      error_y: {
        type: "data",
        symmetric: false,
        thickness: 1,
        width: 0,
        color: faint(hue, 0.35),
        array: trials.map((trial) => (isNumber(trial.metric.high) ? trial.metric.high - trial.metric.value : 0)),
        arrayminus: trials.map((trial) => (isNumber(trial.metric.low) ? trial.metric.value - trial.metric.low : 0)),
      },
    });
  }
  const x = axis("compute, FLOP (log scale)", magnitudes(scored.map(compute), true));
  draw(
    place,
    traces,
    layout(440, x, axis(metricName(view.plan.metric))),
    "Score of each trial against its compute",
    (name) => view.change({ trial: name }),
  );
}

function symbolOf(trial, budgets) {
  const symbol = SYMBOLS[budgets.indexOf(trial.budget) % SYMBOLS.length];
  return trial.state === "stopped" ? `${symbol}-open` : symbol;
}

function edgeOf(trial, hue) {
  if (trial.state === "stopped") return hue;
  return trial.name === state.trial ? colour("ink") : colour("card");
}

// From cheap to dear, those that beat all before them.
function paretoLine(trials) {
  const line = [];
  for (const trial of [...trials].sort((a, b) => compute(a) - compute(b))) {
    if (!line.length || better(trial.metric, line[line.length - 1].metric)) line.push(trial);
  }
  return line;
}

function trialHover(trial, plan) {
  const lines = [
    `<b>${plain(trial.name)}</b>`,
    `${percent(trial.keep)} of the pairs, ${budgetWords(trial.budget, plan.budget_unit)}, seed ${trial.seed}`,
  ];
  if (trial.metric && isNumber(trial.metric.value)) {
    lines.push(
      `${metricName(plan.metric)} ${score(trial.metric.value)}${span(trial.metric) ? ` (${span(trial.metric)})` : ""}`,
    );
  }
  lines.push(`${flops(compute(trial))}, ${count(trial.pairs_seen)} pairs seen`);
  if (trial.state !== "done") lines.push(stateWords(trial.state));
  return lines.map((line, place) => (place ? plain(line, 90) : line)).join("<br>");
}

function drawHeatMaps(parts, scored, view) {
  const methods = filterOptions(scored, "method").filter(
    (method) => method !== "full" || scored.every((trial) => trial.method === "full"),
  );
  const keeps = [...new Set(scored.map((trial) => trial.keep))].sort((a, b) => a - b);
  const budgets = budgetsOf(scored);
  parts.mapLead.textContent = scored.length
    ? `${sentence(metricName(view.plan.metric))}, mean over seeds and other settings of trials that ran to the end. ` +
      "The same colours in every map. At 100 % all methods are the same run."
    : "Nothing to average yet.";
  const cells = methods.map((method) => heatCells(scored, method, keeps, budgets));
  const values = cells
    .flat(2)
    .map((cell) => cell.value)
    .filter(isNumber);
  const wanted = methods.map((method, place) => {
    if (!parts.heat.has(method))
      parts.heat.set(method, { title: make("h3", {}, methodName(method)), plot: make("div", {}) });
    const found = parts.heat.get(method);
    found.cells = cells[place];
    return found;
  });
  parts.maps.replaceChildren(...wanted.map((one) => one.box || (one.box = make("div", {}, one.title, one.plot))));
  wanted.forEach((one, place) => drawHeat(one, methods[place], keeps, budgets, values, view));
}

function heatCells(scored, method, keeps, budgets) {
  return budgets.map((budget) =>
    keeps.map((keep) => {
      const own = scored.filter(
        (trial) => trial.budget === budget && trial.keep === keep && [trial.method, ...trial.methods].includes(method),
      );
      return { value: mean(own.map((trial) => trial.metric.value)), trials: own.length };
    }),
  );
}

function drawHeat(one, method, keeps, budgets, values, view) {
  const many = keeps.length > 6;
  const trace = {
    type: "heatmap",
    z: one.cells.map((row) => row.map((cell) => cell.value)),
    zmin: Math.min(...values),
    zmax: Math.max(...values),
    colorscale: "Cividis",
    reversescale: false,
    showscale: false,
    xgap: 2,
    ygap: 2,
    hoverongaps: false,
    hoverinfo: "text",
    text: one.cells.map((row) => row.map((cell) => (many ? "" : score(cell.value)))),
    texttemplate: "%{text}",
    hovertext: one.cells.map((row, y) =>
      row.map(
        (cell, x) =>
          `${percent(keeps[x])}, ${budgetWords(budgets[y], view.plan.budget_unit)}<br>` +
          `${score(cell.value)}, mean of ${counted(cell.trials, "trial")}`,
      ),
    ),
  };
  const x = axis("fraction kept", {
    tickvals: keeps.map((_, place) => place),
    ticktext: keeps.map(percent),
    showgrid: false,
    fixedrange: true,
  });
  const y = axis("", {
    tickvals: budgets.map((_, place) => place),
    ticktext: budgets.map((budget) => budgetWords(budget, view.plan.budget_unit)),
    showgrid: false,
    fixedrange: true,
  });
  draw(
    one.plot,
    [trace],
    layout(Math.min(420, 90 + 44 * budgets.length), x, y),
    `Mean score of ${methodName(method)} by fraction and budget`,
  );
}
