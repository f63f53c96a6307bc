"""A training step on the paper's towers and batch: ours, by gradient caching, against a plain mixed-precision loop.

    python benchmarks/train_step.py                                        # a GPU: 480 pairs, ViT-B/14 at 378 pixels
    python benchmarks/train_step.py --pairs 8 --micro-batch 2 --steps 1    # a CPU, minutes

Runs from a clone, with torch, timm and transformers (and torchvision and Pillow, which timm brings) alone: no Ray, no
DeepSpeed, no open_clip, no weights. Both start from the same JPEGs and tokens, with two processes or threads to decode.
Ours takes 8-bit grey images in pinned memory and pads reports to the longest of their part; the plain loop has a
DataLoader of Pillow-decoded float images and reports padded to the context, all pairs in the towers at once (as many
as fit, halved from --pairs), float16 with a GradScaler on a GPU, and looks at the loss after every step.
First both take two steps in float32 on the same pairs, and where their losses differ nothing is measured. A round is
ours and then plain; ratios within a round. --json writes everything down.

B: pairs; S: image size in pixels; L: tokens; D: embedding width.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from step.loops import Ours, Plain, Settings, check_agreement, model_embeddings
from step.measure import PARTS, device_name, fast_dtype, measure, measure_what_fits
from step.towers import AttentionKernels, DualTowers, Pairs, draw_pairs, drawn_lengths, pair_flops
from torch import nn

from chexray.platform.training.chunks import length_buckets, parts_of
from chexray.platform.training.peak import peak_flops


def main() -> None:
    given = parsed()
    load = os.getloadavg()[0]
    device = torch.device(given.device)
    ours = Settings(given.image_size, given.tokens, given.micro_batch, given.workers, device, our_dtype(given, device))
    plain = replace(ours, dtype=torch.float16 if device.type == "cuda" else None)
    torch.manual_seed(0)
    model = DualTowers(given.tower, given.image_size, given.text_layers, given.text_width, given.tokens).to(device)
    refuse_batch_norm(model, given)
    lengths = given_lengths(given)
    report: dict[str, Any] = {
        "device": device_name(device),
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "transformers": transformers.__version__},
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()},
        "load_average_before": load,
        "tokens": tokens_per_pair(lengths, given),
        "agreement": check_agreement(model, given.image_size, given.tokens, device),
    }
    pairs = draw_pairs(lengths, given.stored_size, 0)
    report["fused_attention"] = fused_attention(model, pairs, ours)
    report["compile"], embed = chosen_embeddings(model, pairs, ours, given)
    makers: dict[str, Callable[[int], Ours | Plain]] = {
        "ours": lambda count: Ours(model, pairs.first(count), ours, embed),
        "plain": lambda count: Plain(model, pairs.first(count), plain),
    }
    report |= measured_rounds(makers, given)
    flops = pair_flops(model, given.image_size, lengths)
    report["model_gflops_per_pair"] = sum(flops) / len(flops) / 1e9
    report["loops"] = {
        name: summary(name, report["rounds"], settings, flops, given)
        for name, settings in (("ours", ours), ("plain", plain))
        if name in report["rounds"][0]
    }
    print_table(report, given)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def our_dtype(given: argparse.Namespace, device: torch.device) -> torch.dtype | None:
    if given.precision == "auto":
        return fast_dtype(device)
    return torch.bfloat16 if given.precision == "bfloat16" else None


def refuse_batch_norm(model: nn.Module, given: argparse.Namespace) -> None:
    normed = [name for name, part in model.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if normed and given.micro_batch < given.pairs:
        sys.exit(f"--tower {given.tower}: {normed[0]} normalises over the whole batch, which cannot be cut then")


def given_lengths(given: argparse.Namespace) -> list[int]:
    """Of each pair's report: drawn from the file's, or like Open-I's; cut at the text tower's context."""
    if given.lengths is None:
        return drawn_lengths(given.pairs, given.tokens, 0)
    known = [int(length) for length in given.lengths.read_text().split()]
    draw = np.random.default_rng(0).choice(known, given.pairs)
    return [int(length) for length in draw.clip(3, given.tokens)]


def tokens_per_pair(lengths: Sequence[int], given: argparse.Namespace) -> dict[str, float]:
    """The reports' own, and what goes through the text tower in each loop."""
    parts = length_buckets(lengths, parts_of([len(lengths)], given.micro_batch))
    through = sum(len(rows) * longest for rows, longest in parts)
    return {"own": statistics.mean(lengths), "ours": through / len(lengths), "plain": given.tokens}


