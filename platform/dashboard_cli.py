"""`chexray dashboard`: a sweep in the browser, while it runs or in a file to keep."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from chexray.platform.cli import app
from chexray.platform.errors import UsageError

TOKEN_VARIABLE = "CHEXRAY_DASHBOARD_TOKEN"
_SHORTEST_TOKEN = 16


@app.command()
def dashboard(
    sweep: Annotated[str, typer.Argument(help="The --out of chexray sweep, running or ended.")],
    export: Annotated[str | None, typer.Option(help="Write the page to this HTML file, with all its numbers.")] = None,
    host: Annotated[
        str, typer.Option(help=f"Where to listen. Others than this machine need a token (${TOKEN_VARIABLE}).")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")] = 8270,
) -> None:
    """Show a sweep: its trials, frontier, curves, rare findings, scores and machines."""
    from chexray.platform import storage

    if export is not None:
        from chexray.evals.dashboard.page import exported_page

        if storage.is_dir(export):
            raise UsageError(f"--export {export}: is a folder; name a file in it")
        storage.write_bytes(export, exported_page(sweep).encode())
        Console().print(f"written: {export}", highlight=False, soft_wrap=True, markup=False)
        return
    from aiohttp import web

    from chexray.evals.dashboard.server import build_app, is_local, listen, new_token

    token = _given_token() if is_local(host) else _given_token() or new_token()
    server = build_app(sweep, token)
    sock, address = listen(host, port)
    shown = f"{address}?token={token}" if token else address
    Console().print(f"dashboard: {shown} (Ctrl+C ends it)", highlight=False, soft_wrap=True, markup=False)
    web.run_app(server, sock=sock, print=None, access_log=None)


def _given_token() -> str | None:
    """Of the environment: an argument would stand in the list of processes."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"{TOKEN_VARIABLE}: {len(token)} characters; give {_SHORTEST_TOKEN} or more")
    return token
