// The long tail: what a smaller fraction does to findings that few pairs have.

const RARE_METRIC = "zero_shot.mean_auroc_rare";
const MOST_FINDINGS = 12;

const rare = {
  id: "rare",
  title: "Rare findings",
  build(root) {
    const parts = {
      keys: make("div", {}),
      none: make("div", {}),
      plot: make("div", {}),
      several: make("div", { class: "multiples" }),
      lead: make("p", { class: "soft" }),
      finding: new Map(),
    };
    root.append(
      card(
        "Rare findings, zero-shot",
        "Mean AUROC over the rare findings against the fraction kept. Points are trials, lines join the means.",
        parts.keys,
        parts.none,
        parts.plot,
      ),
      card("Finding by finding", null, parts.lead, parts.several),
    );
    return parts;
  },
  update(parts, view) {
    const points = view.trials
      .filter((trial) => isNumber(trial.metrics[RARE_METRIC]?.value))
      .map((trial) => ({ trial, ...trial.metrics[RARE_METRIC] }));
    const budgets = budgetsOf(points.map((one) => one.trial));
    parts.keys.replaceChildren(
      keys([
        ...methodKeys(points.map((one) => one.trial)),
        ...(budgets.length > 1 ? dashKeys(budgets, view.plan) : []),
      ]),
    );
    parts.none.replaceChildren(points.length ? "" : nothing("No trial has a score of rare findings yet."));
    parts.plot.hidden = !points.length;
    if (points.length)
      drawTail(
        parts.plot,
        points,
        budgets,
        400,
        "mean AUROC, rare findings",
        "Rare findings' mean AUROC by fraction",
        view,
      );
    drawFindings(parts, view);
  },
};

function dashKeys(budgets, plan) {
  return budgets.map((budget, place) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    [
      ["width", 28],
      ["height", 8],
      ["aria-hidden", "true"],
    ].forEach(([name, value]) => svg.setAttribute(name, value));
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const dashes = { solid: "none", dash: "7 5", dot: "2 3", dashdot: "8 3 2 3" }[DASHES[place % DASHES.length]];
    const drawn = {
      x1: 0,
      x2: 28,
      y1: 4,
      y2: 4,
      stroke: "currentColor",
      "stroke-width": 2,
      "stroke-dasharray": dashes,
    };
    Object.entries(drawn).forEach(([name, value]) => line.setAttribute(name, value));
    svg.append(line);
    return [svg, budgetWords(budget, plan.budget_unit)];
  });
}

// points: {trial, value, low, high}. A run of all pairs ends the line of each method that it stands for.
function drawTail(place, points, budgets, height, title, label, view) {
  const traces = [];
  const methods = filterOptions(
    points.map((one) => one.trial),
    "method",
  ).filter((method) => method !== "full");
  for (const method of methods) {
    budgets.forEach((budget, number) => {
      const own = points.filter(
        (one) => one.trial.budget === budget && [one.trial.method, ...one.trial.methods].includes(method),
      );
      const means = [
        ...groups(
          own.filter((one) => toItsEnd(one.trial)),
          (one) => one.trial.keep,
        ),
      ]
        .sort((a, b) => a[0] - b[0])
        .map(([keep, some]) => [keep, mean(some.map((one) => one.value))]);
      traces.push({
        x: means.map((one) => one[0]),
        y: means.map((one) => one[1]),
        mode: "lines",
        hoverinfo: "skip",
        line: { color: methodColour(method), width: 2, dash: DASHES[number % DASHES.length] },
      });
    });
  }
  for (const [method, own] of groups(points, (one) => one.trial.method)) {
    const hue = methodColour(method);
    traces.push({
      x: own.map((one) => one.trial.keep),
      y: own.map((one) => one.value),
      mode: "markers",
      customdata: own.map((one) => one.trial.name),
      hovertemplate: HOVER,
      text: own.map(
        (one) => `<b>${plain(one.trial.name)}</b><br>${score(one.value)}${span(one) ? ` (${span(one)})` : ""}`,
      ),
      marker: { color: hue, size: height > 300 ? 8 : 6, opacity: 0.75, line: { color: colour("card"), width: 1 } },
    });
  }
  draw(
    place,
    traces,
    layout(height, axis("fraction kept", fractions(points.map((one) => one.trial.keep))), axis(title)),
    label,
    (name) => view.change({ trial: name }),
  );
}

function drawFindings(parts, view) {
  const rows = view.trials.flatMap((trial) =>
    trial.rare.filter((row) => isNumber(row.value)).map((row) => ({ trial, ...row })),
  );
  const byFinding = [...groups(rows, (row) => `${row.finding}\u0000${row.benchmark}`)].sort(
    (a, b) => a[1][0].prevalence - b[1][0].prevalence,
  );
  const most = byFinding.slice(0, MOST_FINDINGS);
  parts.lead.textContent = most.length
    ? "Findings that less than 2 % of a benchmark's images have, rarest first. With few images, points scatter." +
      (byFinding.length > most.length ? ` The rarest ${most.length} of ${byFinding.length}.` : "")
    : "No scores of single findings with a prevalence below 2 % yet.";
  const shown = most.map(([key, own]) => {
    if (!parts.finding.has(key)) {
      const plot = make("div", {});
      const images = isNumber(own[0].positives) ? `, ${counted(own[0].positives, "image")}` : "";
      const note = `${percent(own[0].prevalence)} of ${own[0].benchmark}${images}`;
      parts.finding.set(key, {
        plot,
        box: make("div", {}, make("h3", {}, own[0].finding), make("small", {}, note), plot),
      });
    }
    return [parts.finding.get(key), own];
  });
  parts.several.replaceChildren(...shown.map(([one]) => one.box));
  shown.forEach(([one, own]) =>
    drawTail(
      one.plot,
      own,
      budgetsOf(own.map((row) => row.trial)),
      240,
      "AUROC",
      `AUROC of ${own[0].finding} by fraction`,
      view,
    ),
  );
}
