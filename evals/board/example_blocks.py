"""What the page of one benchmark shows of patients: images, retrieved reports, masks, generated reports.

All of it is patients' data: these blocks are made only where they are asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError

from chexray.evals.board.example_pairs import read_pairs, thumbnail
from chexray.evals.board.leaderboard import BoardRow, Entry
from chexray.evals.board.sample_scores import decoding_name, report_files
from chexray.evals.board.score_files import Cell
from chexray.evals.board.words import number
from chexray.platform import storage
from chexray.platform.corpus import raster
from chexray.platform.errors import UsageError
from chexray.platform.pages.blocks import Block, Passage, PictureCard, PictureCards, TextCard, TextCards
from chexray.platform.pages.overlay import PREDICTION, REFERENCE, overlay

_QUERIES, _RETRIEVED = 4, 3
_MASKED, _CLASSES = 6, 4
_REPORTS = 6


class _Retrieved(BaseModel):
    sample_id: str
    report: str
    similarity: float | None = None


class _Query(BaseModel):
    """An image of which reports were asked. `rank`: of its own report, from 1."""

    sample_id: str
    report: str
    rank: float | None = None
    retrieved: list[_Retrieved] = []


def example_blocks(row: BoardRow) -> tuple[list[Block], list[str]]:
    """The examples of a benchmark's task, and what could not be shown."""
    made = {"retrieval": _retrieval, "segmentation": _segmentation, "report_generation": _reports}.get(row.task)
    if made is None:
        return [], []
    return made([entry for entry in row.entries if _first_cell(entry)])


def _first_cell(entry: Entry) -> Cell | None:
    return next((cell for cell in entry.cells if cell.done and cell.folder), None)


