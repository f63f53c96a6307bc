"""Several real Ray nodes on one machine, that can be killed and added: for tests of what a run outlives."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import ray
from ray.cluster_utils import Cluster

from chexray.cluster.local import OBJECT_STORE_BYTES, quiet


class LocalCluster:
    """A head without CPUs for work, and nodes with some. From the main thread only; shuts down what it started."""

    def __init__(self, nodes: int, cpus: int = 1) -> None:
        self.cpus = cpus
        # A node that is killed says nothing: it counts as dead after this many seconds without a heartbeat.
        system = {"health_check_failure_threshold": 3, "health_check_period_ms": 1000}
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": _free_port(), "_system_config": system}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**head, "object_store_memory": OBJECT_STORE_BYTES}
        )
        self.nodes: list[Any] = []
        quiet()
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> Any:
        node = self._cluster.add_node(num_cpus=self.cpus, object_store_memory=OBJECT_STORE_BYTES // 4)
        self.nodes.append(node)
        return node

    def kill_node(self, node: Any) -> None:
        """SIGKILL, without a word to anyone, to the node's processes."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def announce(self, node: Any, seconds: int) -> None:
        """Tell Ray that the node will be taken away, as a spot market does some time before it does."""
        told = ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        told += ["--deadline-remaining-seconds", str(seconds), "--address", self._cluster.address]
        subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "drain-node", *told], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()
        self._cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
