// Reads the numbers, embedded or from the server again and again, and draws the open panel.

const POLL_MILLISECONDS = 5000;
const PANELS = [overview, frontier, curves, rare, trialPanel, subsetMap, board, cluster];
const content = JSON.parse(document.getElementById("content").textContent);
const main = {
  snapshot: content && content.snapshot,
  digest: null,
  problem: "",
  found: new Map(),
  parts: new Map(),
  change,
};

const at = (id) => document.getElementById(id);

function change(patch) {
  Object.assign(state, patch);
  writeState();
  drawAll();
}

function view() {
  const all = main.snapshot.trials;
  return {
    snapshot: main.snapshot,
    plan: main.snapshot.plan,
    all,
    trials: all.filter((trial) => matches(trial)),
    selected: all.find((trial) => trial.name === state.trial),
    details,
    picker,
    change,
  };
}

// A promise of {history, subset}. The server is asked once for each state of a trial.
function details(trial) {
  if (content) {
    const { histories, subsets } = content.details;
    return Promise.resolve({ history: histories[trial.name], subset: trial.subset ? subsets[trial.subset] : null });
  }
  const key = `${trial.name} ${trial.state} ${trial.looks.length} ${trial.subset}`;
  if (!main.found.has(key)) {
    const asked = fetch(`details.json?trial=${encodeURIComponent(trial.name)}`).then((answer) => {
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      return answer.json();
    });
    asked.catch(() => main.found.delete(key));
    main.found.set(key, asked);
  }
  return main.found.get(key);
}

function picker() {
  const names = main.snapshot.trials
    .filter((trial) => matches(trial) || trial.name === state.trial)
    .map((trial) => [trial.name, trial.name]);
  const known = names.some(([name]) => name === state.trial);
  return choice(
    "Trial",
    [...(known ? [] : [["", "none selected"]]), ...names],
    known ? state.trial : "",
    (trial) => change({ trial }),
    "picker",
  );
}

function drawAll() {
  if (!main.snapshot) {
    at("lead").textContent = main.problem ? "" : "Reading the sweep …";
    drawNotices([]);
    return;
  }
  const focused = document.activeElement?.dataset?.focus;
  const now = view();
  drawHead(now);
  drawFilters(at("filters"), now.snapshot, now.trials, () => change({}));
  const open = PANELS.find((panel) => panel.id === state.tab) || PANELS[0];
  for (const panel of PANELS) {
    at(`tab-${panel.id}`).setAttribute("aria-selected", String(panel === open));
    at(`tab-${panel.id}`).tabIndex = panel === open ? 0 : -1;
    at(`panel-${panel.id}`).hidden = panel !== open;
  }
  if (!main.parts.has(open.id)) main.parts.set(open.id, open.build(at(`panel-${open.id}`)));
  open.update(main.parts.get(open.id), now);
  if (main.open !== open.id) at("tabs").scrollLeft = at(`tab-${open.id}`).offsetLeft - at("tabs").offsetLeft - 40;
  main.open = open.id;
  if (focused) document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function drawHead(now) {
  const { plan } = now;
  document.title = `${now.snapshot.sweep}: sweep`;
  at("title").textContent = now.snapshot.sweep;
  const live = !plan.finished;
  const when = live ? `running since ${moment(plan.started)}` : `ended ${moment(plan.finished)}`;
  const words = [
    `${count(plan.train_pairs)} pairs of ${plan.corpus}`,
    `recipe ${plan.recipe}`,
    `search ${plan.search}`,
    `scheduler ${plan.scheduler}`,
    `judged by ${metricName(plan.metric)}`,
  ];
  at("lead").replaceChildren(
    make("span", { class: live ? "live" : "ended" }, when),
    ` · ${words.join(" · ")} · `,
    make("span", { id: "read" }, `read ${moment(now.snapshot.read)}`),
  );
  drawNotices(now.snapshot.problems);
  drawConclusions(now.snapshot.conclusions);
}

function drawNotices(problems) {
  const lines = [...(main.problem ? [main.problem] : []), ...problems.slice(0, 5)];
  if (problems.length > 5) lines.push(`and ${problems.length - 5} more that could not be read`);
  const next = lines.map((line) => make("p", { class: "notice" }, line));
  if (at("notices").textContent !== lines.join("")) at("notices").replaceChildren(...next);
}

function drawConclusions(conclusions) {
  at("conclusions").hidden = !conclusions;
  if (!conclusions) return;
  const open = at("conclusions").querySelector("details")?.open;
  const names = [...new Set(conclusions.table.flatMap((row) => Object.keys(row)))];
  const cell = (value) =>
    isNumber(value) && !Number.isInteger(value)
      ? String(Number(value.toPrecision(4)))
      : value === null || value === undefined
        ? NONE
        : typeof value === "object"
          ? JSON.stringify(value)
          : String(value);
  const columns = names.map((name) => ({
    key: name,
    title: name.replaceAll("_", " "),
    number: conclusions.table.every((row) => typeof row[name] !== "string"),
    cell: (row) => cell(row[name]),
  }));
  at("conclusions").replaceChildren(
    make("h2", {}, "What the sweep says"),
    make(
      "ul",
      {},
      conclusions.lines.map((line) => make("li", {}, line)),
    ),
    names.length
      ? make(
          "details",
          { open },
          make("summary", { "data-focus": "conclusions" }, "Its table"),
          table(columns, conclusions.table, { name: "Conclusions" }),
        )
      : "",
  );
}

async function poll() {
  try {
    const answer = await fetch("snapshot.json", main.digest ? { headers: { "If-None-Match": main.digest } } : {});
    if (answer.status === 304 || answer.ok) {
      const news = answer.ok || main.problem;
      if (answer.status === 304) at("read").textContent = `read ${moment(Date.now() / 1000)}`;
      main.problem = "";
      if (answer.ok) {
        main.snapshot = await answer.json();
        main.digest = answer.headers.get("ETag");
      }
      if (news) drawAll();
    } else {
      const told = answer.status === 503 ? (await answer.json()).problem : `The server answered ${answer.status}`;
      trouble(`${told}. Trying again.`);
    }
  } catch {
    trouble("The dashboard's server does not answer. Trying again; what is shown is the last that was read.");
  }
  setTimeout(poll, POLL_MILLISECONDS);
}

function trouble(text) {
  const news = main.problem !== text;
  main.problem = text;
  if (news) drawAll();
}

function buildTabs() {
  for (const panel of PANELS) {
    at("tabs").append(
      make(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${panel.id}`,
          "aria-controls": `panel-${panel.id}`,
          onclick: () => change({ tab: panel.id }),
        },
        panel.title,
      ),
    );
    at("panels").append(
      make("div", { role: "tabpanel", id: `panel-${panel.id}`, "aria-labelledby": `tab-${panel.id}`, hidden: true }),
    );
  }
  at("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = PANELS.findIndex((panel) => at(`tab-${panel.id}`) === document.activeElement);
    const next = PANELS[(place + step + PANELS.length) % PANELS.length];
    change({ tab: next.id });
    at(`tab-${next.id}`).focus();
  });
}

buildTabs();
writeState();
drawAll();
if (!content) poll();
addEventListener("hashchange", () => {
  Object.assign(state, readState());
  drawAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