def _corpora(entries: Sequence[Entry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        if cell := _first_cell(entry):
            found |= cell.corpora
    return found


def _retrieval(entries: Sequence[Entry]) -> tuple[list[Block], list[str]]:
    queries = {entry.checkpoint: _read_queries(entry)[:_QUERIES] for entry in entries}
    ids = {one.sample_id for found in queries.values() for one in found}
    pairs, problems = read_pairs(_corpora(entries), ids, ["image"])
    blocks: list[Block] = []
    for checkpoint, found in queries.items():
        cards = [TextCard(one.sample_id, thumbnail(pairs.get(one.sample_id)), _passages(one)) for one in found]
        lead = "Each image asks for its report. Beside it its own report, and those that the checkpoint put first."
        if cards:
            blocks.append(TextCards(f"Retrieved by {checkpoint}", lead, cards))
    return blocks, problems if ids else []


def _read_queries(entry: Entry) -> list[_Query]:
    cell = _first_cell(entry)
    if cell is None or not storage.is_file(cell.file("examples.json")):
        return []
    found = storage.read_json(cell.file("examples.json"))
    try:
        return [_Query.model_validate(one) for one in found]
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{cell.file('examples.json')}: not a list of retrieval examples") from error


def _passages(query: _Query) -> list[Passage]:
    rank = "" if query.rank is None else f"retrieved at rank {query.rank:g}"
    passages = [Passage("its own report", query.report, rank)]
    for place, one in enumerate(query.retrieved[:_RETRIEVED], start=1):
        own = ", its own" if one.sample_id == query.sample_id or one.report == query.report else ""
        passages.append(Passage(f"retrieved {place}{own}", one.report, f"similarity {number(one.similarity)}"))
    return passages


def _segmentation(entries: Sequence[Entry]) -> tuple[list[Block], list[str]]:
    """Samples from the worst to the best of the first checkpoint, so that failures are seen too."""
    scores = {
        entry.checkpoint: _cell_table(entry, "masks.parquet", ["sample_id", "class", "dice"]) for entry in entries
    }
    tables = {name: table for name, table in scores.items() if table is not None and len(table)}
    if not tables:
        return [], []
    first: pa.Table = next(iter(tables.values()))
    ids = _spread(first, _MASKED)
    classes = list(dict.fromkeys(first["class"].to_pylist()))[:_CLASSES]
    pairs, problems = read_pairs(_corpora(entries), ids, ["image", "masks"])
    masks = {entry.checkpoint: _masks(entry, ids) for entry in entries if entry.checkpoint in tables}
    cards = [
        PictureCard(
            one,
            [
                _drawn(name, label, found.get((one, label)), pairs.get(one))
                for label in classes
                for name, found in masks.items()
            ],
        )
        for one in ids
    ]
    lead = f"{len(ids)} images from the lowest to the highest Dice of {next(iter(tables))}, at even steps" + (
        f"; the first {_CLASSES} classes." if len(set(first["class"].to_pylist())) > _CLASSES else "."
    )
    legend = [(PREDICTION, "predicted (filled)"), (REFERENCE, "reference")]
    return [PictureCards("Masks", lead, legend, cards)], problems


def _spread(table: pa.Table, most: int) -> list[str]:
    """Sample ids at even steps of the order by mean Dice over classes."""
    grouped = table.group_by("sample_id").aggregate([("dice", "mean")])
    dice_B = grouped["dice_mean"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    ids = grouped["sample_id"].to_pylist()
    order = sorted(
        (row for row in range(len(ids)) if not np.isnan(dice_B[row])), key=lambda row: (dice_B[row], ids[row])
    )
    steps = np.linspace(0, max(0, len(order) - 1), min(most, len(order)))
    places = sorted({round(float(step)) for step in steps})
    return [ids[order[place]] for place in places]


def _masks(entry: Entry, ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    table = _cell_table(entry, "masks.parquet", ["sample_id", "class", "dice", "mask"])
    if table is None:
        return {}
    chosen = table.filter(pc.is_in(table["sample_id"], value_set=pa.array(ids, pa.string())))
    return {(row["sample_id"], row["class"]): row for row in chosen.to_pylist()}


def _drawn(
    checkpoint: str, label: str, found: Mapping[str, Any] | None, pair: Mapping[str, Any] | None
) -> tuple[str, bytes | None]:
    if found is None:
        return f"{checkpoint}, {label}: no prediction", None
    dice = "no Dice" if found["dice"] is None else f"Dice {number(found['dice'])}"
    caption = f"{checkpoint}, {label}: {dice}"
    if pair is None or found["mask"] is None:
        return caption, None
    reference = dict(pair["masks"] or []).get(label)
    try:
        reference_HW = None if reference is None else raster.decode_mask(reference)
        return caption, overlay(raster.decode_raster(pair["image"]), raster.decode_mask(found["mask"]), reference_HW)
    except raster.UnreadableImage as error:
        return f"{caption} ({error})", None


def _reports(entries: Sequence[Entry]) -> tuple[list[Block], list[str]]:
    """Pairs at random (ids are hashes, and the smallest are taken), with what every checkpoint wrote of them."""
    written: dict[str, list[Passage]] = defaultdict(list)
    references: dict[str, str] = {}
    ids: list[str] = []
    for entry in entries:
        cell = _first_cell(entry)
        for name in report_files(cell) if cell else []:
            table = _cell_table(entry, name)
            if table is None:
                continue
            ids = ids or sorted(set(table["sample_id"].to_pylist()))[:_REPORTS]
            chosen = table.filter(pc.is_in(table["sample_id"], value_set=pa.array(ids, pa.string())))
            for one in chosen.to_pylist():
                references.setdefault(one["sample_id"], one["reference"])
                heading = f"{entry.checkpoint}, {decoding_name(name)}"
                written[one["sample_id"]].append(Passage(heading, one["generated"] or "(empty)", _report_note(one)))
    pairs, problems = read_pairs(_corpora(entries), ids, ["image"])
    cards = [
        TextCard(one, thumbnail(pairs.get(one)), [Passage("reference", references[one]), *written[one]]) for one in ids
    ]
    lead = f"{len(ids)} pairs drawn at random, with the radiologist's report and the generated ones."
    return ([TextCards("Generated reports", lead, cards)] if cards else []), problems if ids else []


def _report_note(row: Mapping[str, Any]) -> str:
    value = next((row[name] for name in row if name.startswith("rouge_l (")), None)
    return "" if value is None else f"ROUGE-L {number(value)}"


def _cell_table(entry: Entry, name: str, columns: Sequence[str] | None = None) -> pa.Table | None:
    cell = _first_cell(entry)
    return None if cell is None else cell.table(name, columns)
