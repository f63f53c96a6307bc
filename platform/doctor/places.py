"""Whether storage, the cluster's head and its token are as they should be."""

from __future__ import annotations

import os
import stat
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path

import requests

from chexray.platform import storage
from chexray.platform.doctor.diagnosis import Diagnosis
from chexray.platform.errors import ChexrayError, first_line
from chexray.platform.head import checked_address, find_token, is_plain
from chexray.platform.submission import has_credentials

HEAD_SECONDS = 10
SKEW_SECONDS = 60.0
"""S3 refuses requests of a clock that is 15 minutes off; logs of several nodes are in a muddle much earlier."""


def check_storage(uri: str) -> Diagnosis:
    """Write a small file below `uri`, read it back and remove it. Nothing is left behind."""
    if has_credentials(uri):
        advice = "leave them out, and keep them in the environment (AWS_PROFILE, AWS_ACCESS_KEY_ID)"
        return Diagnosis("storage", "failure", "the address holds a name and a password", advice)
    name = f"chexray-doctor-{uuid.uuid4().hex}"
    content = name.encode()
    made = _missing_folders(uri)
    step = "write"
    try:
        storage.write_bytes(storage.join(uri, name), content)
        step = "read"
        same = storage.read_bytes(storage.join(uri, name)) == content
        step = "delete"
        storage.remove_tree(storage.join(uri, name))
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own, and what they say is the diagnosis
        return Diagnosis("storage", "failure", f"{uri}: cannot {step}: {first_line(error)}", _storage_advice(uri))
    finally:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    if not same:
        return Diagnosis("storage", "failure", f"{uri}: other bytes came back than were written", "do not use it")
    return Diagnosis("storage", "ok", f"{uri}: written, read and deleted")


def _missing_folders(uri: str) -> list[Path]:
    """Those that writing makes, the innermost first."""
    if storage.is_remote(uri):
        return []
    folder = Path(storage.resolve(uri))
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _storage_advice(uri: str) -> str:
    if storage.is_remote(uri):
        return (
            "check the bucket's name, the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID or the instance's role), their "
            "right to put, get and delete, and AWS_ENDPOINT_URL"
        )
    return "make the folder writable for this user, or give another one"


def check_token_file(home: Path) -> Diagnosis:
    """Whether a token can be found where Ray looks, and whether its file is this user's alone."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else home / ".ray" / "auth_token"
    try:
        token, source = find_token(None)
    except ChexrayError as error:
        return Diagnosis("token", "failure", str(error), "ray get-auth-token --generate makes one; copy the head's")
    if token is None:
        return Diagnosis(
            "token", "ok", "none here; a head that asks for one needs it (RAY_AUTH_TOKEN, ~/.ray/auth_token)"
        )
    if source == "RAY_AUTH_TOKEN":
        return Diagnosis("token", "ok", f"from RAY_AUTH_TOKEN ({len(token)} characters)")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        advice = f"chmod 600 {named or '~/.ray/auth_token'}"
        return Diagnosis("token", "failure", f"{source}: others can read it or change it (mode {mode:04o})", advice)
    return Diagnosis("token", "ok", f"{source}, mode {mode:04o}")


def check_head(address: str, now: datetime | None = None) -> list[Diagnosis]:
    """Whether Ray's dashboard answers there and takes the token, and whether its clock agrees with `now`."""
    try:
        whole, (token, _) = checked_address(address), find_token(None)
    except ChexrayError as error:
        return [Diagnosis("head", "failure", str(error), "give --address http://HEAD:8265, and a token that is one")]
    if token is not None and is_plain(whole):
        advice = "use https:// or a tunnel (ssh -L 8265:127.0.0.1:8265 HEAD, then http://127.0.0.1:8265)"
        return [Diagnosis("head", "failure", f"{whole}: the token would go there in plain text", advice)]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        answer = requests.get(f"{whole}/api/version", headers=headers, timeout=HEAD_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        advice = "is it up, with --dashboard-host where this machine can reach it, and is the port (8265) open?"
        return [Diagnosis("head", "failure", f"{whole}: no answer ({type(error).__name__})", advice)]
    return [_answered(whole, answer, token is not None), *_clock(answer, now or datetime.now(UTC))]


def _answered(address: str, answer: requests.Response, has_token: bool) -> Diagnosis:
    if answer.status_code in (401, 403):
        if has_token:
            return Diagnosis(
                "head", "failure", f"{address}: refuses the token", "give the one that it was started with"
            )
        advice = "set RAY_AUTH_TOKEN, or put the head's token (ray get-auth-token there) into ~/.ray/auth_token"
        return Diagnosis("head", "failure", f"{address}: asks for a token, and there is none here", advice)
    if answer.status_code != 200 or b'"ray_version"' not in answer.content:
        found = f"{address}: HTTP {answer.status_code} of something that is not Ray's dashboard"
        return Diagnosis("head", "failure", found, "give the dashboard's port, 8265 by default")
    theirs, ours = str(answer.json()["ray_version"]), version("ray")
    if theirs != ours:
        advice = "install the same version on both (requirements.lock)"
        return Diagnosis("head", "warning", f"{address}: Ray {theirs} there, {ours} here", advice)
    return Diagnosis("head", "ok", f"{address}: Ray {theirs}" + ("" if has_token else ", asks for no token"))


def _clock(answer: requests.Response, now: datetime) -> list[Diagnosis]:
    """Nothing where the head does not say what time it is."""
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        return []
    apart = abs((theirs - now).total_seconds())
    if apart <= SKEW_SECONDS:
        return [Diagnosis("clock", "ok", "agrees with the head's")]
    found = f"{apart:.0f} s apart from the head's"
    return [Diagnosis("clock", "warning", found, "synchronise both with NTP (timedatectl set-ntp true)")]
