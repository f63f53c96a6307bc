// The look that plots have in common, and colours: a method has the same one in every plot of every sweep.

const METHODS = [
  "prototype",
  "random",
  "semdedup",
  "density",
  "similarity",
  "stratified",
  "k_center",
  "learnability",
  "term_coverage",
];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagon"];
const SHAPES = ["●", "■", "◆", "▲", "✚", "★", "⬟", "⬢"];
const DASHES = ["solid", "dash", "dot", "dashdot"];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function methodColour(method) {
  const place = METHODS.indexOf(method);
  return place < 0 ? colour("full") : colour(`c${place}`);
}

function faint(hex, share) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
}

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12.5, color: colour("soft") } },
    gridcolor: colour("line"),
    linecolor: colour("line"),
    zeroline: false,
    automargin: true,
    ticks: "outside",
    ticklen: 5,
    tickcolor: "rgba(0,0,0,0)",
    fixedrange: false,
    ...more,
  };
}

function layout(height, x, y, more = {}) {
  return {
    height,
    autosize: true,
    margin: { l: 12, r: 14, t: 12, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false,
    dragmode: false,
    hovermode: "closest",
    xaxis: x,
    yaxis: y,
    font: { family: "system-ui, -apple-system, Segoe UI, sans-serif", size: 12, color: colour("ink") },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), align: "left", font: { color: colour("ink") } },
    ...more,
  };
}

// Draws into a place that is kept: what a reader has under her eyes does not blink when numbers come.
function draw(place, data, how, label, onpick) {
  place.classList.add("plot");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  Plotly.react(place, data, how, { displayModeBar: false, responsive: true, doubleClick: false });
  if (place.removeAllListeners) place.removeAllListeners("plotly_click");
  if (onpick) {
    place.on("plotly_click", (event) => {
      const name = event.points[0].customdata;
      if (name) onpick(Array.isArray(name) ? name[0] : name);
    });
  }
}

const HOVER = "%{text}<extra></extra>";

// Axes in FLOPs and pairs: plotly's own letters, which have B and q where people say G and nothing.
function magnitudes(values, log) {
  const known = values.filter((one) => isNumber(one) && one > 0);
  if (!known.length) return {};
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const ticks = [];
  if (log) {
    const steps = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.log10(high) + 1; power += 1) {
      steps.forEach((step) => ticks.push(step * 10 ** power));
    }
    const range = [Math.log10(low) - 0.06, Math.log10(high) + 0.06];
    return { type: "log", range, tickvals: ticks, ticktext: ticks.map((tick) => short(tick)) };
  }
  const rough = high / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
  for (let tick = 0; tick <= high + step; tick += step) ticks.push(tick);
  return {
    range: [-0.02 * high, 1.04 * high],
    tickvals: ticks,
    ticktext: ticks.map((tick) => (tick ? short(tick).trim() : "0")),
  };
}

function fractions(keeps) {
  const ticks = [...new Set(keeps)].sort((a, b) => a - b);
  return { type: "log", tickvals: ticks, ticktext: ticks.map(percent) };
}

function methodKeys(trials) {
  const found = [...METHODS, "full"].filter((method) => trials.some((trial) => trial.method === method));
  return found.map((method) => [dot(methodColour(method)), methodName(method)]);
}

function budgetKeys(budgets, unit) {
  return budgets.map((budget, place) => [
    make("span", { "aria-hidden": "true" }, SHAPES[place % SHAPES.length]),
    budgetWords(budget, unit),
  ]);
}

const budgetsOf = (trials) => [...new Set(trials.map((trial) => trial.budget).filter(isNumber))].sort((a, b) => a - b);