def fused_attention(model: DualTowers, pairs: Pairs, settings: Settings) -> dict[str, dict[str, int]]:
    """Which of torch's fused attention kernels each tower calls in training, and how often."""
    pixels = torch.zeros(2, 3, settings.image_size, settings.image_size, device=settings.device)
    found = {}
    for name, embed, batch in (
        ("image", model.embed_image, pixels),
        ("text", model.embed_text, pairs.padded([0, 1]).to(settings.device)),
    ):
        with AttentionKernels() as kernels, settings.autocast():
            embed(batch)
        found[name] = dict(kernels.calls)
    return found


def chosen_embeddings(
    model: DualTowers, pairs: Pairs, settings: Settings, given: argparse.Namespace
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Ours, compiled or not: as told, or on a GPU whichever takes the shorter steps."""
    ways = {"off": model_embeddings(model), "on": model_embeddings(model, torch.compile)}
    chosen, seconds = given.compile, {}
    if chosen == "auto" and (settings.device.type != "cuda" or given.only == "plain"):
        chosen = "off"
    if chosen == "auto":
        for way, embed in ways.items():
            seconds[way] = measure(Ours(model, pairs, settings, embed), warmup=2, steps=2)["step_seconds"]
        chosen = min(seconds, key=lambda way: seconds[way])
    return {"chosen": chosen, "step_seconds": seconds}, ways[chosen]


def measured_rounds(makers: dict[str, Callable[[int], Ours | Plain]], given: argparse.Namespace) -> dict[str, Any]:
    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        found: dict[str, Any] = {}
        for name in [given.only] if given.only else list(makers):
            count = rounds[0][name]["pairs"] if rounds else given.pairs
            found[name] = measure_what_fits(makers[name], count, given.warmup, given.steps)
            print(f"round {number}, {name}: {found[name]['pairs_per_second']:.3g} pairs/s", file=sys.stderr, flush=True)
        rounds.append(found)
    if given.only:
        return {"rounds": rounds}
    ratios = [found["ours"]["pairs_per_second"] / found["plain"]["pairs_per_second"] for found in rounds]
    return {"rounds": rounds, "ratio": spread(ratios)}


def summary(
    name: str, rounds: Sequence[dict[str, Any]], settings: Settings, flops: Sequence[int], given: argparse.Namespace
) -> dict[str, Any]:
    """Over rounds: medians, and of what is told most by it the range too."""
    measured = [found[name] for found in rounds]
    count, dtype = measured[0]["pairs"], settings.dtype or torch.float32
    peak = given.peak_tflops * 1e12 if given.peak_tflops else peak_flops(device_name(settings.device), dtype)
    rate = spread([one["pairs_per_second"] for one in measured])
    achieved = rate["median"] * sum(flops[:count]) / count
    return {
        "pairs": count,
        "precision": str(dtype).removeprefix("torch."),
        "pairs_per_second": rate,
        "step_seconds": spread([one["step_seconds"] for one in measured]),
        "host_seconds": statistics.median(one["host_seconds"] for one in measured),
        "parts": {part: statistics.median(one["parts"][part] for one in measured) for part in PARTS},
        "peak_bytes": measured[-1]["peak_bytes"],
        "host_waits": measured[-1]["host_waits"],
        "model_tflops": achieved / 1e12,
        "utilisation": achieved / peak if peak else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def print_table(report: dict[str, Any], given: argparse.Namespace) -> None:
    loops, tokens = report["loops"], report["tokens"]
    print(f"{report['device']}, load {report['load_average_before']:.1f} before; {report['versions']}")
    print(
        f"{given.tower} at {given.image_size} pixels, BERT of {given.text_layers} x {given.text_width}; reports of "
        f"{tokens['own']:.0f} tokens, {tokens['ours']:.0f} with padding in ours, {tokens['plain']} in plain; "
        f"{report['model_gflops_per_pair']:.0f} GFLOPs a pair"
    )
    print(f"ours in parts of {given.micro_batch}; compiled: {report['compile']}")
    print(f"fused attention in ours: {report['fused_attention']}")
    print(f"losses of two float32 steps differ by {report['agreement']['worst']:.1e} at most")
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("pairs a step", lambda one: f"{one['pairs']}"),
        ("precision", lambda one: one["precision"]),
        ("pairs/s", lambda one: ranged(one["pairs_per_second"])),
        ("step, s", lambda one: ranged(one["step_seconds"])),
        *((f"  {part}, s", lambda one, part=part: f"{one['parts'][part]:.3f}") for part in PARTS),
        ("CPU time of a step, s", lambda one: f"{one['host_seconds']:.3g}"),
        ("peak memory, GiB", lambda one: f"{one['peak_bytes'] / 2**30:.1f}" if one["peak_bytes"] else "unknown"),
        ("host waits for GPU", lambda one: "-" if one["host_waits"] is None else f"{one['host_waits']}"),
        ("model TFLOP/s", lambda one: f"{one['model_tflops']:.3g}"),
        ("utilisation", lambda one: f"{one['utilisation']:.1%}" if one["utilisation"] else "peak unknown"),
    ]
    print("| | " + " | ".join(loops) + " |\n|---|" + "---|" * len(loops))
    for title, cell in rows:
        print(f"| {title} | " + " | ".join(cell(one) for one in loops.values()) + " |")
    if "ratio" in report:
        print(f"ratio of pairs/s within a round: {ranged(report['ratio'])}")
    if any(one["pairs"] < given.pairs for one in loops.values()):
        print(
            f"{given.pairs} pairs did not fit at once: the smaller step is not the same step, but the same work a pair"
        )


def ranged(values: dict[str, float]) -> str:
    return f"{values['median']:.3g} ({values['min']:.3g} to {values['max']:.3g})"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=480)
    parser.add_argument("--micro-batch", type=int, default=60, help="ours: pairs in the towers at once")
    parser.add_argument("--steps", type=int, default=5, help="of a measurement")
    parser.add_argument("--warmup", type=int, default=2, help="steps before it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "plain"])
    parser.add_argument("--tower", default="vit_base_patch14_dinov2", help="timm's name of it")
    parser.add_argument("--image-size", type=int, default=378)
    parser.add_argument("--text-layers", type=int, default=12)
    parser.add_argument("--text-width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=256, help="the text tower's context")
    parser.add_argument("--lengths", type=Path, help="a file of report lengths in tokens; without: drawn like Open-I's")
    parser.add_argument("--stored-size", type=int, default=512, help="of the JPEGs, in pixels")
    parser.add_argument("--workers", type=int, default=2, help="threads (ours) or processes (plain) that decode")
    parser.add_argument("--precision", choices=["auto", "bfloat16", "float32"], default="auto", help="ours")
    parser.add_argument(
        "--compile", choices=["auto", "on", "off"], default="auto", help="ours; auto: what is faster on a GPU"
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device, where its name is not in training/peak.py")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.pairs < 2 or min(given.micro_batch, given.steps, given.warmup, given.rounds) < 1:
        parser.error("--pairs must be at least 2; --micro-batch, --steps, --warmup and --rounds at least 1")
    return given


if __name__ == "__main__":
    try:
        main()
    except torch.OutOfMemoryError as error:  # the plain loop asks for less by itself
        sys.exit(f"out of memory: lower --micro-batch ({str(error).splitlines()[0]})")
