"""Whether the machine has room: disk, shared memory, memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from chexray.platform.doctor.diagnosis import Diagnosis, State

GIB = 2**30
TEMPORARY_BYTES, RAY_BYTES = 10 * GIB, 10 * GIB
"""Free space below which there is a warning; below a tenth of it, a failure."""
SHARED_BYTES, MEMORY_BYTES = 2 * GIB, 8 * GIB
SPILL_SHARE = 0.05
"""Ray takes no new objects on a disk that is 95 % full (RAY_local_fs_capacity_threshold)."""


def check_disk(check: str, folder: Path, wanted: int = TEMPORARY_BYTES, share: float = 0.0) -> Diagnosis:
    """Free space where `folder` is, or will be. `wanted`: bytes. `share`: of the disk, which must be free too."""
    there = next((parent for parent in (folder, *folder.parents) if parent.is_dir()), None)
    if there is None:
        return Diagnosis(check, "failure", f"{folder}: no such folder", "make it, or set TMPDIR to one that is there")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        advice = "make it writable for this user, make room, or set TMPDIR"
        return Diagnosis(check, "failure", f"{there}: cannot be written to ({error.strerror})", advice)
    usage = shutil.disk_usage(there)
    found = f"{usage.free / GIB:.1f} GiB of {usage.total / GIB:.1f} free at {there}"
    if usage.free < share * usage.total:
        return Diagnosis(
            check, "failure", f"{found}: less than {share:.0%}", "make room: Ray refuses work on a full disk"
        )
    return Diagnosis(check, _state(usage.free, wanted), found, _more(usage.free, wanted, "make room, or set TMPDIR"))


def check_shared_memory(total: int | None, wanted: int = SHARED_BYTES) -> Diagnosis:
    """`total`: bytes of /dev/shm, None without it. Ray's objects, and tensors between processes, are there."""
    if total is None:
        return Diagnosis("/dev/shm", "warning", "not there", "Ray puts its objects on the disk then, which is slow")
    advice = "start the container with --shm-size 8g (Kubernetes: an emptyDir of medium Memory at /dev/shm)"
    return Diagnosis("/dev/shm", _state(total, wanted), f"{total / GIB:.1f} GiB", _more(total, wanted, advice))


def check_memory(available: int, wanted: int = MEMORY_BYTES) -> Diagnosis:
    """`available`: bytes that processes can still take."""
    advice = "end other programs, or train with fewer workers or a smaller run.micro_batch"
    state = _state(available, wanted)
    return Diagnosis("memory", state, f"{available / GIB:.1f} GiB available", _more(available, wanted, advice))


def shared_bytes(folder: Path = Path("/dev/shm")) -> int | None:
    return shutil.disk_usage(folder).total if folder.is_dir() else None


def available_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Of the machine, or of the container where that is allowed less."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        allowed = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
    return min(free, allowed - used)


def temporary_folder() -> Path:
    return Path(tempfile.gettempdir())


def ray_folder() -> Path:
    """Where Ray keeps its sockets, logs and spilled objects."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"


def _state(have: int, wanted: int) -> State:
    return "ok" if have >= wanted else "warning" if have >= wanted / 10 else "failure"


def _more(have: int, wanted: int, advice: str) -> str | None:
    return None if have >= wanted else f"{wanted / GIB:.0f} GiB are better: {advice}"
