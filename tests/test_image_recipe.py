"""The image's recipe, by rules: there is no builder of images here."""

from __future__ import annotations

import re

import pytest
from cluster_files import CLUSTER, ROOT, dockerfile_problems, locked


def test_image_is_pinned_layered_and_not_run_by_root() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert dockerfile_problems(text) == []
    cuda = ".".join(locked("nvidia-cuda-runtime").split(".")[:2])
    assert re.search(rf"^FROM nvidia/cuda:{re.escape(cuda)}\.\d+-", text, re.M)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    assert {"!requirements.lock", "!dist/chexray-*.whl"} <= set(ignored)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("cuda:13.2.0-base-ubuntu24.04", "cuda:latest", "pinned"),
        ("cuda:13.2.0-base-ubuntu24.04", "cuda", "pinned"),
        ("PYTHONUNBUFFERED=1", "HF_TOKEN=x", "secret"),
        ("USER ray", "USER root", "root"),
        ("USER ray", "", "root"),
        ("USER ray", "STOP", "unknown"),
        ("--require-hashes ", "", "lock"),
        ("COPY dist/chexray-*.whl /tmp/dist/", "COPY . /tmp/dist/", "copies more"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "apt's lists"),
        ("pip install --no-cache-dir", "pip install", "pip's cache"),
    ],
)
def test_image_with_one_thing_wrong_is_refused(before: str, after: str, said: str) -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert before in text
    assert any(said in problem for problem in dockerfile_problems(text.replace(before, after)))
