"""What a benchmark is: one small YAML file, which names data, split, task, labels, prompts and metric, and a version.

The shipped ones are in `chexray.evals.registry`; anyone adds one by a file of their own. Data comes from corpora by
name, through one `data.yaml`:

    nih: s3://bucket/corpora/nih
    montgomery: /data/corpora/montgomery

Every benchmark has a twin on synthetic radiographs: the same protocol with other findings, for machines without data.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from chexray.evals.prompts import prompt_families
from chexray.platform import storage
from chexray.platform.corpus.schema import Split
from chexray.platform.corpus.synthetic.labels import FINDINGS as SYNTHETIC_FINDINGS
from chexray.platform.errors import UsageError
from chexray.platform.settings import Positive, Settings

Task = Literal["zero_shot", "retrieval", "disease_prediction", "segmentation", "report_generation"]
TASKS: tuple[Task, ...] = get_args(Task)
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=80)]

SYNTHETIC = "synthetic"
OWN = "corpus"
"""What plain tasks call the corpus that they are given."""
SYNTHETIC_MASKS = ("lungs", *SYNTHETIC_FINDINGS)
ALL = "all"

METRICS: dict[Task, tuple[str, ...]] = {
    "zero_shot": ("mean_auroc", "mean_auroc_common", "mean_auroc_rare"),
    "retrieval": tuple(f"{d}_recall@{k}" for d in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
    "disease_prediction": ("mean_auroc", "mean_auroc_common", "mean_auroc_rare"),
    "segmentation": ("dice", "iou", "mean_dice", "mean_iou"),
    "report_generation": (
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "rouge_l",
        "radgraph_f1",
        "chexbert_f1_14_micro",
        "chexbert_f1_14_macro",
    ),
}
"""Which of a task's numbers may stand for a benchmark on a leaderboard."""


class Resources(Settings):
    """What a cell takes of a cluster. `gpus` counts only where the job is told to use GPUs."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)


class Twin(Settings):
    """The same benchmark on synthetic radiographs: their findings and masks in place of the dataset's own."""

    findings: tuple[Label, ...] = ()
    masks: tuple[Label, ...] = ()

    @model_validator(mode="after")
    def _exists(self) -> Self:
        for kind, names, allowed in (
            ("findings", self.findings, tuple(SYNTHETIC_FINDINGS)),
            ("masks", self.masks, SYNTHETIC_MASKS),
        ):
            if unknown := sorted(set(names) - set(allowed)):
                raise ValueError(f"{kind} {', '.join(unknown)}: not drawn; allowed: {', '.join(allowed)}")
        return self


class BenchmarkSpec(Settings):
    """One benchmark. `findings` and `masks` empty: all that the data has (masks: must be named).

    `exclusive`: only pairs on which exactly one of the `findings` is present. `metric`: the number that stands for the
    benchmark on a leaderboard, and `variant` which of several by that name (a part of the result's own variant).
    `source`: whose protocol it is. `needs`: what to know when the data is ingested.
    """

    name: Name
    version: Positive = 1
    title: str
    task: Task
    source: str
    datasets: tuple[Name, ...] = Field(min_length=1)
    split: Literal["validation", "test"] = "test"
    findings: tuple[Label, ...] = ()
    exclusive: bool = False
    masks: tuple[Label, ...] = ()
    prompts: str | None = None
    metric: str
    variant: str = ""
    needs: str = ""
    resources: Resources = Resources()
    twin: Twin = Twin()

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        if self.metric not in METRICS[self.task]:
            raise ValueError(f"metric {self.metric}: {self.task} has {', '.join(METRICS[self.task])}")
        if self.prompts is not None:
            try:
                prompt_families(self.prompts)
            except UsageError as error:
                raise ValueError(str(error)) from error
        if self.task == "segmentation" and not self.masks:
            raise ValueError("masks: segmentation needs the names of one or more")
        if self.exclusive and len(self.findings) < 2:
            raise ValueError("exclusive: needs two or more findings")
        if self.findings and not self.exclusive and self.task not in ("zero_shot", "disease_prediction"):
            raise ValueError(f"findings: {self.task} uses them with exclusive: true only")
        if self.metric.startswith("mean_") and self.task == "segmentation" and len(self.masks) < 2:
            raise ValueError(f"metric {self.metric}: is of two or more masks; of one, {self.metric[5:]}")
        for kind in ("findings", "masks", "datasets"):
            names = getattr(self, kind)
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: one is named twice")
        return self

    @property
    def is_twin(self) -> bool:
        return self.datasets == (SYNTHETIC,)

    @property
    def learns(self) -> bool:
        """Whether something is trained, which takes a train and a validation split."""
        return self.task in ("disease_prediction", "segmentation", "report_generation")

    @property
    def looks_at_maps(self) -> bool:
        """Whether it needs more of an image than its embedding and features, which are encoded once."""
        return self.task in ("segmentation", "report_generation")

    @property
    def splits(self) -> tuple[Split, ...]:
        """Which splits of its data it reads."""
        return ("train", "validation", self.split) if self.learns else (self.split,)


