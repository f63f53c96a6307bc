"""Two steps of training in this process, on made-up pairs, without Ray and DeepSpeed."""

from __future__ import annotations

import math
import time

from chexray.platform.config import Recipe
from chexray.platform.doctor.diagnosis import Diagnosis
from chexray.platform.errors import first_line

STEPS = 2
_PAIRS = 8


def check_training(recipe: Recipe, device_name: str = "cpu") -> Diagnosis:
    """Whether the recipe's towers train on `device_name`: the loss has to be finite and the weights to move.

    Images are noise and reports a sentence each; nothing is read or fetched.
    """
    try:
        started = time.monotonic()
        losses, moved = _train(recipe, device_name)
    except Exception as error:  # noqa: BLE001 - whatever stops training is the diagnosis
        advice = "mend what the checks above found first; then run the demo (chexray demo) for the whole error"
        return Diagnosis("training", "failure", f"{type(error).__name__}: {first_line(error)}", advice)
    seconds = time.monotonic() - started
    found = f"{STEPS} steps on {device_name} in {seconds:.1f} s, loss {losses[0]:.3f} to {losses[-1]:.3f}"
    if not (moved and all(math.isfinite(loss) for loss in losses)):
        return Diagnosis(
            "training",
            "failure",
            f"{found}: no step was taken",
            "try another device (CUDA_VISIBLE_DEVICES=), or another build of torch",
        )
    return Diagnosis("training", "ok", found)


def _train(recipe: Recipe, device_name: str) -> tuple[list[float], bool]:
    """The losses, and whether weights moved."""
    import torch

    from chexray.platform.model.contrastive import info_nce
    from chexray.platform.model.encoder import build_model, build_tokenizer, encode
    from chexray.platform.training.optimizer import GuardedAdamW, parameter_groups

    device = torch.device(device_name)
    model = build_model(recipe.model, 0).to(device).train()
    size = recipe.model.vision.image_size
    noise = torch.Generator().manual_seed(0)
    image_BHW = torch.randint(0, 256, (_PAIRS, size, size), dtype=torch.uint8, generator=noise).to(device)
    token_BL = build_tokenizer(recipe.model)([f"Report {number}: no effusion." for number in range(_PAIRS)]).to(device)
    optimizer = GuardedAdamW(parameter_groups(model, recipe.train.weight_decay), lr=recipe.train.lr)
    before = [weight.detach().clone() for weight in model.parameters()]
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = info_nce(*encode(model, image_BHW, token_BL), model.logit_scale.exp())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    after = model.parameters()
    return losses, any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
