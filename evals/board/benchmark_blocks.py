"""What the page of one benchmark shows in numbers: headlines, curves, findings and groups, all results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from chexray.evals.board.curves import Curves, curves
from chexray.evals.board.leaderboard import BoardRow, Entry, Leaderboard
from chexray.evals.board.sample_scores import NotCompared, Predictions, read_predictions
from chexray.evals.board.score_files import DISEASE_PREDICTION, CalibrationRecord, GroupRecord, ScoreRow
from chexray.evals.board.significance import compare_findings
from chexray.evals.board.words import (
    metric_name,
    number,
    outcome_notes,
    p_text,
    seen_text,
    span,
    value_text,
)
from chexray.evals.statistics import FloatArray, weighted_auroc
from chexray.platform.pages.blocks import Listing, PlotRow, Plots
from chexray.platform.pages.curve_figures import Line, precision_recall_figure, reliability_figure, roc_figure


def headlines(row: BoardRow, board: Leaderboard) -> Listing:
    """The number of each checkpoint, and what the baseline makes of it."""
    variants = list(dict.fromkeys(entry.row.variant for entry in row.entries if entry.row))
    rows = []
    for entry in row.entries:
        name = f"{entry.checkpoint} (baseline)" if entry.checkpoint == board.baseline else entry.checkpoint
        notes = [outcome_notes(entry), entry.reason or ""]
        if len(variants) > 1 and entry.row:
            notes.append(f"measured by: {entry.row.variant}")
        against = _against(entry) if board.baseline else []
        rows.append((name, *_number_cells(entry), *against, "; ".join(note for note in notes if note)))
    extra = (f"less {board.baseline}", "p; corrected", "verdict") if board.baseline else ()
    header = ("checkpoint", "metric", "value", "95 % interval", "n", "images seen", "patients seen", *extra, "notes")
    lead = f"Measured by: {variants[0]}" if len(variants) == 1 and variants[0] else ""
    if not any(one[-1] for one in rows):
        header, rows = header[:-1], [one[:-1] for one in rows]
    return Listing("Checkpoints", lead, header, tuple(rows))


def _number_cells(entry: Entry) -> list[str]:
    first = entry.row
    if first is None:
        return ["–", value_text(entry), *["–"] * 4]
    metric, interval = metric_name(first.metric, first.finding), span(first.low, first.high)
    return [metric, value_text(entry), interval, f"{first.n:,}", *seen_text(first)]


def _against(entry: Entry) -> list[str]:
    if entry.outcome is None or entry.outcome.comparison is None:
        return ["–", "–", entry.verdict or "–"]
    made = entry.outcome.comparison
    difference = f"{number(made.difference, True)} ({span(made.low, made.high, True)})"
    return [difference, f"{p_text(made.p_value)}; {p_text(entry.outcome.p_holm)}", entry.verdict or "–"]


def curve_plots(row: BoardRow) -> tuple[Plots | None, list[str]]:
    """ROC, precision-recall and reliability of every finding, all checkpoints in each plot; and what is missing."""
    found: dict[int, Predictions] = {}
    problems = []
    for place, entry in enumerate(row.entries):
        if entry.contender is not None:
            try:
                found[place] = read_predictions(entry.contender.row, entry.contender.cells)
            except NotCompared as reason:
                problems.append(f"{entry.checkpoint} has no curves: {reason}.")
    findings = dict.fromkeys(name for one in found.values() for name in one.findings)
    rows = [plots for finding in findings if (plots := _finding_plots(finding, found, row.entries)) is not None]
    if not rows:
        return None, problems
    lead = "Dotted lines: chance, the prevalence, and probabilities that mean what they say."
    if row.task == DISEASE_PREDICTION:
        lead += " With the largest share of labels; lines are of the first seed, AUROCs the mean over seeds."
    return Plots("Findings", lead, rows), problems


def against_baseline(row: BoardRow, board: Leaderboard) -> list[Listing]:
    """DeLong's test of each finding, a table for each checkpoint."""
    base = next((entry.contender for entry in row.entries if entry.checkpoint == board.baseline), None)
    tables = []
    for entry in row.entries:
        if base is None or entry.checkpoint == board.baseline or entry.contender is None:
            continue
        try:
            tests = compare_findings(entry.contender, base)
        except NotCompared:
            continue  # the headline's note says why
        rows = tuple(
            (
                test.finding,
                f"{test.positives:,} of {test.positives + test.negatives:,}",
                f"{number(test.comparison.difference, True)} ({span(test.comparison.low, test.comparison.high, True)})",
                p_text(test.comparison.p_value),
                p_text(test.p_holm),
            )
            for test in tests
        )
        lead = "Difference of AUROC by DeLong's test, clustered by patient; corrected by Holm over the findings."
        header = ("finding", "positives", "difference (95 % interval)", "p", "corrected p")
        tables.append(Listing(f"{entry.checkpoint} against {board.baseline}, by finding", lead, header, rows))
    return [table for table in tables if table.rows]


