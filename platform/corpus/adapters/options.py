"""Options of adapters: their values come from a command line through YAML, and are checked against the fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from chexray.platform import storage
from chexray.platform.corpus.paths import below_root
from chexray.platform.errors import UsageError


def _below(text: str) -> str:
    path = below_root(text)
    if not path:
        raise ValueError("not below the root")
    return path


_A_FILE = Field(description="a file's path below the root")
FileBelow = Annotated[str, AfterValidator(_below), _A_FILE]
FolderBelow = Annotated[str, AfterValidator(_below), Field(description="a folder's path below the root")]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False, description="a number from 0 to 1")]
Language = Annotated[
    str,
    AfterValidator(str.lower),
    Field(pattern="^[A-Za-z]{2,3}$", description="two or three letters (ISO 639)"),
]

_ALLOWED: dict[object, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true, false",
    type(None): "null",
}
_YAML_WORDS = {False: ("no, off and false", "no"), True: ("yes, on and true", "yes")}


def check_options(name: str, adapter: type, root: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of `adapter`, a dataclass, as its fields want them.

    A number given for a text becomes its text, one text for a list a list of it. UsageError for an unknown option, or
    another value than its field allows.
    """
    known = [field.name for field in dataclasses.fields(adapter) if field.name != "root"]
    unknown = [option for option in options if option not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise UsageError(f"adapter {name!r} has no option {', '.join(map(repr, unknown))}; {has}")
    hints = get_type_hints(adapter, include_extras=True)
    checked = {option: _check(option, hints[option], value) for option, value in options.items()}
    for option, value in checked.items():
        if value is not None and any(_A_FILE in kind for kind in _kinds(hints[option])):
            _refuse_folder(root, option, value, hints[option])
    return checked


def _check(option: str, hint: Any, value: Any) -> Any:
    given = _as_text(option, hint, value)
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(given)
    except ValidationError as error:
        raise UsageError(f"--option {option}={given!r}: allowed: {_allowed(hint)}") from error


def _as_text(option: str, hint: Any, value: Any) -> Any:
    """The value, with numbers as texts where the field is of texts. UsageError for what YAML took for a truth value."""
    types = {kind[0] for kind in _kinds(hint)}
    is_list = not types.isdisjoint((Sequence, tuple))
    if not is_list and str not in types:
        return value
    if is_list and isinstance(value, (list, tuple)):
        return tuple(_text(option, item, '["{}"]') for item in value)
    text = _text(option, value, '"{}"')
    return (text,) if is_list and isinstance(text, str) else text


def _text(option: str, value: Any, quoted: str) -> Any:
    if isinstance(value, bool):
        words, word = _YAML_WORDS[value]
        raise UsageError(
            f"--option {option}={value}: YAML reads {words} so; quote it: --option '{option}={quoted.format(word)}'"
        )
    return str(value) if isinstance(value, (int, float)) else value


def _refuse_folder(root: str, option: str, value: str, hint: Any) -> None:
    if storage.is_dir(storage.join(root, value)):
        raise UsageError(f"--option {option}={value!r}: it is a folder; allowed: {_allowed(hint)}")


def _allowed(hint: Any) -> str:
    return ", ".join(_described(kind) for kind in _kinds(hint))


def _described(kind: tuple[Any, ...]) -> str:
    first, *rest = kind
    if first is Literal:
        return ", ".join(map(str, rest))
    if first in (Sequence, tuple):
        return "a list of texts"
    return next((data.description for data in rest if getattr(data, "description", None)), _ALLOWED.get(first, ""))


def _kinds(hint: Any) -> Iterator[tuple[Any, ...]]:
    """The alternatives of a field's type: each with its arguments or, of an annotated type, its annotations."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif origin is Annotated:
        yield get_args(hint)
    else:
        yield (origin or hint, *get_args(hint))
