"""Who is in the corpus: patients with several studies each, their findings and reports, and the defects.

Pairs come in blocks of 32. A block depends on the configuration and its own number alone, so any pair can be
made without the others, in any order and in any process, and a longer corpus begins with the shorter one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from chexray.platform.corpus.schema import NO_FINDING
from chexray.platform.corpus.synthetic.anatomy import Sex, View
from chexray.platform.corpus.synthetic.labels import FINDINGS, Finding, sample_findings, sample_presence
from chexray.platform.corpus.synthetic.wording import write_report

BLOCK = 32
ImageFormat = Literal["png", "dicom"]
Defect = Literal["", "corrupt", "duplicate", "mismatched", "missing_image", "empty_report"]
STUDY_SHARES = (0.46, 0.23, 0.13, 0.09, 0.05, 0.04)
"""Shares of patients with 1 to 6 studies."""

_SIZES = (96, 1024)


@dataclass(frozen=True)
class SyntheticConfig:
    """A synthetic corpus. Rates are shares of pairs; `monochrome1_rate` is a share of DICOM files.

    `unknown_pair_rate` of the pairs leave `unknown_cell_rate` of their labels unknown.
    Raises ValueError where a field is out of range.
    """

    pairs: int = 2000
    size: int = 256
    seed: int = 0
    image_format: ImageFormat = "png"
    corrupt_rate: float = 0.006
    duplicate_rate: float = 0.010
    mismatched_rate: float = 0.010
    missing_image_rate: float = 0.004
    empty_report_rate: float = 0.005
    unknown_pair_rate: float = 0.15
    unknown_cell_rate: float = 1 / 3
    monochrome1_rate: float = 0.25

    def __post_init__(self) -> None:
        if self.pairs < 0:
            raise ValueError(f"pairs is {self.pairs}; it must be 0 or more")
        if not _SIZES[0] <= self.size <= _SIZES[1]:
            raise ValueError(f"size is {self.size}; it must be {_SIZES[0]} to {_SIZES[1]} pixels")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more")
        if self.image_format not in get_args(ImageFormat):
            raise ValueError(f"image_format is {self.image_format!r}; it must be one of {get_args(ImageFormat)}")
        for name in (f.name for f in fields(self) if f.name.endswith("_rate")):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 to 1")
        if sum(_defect_rates(self).values()) > 1:
            raise ValueError(f"the defect rates sum to {sum(_defect_rates(self).values())}; at most 1 is allowed")


@dataclass(frozen=True)
class PairPlan:
    """A pair before anything is drawn. `findings` is what the image shows; `report` may be wrong or empty.

    `recorded` is what `pairs.csv` says: 1 present, 0 absent, None unknown. `defect_source` is the index of the
    pair that a duplicate copies or that a mismatched report belongs to. `image_index` is whose image it is.
    """

    index: int
    patient_id: str
    study_id: str
    view: View
    sex: Sex
    age: int
    findings: tuple[Finding, ...]
    report: str
    recorded: dict[str, bool | None]
    anatomy_key: tuple[int, ...]
    image_index: int
    defect: Defect = ""
    defect_source: int | None = None

    @property
    def labels(self) -> dict[str, bool]:
        """The image's truth: every finding, and 'No Finding' where none is present."""
        present = {finding.name for finding in self.findings}
        return {**{name: name in present for name in FINDINGS}, NO_FINDING: not present}


