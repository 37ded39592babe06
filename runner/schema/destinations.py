"""Reading where checkpoints are sent, as settings state it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from runner.model.checkpoints import Destination, DestinationKind

_HOW = "a file's absolute path, an http:// or https:// URL, or {command: [program, argument]}"


def read_destinations(home: Path | None, value: object) -> tuple[Destination, ...]:
    """One or a list of them; in a variable a list is written as JSON. ValueError: what is wrong.

    `home`: for a path that begins with `~/`.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{value!r} begins like JSON, and is not") from None
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_read(home, item) for item in items)


def _read(home: Path | None, item: object) -> Destination:
    if isinstance(item, Mapping):
        return _command(item)
    if not isinstance(item, str) or not item or "\0" in item:
        raise ValueError(f"{item!r} must be {_HOW}")
    if "://" in item:
        return _url(item)
    if item.startswith("~/") and home is not None:
        item = str(home / item[2:])
    if not item.startswith("/"):
        raise ValueError(f"{item!r} must be {_HOW}")
    return Destination(DestinationKind.FILE, (os.path.normpath(item),))


def _command(item: Mapping[object, object]) -> Destination:
    words = item.get("command")
    if set(item) != {"command"} or not isinstance(words, list) or not words:
        raise ValueError(f"{dict(item)!r} must be {_HOW}")
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError(f"{words!r} must be a list of words")
    if not words[0].startswith("/"):
        raise ValueError(f"the command {words[0]!r} must be an absolute path")
    return Destination(DestinationKind.COMMAND, tuple(words))


def _url(text: str) -> Destination:
    try:
        parts = urlsplit(text)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} must be a URL like https://example.org/checkpoints")
    return Destination(DestinationKind.URL, (text,))
