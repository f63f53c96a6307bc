"""The leaderboard: benchmarks by checkpoints, with what a reader needs to trust a number or to doubt it.

Each cell of the table has the headline number with its interval, whether it differs from the baseline's, how much of
the benchmark the checkpoint has seen in training, gaps between subgroups, metrics that were not run, and failures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from chexray.evals.board.score_files import Cell, NotRunMetric, ScoreRow, Scores, SubgroupRecord
from chexray.evals.board.significance import Contender, Outcome, compare, correct
from chexray.evals.specs import TASKS
from chexray.evals.statistics import DRAWS
from chexray.platform.errors import UsageError

State = Literal["done", "failed", "skipped", "undefined", "missing"]
_VERDICTS = ("better", "worse", "no difference shown", "not compared")


@dataclass(frozen=True)
class Entry:
    """One checkpoint on one benchmark. `row`: its headline, None where there is none, for the `reason`.

    `failures`: seeds that failed or were skipped, also where others were done. `gaps` are those of the first seed
    that has any.
    """

    checkpoint: str
    state: State
    reason: str | None
    row: ScoreRow | None
    rows: tuple[ScoreRow, ...] = ()
    cells: tuple[Cell, ...] = ()
    outcome: Outcome | None = None

    @property
    def contender(self) -> Contender | None:
        """None where there is nothing to compare."""
        return (
            Contender(self.row, tuple(c for c in self.cells if c.done)) if self.row and self.state == "done" else None
        )

    @property
    def failures(self) -> list[Cell]:
        return [cell for cell in self.cells if not cell.done]

    @property
    def subgroups(self) -> tuple[SubgroupRecord, ...]:
        return next((cell.subgroups for cell in self.cells if cell.done and cell.subgroups), ())

    @property
    def not_run(self) -> list[NotRunMetric]:
        """Each once, though every seed says so."""
        return list(dict.fromkeys(one for cell in self.cells for one in cell.not_run))

    @property
    def verdict(self) -> str | None:
        """Against the baseline; None for the baseline itself, where none was named, and without a number."""
        if self.outcome is None or self.row is None:
            return None
        return self.outcome.verdict(self.row.higher_is_better)

    @property
    def seen(self) -> Literal["seen", "unknown", "unseen"]:
        """Whether the checkpoint was trained on any image of the benchmark, or on any of its patients."""
        shares = [self.row.seen_in_training, self.row.seen_patients] if self.row else [None]
        if any(share for share in shares):
            return "seen"
        return "unknown" if None in shares else "unseen"


@dataclass(frozen=True)
class BoardRow:
    """A benchmark with an entry of every checkpoint, in the board's order of these."""

    benchmark: str
    title: str
    task: str
    version: str
    twin: bool
    datasets: tuple[str, ...]
    split: str | None
    entries: tuple[Entry, ...]

    @property
    def headline(self) -> ScoreRow | None:
        return next((entry.row for entry in self.entries if entry.row), None)


@dataclass(frozen=True)
class Leaderboard:
    """Benchmarks by task, and in it by title; checkpoints in the order in which they were given."""

    checkpoints: tuple[str, ...]
    baseline: str | None
    rows: tuple[BoardRow, ...]
    unfinished: tuple[str, ...] = ()
    draws: int = DRAWS

    def summary(self) -> dict[str, dict[str, int]]:
        """For each checkpoint but the baseline, on how many benchmarks it is better, worse ... than that."""
        if self.baseline is None:
            return {}
        found = {name: Counter[str]() for name in self.checkpoints if name != self.baseline}
        for row in self.rows:
            for entry in row.entries:
                if entry.verdict:
                    found[entry.checkpoint][entry.verdict] += 1
        return {name: {verdict: counts[verdict] for verdict in _VERDICTS} for name, counts in found.items()}


@dataclass
class _Found:
    rows: list[ScoreRow] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)


