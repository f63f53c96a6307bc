"""A corpus on one page: what is in it, what was left out, and what it looks like."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.platform import storage
from chexray.platform.artifacts import read_manifest
from chexray.platform.corpus import raster
from chexray.platform.corpus.counting import tally
from chexray.platform.corpus.report_statistics import report_statistics
from chexray.platform.corpus.shards import list_shards, read_columns, read_table
from chexray.platform.pages.page import Bar, Bars, Block, Facts, Pictures, bars, counted, picture, render_page

THUMBNAIL_PIXELS = 224
_WORD_BINS = (0, 5, 10, 20, 40, 80, 160, 320)
_CAPTION_CHARACTERS = 240


def inspect_corpus(uri: str, pairs: int = 24, seed: int = 0) -> str:
    """The HTML page of a finished corpus, with a contact sheet of `pairs` random pairs. Holds reports and images."""
    manifest = read_manifest(uri, "corpus")
    columns = ("dataset", "view", "split", "language", "report_source", "patient_id", "report", "labels", "notes")
    table = read_columns(uri, columns)
    rejects = read_table(storage.join(uri, "rejects.parquet"), ["reason"])["reason"].to_pylist()
    lead = (
        f"{len(table):,} pairs of {pc.count_distinct(table['patient_id']).as_py():,} patients, "
        f"{len(rejects):,} left out, made {manifest.finished[:10]}, fingerprint {manifest.fingerprint}"
    )
    blocks: list[Block] = [
        counted("Pairs by dataset", tally(table, "dataset")),
        counted("Pairs by split", tally(table, "split")),
        counted("Pairs by view", tally(table, "view")),
        _prevalence(table),
        _report_lengths(table),
        _report_facts(table),
        counted("Left out, by reason", Counter(rejects)),
        counted("Mended at ingestion", Counter(note for notes in table["notes"].to_pylist() for note in notes)),
        _contact_sheet(uri, min(pairs, len(table)), seed),
    ]
    return render_page(f"Corpus {uri.rstrip('/').rsplit('/', 1)[-1]}", lead, blocks)


def _prevalence(table: pa.Table) -> Bars:
    """Share of pairs with each finding among those where it is known; how many are unknown."""
    counts: defaultdict[str, Counter[int | None]] = defaultdict(Counter)
    for labels in table["labels"].to_pylist():
        for finding, value in labels or ():
            counts[finding][value] += 1
    rows = []
    for finding, seen in counts.items():
        known = seen[0] + seen[1]
        share = seen[1] / known if known else 0.0
        unknown = len(table) - known
        note = f"{seen[1]:,} of {known:,}" + (f", {unknown:,} unknown" if unknown else "")
        rows.append((share, Bar(finding, share, f"{share:.1%}" if known else "-", note)))
    return Bars("Findings: prevalence where known", [bar for _, bar in sorted(rows, key=lambda r: (-r[0], r[1].name))])


def _report_lengths(table: pa.Table) -> Bars:
    words = np.array([len(report.split()) for report in table["report"].to_pylist()])
    counts, _ = np.histogram(words, [*_WORD_BINS, np.inf])
    ends = [*(f"to {end - 1}" for end in _WORD_BINS[1:]), "or more"]
    names = [f"{start} {end} words" for start, end in zip(_WORD_BINS, ends, strict=True)]
    return bars("Report lengths", dict(zip(names, counts.tolist(), strict=True)))


def _report_facts(table: pa.Table) -> Facts:
    languages = ", ".join(f"{name} {count:,}" for name, count in tally(table, "language").items())
    sources = ", ".join(f"{name} {count:,}" for name, count in tally(table, "report_source").items())
    found = report_statistics(table["report"].to_pylist())
    rows = [("language", languages), ("written by", sources), ("distinct", f"{found.distinct:,} of {found.number:,}")]
    if found.words and found.duplicate_share is not None and found.near_duplicate_share is not None:
        words = found.words
        rows += [
            ("words: least, 5 %, median, 95 %, most", " · ".join(f"{value:g}" for value in astuple(words))),
            ("equal to an earlier one", f"{found.duplicate_share:.1%}"),
            (f"near another, of {found.near_sample:,}", f"{found.near_duplicate_share:.1%}"),
            ("largest groups of equal ones", ", ".join(f"{size:,}" for size in found.largest_groups) or "none"),
        ]
    return Facts("Reports", rows)


def _contact_sheet(uri: str, pairs: int, seed: int) -> Pictures:
    shards = list_shards(uri)
    ends = np.cumsum([shard.pairs for shard in shards])
    drawn = np.random.default_rng(seed).choice(int(ends[-1]), pairs, replace=False) if pairs else np.empty(0, np.int64)
    by_shard: defaultdict[int, list[int]] = defaultdict(list)
    for position in sorted(drawn.tolist()):
        number = int(np.searchsorted(ends, position, side="right"))
        by_shard[number].append(position - int(ends[number]) + shards[number].pairs)
    pictures = []
    for number, rows in sorted(by_shard.items()):
        columns = ["image", "report", "labels", "split", "view", "dataset", "sample_id"]
        for row in read_table(storage.join(uri, shards[number].path), columns).take(rows).to_pylist():
            small = raster.shrink(raster.decode_raster(row["image"]), THUMBNAIL_PIXELS)
            present = ", ".join(name for name, value in row["labels"] or () if value) or "no finding labelled"
            text = row["report"]
            caption = text if len(text) <= _CAPTION_CHARACTERS else f"{text[:_CAPTION_CHARACTERS]} ..."
            note = " · ".join(part for part in (row["dataset"], row["split"], row["view"], present) if part)
            jpeg = raster.encode_image(small, "jpeg", quality=85)
            pictures.append(picture(jpeg, f"pair {row['sample_id']}", caption, note))
    return Pictures(f"{pairs} random pairs (seed {seed})", pictures)
