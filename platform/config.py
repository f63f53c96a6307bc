"""Every setting of every stage, validated; and recipes, which are named, complete sets of them.

A setting is given as `--set section.key=value`. What cannot be is refused with the key, the value and what is
allowed. Where something runs (workers, devices) is no part of a recipe: it must not change a result.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from chexray.platform.errors import UsageError
from chexray.platform.evaluate_config import EvaluateConfig
from chexray.platform.settings import Fraction, Positive, Seed, Settings, first_problem


class VisionTower(Settings):
    """The image tower: any timm model. `weights`: null (from nothing), 'hub' (timm's own), or a file's URI."""

    timm_model: str = "convnext_atto"
    image_size: int = Field(96, ge=32, le=1024, description="pixels, square")
    weights: str | None = None
    layer_scale: float | None = Field(
        None, gt=0, description="restart value of layer-scale gammas, for towers trained from nothing"
    )


class TextTower(Settings):
    """The text tower: a Hugging Face encoder (`hf_model`: hub name, local folder or URI) or a plain transformer."""

    hf_model: str | None = None
    hf_weights: bool = Field(True, description="start from the Hugging Face model's weights")
    pooler: Literal["last_token_pooler", "mean_pooler", "cls_last_hidden_state_pooler"] = "last_token_pooler"
    context_length: int = Field(64, ge=8, le=1024, description="tokens")
    width: int = Field(128, ge=32, le=2048)
    heads: Positive = 4
    layers: Positive = 2


class ModelConfig(Settings):
    """The dual encoder."""

    embed_dim: int = Field(128, ge=16, le=4096)
    projection_bias: bool = Field(
        False, description="of both towers' projections: the paper's released weights have it"
    )
    init_temperature: float = Field(0.07, gt=0, le=1)
    vision: VisionTower = VisionTower()
    text: TextTower = TextTower()

    @property
    def pretrained(self) -> bool:
        """Whether both towers start from weights that mean something, so that they can score pairs."""
        return self.vision.weights is not None and self.text.hf_model is not None and self.text.hf_weights


class IngestConfig(Settings):
    """From a dataset's files to a corpus."""

    short_side: int | None = Field(512, ge=32, description="pixels of the stored image's short side; null keeps all")
    codec: Literal["jpeg", "png"] = "jpeg"
    shard_pairs: int = Field(512, ge=1, le=100_000)
    split: Literal["auto", "train", "validation", "test"] = Field(
        "auto", description="'auto': the dataset's own split where it has one, else by patient"
    )
    validation_share: Fraction = 0.1
    test_share: Fraction = 0.2
    min_report_words: Positive = 1
    max_report_words: Positive = Field(2000, description="longer reports are something else: the pair is rejected")
    view: Literal["any", "frontal", "lateral"] = Field("any", description="known other views are rejected")
    dicom_window: int = Field(0, ge=0, description="which of several DICOM windows is shown")
    polarity: Literal["mend", "reject", "keep"] = Field("mend", description="what to do with inverted images")
    redaction: str | None = Field(None, description="YAML file of regions with burned-in text that are blacked out")
    classifier: str | None = Field(None, description="folder of a Hugging Face image classifier, asked of every image")
    classes: tuple[str, ...] = Field(("frontal",), description="the classifier's labels that are kept")
    translators: dict[str, str] = Field({}, description="from a language to the folder of a model that translates it")
    duplicates: Literal["drop", "keep"] = "drop"
    leaks: Literal["drop", "report"] = Field("drop", description="what to do with what an evaluation set holds")
    near_duplicate_bits: int = Field(
        16, ge=0, le=64, description="images whose 256-bit perceptual hashes differ in at most so many bits are one"
    )
    follow_links: bool = Field(False, description="read files to which links lead out of the dataset's folder")
    max_reject_rate: Fraction = Field(0.1, description="a higher share of rejected pairs fails the job")
    seed: Seed = 0

    @model_validator(mode="after")
    def _shares_leave_a_train_split(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must leave something to train on (sum below 1)")
        return self


SelectorName = Literal[
    "prototype",
    "full",
    "random",
    "stratified",
    "similarity",
    "density",
    "semdedup",
    "k_center",
    "learnability",
    "term_coverage",
]
"""`prototype` takes super-batches as they stream by; the others look at the whole corpus at once."""


class CurateConfig(Settings):
    """Which pairs to keep. Defaults are the paper's (DESIGN section 4), except that `keep` is a target."""

    selector: SelectorName = "prototype"
    keep: float = Field(0.227, gt=0, le=1, description="fraction of the train split to keep")
    mode: Literal["budget", "paper"] = Field("budget", description="'paper': fixed counts a cluster, `keep` is unused")
    prototypes: int = Field(6, ge=2, le=4096)
    super_batch: int = Field(480, ge=32, le=32_768)
    outlier: float = Field(0.05, ge=0, lt=0.5, description="share of a cluster dropped as noise")
    support: float = Field(0.10, ge=0, lt=0.5, description="share of a cluster kept as under-represented")
    central_per_cluster: Positive = Field(10, description="in mode 'paper'")
    central_quota: Literal["equal", "proportional"] = Field("equal", description="clusters' shares of the budget")
    momentum: float = Field(0.9, ge=0, lt=1)
    sinkhorn_epsilon: float = Field(0.5, gt=0)
    sinkhorn_iterations: Positive = 3
    kmeans_sample: int = Field(4096, ge=2, description="random pairs from which the prototypes start")
    image_size: int | None = Field(
        None, ge=32, le=1024, description="pixels at which pairs are scored; null: training's"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the scoring forward pass")
    refresh_steps: int | None = Field(
        16, ge=1, description="streaming: steps between the scorer's new weights; null: the scorer stays as it is"
    )
    ahead: Positive = Field(2, description="streaming: super-batches scored before the steps that need them")
    strata: Literal["finding", "dataset"] = Field("finding", description="of selector 'stratified'")
    neighbours: Positive = Field(10, description="of selector 'density'")
    clusters: Positive = Field(64, description="of selector 'semdedup'")
    term_reports: Positive = Field(2, description="of selector 'term_coverage': reports that use a word, to count it")
    stability_seeds: int = Field(0, ge=0, le=20, description="selections under other seeds that the audit compares")
    examples: int = Field(4, ge=0, le=50, description="pairs of each band that the audit's page shows")
    warmup_fraction: float = Field(0.1, gt=0, le=1, description="random share that trains a scorer from nothing")
    warmup_epochs: Positive = 4
    seed: Seed = 0

    @model_validator(mode="after")
    def _keep_leaves_room_for_outliers(self) -> Self:
        if self.kmeans_sample < self.prototypes:
            raise ValueError(f"kmeans_sample {self.kmeans_sample} is less than prototypes {self.prototypes}")
        if self.selector == "prototype" and self.mode == "budget" and self.keep > 1 - self.outlier + 1e-9:
            raise ValueError(
                f"keep {self.keep} with outlier {self.outlier}: at most {1 - self.outlier:g} can be kept; "
                "lower curate.outlier"
            )
        return self


class TrainConfig(Settings):
    """One pretraining run. `global_batch` is the whole batch, whatever the number of workers."""

    epochs: Positive = 10
    global_batch: int = Field(64, ge=2, le=65_536)
    lr: float = Field(1e-3, gt=0, le=1)
    min_lr: float = Field(1e-5, ge=0, le=1)
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(1e-4, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0)
    zero_stage: int = Field(1, ge=0, le=3)
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="'auto': bfloat16 on a GPU that has it, else float32"
    )
    choose: Literal["last", "best"] = Field(
        "last", description="the weights that a run ends with: of the last epoch, or of the lowest validation loss"
    )
    augment: float = Field(0.0, ge=0, le=0.5, description="strength of random shift, scale, turn and brightness")
    shuffle_shards: int = Field(8, ge=1, description="shards that are shuffled together; bounds memory")
    seed: Seed = 0

    @model_validator(mode="after")
    def _learning_rate_falls(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}")
        return self


class RunConfig(Settings):
    """How a pretraining run is carried out: how long it takes, what it outlives, where it goes on. Not what comes out.

    So these may change between a run and its resumption.
    """

    micro_batch: int | None = Field(
        None, ge=1, description="pairs in the towers at once: a larger share is cut, for the same step in less memory"
    )
    recompute_activations: bool = Field(False, description="keep no activations inside the towers: a third more time")
    compile: bool = Field(False, description="torch.compile the towers: minutes at the start, faster steps on GPUs")
    threads: int | None = Field(
        None, ge=1, description="of a worker on CPUs; null: an even share of its machine's cores"
    )
    validation: bool = Field(
        False, description="note the loss on the validation split at the epochs' checkpoints, as choose=best does"
    )
    max_failures: int = Field(10, ge=-1, description="lost workers that the run outlives; -1: any number")
    resize_seconds: float = Field(
        60.0, gt=0, description="between looks for nodes that have joined, with --min-workers"
    )
    stall_seconds: float = Field(1800.0, ge=10, description="without pairs, or another worker's answer: a failure")
    max_skipped: Positive = Field(10, description="steps without a finite loss and gradient, at which the run stops")
    profile_steps: int | None = Field(
        500, ge=10, description="steps between two looks at what time the exchange between workers takes; null: none"
    )
    checkpoint_epochs: Positive = Field(1, description="epochs between resumable checkpoints")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between them, beside those")
    checkpoint_minutes: float | None = Field(None, gt=0, description="minutes between them, beside those")
    checkpoints_kept: Positive = 2
    read_steps: Positive = Field(10, description="steps between two looks at the loss, the clock and notices to stop")
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="services that show the curves; where they are is in their own environment variables"
    )


class Recipe(Settings):
    """A named, complete configuration."""

    name: str
    model: ModelConfig = ModelConfig()
    ingest: IngestConfig = IngestConfig()
    curate: CurateConfig = CurateConfig()
    train: TrainConfig = TrainConfig()
    run: RunConfig = RunConfig()
    evaluate: EvaluateConfig = EvaluateConfig()


class Runtime(Settings):
    """Where a job runs. Changes how long it takes, never what comes out."""

    address: str | None = None
    workers: Positive = 1
    min_workers: int | None = Field(None, ge=1, description="a run goes on with so few; null: with all or not at all")
    scorers: Positive = Field(1, description="scorers beside the workers, while a stream is curated")
    gpu: bool = False
    cpus: int | None = Field(None, ge=1, description="logical CPUs of a Ray started here; null: the machine's")


def recipe_names() -> list[str]:
    return sorted(
        f.name.removesuffix(".yaml") for f in files("chexray.platform.recipes").iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe `name` (a shipped one, or a YAML file's path) with `section.key=value` overrides applied.

    Values are read as YAML scalars. Raises `UsageError` naming the key, the value and what is allowed.
    """
    settings = {"name": name, **_recipe_text(name)}
    for override in overrides or []:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"--set {override}: expected section.key=value, as in --set train.epochs=5")
        try:
            _put(settings, key, yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {override}: {text!r} is not a YAML value (quote it?)") from error
    return _validated(settings)


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings, by dotted key. Raises `UsageError` as `load_recipe` does."""
    content = recipe.model_dump()
    for key, value in settings.items():
        _put(content, key, value)
    return _validated(content)


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set one setting of a recipe's content, by its dotted key."""
    if key not in setting_keys():
        raise UsageError(f"--set {key}: {_unknown(key)}")
    section = content
    *parents, last = key.split(".")
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise UsageError(f"recipe {content['name']}: {parent}={section!r}: expected a section of settings")
    section[last] = value


def _validated(content: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        where = f"recipe {content['name']}"
        raise UsageError(first_problem(error, lambda key: f"{where}: {key}: {_unknown(key)}")) from error


def setting_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every key that `--set` takes, as `section.key`."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += setting_keys(kind, f"{prefix}{name}.")
        elif prefix:
            keys.append(prefix + name)
    return keys


def _recipe_text(name: str) -> dict[str, Any]:
    if name.endswith((".yaml", ".yml")):
        from chexray.platform import storage

        if not storage.exists(name):
            raise UsageError(f"--recipe {name}: no such file")
        text = storage.read_bytes(name).decode()
    elif name in recipe_names():
        text = files("chexray.platform.recipes").joinpath(f"{name}.yaml").read_text()
    else:
        raise UsageError(f"--recipe {name}: unknown; shipped are {', '.join(recipe_names())}, or give a .yaml file")
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"--recipe {name}: not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UsageError(f"--recipe {name}: expected sections (model, ingest, curate, train, evaluate)")
    return content


def _unknown(key: str) -> str:
    known = setting_keys()
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    allowed = siblings or sorted({k.partition(".")[0] + ".*" for k in known})
    return f"unknown setting; {hint}allowed: {', '.join(allowed)}"
