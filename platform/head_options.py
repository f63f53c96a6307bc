"""The options by which the command line finds a cluster's head, and what it refuses to send there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from chexray.platform import storage
from chexray.platform.errors import UsageError

if TYPE_CHECKING:
    from chexray.platform.sdk import Client

HeadAddress = Annotated[
    str,
    typer.Option("--address", envvar="RAY_API_SERVER_ADDRESS", help="The head's dashboard, as http://HEAD:8265."),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        help="The file with the cluster's token. Without it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.",
        metavar="FILE",
    ),
]
Certificates = Annotated[
    str | None, typer.Option(help="The file or folder of certificates to trust, for https.", metavar="PATH")
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Trust any certificate, for https.")]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Allow another machine's head over plain http, or without a token."),
]


def connect(
    address: str,
    token_file: str | None,
    certificates: str | None,
    no_verify: bool,
    insecure: bool,
    submits: bool = False,
) -> Client:
    """A client of the head. `submits`: whether it is to be asked to run something.

    Raises `UsageError` where that would be unsafe and `insecure` is off, and what `Client` raises.
    """
    if certificates is not None and no_verify:
        raise UsageError("--certificates and --no-verify: give one of them")
    if certificates is not None and not storage.exists(certificates):
        raise UsageError(f"--certificates {certificates}: no such file or folder")
    given = None if token_file is None else _token_in(token_file)
    from chexray.platform.head import find_token
    from chexray.platform.sdk import Client

    if not insecure:
        require_safe(address, find_token(given)[0] is not None, submits)
    with warnings.catch_warnings():
        # The option has said it.
        warnings.simplefilter("ignore", UserWarning)
        return Client(address, given, certificates or not no_verify)


def require_safe(address: str, has_token: bool, submits: bool) -> None:
    """Raise `UsageError` where a token could be read on the way, or where a head that is not on this machine would be
    asked to run something without one."""
    from chexray.platform.head import is_on_this_machine, is_plain

    if has_token and is_plain(address):
        raise UsageError(
            f"--address {address}: the token would go there in plain text; use a tunnel "
            "(ssh -L 8265:127.0.0.1:8265 HEAD, then --address http://127.0.0.1:8265) or an https:// address, or give "
            "--insecure on a network that you trust"
        )
    if submits and not has_token and not is_on_this_machine(address):
        raise UsageError(
            f"--address {address}: no token was found for a head that is not on this machine, and one that asks for "
            "none runs what anybody sends it; start it with RAY_AUTH_MODE=token and give its token (--token-file, "
            "RAY_AUTH_TOKEN, ~/.ray/auth_token), or give --insecure on a network that you trust"
        )


def _token_in(file: str) -> str:
    if storage.is_remote(file) or not storage.is_file(file):
        raise UsageError(f"--token-file {file}: no such file")
    try:
        return storage.read_bytes(file).decode("ascii", errors="replace")
    except OSError as error:
        raise UsageError(f"--token-file {file}: cannot be read ({error.strerror})") from error
