"""How far an evaluation is: a table of benchmarks x checkpoints at a terminal, a line for each cell elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.live import Live
from rich.table import Table

from chexray.evals.cells import Cell
from chexray.jobs.progress import console

_SHOWN = {"done": "[green]done[/green]", "failed": "[red]failed[/red]", "running": "runs", "waits": "[dim]waits[/dim]"}


class CellTable:
    """Shows cells as they change. Use as a context; `show` and `encoded` are for `fan_out`."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = {cell.path: cell for cell in cells}
        self._state = dict.fromkeys(self._cells, "waits")
        self._pairs = 0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if console.is_terminal:
            self._live.stop()

    def show(self, record: dict[str, Any]) -> None:
        self._state[record["path"]] = record["state"]
        if console.is_terminal or record["state"] == "running":
            return
        counts = Counter(self._state.values())
        ended = counts["done"] + counts["failed"]
        note = f": {record['reason']}" if record["reason"] else f" in {record['seconds']:.1f} s"
        cell = self._cells[record["path"]]
        console.print(
            f"{ended}/{len(self._cells)} {cell.name}: {record['state']}{note}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def encoded(self, pairs: int) -> None:
        self._pairs += pairs

    def _render(self) -> Table:
        checkpoints = list(dict.fromkeys(cell.checkpoint for cell in self._cells.values()))
        table = Table("benchmark", *checkpoints, box=box.SIMPLE_HEAD, caption=f"{self._pairs:,} pairs encoded")
        for benchmark in dict.fromkeys(cell.spec.name for cell in self._cells.values()):
            table.add_row(benchmark, *(self._cell(checkpoint, benchmark) for checkpoint in checkpoints))
        return table

    def _cell(self, checkpoint: str, benchmark: str) -> str:
        states = [
            self._state[path]
            for path, cell in self._cells.items()
            if (cell.checkpoint, cell.spec.name) == (checkpoint, benchmark)
        ]
        counts = Counter(states)
        if len(states) == 1:
            return _SHOWN[states[0]]
        if counts["failed"]:
            return f"[red]{counts['failed']} of {len(states)} failed[/red]"
        return _SHOWN["done"] if counts["done"] == len(states) else f"{counts['done']}/{len(states)}"