def plan_pair(config: SyntheticConfig, index: int) -> PairPlan:
    """Patient, findings, report and defect of pair `index` (0 or more), without drawing it."""
    if index < 0:
        raise ValueError(f"index is {index}; it must be 0 or more")
    # only these fields may influence a block, so that size, format and length do not change who is in it
    return _plan_block(replace(config, pairs=0, size=_SIZES[0], image_format="png"), index // BLOCK)[index % BLOCK]


@lru_cache(maxsize=64)
def _plan_block(config: SyntheticConfig, block: int) -> tuple[PairPlan, ...]:
    rng = np.random.default_rng([config.seed, block])
    plans: list[PairPlan] = []
    patient = 0
    while len(plans) < BLOCK:
        plans += _plan_patient(config, block, patient, first=block * BLOCK + len(plans), room=BLOCK - len(plans))
        patient += 1
    return tuple(_add_defects(config, rng, plans))


def _plan_patient(config: SyntheticConfig, block: int, patient: int, first: int, room: int) -> list[PairPlan]:
    rng = np.random.default_rng([config.seed, block, patient])
    studies = min(room, int(rng.choice(len(STUDY_SHARES), p=STUDY_SHARES)) + 1)
    sex: Sex = "F" if rng.random() < 0.47 else "M"
    age = int(np.clip(rng.normal(58, 17), 18, 95))
    findings_S = sample_findings(rng, sample_presence(rng, studies))
    plans = []
    for study, findings in enumerate(findings_S):
        view = _sample_view(rng, findings)
        plans.append(
            PairPlan(
                index=first + study,
                patient_id=f"P{block:05d}{patient:02d}",
                study_id=f"S{block:05d}{patient:02d}{study}",
                view=view,
                sex=sex,
                age=age + study // 2,
                findings=findings,
                report=write_report(rng, findings, view),
                recorded={},
                anatomy_key=(config.seed, block, patient),
                image_index=first + study,
            )
        )
    return [replace(plan, recorded=_record_labels(config, rng, plan)) for plan in plans]


def _sample_view(rng: np.random.Generator, findings: tuple[Finding, ...]) -> View:
    sick = {"Support Devices", "Edema"} & {finding.name for finding in findings}
    return "AP" if rng.random() < (0.6 if sick else 0.22) else "PA"


def _record_labels(config: SyntheticConfig, rng: np.random.Generator, plan: PairPlan) -> dict[str, bool | None]:
    vague = rng.random() < config.unknown_pair_rate
    hidden = rng.random(len(FINDINGS) + 1) < config.unknown_cell_rate
    return {
        name: None if vague and unknown else value
        for (name, value), unknown in zip(plan.labels.items(), hidden, strict=True)
    }


def _defect_rates(config: SyntheticConfig) -> dict[Defect, float]:
    return {
        "corrupt": config.corrupt_rate,
        "duplicate": config.duplicate_rate,
        "mismatched": config.mismatched_rate,
        "missing_image": config.missing_image_rate,
        "empty_report": config.empty_report_rate,
    }


def _add_defects(config: SyntheticConfig, rng: np.random.Generator, plans: list[PairPlan]) -> list[PairPlan]:
    """Draw each pair's defect. Sources are clean pairs of the block; a pair without one stays clean."""
    rates = _defect_rates(config)
    kinds: list[Defect] = [*rates, ""]
    chances = [*rates.values(), 1 - sum(rates.values())]
    drawn = [kinds[i] for i in rng.choice(len(kinds), size=BLOCK, p=np.clip(chances, 0, 1))]
    clean = [i for i, defect in enumerate(drawn) if not defect]
    return [_with_defect(rng, plans, clean, i, defect) for i, defect in enumerate(drawn)]


def _with_defect(
    rng: np.random.Generator, plans: list[PairPlan], clean: list[int], position: int, defect: Defect
) -> PairPlan:
    plan = plans[position]
    if defect == "duplicate":
        earlier = [i for i in clean if i < position]
        return _duplicated(plan, plans[int(rng.choice(earlier))]) if earlier else plan
    if defect == "mismatched":
        others = [i for i in clean if plans[i].labels != plan.labels]
        if not others:
            return plan
        other = plans[int(rng.choice(others))]
        return replace(plan, defect=defect, report=other.report, defect_source=other.index)
    if defect == "empty_report":
        return replace(plan, defect=defect, report="")
    return replace(plan, defect=defect)


def _duplicated(plan: PairPlan, source: PairPlan) -> PairPlan:
    """The source's pair once more, registered as another patient's study."""
    return replace(
        source,
        index=plan.index,
        patient_id=f"D{plan.study_id[1:]}",
        study_id=f"D{plan.study_id[1:]}",
        defect="duplicate",
        defect_source=source.index,
    )
