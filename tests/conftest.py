"""What tests share: the real data beside the checkout, a real S3 server, and a folder on either kind of storage."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dataset_files import MemoryDataset
from s3_server import S3Server
from small_runs import PAIRS, small

if TYPE_CHECKING:
    from published_models import Oracle, State

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real images and golden values, which lie beside the checkout and are no part of it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    return folder


@pytest.fixture
def folder() -> Iterator[MemoryDataset]:
    """A dataset's folder in memory."""
    made = MemoryDataset()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket on an S3 server of our own, to which the environment points meanwhile."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "chexray-test-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "chexray-test-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        try:
            server.start("chexray-test")
            yield "s3://chexray-test"
        finally:
            server.stop()


@pytest.fixture(scope="session")
def ray_cluster(s3: str) -> Iterator[None]:
    """The one Ray of the session. It starts after the S3 server, whose address its workers inherit."""
    import ray

    from chexray.cluster.local import quiet, start_local
    from chexray.platform.config import Runtime

    quiet()
    start_local(Runtime(workers=2, cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Of synthetic pairs, which lie beside it in `source`."""
    from chexray.jobs.ingest import ingest

    folder = tmp_path_factory.mktemp("small")
    out = str(folder / "corpus")
    ingest(small(), "synthetic", str(folder / "source"), out, {"count": PAIRS, "size": 96})
    return out


@pytest.fixture(scope="session")
def small_checkpoint(small_corpus: str) -> str:
    """Trained on the whole train split by one worker."""
    from chexray.jobs.pretrain import pretrain

    out = str(Path(small_corpus).parent / "one-worker")
    pretrain(small(), small_corpus, out)
    return out


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a folder that is not there yet, once on the local disk and once on S3."""
    if request.param == "local":
        return str(tmp_path / "place")
    bucket: str = request.getfixturevalue("s3")
    return f"{bucket}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def smallest_dinov2() -> Iterator[None]:
    """Adds a tower that is quick to draw to those that are recognised."""
    from chexray.platform.model.dinov2 import TIMM_MODELS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIMM_MODELS, (48, 4), "vit_smallest_patch14_dinov2")
        yield


@pytest.fixture(scope="module")
def released(smallest_dinov2: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State, Oracle]:
    """The text tower's folder, and a checkpoint in the paper's layout with the names of DINOv2's repository."""
    from published_models import chexficient

    folder = tmp_path_factory.mktemp("text")
    state, oracle = chexficient(folder, "repository")
    return folder, state, oracle