def build_leaderboard(scores: Scores, baseline: str | None = None, draws: int = DRAWS, seed: int = 0) -> Leaderboard:
    """The table of all that the scores hold. UsageError where no checkpoint is called `baseline`, and on no scores.

    A benchmark in two versions is two benchmarks.
    """
    every: list[ScoreRow | Cell] = [*scores.rows, *scores.cells]
    checkpoints = tuple(dict.fromkeys(one.checkpoint for one in every))
    if not checkpoints:
        raise UsageError("these scores hold no results and no cells yet; wait for the first cell to finish")
    if baseline is not None and baseline not in checkpoints:
        raise UsageError(f"--baseline {baseline}: no such checkpoint; there are: {', '.join(checkpoints)}")
    rows = [_board_row(name, version, found, checkpoints) for (name, version), found in _by_benchmark(scores).items()]
    place: dict[str, int] = {task: number for number, task in enumerate(TASKS)}
    rows.sort(key=lambda row: (place.get(row.task, len(TASKS)), row.task, row.title, row.version))
    if baseline is not None:
        rows = _compared(rows, baseline, draws, seed)
    return Leaderboard(checkpoints, baseline, tuple(rows), scores.unfinished, draws)


def _by_benchmark(scores: Scores) -> dict[tuple[str, str], dict[str, _Found]]:
    """What there is by benchmark and version, and by checkpoint. Cells take the version of their rows."""
    found: defaultdict[tuple[str, str], defaultdict[str, _Found]] = defaultdict(lambda: defaultdict(_Found))
    version_of: dict[tuple[str, str], str] = {}
    for row in scores.rows:
        found[row.benchmark, row.version][row.checkpoint].rows.append(row)
        version_of[row.benchmark, row.checkpoint] = row.version
    first = dict(reversed(found))
    for cell in scores.cells:
        version = version_of.get((cell.benchmark, cell.checkpoint), first.get(cell.benchmark, ""))
        found[cell.benchmark, version][cell.checkpoint].cells.append(cell)
    return {key: dict(by_checkpoint) for key, by_checkpoint in found.items()}


def _board_row(benchmark: str, version: str, found: dict[str, _Found], checkpoints: Sequence[str]) -> BoardRow:
    entries = tuple(_entry(name, found.get(name, _Found())) for name in checkpoints)
    any_row = next((row for entry in entries for row in ([entry.row] if entry.row else entry.rows)), None)
    if any_row is None:
        return BoardRow(benchmark, benchmark, "", version, False, (), None, entries)
    return BoardRow(
        benchmark, any_row.title, any_row.task, version, any_row.twin, any_row.datasets, any_row.split, entries
    )


def _entry(checkpoint: str, found: _Found) -> Entry:
    cells = tuple(sorted(found.cells, key=lambda cell: (cell.seed is None, cell.seed or 0)))
    headline = next((row for row in found.rows if row.headline), None)
    state, reason = _state(headline, cells, bool(found.rows))
    return Entry(checkpoint, state, reason, headline, tuple(found.rows), cells)


def _state(headline: ScoreRow | None, cells: Sequence[Cell], any_rows: bool) -> tuple[State, str | None]:
    if headline is not None:
        return ("done", None) if headline.value is not None else ("undefined", headline.variant or None)
    for state in ("failed", "skipped"):
        if reasons := [cell.reason for cell in cells if cell.state == state]:
            return state, next((reason for reason in reasons if reason), None)
    if cells and not all(cell.done for cell in cells):
        return "missing", next(cell.state for cell in cells if not cell.done)
    return "missing", "no headline number" if any_rows or cells else None


def _compared(rows: Sequence[BoardRow], baseline: str, draws: int, seed: int) -> list[BoardRow]:
    """Every entry with a number against the baseline's, corrected over each checkpoint's benchmarks."""
    outcomes: defaultdict[str, dict[int, Outcome]] = defaultdict(dict)
    for place, row in enumerate(rows):
        base = next(entry for entry in row.entries if entry.checkpoint == baseline)
        for entry in row.entries:
            if entry is not base and entry.contender:
                outcomes[entry.checkpoint][place] = (
                    compare(entry.contender, base.contender, draws, seed)
                    if base.contender
                    else Outcome(None, reason="the baseline has no number here")
                )
    corrected = {name: dict(zip(found, correct(list(found.values())), strict=True)) for name, found in outcomes.items()}
    return [
        replace(
            row,
            entries=tuple(replace(one, outcome=corrected.get(one.checkpoint, {}).get(place)) for one in row.entries),
        )
        for place, row in enumerate(rows)
    ]
