"""What is asked, as the API's bodies have it (`runner.schema.api_bodies`)."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from runner.errors import RequestError
from runner.model.limits import LimitOverrides
from runner.proposed import Proposed

_READ_BYTES = 1 << 20
_STDIN_BYTES = 256 << 20


def program_body(
    argv: Sequence[str] | None, *, is_here: bool, **program: Unpack[Proposed]
) -> dict[str, object]:
    """A `ProgramBody`; what is not given is left out. RequestError.

    `is_here`: the server is on this machine, so that `cwd` may be relative.
    """
    body: dict[str, object] = {}
    if isinstance(argv, str):
        raise RequestError("argv is a list of words; for a command line as one text use shell=")
    if argv is not None:
        body["argv"] = list(argv)
    for name in ("shell", "language", "profile", "agent", "parent", "session", "tenant"):
        if (value := program.get(name)) is not None:
            body[name] = value
    if (code := program.get("code")) is not None:
        body["code"] = _text(code, "code")
    if (script := program.get("script")) is not None:
        _script(body, Path(program.get("cwd") or "", script), program.get("language"))
    if args := program.get("args"):
        body["args"] = list(args)
    if (cwd := program.get("cwd")) is not None:
        folder = os.fspath(cwd)
        body["cwd"] = os.path.abspath(folder) if is_here else folder  # noqa: PTH100
    for name in ("env", "labels"):
        mapping = program.get(name)
        if isinstance(mapping, Mapping) and mapping:
            body[name] = dict(mapping)
    limits = program.get("limits")
    if isinstance(limits, LimitOverrides):
        from runner.schema.limits import spell_limits  # noqa: PLC0415  (rarely given so)

        limits = spell_limits(limits)
    if limits:
        body["limits"] = dict(limits)
    return body


def stdin_body(stdin: int | bytes | str | None) -> object:
    """A `Content`; a descriptor is read to its end. RequestError."""
    if isinstance(stdin, int):
        stdin = _read(stdin)
    return None if stdin is None else content(stdin)


def content(given: bytes | str) -> object:
    """Text as it is, where UTF-8 can hold it; bytes in base64."""
    if isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError:
            given = given.encode("utf-8", "surrogateescape")
        else:
            return given
    try:
        return given.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(given).decode("ascii")}


def _script(body: dict[str, object], path: Path, language: str | None) -> None:
    """Its text, read here: what is sent is what runs."""
    from runner.intake import LANGUAGES, read_script  # noqa: PLC0415  (for scripts alone)

    found = read_script(path, (), language)
    if found.language not in LANGUAGES:
        raise RequestError(
            f"script {str(path)!r} is for {' '.join(found.interpreter)}, which a server does not "
            f"take; give a language ({', '.join(LANGUAGES)}), or run it by argv"
        )
    body["code"] = _text(found.content, f"script {str(path)!r}")
    body["language"] = found.language


def _text(given: bytes | str, what: str) -> str:
    if isinstance(given, str):
        return given
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise RequestError(f"{what} is no UTF-8, which a server does not take") from None


def _read(fd: int) -> bytes:
    held = bytearray()
    try:
        while data := os.read(fd, _READ_BYTES):
            held += data
            if len(held) > _STDIN_BYTES:
                raise RequestError(f"stdin holds more than {_STDIN_BYTES >> 20} MiB")
    except (OSError, OverflowError) as error:
        raise RequestError(f"stdin {fd} can't be read: {error}") from error
    return bytes(held)
