"""The benchmark of a training step: what it counts against formulas by hand, and that it runs with next to nothing."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chexray.platform.training.chunks import embed_in_chunks
from chexray.platform.training.peak import peak_flops

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = "--pairs 6 --micro-batch 2 --steps 1 --warmup 1 --rounds 2 --tower test_vit --image-size 32 --text-layers 2 "
TINY += "--text-width 64 --tokens 64 --stored-size 48 --workers 1"

WITHOUT = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.split(".")[0] in {"ray", "deepspeed", "open_clip", "pydantic"} or name == "chexray"
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path = [BuiltinImporter, FrozenImporter, Hiding]
for name in ("ray", "deepspeed", "open_clip", "pydantic", "chexray"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is not hidden")
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[1] + "/train_step.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def step() -> Iterator[Any]:
    """The benchmark's modules by name, as a script beside them would import them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))  # type: ignore[no-untyped-call]
        yield lambda name: importlib.import_module(name)


@pytest.fixture(scope="module")
def tiny(step: Any) -> Any:
    torch.manual_seed(0)
    return step("step.towers").DualTowers("test_vit", 32, text_layers=2, text_width=64, tokens=64)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run of tiny towers where Ray, DeepSpeed, open_clip and pydantic cannot be found, nor chexray installed."""
    out = tmp_path_factory.mktemp("step") / "report.json"
    command = [sys.executable, "-c", WITHOUT, str(BENCHMARKS), *TINY.split(), "--peak-tflops", "1", "--json", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "ratio of pairs/s within a round" in done.stdout
    return dict(json.loads(out.read_text()))


def transformer_forward(layers: int, width: int, tokens: int, mlp: int) -> int:
    """By hand: query, key, value and output, two layers of an MLP, and two products of attention; 2 a multiply-add."""
    return layers * (2 * tokens * width * (4 * width + 2 * mlp) + 2 * 2 * tokens**2 * width)


def test_flops_of_pairs_are_the_formulas_at_each_reports_length(step: Any, tiny: Any) -> None:
    vit = tiny.image
    side, width, mlp = 32 // 16, vit.embed_dim, vit.blocks[0].mlp.fc1.out_features
    patches = 2 * side**2 * width * 3 * 16 * 16
    tokens = side**2 + vit.num_prefix_tokens
    # Backward costs twice forward, but for the patches: a picture needs no gradient.
    image = 3 * transformer_forward(len(vit.blocks), width, tokens, mlp) + 2 * patches + 3 * 2 * width * 512
    expected = [image + 3 * transformer_forward(2, 64, length, 256) + 3 * 2 * 64 * 512 for length in (3, 16, 45, 64)]
    assert step("step.towers").pair_flops(tiny, 32, [3, 16, 45, 64]) == expected


def test_drawn_report_lengths_are_spread_as_documented(step: Any) -> None:
    lengths = step("step.towers").drawn_lengths(20_000, 256, 0)
    assert np.percentile(lengths, [5, 50, 95, 99]) == pytest.approx([28, 63, 143, 202], rel=0.03)
    assert min(lengths) >= 3
    assert max(lengths) == 256


def test_report_lengths_from_a_file_are_of_those_and_cut_at_the_context(step: Any, tmp_path: Path) -> None:
    known = tmp_path / "lengths.txt"
    known.write_text("5\n17 900\n")
    given = type("Given", (), {"lengths": known, "pairs": 200, "tokens": 64})
    assert set(step("train_step").given_lengths(given)) == {5, 17, 64}


def test_run_without_ray_deepspeed_open_clip_and_pydantic_reports_both_loops(report: dict[str, Any]) -> None:
    assert set(report["loops"]) == {"ours", "plain"}
    for loop in report["loops"].values():
        assert loop["pairs"] == 6
        assert loop["pairs_per_second"]["min"] > 0
        assert set(loop["parts"]) == {"data wait", "to device", "forward", "backward", "optimizer"}
        assert all(seconds >= 0 for seconds in loop["parts"].values())
        assert loop["peak_bytes"] > 1e8
    assert len(report["rounds"]) == 2
    assert 0 < report["ratio"]["min"] <= report["ratio"]["median"] <= report["ratio"]["max"]


def test_rate_is_pairs_by_seconds_and_the_ratio_is_of_the_same_round(report: dict[str, Any]) -> None:
    for found in report["rounds"]:
        for loop in found.values():
            assert loop["pairs_per_second"] * loop["step_seconds"] == pytest.approx(6)
            assert 0 < sum(loop["parts"].values()) <= loop["step_seconds"]
    ratios = [found["plain"]["step_seconds"] / found["ours"]["step_seconds"] for found in report["rounds"]]
    assert [report["ratio"][name] for name in ("min", "max")] == pytest.approx(sorted(ratios))


def test_utilisation_is_model_flops_by_the_peak_that_was_given(report: dict[str, Any]) -> None:
    loop = report["loops"]["plain"]
    flops = report["model_gflops_per_pair"] * 1e9 * loop["pairs_per_second"]["median"]
    assert loop["utilisation"] == pytest.approx(flops / 1e12, rel=1e-6)


def test_agreement_of_the_loops_is_close_and_the_step_moved_the_loss(report: dict[str, Any]) -> None:
    found = report["agreement"]
    assert found["worst"] < 1e-4  # worst seen 1.4e-6
    assert abs(found["ours"][0] - found["ours"][1]) > 10 * found["tolerance"]


@pytest.mark.parametrize("broken", ["rows of the reports", "gradients of all images but one"])
def test_agreement_of_loops_that_differ_ends_the_program(
    step: Any, tiny: Any, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        image_bD, text_bD, scale = embed_in_chunks(*arguments)
        if broken == "rows of the reports":
            return image_bD, text_bD.roll(1, dims=0), scale
        return torch.cat([image_bD[:1], image_bD[1:].detach()]), text_bD, scale

    loops = step("step.loops")
    monkeypatch.setattr(loops, "embed_in_chunks", other)
    with pytest.raises(SystemExit, match="do not take the same step"):
        loops.check_agreement(tiny, 32, 64, torch.device("cpu"))


def test_plain_loop_that_does_not_fit_is_halved_until_it_does(step: Any, tiny: Any) -> None:
    loops, towers = step("step.loops"), step("step.towers")
    settings = loops.Settings(32, 64, micro_batch=2, workers=0, device=torch.device("cpu"), dtype=None)
    pairs = towers.draw_pairs(towers.drawn_lengths(9, 64, 0), 32, 0)
    tried = []

    def make(count: int) -> Any:
        tried.append(count)
        if count > 2:
            raise torch.OutOfMemoryError(f"{count} pairs")
        return loops.Plain(tiny, pairs.first(count), settings)

    assert step("step.measure").measure_what_fits(make, 9, warmup=1, steps=1)["pairs"] == 2
    assert tried == [9, 4, 2]


def test_tower_with_batch_normalisation_in_parts_is_refused(step: Any) -> None:
    given = type("Given", (), {"tower": "x", "micro_batch": 2, "pairs": 4})
    with pytest.raises(SystemExit, match="--tower x: 1 normalises over the whole batch"):
        step("train_step").refuse_batch_norm(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), given)


# By the vendors' data sheets, in TFLOP/s: bfloat16, float16.
@pytest.mark.parametrize(
    ("name", "bfloat16", "float16"),
    [
        ("NVIDIA H100 80GB HBM3", 1979 / 2, 1979 / 2),
        ("NVIDIA H100 PCIe", 1513 / 2, 1513 / 2),
        ("NVIDIA H100 NVL", 1671 / 2, 1671 / 2),
        ("NVIDIA H200", 1979 / 2, 1979 / 2),
        ("NVIDIA H200 NVL", 1671 / 2, 1671 / 2),
        ("NVIDIA GH200 480GB", 1979 / 2, 1979 / 2),
        ("NVIDIA A100-SXM4-80GB", 312, 312),
        ("NVIDIA A100-PCIE-40GB", 312, 312),
        ("NVIDIA A100 80GB PCIe", 312, 312),
        ("NVIDIA A10", 125, 125),
        ("NVIDIA L40S", 362.05, 362.05),
        ("NVIDIA L40", 181.05, 181.05),
        ("NVIDIA L4", 242 / 2, 242 / 2),
        ("Tesla V100-SXM2-16GB", None, 125),
        ("Tesla V100-PCIE-32GB", None, 112),
        ("Tesla T4", None, 65),
        ("NVIDIA GeForce RTX 4090", 165.2, 165.2),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA A10G", None, None),
        ("NVIDIA H20", None, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None),
        ("2 threads of AMD EPYC", None, None),
    ],
)
def test_peak_of_a_device_is_its_data_sheets(name: str, bfloat16: float | None, float16: float | None) -> None:
    for dtype, tflops in ((torch.bfloat16, bfloat16), (torch.float16, float16), (torch.float32, None)):
        expected = None if tflops is None else pytest.approx(tflops * 1e12)
        assert peak_flops(name, dtype) == expected
