// The filters above the panels: what a sweep has of each, and how many trials that leaves.

function filterOptions(trials, name) {
  const values = new Set();
  for (const trial of trials) {
    const own = name === "method" ? [trial.method, ...trial.methods] : [trial[name]];
    own.filter((value) => value !== null).forEach((value) => values.add(value));
  }
  const order = name === "state" ? STATES : name === "method" ? [...METHODS, "full"] : null;
  return [...values].sort((a, b) => (order ? order.indexOf(a) - order.indexOf(b) : a - b));
}

function filterWords(name, value, plan) {
  if (name === "method") return methodName(value);
  if (name === "keep") return percent(value);
  if (name === "budget") return budgetWords(value, plan.budget_unit);
  return name === "state" ? stateWords(value) : String(value);
}

function drawFilters(place, snapshot, shown, changed) {
  const open = place.querySelector("details[open]")?.dataset.name;
  const parts = Object.keys(FILTERS).map((name) => {
    const values = filterOptions(snapshot.trials, name);
    // What a link chose stays visible where the sweep has none of it (any more).
    const chosen = state[name];
    const known = [...values.map(String), ...chosen.filter((one) => !values.map(String).includes(one))];
    const words = (text) => filterWords(name, values.find((value) => String(value) === text) ?? text, snapshot.plan);
    const boxes = known.map((text) =>
      make(
        "label",
        {},
        make("input", {
          type: "checkbox",
          value: text,
          checked: chosen.includes(text),
          "data-focus": `filter-${name}-${text}`,
          onchange: (event) => {
            state[name] = event.target.checked ? [...chosen, text] : chosen.filter((one) => one !== text);
            changed();
          },
        }),
        words(text),
        make("small", {}, count(matching(snapshot.trials, name, text))),
      ),
    );
    const title = `${FILTERS[name]}: ${chosen.length ? chosen.map(words).join(", ") : "all"}`;
    return make(
      "details",
      {
        class: `filter${chosen.length ? " chosen" : ""}`,
        "data-name": name,
        open: open === name,
        ontoggle: (event) => event.target.open && closeOthers(place, name),
      },
      make("summary", { "data-focus": `filter-${name}` }, title),
      make("div", { class: "choices" }, boxes),
    );
  });
  const any = Object.keys(FILTERS).some((name) => state[name].length);
  const clear = () => {
    Object.keys(FILTERS).forEach((name) => {
      state[name] = [];
    });
    changed();
  };
  const all = snapshot.trials.length;
  place.replaceChildren(
    ...parts,
    any
      ? make("button", { type: "button", class: "plain", onclick: clear, "data-focus": "filter-clear" }, "Show all")
      : "",
    make(
      "small",
      { id: "shown" },
      shown.length === all ? counted(all, "trial") : `${count(shown.length)} of ${counted(all, "trial")}`,
    ),
  );
}

function matching(trials, name, text) {
  const own = (trial) => (name === "method" ? [trial.method, ...trial.methods] : [trial[name]]).map(String);
  return trials.filter((trial) => matches(trial, name) && own(trial).includes(text)).length;
}

function closeOthers(place, name) {
  place.querySelectorAll("details[open]").forEach((one) => {
    if (one.dataset.name !== name) one.open = false;
  });
}

document.addEventListener("click", (event) => {
  document.querySelectorAll("#filters details[open]").forEach((one) => {
    if (!one.contains(event.target)) one.open = false;
  });
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  document.querySelectorAll("#filters details[open]").forEach((one) => {
    one.open = false;
    one.querySelector("summary").focus();
  });
});
