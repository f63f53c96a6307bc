// Parts of the page. Text goes in as text: nothing here reads HTML.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.entries(value).forEach(([key, one]) => element.style.setProperty(key, one));
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((one) => one !== null && one !== undefined));
  return element;
}

const nothing = (text) => make("p", { class: "nothing" }, text);

function card(title, lead, ...children) {
  return make("section", {}, make("h2", {}, title), lead ? make("p", { class: "soft" }, lead) : null, ...children);
}

// columns: {key, title, number, cell(row), value(row)}; `value` is what a column is sorted by.
function table(columns, rows, options = {}) {
  const { sort, onsort, picked, onpick, name = "", best } = options;
  const head = columns.map((column) => {
    const way = sort && sort.key === column.key ? (sort.down ? "descending" : "ascending") : null;
    const title =
      onsort && column.value
        ? make(
            "button",
            { type: "button", "data-focus": `sort-${name}-${column.key}`, onclick: () => onsort(column) },
            column.title,
          )
        : column.title;
    return make("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": way }, title);
  });
  const lines = sorted(rows, columns, sort).map((row) => {
    const cells = columns.map((column, place) => {
      const kind = [column.number ? "number" : "", best && best(column, row) ? "best" : ""].join(" ").trim();
      return make(place ? "td" : "th", { class: kind || null, scope: place ? null : "row" }, column.cell(row));
    });
    const line = make("tr", { class: onpick ? `pick${row.name === picked ? " picked" : ""}` : null }, cells);
    if (onpick) line.addEventListener("click", () => onpick(row));
    return line;
  });
  return make(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": name },
    make("table", { class: name.toLowerCase() }, make("thead", {}, make("tr", {}, head)), make("tbody", {}, lines)),
  );
}

// What has no value stands last, whatever the order.
function sorted(rows, columns, sort) {
  const column = sort && columns.find((one) => one.key === sort.key && one.value);
  if (!column) return rows;
  const way = sort.down ? -1 : 1;
  const empty = (value) => value === null || value === undefined;
  return rows
    .map((row, place) => ({ row, place, value: column.value(row) }))
    .sort((a, b) => {
      if (empty(a.value) || empty(b.value)) return empty(a.value) - empty(b.value) || a.place - b.place;
      const order =
        typeof a.value === "string" ? a.value.localeCompare(b.value, "en", { numeric: true }) : a.value - b.value;
      return way * order || a.place - b.place;
    })
    .map((one) => one.row);
}

function facts(rows) {
  return make(
    "dl",
    {},
    rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
}

// rows: [name, share of the longest bar from 0 to 1, text]
function bars(rows, colour = "var(--mark)") {
  return make(
    "div",
    { class: "scroll" },
    make(
      "table",
      { class: "bars" },
      make(
        "tbody",
        {},
        rows.map(([name, share, text]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row" }, name),
            make(
              "td",
              { class: "track" },
              make("div", { class: "bar", style: { width: `${100 * share}%`, background: colour } }),
            ),
            make("td", { class: "number" }, text),
          ),
        ),
      ),
    ),
  );
}

function stateMark(state) {
  return make("span", { class: `state ${STATES.includes(state) ? state : ""}` }, make("span", {}, stateWords(state)));
}

function valueCell(one) {
  if (!one || !isNumber(one.value)) return NONE;
  const interval = span(one);
  return [score(one.value), interval ? make("small", {}, interval) : null].filter(Boolean);
}

function choice(label, options, value, onchange, focus) {
  const select = make(
    "select",
    { "data-focus": focus, onchange: (event) => onchange(event.target.value) },
    options.map(([key, text]) => make("option", { value: key }, text)),
  );
  select.value = value;
  return make("label", {}, make("span", { class: "soft" }, label), select);
}

function switchOf(label, options, value, onchange, focus) {
  return make(
    "div",
    { class: "switch", role: "group", "aria-label": label },
    options.map(([key, text]) =>
      make(
        "button",
        {
          type: "button",
          "aria-pressed": String(key === value),
          "data-focus": `${focus}-${key}`,
          onclick: () => onchange(key),
        },
        text,
      ),
    ),
  );
}

function keys(entries) {
  return make(
    "div",
    { class: "keys" },
    entries.map(([mark, text]) => make("span", {}, mark, text)),
  );
}

const dot = (colour) => make("i", { style: { background: colour }, "aria-hidden": "true" });
