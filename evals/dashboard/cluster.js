// The cluster's use: when each trial ran, how many at once, and the worker-hours that they took.

const cluster = {
  id: "cluster",
  title: "Cluster",
  build(root) {
    const parts = {
      lead: make("p", { class: "soft" }),
      keys: make("div", {}),
      gantt: make("div", {}),
      atOnce: make("div", {}),
      useKeys: make("div", {}),
      total: make("div", {}),
    };
    root.append(
      card(
        "When trials ran",
        null,
        parts.lead,
        parts.keys,
        make("div", { class: "tall", tabindex: 0, role: "region", "aria-label": "Timeline" }, parts.gantt),
      ),
      make(
        "div",
        { class: "columns" },
        card("At once", "Workers: each trial's mean over its time.", parts.useKeys, parts.atOnce),
        card("Worker-hours", "Added up; each trial's lie evenly over its time.", parts.total),
      ),
    );
    return parts;
  },
  update(parts, view) {
    const ran = view.trials
      .filter((trial) => isNumber(trial.started))
      .map((trial) => ({ trial, from: trial.started, to: endOf(trial) }))
      .sort((a, b) => a.from - b.from);
    [parts.gantt, parts.atOnce, parts.total].forEach((one) => {
      one.hidden = !ran.length;
    });
    parts.lead.textContent = ran.length
      ? `${counted(ran.length, "trial")} from ${moment(ran[0].from)} to ${moment(lastEnd(ran))}, in your time zone.`
      : "No trial has started yet.";
    const states = STATES.filter((one) => ran.some(({ trial }) => trial.state === one));
    parts.keys.replaceChildren(keys(states.map((one) => [dot(stateColour(one)), stateWords(one)])));
    if (!ran.length) return;
    parts.useKeys.replaceChildren(
      keys([
        [dot(colour("mark")), "trials"],
        [dot(colour("c1")), "workers"],
      ]),
    );
    drawGantt(parts.gantt, ran, view);
    drawUse(parts, ran);
  },
};

const endOf = (trial) =>
  Math.max(trial.started + 1, trial.finished || (trial.state === "running" ? main.snapshot.read : lastLook(trial)));
const stateColour = (name) =>
  colour({ done: "good", running: "mark", trained: "c7", stopped: "warn", failed: "bad" }[name] || "soft");
const lastEnd = (ran) => Math.max(...ran.map((one) => one.to));
const clock = (seconds) =>
  new Date(1000 * (seconds - 60 * new Date(1000 * seconds).getTimezoneOffset())).toISOString().slice(0, 19);

function drawGantt(place, ran, view) {
  const narrow = place.clientWidth < 560;
  const trace = {
    type: "bar",
    orientation: "h",
    base: ran.map((one) => clock(one.from)),
    x: ran.map((one) => 1000 * (one.to - one.from)),
    y: ran.map((_, row) => row),
    width: 0.7,
    customdata: ran.map((one) => one.trial.name),
    hovertemplate: HOVER,
    textposition: "none",
    marker: {
      color: ran.map((one) => stateColour(one.trial.state)),
      line: { width: ran.map((one) => (one.trial.name === state.trial ? 2.5 : 0)), color: colour("ink") },
    },
    text: ran.map(
      ({ trial, from, to }) =>
        `<b>${plain(trial.name)}</b><br>${stateWords(trial.state)}<br>${moment(from)}, ${duration(to - from)}<br>` +
        `${hours(trial.worker_seconds)} worker-hours`,
    ),
  };
  const names = narrow
    ? { showticklabels: false }
    : {
        tickvals: ran.map((_, row) => row),
        ticktext: ran.map((one) => plain(one.trial.name, 34)),
        tickfont: { size: 11 },
      };
  // plotly measures every label, again and again, to fit margins and to hide what overflows: seconds with 500 trials.
  const free = { automargin: false, ticklabeloverflow: "allow" };
  const y = axis("", { range: [ran.length - 0.4, -0.6], showgrid: false, fixedrange: true, ...free, ...names });
  const x = axis("", { type: "date", side: "top", fixedrange: true, automargin: false, nticks: narrow ? 4 : 10 });
  draw(
    place,
    [trace],
    layout(50 + 19 * ran.length, x, y, { margin: { l: narrow ? 12 : 200, r: 14, t: 46, b: 8 } }),
    "Timeline of trials",
    (name) => view.change({ trial: name }),
  );
}

function drawUse(parts, ran) {
  const moments = [...new Set(ran.flatMap((one) => [one.from, one.to]))].sort((a, b) => a - b);
  const active = (at) => ran.filter((one) => one.from <= at && at < one.to);
  const workers = (one) => one.trial.worker_seconds / (one.to - one.from);
  const x = moments.map(clock);
  const steps = (values, hue, what) => ({
    x,
    y: values,
    mode: "lines",
    hovertemplate: HOVER,
    text: values.map((value) => `${Number(value.toFixed(1))} ${what}`),
    line: { shape: "hv", color: hue, width: 2 },
  });
  const time = () => axis("", { type: "date", nticks: 5 });
  draw(
    parts.atOnce,
    [
      {
        ...steps(
          moments.map((at) => active(at).length),
          colour("mark"),
          "trials",
        ),
        fill: "tozeroy",
        fillcolor: faint(colour("mark"), 0.15),
      },
      {
        ...steps(
          moments.map((at) => active(at).reduce((sum, one) => sum + workers(one), 0)),
          colour("c1"),
          "workers",
        ),
      },
    ],
    layout(260, time(), axis("", { rangemode: "tozero" })),
    "Trials and workers at once",
  );
  const spent = moments.map(
    (at) => ran.reduce((sum, one) => sum + workers(one) * Math.max(0, Math.min(at, one.to) - one.from), 0) / 3600,
  );
  draw(
    parts.total,
    [
      {
        x,
        y: spent,
        mode: "lines",
        line: { color: colour("mark"), width: 2.4 },
        hovertemplate: HOVER,
        text: spent.map((value) => `${hours(3600 * value)} worker-hours`),
      },
    ],
    layout(260, time(), axis("worker-hours", { rangemode: "tozero" })),
    "Worker-hours over time",
  );
}