def subgroup_tables(row: BoardRow) -> list[Listing]:
    """A table for each attribute and metric: groups by checkpoints, and the gap in the last line."""
    keys = dict.fromkeys((one.attribute, one.metric) for entry in row.entries for one in entry.subgroups)
    tables = []
    for attribute, metric in keys:
        records = [
            next((one for one in entry.subgroups if (one.attribute, one.metric) == (attribute, metric)), None)
            for entry in row.entries
        ]
        groups = [{} if one is None else {group.name: group for group in one.groups} for one in records]
        names = sorted({name for one in groups for name in one})
        rows = [(name, *(_group_text(one.get(name)) for one in groups)) for name in names]
        gaps = [
            "–" if one is None or one.gap is None else f"{number(one.gap.value)} ({span(one.gap.low, one.gap.high)})"
            for one in records
        ]
        header = (attribute, *(entry.checkpoint for entry in row.entries))
        rows.append(("gap, best less worst", *gaps))
        tables.append(Listing(f"By {attribute}: {metric_name(metric)}", "", header, tuple(rows)))
    return tables


def calibration_table(row: BoardRow) -> Listing | None:
    """Calibration errors and Brier scores: findings by checkpoints."""
    records = [{one.finding: one for one in _calibration(entry)} for entry in row.entries]
    findings = dict.fromkeys(name for one in records for name in one)
    if not findings:
        return None
    rows = tuple((name, *(_calibration_text(one.get(name)) for one in records)) for name in findings)
    lead = (
        "Expected calibration error with its 95 % interval; then the Brier score, and that of always predicting the "
        "prevalence. Lower is better."
    )
    return Listing("Calibration", lead, ("finding", *(entry.checkpoint for entry in row.entries)), rows)


def all_results(row: BoardRow) -> Listing:
    """Every number of the benchmark: metrics, findings and variants by checkpoints."""
    found: defaultdict[tuple[str, str, str], dict[str, ScoreRow]] = defaultdict(dict)
    for entry in row.entries:
        for one in entry.rows:
            variant = "; ".join(part for part in ((one.method or "").replace("_", " "), one.variant) if part)
            found[metric_name(one.metric), one.finding or "", variant][entry.checkpoint] = one
    rows = tuple(
        (metric, finding, *(_result_text(by_name.get(entry.checkpoint)) for entry in row.entries), variant)
        for (metric, finding, variant), by_name in found.items()
    )
    header = ("metric", "finding", *(entry.checkpoint for entry in row.entries), "variant")
    return Listing("All results", "With 95 % intervals over patients.", header, rows)


def _finding_plots(finding: str, found: dict[int, Predictions], entries: Sequence[Entry]) -> PlotRow | None:
    drawn: dict[int, Curves] = {}
    said = []
    for place, one in found.items():
        if finding not in one.findings:
            continue
        column = one.findings.index(finding)
        score_SB, target_B = one.probability_SBF[:, :, column], one.target_BF[:, column]
        lines = curves(score_SB[0], target_B)
        if lines is None:
            continue
        drawn[place] = lines
        if len(drawn) == 1:
            said.append(f"{int((target_B == 1).sum()):,} positives of {int((~np.isnan(target_B)).sum()):,}")
        auroc, precision = _mean_auroc(score_SB, target_B), number(lines.average_precision)
        said.append(f"{entries[place].checkpoint}: AUROC {auroc}, average precision {precision}")
    if not drawn:
        return None
    names = {place: entries[place].checkpoint for place in drawn}
    rocs = [Line(names[place], place, one.roc.x_P, one.roc.y_P) for place, one in drawn.items()]
    recalls = [
        Line(names[place], place, one.precision_recall.x_P, one.precision_recall.y_P) for place, one in drawn.items()
    ]
    prevalence = next(iter(drawn.values())).prevalence
    plots = [("ROC", roc_figure(rocs)), ("precision and recall", precision_recall_figure(recalls, prevalence))]
    if reliability := _reliability(finding, entries):
        plots.append(("reliability", reliability_figure(reliability)))
    return PlotRow(finding, " · ".join(said), plots)


def _mean_auroc(score_SB: FloatArray, target_B: FloatArray) -> str:
    """The mean over seeds; a dash where a seed did not learn the finding."""
    if np.isnan(score_SB[:, ~np.isnan(target_B)]).any():
        return "–"
    once_1B = np.ones((1, len(target_B)))
    return number(float(np.mean([weighted_auroc(score_B, target_B, once_1B)[0] for score_B in score_SB])))


def _reliability(finding: str, entries: Sequence[Entry]) -> list[Line]:
    lines = []
    for place, entry in enumerate(entries):
        bins = next((one.bins for one in _calibration(entry) if one.finding == finding), ())
        if bins:
            lines.append(Line(entry.checkpoint, place, [one.predicted for one in bins], [one.observed for one in bins]))
    return lines


def _calibration(entry: Entry) -> tuple[CalibrationRecord, ...]:
    return next((cell.calibration for cell in entry.cells if cell.done and cell.calibration), ())


def _calibration_text(one: CalibrationRecord | None) -> str:
    if one is None:
        return "–"
    return f"{number(one.error)} ({span(one.low, one.high)}); {number(one.brier)}, {number(one.baseline_brier)}"


def _group_text(one: GroupRecord | None) -> str:
    if one is None:
        return "–"
    if one.value is None:
        return f"left out: {one.left_out or 'no value'}"
    return f"{number(one.value)} ({span(one.low, one.high)}), {one.patients:,} patients"


def _result_text(one: ScoreRow | None) -> str:
    if one is None or one.value is None:
        return "–"
    return number(one.value) if one.low is None else f"{number(one.value)} ({span(one.low, one.high)})"