def twin_of(spec: BenchmarkSpec) -> BenchmarkSpec:
    """The benchmark's twin, by the same name: results say that it is one. UsageError where its file leaves it open."""
    for kind, needed in (("masks", spec.task == "segmentation"), ("findings", spec.exclusive)):
        if needed and not getattr(spec.twin, kind):
            raise UsageError(f"{spec.name}: its file has no twin.{kind}, so it has no synthetic twin")
    return spec.model_copy(
        update={
            "datasets": (SYNTHETIC,),
            "findings": spec.twin.findings,
            "masks": spec.twin.masks,
            "title": f"{spec.title} (synthetic twin)",
        }
    )


def plain_spec(task: Task) -> BenchmarkSpec:
    """A task on a corpus of one's own, by the task's name: every finding, every pair of the split."""
    metric = {"retrieval": "image_to_text_recall@10", "segmentation": "dice", "report_generation": "rouge_l"}
    return BenchmarkSpec(
        name=task,
        title=task.replace("_", " "),
        task=task,
        source="",
        datasets=(OWN,),
        masks=("lungs",) if task == "segmentation" else (),
        metric=metric.get(task, "mean_auroc"),
    )


def shipped_specs() -> dict[str, BenchmarkSpec]:
    """The registry, by name, in the order of tasks and names."""
    found = [
        read_spec(file.read_text(), file.name)
        for file in files("chexray.evals.registry").iterdir()
        if file.name.endswith(".yaml")
    ]
    found.sort(key=lambda spec: (TASKS.index(spec.task), spec.name))
    return {spec.name: spec for spec in found}


def load_spec(file: str) -> BenchmarkSpec:
    """A benchmark from somebody's own file, by path or URI."""
    if not storage.is_file(file):
        raise UsageError(f"{file}: no such file; expected a benchmark's YAML")
    return read_spec(storage.read_bytes(file).decode("utf-8", errors="replace"), file)


def read_spec(text: str, where: str) -> BenchmarkSpec:
    """A benchmark from YAML. UsageError names the field, its value and what is allowed."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected fields ({', '.join(BenchmarkSpec.model_fields)})")
    try:
        return BenchmarkSpec.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{where}: {_problem(error)}") from error


def choose_specs(names: list[str]) -> dict[str, BenchmarkSpec]:
    """The benchmarks by `names`: of the registry, `all` of it, or one's own .yaml files."""
    shipped, chosen = shipped_specs(), dict[str, BenchmarkSpec]()
    if not names:
        raise UsageError(f"--benchmarks: none given; allowed: {ALL}, {', '.join(shipped)}, or a .yaml file")
    for name in names:
        if name == ALL:
            chosen |= shipped
        elif name.endswith((".yaml", ".yml")):
            spec = load_spec(name)
            if spec.name in shipped:
                raise UsageError(f"--benchmarks {name}: {spec.name} is the name of a shipped benchmark; take another")
            chosen[spec.name] = spec
        elif name in shipped:
            chosen[name] = shipped[name]
        else:
            raise UsageError(f"--benchmarks {name}: unknown; allowed: {ALL}, {', '.join(shipped)}, or a .yaml file")
    return chosen


def plain_specs(names: list[str]) -> dict[str, BenchmarkSpec]:
    """The tasks by `names`, on a corpus of one's own."""
    if not names:
        raise UsageError(f"--benchmarks: none given; allowed with --corpus: {', '.join(TASKS)}")
    for name in names:
        if name not in TASKS:
            raise UsageError(
                f"--benchmarks {name}: unknown; allowed with --corpus: {', '.join(TASKS)}; the registry's benchmarks "
                "take their data from --data"
            )
    return {task: plain_spec(task) for task in TASKS if task in names}


def read_data(uri: str) -> dict[str, str]:
    """`data.yaml`: from a dataset's name to its corpus, relative paths below the file's folder."""
    if not storage.is_file(uri):
        raise UsageError(f"--data {uri}: no such file; expected YAML lines as 'nih: /data/corpora/nih'")
    try:
        content = yaml.safe_load(storage.read_bytes(uri).decode("utf-8", errors="replace")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"--data {uri}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or not all(isinstance(part, str) for item in content.items() for part in item):
        raise UsageError(f"--data {uri}: expected lines as 'nih: /data/corpora/nih'")
    folder = storage.resolve(uri).rpartition("/")[0]
    return {name: path if _is_whole(path) else storage.join(folder, path) for name, path in content.items()}


def _is_whole(path: str) -> bool:
    return storage.is_remote(path) or path.startswith(("/", "~", "file://"))


def _problem(error: ValidationError) -> str:
    problem: dict[str, Any] = dict(error.errors()[0])
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{field}: unknown; allowed: {', '.join(BenchmarkSpec.model_fields)}"
    if problem["type"] == "missing":
        return f"{field}: is missing"
    if problem["type"] == "value_error":
        return f"{field}{': ' if field else ''}{problem['ctx']['error']}"
    return f"{field}={problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
