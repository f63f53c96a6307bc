"""The head of a Ray cluster, asked over HTTP through Ray's job client. What goes wrong has a type and says what to do.

The token is kept in the job client's headers and nowhere else: not in the environment, which other processes inherit,
and in no message.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests

from chexray.platform.errors import ClusterError, TokenError, UnreachableError, UsageError
from chexray.platform.submission import Submission

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
_ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN_FILE = Path(".ray", "auth_token")
_GIVEN = "token= or --token-file"
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Head:
    """A connection to the job server, which Ray's dashboard holds (port 8265 unless it was started with another)."""

    def __init__(self, address: str, token: str | None = None, verify: bool | str = True) -> None:
        """`verify`: whether to check a TLS certificate, or the file or folder of those that are trusted."""
        self.address = checked_address(address)
        found, self._token_source = find_token(token)
        headers = {"Authorization": f"Bearer {found}"} if found else {}
        if found and is_plain(self.address):
            warnings.warn(
                f"{self.address}: the token goes there in plain text; use https:// or a tunnel to loopback",
                stacklevel=3,
            )
        self._require_ray(headers, verify)
        from ray.job_submission import JobSubmissionClient

        with self._answers(), _without_addresses():
            self._jobs = JobSubmissionClient(self.address, headers=headers, verify=verify)
        # Ray's client waits for an answer for ever.
        self._jobs._do_request = partial(self._jobs._do_request, timeout=(CONNECT_SECONDS, ANSWER_SECONDS))

    def submit(self, submission: Submission, wheel: Path, folder: Path) -> str:
        """Upload the code and the files, and start the job. Returns its id."""
        with self._answers():
            submitted: str = self._jobs.submit_job(
                entrypoint=submission.entrypoint,
                runtime_env=submission.runtime_env(wheel, folder),
                metadata=submission.metadata,
                entrypoint_num_cpus=submission.cpus or None,
                entrypoint_memory=submission.memory or None,
            )
        return submitted

    def details(self, run: str) -> Any:
        """Ray's JobDetails. Raises `UsageError` where the cluster has no such job."""
        try:
            with self._answers():
                return self._jobs.get_job_info(run)
        except ClusterError as error:
            if "status code 404" in str(error):
                raise UsageError(f"run {run}: {self.address} has no such job") from error
            raise

    def all_details(self) -> list[Any]:
        with self._answers():
            listed: list[Any] = self._jobs.list_jobs()
        return listed

    def stop(self, run: str) -> bool:
        """Ask a job to stop. Returns whether it was running."""
        with self._answers():
            return bool(self._jobs.stop_job(run))

    def logs(self, run: str) -> str:
        with self._answers():
            return str(self._jobs.get_job_logs(run))

    def follow(self, run: str) -> Iterator[str]:
        """The job's output as it comes, in pieces of one or more lines, until the job ends."""
        with self._answers():
            yield from _in_thread(self._jobs.tail_job_logs(run))

    def _require_ray(self, headers: dict[str, str], verify: bool | str) -> None:
        with self._answers():
            answer = requests.get(
                f"{self.address}/api/version",
                headers=headers,
                verify=verify,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
            )
        if answer.status_code in (401, 403):
            raise self._token_error()
        if answer.status_code != 200 or b'"ray_version"' not in answer.content:
            raise UnreachableError(
                f"{self.address}: something answers there (HTTP {answer.status_code}) that is not Ray's dashboard; "
                "give the head's address with the dashboard's port, 8265 by default"
            )

    def _token_error(self) -> TokenError:
        if self._token_source is None:
            return TokenError(
                f"{self.address}: the cluster asks for its token, and none was given; pass token= (--token-file), set "
                f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put it into ~/{_TOKEN_FILE.as_posix()}"
            )
        return TokenError(
            f"{self.address}: the cluster refuses the token from {self._token_source}; give the one that its head was "
            "started with (`ray get-auth-token` there prints it)"
        )

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """What Ray's client, requests and aiohttp raise, as our errors."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise self._token_error() from None
        except aiohttp.WSServerHandshakeError as error:
            if error.status in (401, 403):
                raise self._token_error() from None
            raise ClusterError(f"{self.address}: the head refused (HTTP {error.status})") from None
        except (requests.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise UnreachableError(
                f"{self.address}: no answer from a Ray head ({_reason(error)}); is it up, with its dashboard, and can "
                "this machine reach that port?"
            ) from error
        except RuntimeError as error:
            # A proxy's way to say that nothing answers behind it.
            if re.search(r"status code 50[234]\b", str(error)):
                raise UnreachableError(f"{self.address}: no answer from a Ray head ({_first(error)})") from error
            raise ClusterError(f"{self.address}: {_first(error)}") from error


def checked_address(address: str) -> str:
    """`address` with its scheme and without a trailing slash. Raises `UsageError` where it is not an HTTP address."""
    whole = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(whole)
        named = parts.hostname is not None and (parts.port or 1) > 0
    except ValueError:
        named, parts = False, urlsplit("")
    if parts.username or parts.password:
        raise UsageError("address: holds a name or a password; leave them out, and give the cluster's token as token=")
    if not named or parts.scheme not in ("http", "https"):
        raise UsageError(f"address {address!r}: expected the dashboard of the cluster's head, as http://HEAD:8265")
    return whole.rstrip("/")


def find_token(given: str | None) -> tuple[str | None, str | None]:
    """The token and where it came from: given, or else where Ray looks (in its order); (None, None) without one.

    Unlike Ray, it is looked for whether or not RAY_AUTH_MODE is `token` here: only the head knows whether it asks.
    """
    if given is not None:
        return _checked_token(given, _GIVEN), _GIVEN
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return _checked_token(token, "RAY_AUTH_TOKEN"), "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / _TOKEN_FILE
    if not named and not file.is_file():
        return None, None
    source = f"RAY_AUTH_TOKEN_PATH={named}" if named else f"~/{_TOKEN_FILE.as_posix()}"
    try:
        return _checked_token(file.read_text(errors="replace"), source), source
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror})") from error


def _checked_token(token: str, source: str) -> str:
    """The token without white space around it. It is never part of a message."""
    if not _TOKEN.fullmatch(token.strip()):
        raise UsageError(f"{source}: not a token: it is empty, or has spaces or other than ASCII characters in it")
    return token.strip()


def is_on_this_machine(address: str) -> bool:
    """Whether a head's address is of loopback: a head here, or a tunnel to one elsewhere."""
    host = urlsplit(checked_address(address)).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_plain(address: str) -> bool:
    """Whether what goes there can be read on the way."""
    return urlsplit(checked_address(address)).scheme == "http" and not is_on_this_machine(address)


@contextmanager
def _without_addresses() -> Iterator[None]:
    """Ray's client lets these variables win over the address that it is given; here what is given wins."""
    held = {name: os.environ.pop(name) for name in _ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


def _first(error: BaseException) -> str:
    """An error in one line, without the nesting of its causes."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _reason(error: BaseException) -> str:
    """What the operating system said, where it said something: HTTP libraries put much around it."""
    found = re.search(r"\[Errno -?\d+\] ([^'\")\]]+)", str(error))
    return found[1] if found else type(error).__name__


def _in_thread(pieces: AsyncIterator[str]) -> Iterator[str]:
    """An asynchronous iterator as a plain one. It has a loop of its own, as notebooks run one already."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        while (piece := asyncio.run_coroutine_threadsafe(_next(pieces), loop).result()) is not None:
            yield piece
    finally:
        asyncio.run_coroutine_threadsafe(_leave(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


async def _leave() -> None:
    """End what still waits in this loop, and close the connection."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
