"""The definitions of clusters against real schemas and parsers. No cloud here: none of them is started."""

from __future__ import annotations

import copy
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cluster_files import (
    CLUSTER,
    DATA,
    ROOT,
    check_job,
    check_ray_start,
    job_commands,
    locked,
    ray_starts,
)
from packaging.version import Version

from chexray.platform.errors import UsageError

SCHEMA = yaml.safe_load((DATA / "kuberay.yaml").read_text())
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY_UP = sorted((CLUSTER / "ray-up").glob("*.yaml"))
SLURM = CLUSTER / "slurm" / "chexray.sbatch"
GUIDE = ROOT / "docs" / "cluster.md"
GONE = object()
"""In place of a value: the key is taken away."""
SECRET = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|PRIVATE KEY|(?:password|secret_access_key|token)['\"]?\s*[:=]\s*['\"]?[\w+/-]{12,}"
    r"|://[^/\s@]*:[^/\s@]*@",
    re.I,
)


def parsed(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def named(name: str) -> Any:
    return parsed(CLUSTER / name)


def changed(content: Any, path: str, value: Any) -> Any:
    """A copy with one value put at a dotted path, or its key taken away."""
    content = copy.deepcopy(content)
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    inner = content
    for key in parents:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return content


def spec_of(manifest: Any) -> Any:
    """The cluster that a RayCluster or a RayJob describes."""
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def kuberay_problems(manifest: Any) -> list[str]:
    """What the API server refuses by the CRD, or silently drops as unknown, and what the operator itself refuses."""
    kind = {key: value for key, value in SCHEMA.items() if key != "oneOf"} | {"$ref": f"#/$defs/{manifest['kind']}"}
    problems = [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(kind).iter_errors(manifest)
    ]
    if problems or manifest["kind"] == "ServiceAccount":
        return problems
    # From here on: ray-operator/controllers/ray/utils/validation.go of KubeRay.
    name, longest = manifest["metadata"]["name"], {"RayJob": 47, "RayCluster": 63}[manifest["kind"]]
    if len(name) > longest or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        problems.append(f"name {name}")
    spec = spec_of(manifest)
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    if spec.get("autoscalerOptions", {}).get("version") == "v2":
        policies = {group["template"]["spec"].get("restartPolicy", "Never") for group in [head, *workers]}
        problems += [f"restartPolicy {policy} with autoscaler v2" for policy in policies - {"Never"}]
    if spec.get("authOptions", {}).get("mode") == "token" and Version(spec.get("rayVersion", "0")) < Version("2.52"):
        problems.append("rayVersion: tokens need 2.52")
    of_head = {one["name"] for one in head["template"]["spec"]["containers"][0].get("env", [])}
    problems += [f"{one} in the head's env" for one in sorted(of_head & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"})]
    for group in workers:
        if not group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            problems.append(f"replicas of {group['groupName']}")
    return problems


@pytest.mark.parametrize("file", KUBERAY, ids=lambda file: file.name)
def test_kuberay_manifest_has_the_fields_of_its_kind_and_what_the_operator_takes(file: Path) -> None:
    assert kuberay_problems(parsed(file)) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("raycluster", "spec.authOption", {"mode": "token"}, "authOption"),
        ("raycluster", "spec.authOptions.mode", "tokens", "tokens"),
        ("raycluster", "spec.autoscalerOptions.version", 2, "version"),
        ("raycluster", "spec.headGroupSpec.rayStartParams.num-cpus", 0, "num-cpus"),
        ("raycluster", "spec.headGroupSpec.template.spec.containers.0.resources.limits.memory", "32 GB", "memory"),
        ("raycluster", "spec.workerGroupSpecs.1.template.spec.containers.0.gpus", 1, "gpus"),
        ("raycluster", "spec.workerGroupSpecs.1.template.spec.restartPolicy", "Always", "restartPolicy"),
        ("raycluster", "spec.workerGroupSpecs.0.groupName", GONE, "groupName"),
        ("raycluster", "spec.workerGroupSpecs.0.replicas", 17, "replicas of data"),
        ("raycluster", "spec.gcsFaultToleranceOptions.redisAddress", GONE, "redisAddress"),
        ("raycluster", "spec.rayVersion", "2.51.0", "tokens need"),
        ("raycluster", "metadata.name", "Chexray", "name"),
        ("rayjob-paper", "spec.shutdownAfterJobFinished", True, "shutdownAfterJobFinished"),
        ("rayjob-paper", "spec.submissionMode", "K8SJobMode", "K8SJobMode"),
        ("rayjob-paper", "spec.backoffLimit", "5", "backoffLimit"),
        ("rayjob-paper", "spec.rayClusterSpec.headGroupSpec.template.spec.containers", [], "containers"),
        ("service-account", "metadata.annotation", {}, "annotation"),
    ],
)
def test_kuberay_manifest_with_one_thing_wrong_is_refused(name: str, path: str, value: Any, said: str) -> None:
    problems = kuberay_problems(changed(named(f"kuberay/{name}.yaml"), path, value))
    assert problems
    assert all(said in problem for problem in problems)


@pytest.mark.parametrize("name", ["raycluster", "rayjob-paper"])
def test_kuberay_cluster_is_guarded_and_its_head_does_no_work(name: str) -> None:
    spec = spec_of(named(f"kuberay/{name}.yaml"))
    head, (data, gpu) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    assert spec["authOptions"] == {"mode": "token"}
    assert (spec["enableInTreeAutoscaling"], spec["autoscalerOptions"]["version"]) == (True, "v2")
    assert head["rayStartParams"] == {"num-cpus": "0"}
    pods = [group["template"]["spec"] for group in (head, data, gpu)]
    assert all(pod["securityContext"]["runAsNonRoot"] and pod["serviceAccountName"] == "chexray" for pod in pods)
    assert [pod.get("automountServiceAccountToken", True) for pod in pods] == [True, False, False]
    assert pods[0]["nodeSelector"] == {"eks.amazonaws.com/capacityType": "ON_DEMAND"}
    assert pods[2]["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}
    resources = [pod["containers"][0]["resources"] for pod in pods]
    assert all(one["requests"] == one["limits"] for one in resources)
    assert [one["limits"].get("nvidia.com/gpu") for one in resources] == [None, None, "1"]


def test_kuberay_images_and_versions_are_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("raycluster", "rayjob-paper"):
        spec = spec_of(named(f"kuberay/{name}.yaml"))
        assert spec["rayVersion"] == locked("ray")
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        images = {one["image"] for group in groups for one in group["template"]["spec"]["containers"]}
        assert images == {f"registry.example/chexray:{version}"}


def test_run_of_the_paper_has_gpus_for_its_fewest_workers_and_its_most() -> None:
    manifest = named("kuberay/rayjob-paper.yaml")
    (_, arguments), *others = job_commands(CLUSTER / "kuberay" / "rayjob-paper.yaml", yaml.safe_dump(manifest))
    assert not others
    flags = {word: int(after) for word, after in pairwise(arguments) if after.isdigit()}
    gpu = spec_of(manifest)["workerGroupSpecs"][1]
    # As chexray.cluster.local.require_resources counts them: scorers have a GPU each beside the workers'.
    assert gpu["replicas"] >= flags["--min-workers"] + flags["--scorers"]
    assert gpu["maxReplicas"] == flags["--workers"] + flags["--scorers"]
    assert (flags["--min-workers"], flags["--workers"]) == (6, 8)
    spec = manifest["spec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["backoffLimit"] > 0
    assert "--resume" not in arguments  # it would not start


def ray_up(content: Any) -> Any:
    """As `ray up` reads a file: with its provider's defaults, checked by Ray's own schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(content))
    validate_config(config)
    return config


@pytest.mark.parametrize("file", RAY_UP, ids=lambda file: file.name)
def test_ray_up_file_is_taken_by_ray_and_shows_nothing_to_the_network(file: Path) -> None:
    config = ray_up(parsed(file))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    assert config["max_workers"] == sum(types[name]["max_workers"] for name in ("data", "gpu"))
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}, "scheduling": {"provisioningModel": "SPOT"}}
    for name, expected in (("head", False), ("data", False), ("gpu", True)):
        node = types[name]["node_config"]
        assert any(key in node and kind.items() <= node[key].items() for key, kind in spot.items()) == expected
        assert "IamInstanceProfile" in node or "serviceAccounts" in node
    starts = [
        text for role in ("head", "worker") for text in config[f"{role}_start_ray_commands"] if "ray start" in text
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in text for text in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in yaml.safe_dump(config)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("max_worker", 3),
        ("available_node_types.gpu.min_worker", 1),
        ("available_node_types.gpu.resources.GPU", "1"),
        ("available_node_types.gpu.node_config", GONE),
        ("available_node_types.gpu.min_workers", 99),
        ("head_node_type", "main"),
        ("initialization_commands", "true"),
        ("auth.user", "ubuntu"),
    ],
)
@pytest.mark.parametrize("file", RAY_UP, ids=lambda file: file.name)
def test_ray_up_file_with_one_thing_wrong_is_refused(file: Path, path: str, value: Any) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        ray_up(changed(parsed(file), path, value))


def test_ray_up_file_for_aws_keeps_the_locked_botocore_and_makes_no_group_open_to_all() -> None:
    config = named("ray-up/aws.yaml")
    assert f'"botocore=={locked("botocore")}"' in config["head_setup_commands"][0]
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in config["available_node_types"].values())


@pytest.mark.parametrize("file", [*KUBERAY, *RAY_UP, SLURM, GUIDE], ids=lambda file: file.name)
def test_commands_in_a_file_are_taken_by_the_command_line_of_today(file: Path) -> None:
    content = file.read_text()
    commands, starts = job_commands(file, content), ray_starts(file, content)
    if file in (SLURM, GUIDE) or file.name == "rayjob-paper.yaml":
        assert commands
    if file == GUIDE:
        assert [job for job, _ in commands] == ["pretrain", "ingest", "pretrain"]
    if file == SLURM or file in RAY_UP:
        assert len(starts) == 2
    for job, arguments in commands:
        check_job(job, arguments)
    for arguments in starts:
        check_ray_start(arguments)


@pytest.mark.parametrize(
    ("before", "after"),
    [("--min-workers", "--fewest"), ("run.checkpoint_minutes", "run.minutes"), ("streaming", "flow")],
)
@pytest.mark.parametrize("file", [CLUSTER / "kuberay" / "rayjob-paper.yaml", SLURM], ids=lambda file: file.name)
def test_command_with_a_flag_or_setting_that_is_not_there_is_refused(file: Path, before: str, after: str) -> None:
    ((job, arguments),) = job_commands(file, file.read_text().replace(before, after))
    with pytest.raises(UsageError):
        check_job(job, arguments)


def test_ray_start_with_an_option_that_is_not_there_is_refused() -> None:
    import click

    head, _ = ray_starts(SLURM, SLURM.read_text().replace("--dashboard-host", "--dashboard-address"))
    with pytest.raises(click.UsageError, match="dashboard-address"):
        check_ray_start(head)


def test_files_hold_no_secrets() -> None:
    files = [file for file in [*CLUSTER.rglob("*"), GUIDE, ROOT / ".dockerignore"] if file.is_file()]
    assert {file.name: found.group() for file in files if (found := SECRET.search(file.read_text()))} == {}
    assert "value" not in named("kuberay/raycluster.yaml")["spec"]["gcsFaultToleranceOptions"]["redisPassword"]
    examples = [
        "password: c0rrecthorsebattery",
        "aws_secret_access_key=abcdefghijklmnop",
        "AKIA" + "A" * 16,
        "s3://a:b@c",
    ]
    assert all(SECRET.search(text) for text in examples)
