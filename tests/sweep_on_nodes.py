"""A sweep on three real Ray nodes, of which one is killed midway: `python tests/sweep_on_nodes.py CORPUS OUT`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import yaml
from ray.util.state import list_actors
from small_runs import small

from chexray.cluster.nodes import LocalCluster
from chexray.jobs.sweep import sweep
from chexray.platform import storage
from chexray.platform.sweep.records import PLAN_FILE, read_plan, read_trials
from chexray.platform.sweep.space import SweepSpace


def main() -> None:
    corpus, out, space = sys.argv[1:]
    swept = SweepSpace.model_validate(yaml.safe_load(storage.read_bytes(space)))
    with LocalCluster(nodes=3, cpus=2) as cluster, ThreadPoolExecutor(1) as thread:
        run = thread.submit(sweep, small(), corpus, out, swept, concurrent=2)
        node = _wait(lambda: _busy_node(cluster, out), run)
        cluster.kill_node(node)
        print("killed a node", flush=True)
        cluster.add_node()
        run.result()


def _busy_node(cluster: LocalCluster, out: str) -> Any:
    """A node on which a run trains that has looked at the validation split; None where there is none yet."""
    if not storage.exists(storage.join(out, PLAN_FILE)):
        return None
    if not any(one.state == "running" and one.looks for one in read_trials(out, read_plan(out).trials)):
        return None
    busy = {
        one.node_id for one in list_actors(filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")])
    }
    return next((node for node in cluster.nodes if node.node_id in busy), None)


def _wait(found: Any, run: Future[Any]) -> Any:
    while not run.done():
        if result := found():
            return result
        time.sleep(0.2)
    run.result()
    raise SystemExit("the sweep ended before a node could be killed")


if __name__ == "__main__":
    main()
