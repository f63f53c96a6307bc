"""The dashboard's page: one for both a server, which it asks for numbers, and a file, which holds them.

Everything is in the page. Its policy lets a browser run the page's own scripts only, which it knows by their digests,
and load nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from chexray.evals.dashboard.details import DetailReader
from chexray.evals.dashboard.snapshot import SweepReader

SCRIPTS = (
    "words.js",
    "elements.js",
    "charts.js",
    "state.js",
    "filters.js",
    "overview.js",
    "frontier.js",
    "curves.js",
    "rare.js",
    "trial.js",
    "subset_map.js",
    "board.js",
    "cluster.js",
    "main.js",
)
"""In the order in which the page runs them."""
STYLES = ("look.css", "controls.css", "tables.css")


def exported_page(uri: str) -> str:
    """The page with all that it shows. Raises `UsageError` where there is no sweep."""
    snapshot = SweepReader(uri).snapshot()
    return _render({"snapshot": snapshot, "details": DetailReader(uri).everything(snapshot["trials"])})


@cache
def served_page() -> str:
    """The page without numbers: it asks its server."""
    return _render(None)


def policy(scripts: str, connect: str = "'none'") -> str:
    """Styles are free: plotly sets those of its lines one by one."""
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def script_digests() -> str:
    """The page's own scripts, as a policy names them."""
    return " ".join(_digest(script) for script in _scripts())


def embedded(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end that, or open another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _render(content: dict[str, Any] | None) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_file("dashboard.html")).render(
        title=content["snapshot"]["sweep"] if content else "Sweep",
        policy=policy(script_digests(), "'none'" if content else "'self'"),
        styles=[_file(name) for name in STYLES],
        scripts=_scripts(),
        content=embedded(content),
    )


@cache
def _scripts() -> tuple[str, ...]:
    """plotly, and ours as one."""
    own = "\n".join(_file(name) for name in SCRIPTS)
    return get_plotlyjs(), f'(() => {{\n"use strict";\n{own}\n}})();'


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return files("chexray.evals.dashboard").joinpath(name).read_text("utf-8")
