"""Jobs on a Ray cluster from Python: submit evaluations and other jobs, follow them, and read back their results.

    client = Client("https://head:8265", token=...)
    run = client.submit_evals(checkpoint="s3://bucket/model", corpus="s3://bucket/corpus",
                              benchmarks=["zero_shot", "retrieval"], out="s3://bucket/scores")
    run.wait().results_frame()

A job runs the code that runs here, sent along as a wheel; what it depends on is on the nodes. Storage credentials stay
where they are: the cluster has its own, and results are read with those of this process.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import BaseModel, ConfigDict

from chexray.platform import storage
from chexray.platform.artifacts import Kind, Manifest, read_manifest
from chexray.platform.command_line import check_options
from chexray.platform.errors import (
    ChexrayError,
    RunFailedError,
    RunRefusedError,
    RunTimeoutError,
    RunUnfinishedError,
    StoppedError,
    UnreachableError,
    UsageError,
)
from chexray.platform.head import Head
from chexray.platform.run_record import RunRecord, Status, record_of
from chexray.platform.submission import OUT_KEY, Resources, Submission, build_submission, check_command, worded
from chexray.platform.summary import result_rows
from chexray.platform.wheel import write_wheel

if TYPE_CHECKING:
    import pandas as pd

HEAD_AWAY_SECONDS = 60.0
"""How long `Run.wait` goes on asking a head that does not answer: it may be starting anew."""
_STOPPED_CODE = StoppedError.exit_code
_ERROR_LINE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt)\b")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Result(BaseModel):
    """One number of a run's scores: what was measured, by which variant, on how many, and how sure it is.

    Other columns of the scores (split, seed, ...) are attributes too. None: not defined there.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    benchmark: str
    metric: str
    variant: str
    finding: str | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Run:
    """A submitted job. `out`: the artifact that it writes."""

    id: str
    job: str
    out: str | None
    _head: Head = field(repr=False, compare=False)

    @property
    def _named(self) -> str:
        return f"run {self.id} ({self.job})"

    def status(self) -> Status:
        return _status(self._head.details(self.id))

    def wait(self, timeout: float | None = None, poll_seconds: float = 1.0) -> Run:
        """Wait until the job has succeeded, at most `timeout` seconds, and return the run.

        Raises `RunTimeoutError` (the job goes on), `RunFailedError` (`RunRefusedError` where its settings were wrong),
        `StoppedError` where it was stopped, `UnreachableError` where the head stays away for a minute.
        """
        started = answered = time.monotonic()
        status: Status = "PENDING"
        while True:
            now = time.monotonic()
            try:
                details = self._head.details(self.id)
                status, answered = _status(details), now
                if status not in ("PENDING", "RUNNING"):
                    self._require_success(details)
                    return self
            except UnreachableError:
                if now - answered > HEAD_AWAY_SECONDS:
                    raise
            pause = poll_seconds
            if timeout is not None:
                pause = min(pause, started + timeout - time.monotonic())
                if pause <= 0:
                    raise RunTimeoutError(
                        f"{self._named}: still {status} after {timeout:g} s; it goes on: wait() again, or stop() it"
                    )
            time.sleep(pause)

    @overload
    def logs(self, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, follow: Literal[True]) -> Iterator[str]: ...
    def logs(self, follow: bool = False) -> str | Iterator[str]:
        """What the job has printed; with `follow`, pieces of it as they come, until the job ends."""
        return self._head.follow(self.id) if follow else self._head.logs(self.id)

    def stop(self) -> bool:
        """Ask the job to stop. Returns whether it was running; it may take a few seconds to end."""
        return self._head.stop(self.id)

    def manifest(self) -> Manifest:
        """The manifest of what the job wrote. Raises as `results` does."""
        return read_manifest(self._finished())

    def results(self) -> list[Result]:
        """The results of an evaluation, read with this process's credentials.

        Raises `RunUnfinishedError` before it has ended, and what `wait` raises where it did not succeed; `UsageError`
        where the job writes no scores.
        """
        return [Result.model_validate(row) for row in self._rows()]

    def results_frame(self) -> pd.DataFrame:
        """The same as a pandas DataFrame, one row a result."""
        return _frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        out = self._finished("scores")
        return result_rows(out, read_manifest(out, "scores"))

    def _finished(self, kind: Kind | None = None) -> str:
        """Where the finished job's artifact is."""
        details = self._head.details(self.id)
        if _status(details) in ("PENDING", "RUNNING"):
            raise RunUnfinishedError(f"{self._named}: is still {_status(details)}; wait() for it first")
        self._require_success(details)
        if self.out is None:
            raise UsageError(f"{self._named}: was submitted without out, so it writes no {kind or 'artifact'}")
        if not storage.exists(self.out):
            raise ChexrayError(
                f"{self.out}: run {self.id} wrote it on the cluster, and this machine does not see it; submit with out "
                "on storage that both see, as s3://..."
            )
        return self.out

    def _require_success(self, details: Any) -> None:
        status, code = _status(details), details.driver_exit_code
        if status == "SUCCEEDED":
            return
        if status == "STOPPED" or code == _STOPPED_CODE:
            raise StoppedError(f"{self._named}: was stopped; submit it again to go on")
        kind = RunRefusedError if code == UsageError.exit_code else RunFailedError
        said = last_error(details.message or "") or "without a word"
        how = "failed" if code is None else f"failed with exit code {code}"
        raise kind(f"{self._named} {how}: {said} (all that it said: run.logs(), or `chexray jobs logs {self.id}`)")


