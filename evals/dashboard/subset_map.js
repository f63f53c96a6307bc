// The map of a subset: its corpus in two dimensions, by band.

const BANDS = ["central", "support", "outlier"];

const subsetMap = {
  id: "map",
  title: "Subset map",
  build(root) {
    const parts = {
      controls: make("div", { class: "controls" }),
      lead: make("p", { class: "soft" }),
      keys: make("div", {}),
      plot: make("div", { class: "map" }),
      bands: make("div", {}),
    };
    root.append(card("What was kept", null, parts.controls, parts.lead, parts.keys, parts.plot), parts.bands);
    return parts;
  },
  update(parts, view) {
    const paths = [...new Set(view.trials.map((trial) => trial.subset).filter(Boolean))].sort((a, b) =>
      a.localeCompare(b, "en", { numeric: true }),
    );
    const wanted = [
      state.subset,
      view.selected?.subset,
      paths.find((path) => path.includes("prototype")),
      paths[0],
    ].find((path) => paths.includes(path));
    parts.plot.hidden = true;
    parts.keys.replaceChildren();
    parts.bands.replaceChildren();
    if (!wanted) {
      parts.controls.replaceChildren();
      parts.lead.textContent = "No trial has chosen its pairs yet.";
      return;
    }
    parts.controls.replaceChildren(
      choice(
        "Subset",
        paths.map((path) => [path, path.replace(/^subsets\//, "")]),
        wanted,
        (subset) => view.change({ subset }),
        "subset",
      ),
    );
    parts.wanted = wanted;
    parts.lead.textContent = "Reading …";
    view
      .details(view.all.find((trial) => trial.subset === wanted))
      .then(({ subset }) => {
        if (parts.wanted === wanted) showSubset(parts, subset);
      })
      .catch((error) => {
        parts.lead.textContent = `Could not be read: ${error.message}`;
      });
  },
};

function showSubset(parts, subset) {
  if (!subset) {
    parts.lead.textContent = "This subset is not written to its end yet.";
    return;
  }
  parts.bands.replaceChildren(make("div", { class: "columns" }, bandsCard(subset), findingsCard(subset)));
  if (!subset.map) {
    parts.lead.textContent =
      "No map: it needs the pairs' features, and this subset was chosen without them, or by an earlier chexray. " +
      `${subset.path}/audit.html has what there is.`;
    return;
  }
  const { x, explained, pairs: all } = subset.map;
  parts.lead.textContent =
    `${count(x.length)} of ${counted(all, "pair")}, drawn at random, by the first two principal components of their ` +
    `features (${percent(explained[0])} and ${percent(explained[1])} of the variance). Large points are kept.`;
  parts.plot.hidden = false;
  drawMap(parts, subset.map);
}

function drawMap(parts, points) {
  const names = [...new Set(points.band.map((band) => band || "no band"))].sort(
    (a, b) => BANDS.indexOf(a) - BANDS.indexOf(b),
  );
  const hue = (band) => (BANDS.includes(band) ? colour(band) : colour("c2"));
  const traces = [];
  for (const kept of [false, true]) {
    for (const band of names) {
      const rows = points.x
        .map((_, row) => row)
        .filter((row) => (points.band[row] || "no band") === band && points.kept[row] === kept);
      traces.push({
        x: rows.map((row) => points.x[row]),
        y: rows.map((row) => points.y[row]),
        mode: "markers",
        hovertemplate: HOVER,
        text: rows.map(() => `${plain(band)}, ${kept ? "kept" : "left out"}`),
        marker: {
          color: hue(band),
          size: kept ? 7 : 4,
          opacity: kept ? 0.9 : 0.35,
          line: { width: kept ? 0.8 : 0, color: colour("card") },
        },
      });
    }
  }
  parts.keys.replaceChildren(keys(names.map((band) => [dot(hue(band)), band])));
  const hidden = { showticklabels: false, showgrid: false };
  draw(
    parts.plot,
    traces,
    layout(520, axis("first component", hidden), axis("second component", { ...hidden, scaleanchor: "x" })),
    "Map of the subset's features",
  );
}

function bandsCard(subset) {
  const found = Object.fromEntries(
    Object.entries(subset.bands)
      .filter(([band]) => band !== "unknown")
      .map(([band, one]) => [band, { ...one, fraction: one.pairs ? one.kept / one.pairs : null }]),
  );
  const rows = keptRows(found);
  return card("Kept by band", null, rows.length ? bars(rows) : nothing("This method has no bands."));
}

function findingsCard(subset) {
  const columns = [
    { key: "finding", title: "Finding", cell: (one) => one.finding },
    { key: "prevalence", title: "In the corpus", number: true, cell: (one) => percent(one.prevalence_corpus) },
    {
      key: "factor",
      title: "Kept, against a random draw",
      number: true,
      cell: (one) =>
        isNumber(one.factor)
          ? [`${one.factor.toFixed(2)} times`, make("small", {}, `${one.low?.toFixed(2)} to ${one.high?.toFixed(2)}`)]
          : NONE,
    },
  ];
  const rows = subset.findings.filter((one) => isNumber(one.factor)).slice(0, 12);
  return card(
    "Rarest findings",
    null,
    rows.length ? table(columns, rows, { name: "Findings" }) : nothing("The corpus has no labels."),
  );
}
