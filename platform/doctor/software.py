"""Whether what chexray stands on is installed and works: Python, packages, torch, collectives, compilers."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from chexray.platform.doctor.diagnosis import Diagnosis
from chexray.platform.errors import first_line

_INSTALL = "install what requirements.lock names (make setup), or pip install -r requirements.lock on a node"
REDUCE_SECONDS = 120.0
"""Two processes import torch first, which takes long from a network's file system."""


def check_python(running: str, allowed: str) -> Diagnosis:
    """`running`: as 3.11.9. `allowed`: bounds as pyproject's requires-python writes them."""
    if running in SpecifierSet(allowed):
        return Diagnosis("python", "ok", running)
    return Diagnosis("python", "failure", f"{running}, outside {allowed}", f"make an environment with Python {allowed}")


def check_packages(requirements: Sequence[str] | None, installed: Callable[[str], str] = version) -> Diagnosis:
    """`requirements`: as pyproject writes them; of extras only what is installed is looked at. None: not known."""
    if requirements is None:
        return Diagnosis("packages", "warning", "this chexray does not say what it needs: it was sent along with a job")
    wrong = [problem for text in requirements if (problem := _package_problem(text, installed))]
    if not wrong:
        return Diagnosis("packages", "ok", f"{len(requirements)} within their bounds")
    return Diagnosis("packages", "failure", "; ".join(wrong), _INSTALL)


def _package_problem(text: str, installed: Callable[[str], str]) -> str | None:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return f"{text}: not a requirement"
    optional = wanted.marker is not None and "extra" in str(wanted.marker)
    if not optional and wanted.marker is not None and not wanted.marker.evaluate():
        return None
    try:
        found = installed(wanted.name)
    except PackageNotFoundError:
        return None if optional else f"{wanted.name} is missing"
    allowed = wanted.specifier.contains(found, prereleases=True)
    return None if allowed else f"{wanted.name} {found}, outside {wanted.specifier}"


def own_requirements() -> tuple[str, list[str] | None]:
    """The bounds of Python and of packages that this chexray was installed with."""
    own = distribution("chexray")
    return str(own.metadata["Requires-Python"]), own.requires


def check_torch(load: Callable[[], Any] = lambda: importlib.import_module("torch")) -> Diagnosis:
    """Whether torch can be imported, and sees the GPUs that the driver sees."""
    try:
        torch = load()
        cards = [torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return Diagnosis("torch", "failure", f"cannot be used: {first_line(error)}", _INSTALL)
    if cards:
        return Diagnosis("torch", "ok", f"{torch.__version__}, {len(cards)} GPU(s): {', '.join(sorted(set(cards)))}")
    if seen := driver_cards():
        return Diagnosis(
            "torch",
            "failure",
            f"{torch.__version__} (CUDA {torch.version.cuda}) sees no GPU, the driver sees {seen}",
            "unset CUDA_VISIBLE_DEVICES, or install the torch build whose CUDA the driver supports (nvidia-smi says)",
        )
    return Diagnosis("torch", "ok", f"{torch.__version__}, no GPU: CPU only")


def visible_cards() -> int:
    """How many GPUs torch sees; 0 where it cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError):
        return 0
    return int(torch.cuda.device_count())


def driver_cards() -> int:
    """How many GPUs `nvidia-smi` lists; 0 without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def check_all_reduce(
    backend: str, ranks: int = 2, seconds: float = REDUCE_SECONDS, environment: Mapping[str, str] | None = None
) -> Diagnosis:
    """A real all-reduce over loopback between `ranks` processes, each of which has to get the sum."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "chexray.platform.doctor.all_reduce", backend, str(ranks), port]
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    processes = [
        subprocess.Popen(
            [*command, str(rank)],
            env=inherited | dict(environment or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    said = ""
    try:
        for process in processes:
            said = said or _last_words(process, seconds)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    what = f"{backend}, {ranks} {'process' if ranks == 1 else 'processes'} over loopback"
    if not said:
        return Diagnosis("collectives", "ok", what)
    variables = "NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
    advice = f"look at the network settings ({variables}), at a firewall on loopback and at /dev/shm"
    return Diagnosis("collectives", "failure", f"{what}: {said}", advice)


def _last_words(process: subprocess.Popen[str], seconds: float) -> str:
    """Why a process failed; "" where it did not."""
    try:
        _, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:g} s"
    lines = [line for line in error.splitlines() if line.strip()] or [f"exit code {process.returncode}"]
    return lines[-1][:200] if process.returncode else ""


def check_compilers(path: str | None = None) -> Diagnosis:
    """`g++` and `ninja`, with which DeepSpeed and torch.compile build kernels. `path`: where to look, as PATH."""
    missing = [program for program in ("g++", "ninja") if shutil.which(program, path=path) is None]
    if not missing:
        return Diagnosis("compilers", "ok", "g++ and ninja")
    return Diagnosis(
        "compilers",
        "warning",
        f"no {' and no '.join(missing)} on PATH",
        "install them (apt install g++ ninja-build) for run.compile and for kernels that DeepSpeed builds on GPUs",
    )
