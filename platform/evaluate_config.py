"""The settings of evaluation: of every task type, its protocol."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chexray.platform.settings import Fraction, Positive, Seed, Settings

Method = Literal["linear_probe", "fine_tuning"]
"""Of disease prediction."""
DecoderName = Literal["unet", "linear"]
Layers = Literal["spread", "last"]
"""Which five of an encoder's layers: evenly spaced up to the last, or the last five."""
Empty = Literal["one", "left out"]
"""What an image counts whose true mask is empty. `one`: 1 where the prediction is empty too, else 0, as in SIIM-ACR's
challenge. `left out`: it has no value."""

Rate = Annotated[float, Field(gt=0)]


class FineTuningConfig(Settings):
    """AdamW with one learning rate for the head and one for the encoder, each a warm-up and then a cosine to zero.

    `decay` is of matrices and filters only, `clip_norm` of the joint gradient.
    """

    epochs: Positive = 30
    patience: int = Field(10, ge=1, description="epochs without a better one on validation, after which training ends")
    batch: int = Field(32, ge=4)
    head_lr: Rate = 1e-3
    encoder_lr: Rate = 5e-5
    decay: float = Field(1e-2, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps")
    clip_norm: Rate = 1.0

    @property
    def name(self) -> str:
        """As a result's variant names it."""
        return (
            f"fine-tuned; AdamW, lr {self.encoder_lr:g} encoder, {self.head_lr:g} head, cosine, batch {self.batch}, "
            f"best of up to {self.epochs} epochs by validation AUROC"
        )


class SegmentationConfig(Settings):
    """How decoders are trained. Both learning rates fall to 0 along a cosine over all steps."""

    decoder: DecoderName = "unet"
    layers: Layers = "spread"
    fine_tune: bool = Field(False, description="of the encoder; else it is frozen")
    epochs: Positive = 50
    batch: Positive = 8
    lr: Rate = Field(1e-3, description="of the decoder")
    tower_lr: Rate = Field(1e-5, description="of an encoder that is fine-tuned")
    weight_decay: float = Field(1e-4, ge=0)
    empty: Empty = "one"
    cache_bytes: int = Field(
        2 * 2**30,
        ge=0,
        description="of CPU memory for a frozen encoder's maps (or pixels, where it learns); the rest is computed anew",
    )
    seed: Seed = Field(0, description="in an evaluation, the cell's")


class LoraConfig(Settings):
    """Low-rank adapters (Hu et al. 2021) in the language model's linear layers."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: tuple[str, ...] = Field((), description="names of the layers; empty: all linear ones but the output's")


class ReportConfig(Settings):
    """How reports are generated: which language model, what of it is trained and how, and how it is decoded."""

    language_model: str | None = Field(
        None,
        description="a causal language model: hub name, local folder or URI, in safetensors; 'scratch': a small GPT-2 "
        "that starts from nothing, with a vocabulary of the train reports",
    )
    tune: Literal["projector", "lora", "full"] = Field("lora", description="what is trained beside the projector")
    lora: LoraConfig = LoraConfig()
    projector: Literal["linear", "mlp"] = "mlp"
    image_grid: int | None = Field(None, ge=1, description="image features are averaged to so many a side; null: as is")
    prompt: str = Field("", description="text between the image and the report")
    report_tokens: int = Field(256, ge=2, description="longer reports are cut in training, and generation stops there")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the language model's weights")
    epochs: Positive = 3
    batch: Positive = 8
    learning_rate: Rate = Field(1e-3, description="of the projector")
    language_learning_rate: Rate = Field(2e-4, description="of adapters or of the language model")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    clip: Rate = Field(1.0, description="largest norm of the gradient")
    beams: tuple[Positive, ...] = Field((1, 4), min_length=1, description="decodings to score; 1 is greedy")
    seed: Seed = Field(0, description="in an evaluation, the cell's")


class EvaluateConfig(Settings):
    """How checkpoints are scored."""

    prompts: str | None = Field(None, description="family of prompts for all benchmarks; null: each one's own")
    split: Literal["validation", "test"] | None = Field(None, description="for all benchmarks; null: each one's own")
    bootstrap: int = Field(2000, ge=10, le=100_000, description="draws over patients")
    min_positives: Positive = Field(5, description="findings with fewer positives are left out of the mean")
    rare_below: float = Field(0.02, gt=0, lt=1, description="findings with a lower prevalence count as rare")
    batch: Positive = 64
    methods: tuple[Method, ...] = Field(
        ("linear_probe", "fine_tuning"), min_length=1, description="of disease prediction"
    )
    label_shares: tuple[Fraction, ...] = Field((0.01, 0.1, 1.0), min_length=1, description="of the train labels")
    label_seeds: tuple[Seed, ...] = Field((42, 0, 1), min_length=1, description="BenchX's (Zhou et al. 2024)")
    fine_tuning: FineTuningConfig = FineTuningConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    reports: ReportConfig = ReportConfig()
    seed: Seed = 0

    @model_validator(mode="after")
    def _each_run_is_one(self) -> Self:
        for name in ("methods", "label_shares", "label_seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: one is named twice")
        if self.segmentation.seed or self.reports.seed:
            raise ValueError("segmentation.seed and reports.seed follow evaluate.seed; set that")
        return self
