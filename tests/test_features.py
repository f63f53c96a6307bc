"""Embeddings on storage: what comes back, and what the curator makes of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.curation.curator import Block, Curated
from chexray.curation.features import FeatureWriter, has_features, open_features
from chexray.curation.stream import curate_blocks
from chexray.platform.config import CurateConfig
from chexray.platform.errors import UsageError


def made(pairs: int, width: int = 8, seed: int = 0) -> Block:
    draw = torch.Generator().manual_seed(seed)
    image, text = (F.normalize(torch.randn(pairs, width, generator=draw), dim=1).half().numpy() for _ in range(2))
    ids = [f"{value:032x}" for value in np.random.default_rng(seed).choice(10**9, pairs, replace=False)]
    return {"sample_id": np.array(ids, dtype=object), "image": image, "text": text}


def cut(block: Block, size: int) -> Iterator[Block]:
    for start in range(0, len(block["sample_id"]), size):
        yield {name: values[start : start + size] for name, values in block.items()}


def chosen(block: Block, size: int, **given: object) -> Curated:
    config = CurateConfig(**{"prototypes": 4, "kmeans_sample": 100, **given})  # type: ignore[arg-type]
    return curate_blocks(cut(block, size), config, len(block["sample_id"]))


def test_features_written_in_blocks_are_read_back_in_their_order(place: str) -> None:
    block = made(100)
    writer = FeatureWriter(place, 100)
    assert not has_features(place)
    for part in cut(block, 33):
        assert writer.take(part) is part
    writer.finish(14.5)
    with open_features(place) as found:
        assert found.sample_id == block["sample_id"].tolist()
        np.testing.assert_array_equal(found.embedding_N2D[:, 0], block["image"])
        np.testing.assert_array_equal(found.text_ND.numpy(), block["text"])
        assert found.logit_scale == 14.5
        again = {name: np.concatenate([one[name] for one in found.blocks()]) for name in block}
        assert all((again[name] == block[name]).all() for name in block)
        shuffled = np.concatenate([one["sample_id"] for one in found.blocks(shuffle=1)]).tolist()
    assert shuffled != block["sample_id"].tolist()
    assert sorted(shuffled) == sorted(block["sample_id"].tolist())


def test_features_of_a_stream_that_ends_early_are_not_finished(place: str) -> None:
    writer = FeatureWriter(place, 100)
    writer.take(made(99))
    with pytest.raises(RuntimeError, match="99 of 100"):
        writer.finish(1.0)
    assert not has_features(place)
    with pytest.raises(UsageError, match="holds no features"), open_features(place):
        pass


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.integers(200, 900),
    keep=st.sampled_from([0.1, 0.227, 0.5, 0.95]),
    super_batch=st.sampled_from([32, 100, 480, 32_768]),
    prototypes=st.sampled_from([2, 6, 150]),
    block=st.integers(1, 300),
)
def test_curator_keeps_the_target_whatever_the_super_batch_the_prototypes_and_the_blocks(
    pairs: int, keep: float, super_batch: int, prototypes: int, block: int
) -> None:
    given = {"keep": keep, "super_batch": super_batch, "prototypes": prototypes, "kmeans_sample": 200}
    curated = chosen(made(pairs), block, **given)
    assert abs(int(curated.selection.keep_B.sum()) - keep * pairs) <= 0.5 + 1e-9
    assert curated.sample_id == made(pairs)["sample_id"].tolist()


@pytest.mark.parametrize(("super_batch", "prototypes", "pairs"), [(32_768, 4096, 33_000), (32, 4096, 4500)])
def test_curator_keeps_the_target_at_the_ends_of_the_allowed_settings(
    super_batch: int, prototypes: int, pairs: int
) -> None:
    given = {"keep": 0.227, "super_batch": super_batch, "prototypes": prototypes, "kmeans_sample": 4096}
    curated = chosen(made(pairs, width=4), 4096, **given)
    assert abs(int(curated.selection.keep_B.sum()) - 0.227 * pairs) <= 0.5


def test_curator_does_not_see_how_the_stream_was_cut_into_blocks() -> None:
    one, other = (chosen(made(500), size, super_batch=96, keep=0.3) for size in (7, 500))
    assert torch.equal(one.selection.keep_B, other.selection.keep_B)
    assert torch.equal(one.prototype_KE, other.prototype_KE)