class Client:
    """A Ray cluster that runs jobs of chexray. Raises `UnreachableError` or `TokenError` where it takes none."""

    def __init__(self, address: str, token: str | None = None, verify: bool | str = True) -> None:
        """`address`: of the head's dashboard, as http://HEAD:8265. `token`: without it, it is taken from where Ray
        keeps it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token. `verify`: whether to check the certificate
        of an https:// address, or the file of those to trust."""
        self._head = Head(address, token, verify)

    def __repr__(self) -> str:
        return f"Client({self._head.address!r})"

    def submit_evals(
        self,
        *,
        checkpoint: str | Sequence[str] | Mapping[str, str],
        benchmarks: str | Sequence[str],
        out: str,
        corpus: str | None = None,
        data: str | Mapping[str, str] | None = None,
        twins: str | None = None,
        resources: Resources | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Submit an evaluation of one or more checkpoints (a mapping names them).

        What is evaluated on is one of `corpus`, `data` (dataset name to corpus, as a mapping or a YAML file's URI) and
        `twins`. `settings`: as {"evaluate.bootstrap": 500}. `options`: other options of `chexray evaluate`.
        """
        sources = {"corpus": corpus, "data": data, "twins": twins}
        if sum(source is not None for source in sources.values()) != 1:
            raise UsageError(f"evaluate: give one of {', '.join(sources)}")
        given = {"checkpoint": checkpoint, **sources, "benchmarks": benchmarks, "out": out, **options}
        return self.submit("evaluate", resources=resources, settings=settings, **given)

    def submit(
        self,
        job: str,
        *arguments: str,
        resources: Resources | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Submit `chexray JOB ARGUMENTS --OPTIONS`: its names with underscores, lists for what may be repeated.

        The command line is checked here first: `UsageError` says what is wrong, and nothing is submitted.
        """
        submission = build_submission(job, arguments, options, settings, resources)
        check_options(job, options, [f"{key}={worded(value)}" for key, value in (settings or {}).items()])
        return self.send(submission)

    def send(self, submission: Submission) -> Run:
        """Submit what `build_submission` or `build_typed_submission` made. `UsageError` as in `submit`."""
        check_command(submission)
        with tempfile.TemporaryDirectory(prefix="chexray-") as name:
            wheel = write_wheel(Path(name))
            folder = Path(name) / "files"
            folder.mkdir()
            for file, text in submission.files.items():
                (folder / file).write_text(text)
            started = self._head.submit(submission, wheel, folder)
        return Run(started, submission.job, submission.metadata.get(OUT_KEY), self._head)

    def run(self, id: str) -> Run:
        """A run that was submitted before, by its id."""
        if record := record_of(self._head.details(id)):
            return Run(record.id, record.job, record.out, self._head)
        raise UsageError(f"run {id}: {self._head.address} has it, but it is no job of chexray")

    def runs(self) -> list[Run]:
        """The runs of chexray that the cluster knows, the latest first."""
        return [Run(record.id, record.job, record.out, self._head) for record in self.records()]

    def records(self) -> list[RunRecord]:
        """The same with how they stand, in one request."""
        found = [record for details in self._head.all_details() if (record := record_of(details))]
        return sorted(found, key=lambda record: record.started or 0, reverse=True)

    def leaderboard(self, uris: Sequence[str], baseline: str | None = None) -> pd.DataFrame:
        """What `chexray leaderboard` says of several scores, a row for each benchmark and checkpoint.

        With a `baseline` (a checkpoint's name) also whether each is better: difference, corrected p-value, verdict.
        """
        import pandas as pd

        from chexray.evals.board.files import records
        from chexray.evals.board.leaderboard import build_leaderboard
        from chexray.evals.board.score_files import read_all

        return pd.DataFrame.from_records(records(build_leaderboard(read_all(list(uris)), baseline)))


def last_error(text: str) -> str | None:
    """The last line of a job's output that names an error, else its last line; None of an empty one."""
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    named = [line for line in lines if _ERROR_LINE.match(line)]
    return named[-1] if named else lines[-1] if lines else None


def _status(details: Any) -> Status:
    # Ray's is an enumeration of strings.
    status: Status = details.status.value
    return status


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame: what a result always has, then the rest."""
    import pandas as pd

    frame = pd.DataFrame.from_records(list(rows))
    first = [name for name in Result.model_fields if name in frame.columns]
    return frame[[*first, *(name for name in frame.columns if name not in first)]]
