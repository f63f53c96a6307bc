"""The leaderboard in words: cells, marks, and the lists that stand below the table. Nothing is escaped here."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator

from chexray.evals.board.leaderboard import BoardRow, Entry, Leaderboard
from chexray.evals.board.score_files import ScoreRow, SubgroupRecord
from chexray.platform.pages.blocks import Listing

BETTER, WORSE, SEEN, UNKNOWN = "▲", "▼", "†", "?"
_SPELLING = {"auroc": "AUROC", "iou": "IoU", "dice": "Dice", "bleu": "BLEU", "rouge": "ROUGE", "f1": "F1", "ap": "AP"}
_TASKS = {
    "zero_shot": "zero-shot classification",
    "retrieval": "retrieval",
    "disease_prediction": "disease prediction",
    "segmentation": "segmentation",
    "report_generation": "report generation",
    "": "not evaluated yet",
}


def task_name(task: str) -> str:
    return _TASKS.get(task, task.replace("_", " "))


def metric_name(metric: str, finding: str | None = None) -> str:
    """'mean_auroc' as 'mean AUROC', 'bleu_4' as 'BLEU-4', 'dice' of 'lung' as 'Dice, lung'."""
    text = re.sub(r"\b(bleu|rouge)[ _]", lambda found: f"{found[1]}-", metric.replace("_", " "))
    text = re.sub(r"rouge-l\b", "rouge-L", text)
    text = re.sub(r"[a-z]+\d*", lambda found: _SPELLING.get(found[0], found[0]), text)
    return f"{text}, {finding}" if finding else text


def headline_name(row: BoardRow) -> str:
    """The metric, and where lower is better, that."""
    first = row.headline
    if first is None:
        return ""
    method = f", {first.method.replace('_', ' ')}" if first.method else ""
    lower = "" if first.higher_is_better else " (lower is better)"
    return f"{metric_name(first.metric, first.finding)}{method}{lower}"


def row_name(row: BoardRow, board: Leaderboard) -> str:
    """The title; its version where another version stands beside it."""
    versions = {other.version for other in board.rows if other.benchmark == row.benchmark}
    return f"{row.title} (version {row.version})" if len(versions) > 1 else row.title


def number(value: float | None, signed: bool = False) -> str:
    """Three digits after the point; one from 10 on."""
    if value is None or math.isnan(value):
        return "–"
    digits = 3 if abs(value) < 10 else 1
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def span(low: float | None, high: float | None, signed: bool = False) -> str:
    return "–" if low is None or high is None else f"{number(low, signed)} to {number(high, signed)}"


def p_text(p_value: float) -> str:
    if math.isnan(p_value):
        return "–"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def share_text(share: float | None) -> str:
    if share is None:
        return "not known"
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "<0.1%"


def value_text(entry: Entry) -> str:
    """The number, or in its place the state."""
    if entry.state == "done" and entry.row:
        return number(entry.row.value)
    return {"missing": "–"}.get(entry.state, entry.state)


def other_metric(row: BoardRow, entry: Entry) -> str:
    """The entry's own metric where it is not the one that stands beside the benchmark's name."""
    first, own = row.headline, entry.row
    if (
        first is None
        or own is None
        or all(getattr(first, n) == getattr(own, n) for n in ("metric", "finding", "method"))
    ):
        return ""
    return ", ".join([metric_name(own.metric, own.finding), *([own.method.replace("_", " ")] if own.method else [])])


def marks(entry: Entry) -> str:
    """Better or worse than the baseline, seen in training."""
    if entry.state != "done":
        return ""
    against = {"better": BETTER, "worse": WORSE}.get(entry.verdict or "", "")
    return against + {"seen": SEEN, "unknown": UNKNOWN}.get(entry.seen, "")


def legend(board: Leaderboard) -> list[tuple[str, str]]:
    """The marks that occur, and what they mean."""
    used = "".join(marks(entry) for row in board.rows for entry in row.entries)
    against = f"than {board.baseline}, p < 0.05 by Holm's correction over the benchmarks"
    meanings = {
        BETTER: f"better {against}",
        WORSE: f"worse {against}",
        SEEN: "the checkpoint was trained on images or patients of the benchmark",
        UNKNOWN: "whether it was is not known, at least in part",
    }
    return [(mark, meaning) for mark, meaning in meanings.items() if mark in used]


def summary_lines(board: Leaderboard) -> list[str]:
    """Each checkpoint against the baseline, in a sentence."""
    return [
        f"{name} against {board.baseline}: "
        + ", ".join(f"{verdict} on {count}" for verdict, count in counts.items() if count)
        for name, counts in board.summary().items()
        if any(counts.values())
    ]


def listings(board: Leaderboard, comparisons: bool = True, reasons: bool = True) -> list[Listing]:
    """What stands below the table, without the lists that are empty.

    `comparisons`: with differences and gaps. `reasons`: why metrics were not run, which is long.
    """
    found = [_comparisons(board), _gaps(board)] if comparisons else []
    not_run = _not_run(board) if reasons else _not_run_in_short(board)
    return [one for one in (*found, _seen(board), not_run, _failures(board)) if one.rows]


def widest_gaps(board: Leaderboard) -> Listing:
    """The widest gap of each checkpoint on each benchmark, for where there is no room for all."""
    rows = []
    for name, _, entry in _entries(board):
        found = [(one.gap.value, place, one) for place, one in enumerate(entry.subgroups) if one.gap is not None]
        if found:
            widest = max(found)[2]
            rows.append((name, entry.checkpoint, widest.attribute, metric_name(widest.metric), gap_text(widest)))
    header = ("benchmark", "checkpoint", "by", "of", "gap (95 % interval)")
    return Listing("Widest gap between subgroups", "", header, tuple(rows))


def gap_text(one: SubgroupRecord) -> str:
    """'0.081 (0.02 to 0.14), worst 80+, best 20-39'."""
    if one.gap is None:
        return "–"
    interval = f"{number(one.gap.value)} ({span(one.gap.low, one.gap.high)})"
    return f"{interval}, worst {one.gap.worst}, best {one.gap.best}" if one.gap.value else f"{interval}, all alike"


def outcome_notes(entry: Entry) -> str:
    if entry.outcome is None:
        return ""
    return "; ".join([*([entry.outcome.reason] if entry.outcome.reason else []), *entry.outcome.notes])


def seen_text(row: ScoreRow) -> tuple[str, str]:
    """Share of the images, and of the patients, that were seen in training."""
    return share_text(row.seen_in_training), share_text(row.seen_patients)


def _entries(board: Leaderboard) -> Iterator[tuple[str, BoardRow, Entry]]:
    for row in board.rows:
        for entry in row.entries:
            yield row_name(row, board), row, entry


def _comparisons(board: Leaderboard) -> Listing:
    rows = []
    for name, _, entry in _entries(board):
        if (found := entry.outcome) is None:
            continue
        made = found.comparison
        difference = "–" if made is None else f"{number(made.difference, True)} ({span(made.low, made.high, True)})"
        p_values = ("–", "–") if made is None else (p_text(made.p_value), p_text(found.p_holm))
        rows.append((name, entry.checkpoint, difference, *p_values, entry.verdict or "", outcome_notes(entry)))
    lead = (
        f"The checkpoint's number less that of {board.baseline} on the same samples, by the paired bootstrap over "
        f"patients ({board.draws:,} draws). The corrected p-value is Holm's over all benchmarks of the checkpoint."
    )
    header = ("benchmark", "checkpoint", "difference (95 % interval)", "p", "corrected p", "verdict", "notes")
    return Listing(f"Against {board.baseline}", lead, header, tuple(rows))


def _gaps(board: Leaderboard) -> Listing:
    rows = tuple(
        (name, entry.checkpoint, one.attribute, metric_name(one.metric), gap_text(one))
        for name, _, entry in _entries(board)
        for one in entry.subgroups
        if one.gap is not None
    )
    lead = (
        "The best group's score less the worst's. Some group is always the best: a gap is above 0 by chance too, the "
        "more so the smaller the groups."
    )
    header = ("benchmark", "checkpoint", "by", "metric", "gap (95 % interval)")
    return Listing("Gaps between subgroups", lead, header, rows)


def _seen(board: Leaderboard) -> Listing:
    rows = tuple(
        (name, entry.checkpoint, *seen_text(entry.row))
        for name, _, entry in _entries(board)
        if entry.row and entry.seen == "seen"
    )
    lead = (
        "How much of a benchmark the checkpoint was trained on. Such a number says less about data that it never saw."
    )
    return Listing("Seen in training", lead, ("benchmark", "checkpoint", "images", "patients"), rows)


def _not_run(board: Leaderboard) -> Listing:
    """Grouped: a package that is not there is missing for every checkpoint."""
    found: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    where: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for name, _, entry in _entries(board):
        for one in entry.not_run:
            key = (name, one.reason)
            found[key][f"{metric_name(one.metric)} ({one.variant})" if one.variant else metric_name(one.metric)] = None
            where[key][entry.checkpoint] = None
    everyone = len(board.checkpoints)
    rows = tuple(
        (key[0], "all" if len(where[key]) == everyone else ", ".join(where[key]), "; ".join(metrics), key[1])
        for key, metrics in found.items()
    )
    return Listing("Metrics that were not run", "", ("benchmark", "checkpoint", "metrics", "reason"), rows)


def _not_run_in_short(board: Leaderboard) -> Listing:
    """Their names alone: reasons are long, and stand in the pages and in JSON."""
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, _, entry in _entries(board):
        found[name] |= dict.fromkeys(metric_name(one.metric) for one in entry.not_run)
    rows = tuple((name, ", ".join(metrics)) for name, metrics in found.items() if metrics)
    return Listing("Metrics that were not run (why: --html or --json)", "", ("benchmark", "metrics"), rows)


def _failures(board: Leaderboard) -> Listing:
    rows = [
        (
            name,
            entry.checkpoint,
            _seed(cell.seed),
            cell.state,
            cell.reason or ("no reason given" if cell.state == "failed" else "–"),
        )
        for name, _, entry in _entries(board)
        for cell in entry.failures
    ]
    rows += [
        (name, entry.checkpoint, "–", entry.state, entry.reason)
        for name, _, entry in _entries(board)
        if entry.reason and not entry.failures and entry.state in ("undefined", "missing")
    ]
    header = ("benchmark", "checkpoint", "seed", "state", "reason")
    return Listing("Without a number, in whole or in part", "", header, tuple(rows))


def _seed(seed: int | None) -> str:
    return "–" if seed is None else str(seed)
