// Learning curves: the validation loss of every trial's looks, and the whole training loss of the selected one.

const curves = {
  id: "curves",
  title: "Learning curves",
  build(root) {
    const parts = {
      controls: make("div", { class: "controls" }),
      keys: make("div", {}),
      none: make("div", {}),
      looks: make("div", {}),
      title: make("h2", {}),
      lead: make("p", { class: "soft" }),
      history: make("div", {}),
    };
    root.append(
      card(
        "Validation loss",
        "InfoNCE over the validation split at each look. A cross ends a trial that failed or was stopped.",
        parts.controls,
        parts.keys,
        parts.none,
        parts.looks,
      ),
      make("section", {}, parts.title, parts.lead, parts.history),
    );
    return parts;
  },
  update(parts, view) {
    const shown = view.trials.filter((trial) => trial.looks.some((look) => isNumber(look.validation)));
    const budgets = budgetsOf(view.all);
    parts.controls.replaceChildren(
      make("span", { class: "soft" }, "Against"),
      switchOf(
        "Horizontal axis",
        [
          ["pairs", "pairs seen"],
          ["flops", "compute"],
        ],
        state.x,
        (x) => view.change({ x }),
        "x",
      ),
      view.picker(),
    );
    parts.keys.replaceChildren(keys(methodKeys(shown)));
    parts.none.replaceChildren(
      shown.length ? "" : nothing("No trial has been looked at yet: the first look comes with its first checkpoint."),
    );
    parts.looks.hidden = !shown.length;
    if (shown.length) drawLooks(parts.looks, shown, budgets, view);
    drawHistory(parts, view);
  },
};

function drawLooks(place, shown, budgets, view) {
  const order = [...shown].sort((a, b) => (a.name === state.trial) - (b.name === state.trial));
  const chosen = shown.some((trial) => trial.name === state.trial);
  const traces = order.map((trial) => {
    const looks = trial.looks.filter((look) => isNumber(look.validation));
    const own = trial.name === state.trial;
    const hue = methodColour(trial.method);
    const broken = ["failed", "stopped"].includes(trial.state);
    return {
      x: looks.map((look) => look[state.x]),
      y: looks.map((look) => look.validation),
      mode: "lines+markers",
      customdata: looks.map(() => trial.name),
      hovertemplate: HOVER,
      opacity: own ? 1 : chosen ? 0.3 : 0.65,
      text: looks.map(
        (look) =>
          `<b>${plain(trial.name)}</b><br>validation loss ${score(look.validation)}<br>` +
          `${count(look.pairs)} pairs, ${flops(look.flops)}`,
      ),
      line: { color: hue, width: own ? 3 : 1.4 },
      marker: {
        color: hue,
        size: looks.map((_, at) => (at === looks.length - 1 ? (own ? 10 : 7) : 3)),
        symbol: looks.map((_, at) => (at === looks.length - 1 && broken ? "x" : "circle")),
      },
    };
  });
  const values = shown.flatMap((trial) => trial.looks.map((look) => look[state.x]));
  const title = state.x === "pairs" ? "pairs seen" : "training compute, FLOP";
  draw(
    place,
    traces,
    layout(440, axis(title, magnitudes(values, false)), axis("validation loss")),
    "Validation loss of each trial's looks",
    (name) => view.change({ trial: name }),
  );
}

function drawHistory(parts, view) {
  const trial = view.selected;
  parts.title.textContent = trial ? `Training loss of ${trial.name}` : "Training loss";
  parts.history.hidden = true;
  if (!trial) {
    parts.lead.textContent = "Select a trial to see the loss of all its steps.";
    return;
  }
  parts.lead.textContent = "Reading …";
  view
    .details(trial)
    .then((details) => {
      if (view.selected?.name !== state.trial) return;
      const steps = details.history;
      parts.lead.textContent =
        steps && steps.loss.length
          ? "Each point is the mean of several steps where there are many. Dotted: the temperature, on the right."
          : "The loss of every step is written when the run has ended.";
      if (!steps || !steps.loss.length) return;
      parts.history.hidden = false;
      const hue = methodColour(trial.method);
      const x = steps.pairs;
      const traces = [
        {
          x,
          y: steps.loss,
          mode: "lines",
          line: { color: hue, width: 1.8 },
          hovertemplate: HOVER,
          text: x.map(
            (pair, row) => `step ${count(steps.step[row])}<br>loss ${score(steps.loss[row])}<br>${count(pair)} pairs`,
          ),
        },
        {
          x,
          y: steps.temperature,
          mode: "lines",
          yaxis: "y2",
          hovertemplate: HOVER,
          line: { color: colour("soft"), width: 1.4, dash: "dot" },
          text: steps.temperature.map((one) => `temperature ${score(one)}`),
        },
      ];
      const more = {
        yaxis2: axis("temperature", {
          tickmode: "auto",
          tickformat: ".3~f",
          nticks: 5,
          overlaying: "y",
          side: "right",
          showgrid: false,
          rangemode: "tozero",
        }),
      };
      draw(
        parts.history,
        traces,
        layout(320, axis("pairs seen", magnitudes(x, false)), axis("training loss"), more),
        `Training loss of ${trial.name}`,
      );
    })
    .catch((error) => {
      parts.lead.textContent = `Could not be read: ${error.message}`;
    });
}
