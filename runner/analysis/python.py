"""Reading Python: small harmless texts here, the rest in a bounded child of their own.

CPython's parser can be crashed by a text that is nested or chained deep enough (documentation of
`ast.parse`), so what is large or deep is parsed where a crash is only an answer.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from runner.analysis import pyread
from runner.analysis.context import Call, Place, Readers
from runner.model.intent import Access, PathUse, Word

_TEXT_LIMIT_BYTES = 1024 * 1024
_HARMLESS_BYTES = 32 * 1024
_HARMLESS_BRACKETS = 40
"""Opening brackets in a row of nesting: CPython refuses at 200 by itself."""
_HARMLESS_CHAIN = re.compile(r"(?:[-+~.*/%&|^<>=(\[{]|\bnot\b|\blambda\b|\bawait\b|\s|\\){200}")
_WALL_LIMIT_S = 20.0


def read_python(readers: Readers, text: Word, place: Place) -> str | None:
    """Note what a Python text would do; returns why it can't be read, else None."""
    if text.dynamic:
        return None
    found, problem = _findings(text.text)
    place = replace(place, advice=True, language="sh")
    for each in found:
        _note(readers, each, place)
    return problem


def _note(readers: Readers, each: pyread.Finding, place: Place) -> None:
    line = each["line"] if place.depth <= 1 else place.line
    place = replace(place, line=line)
    kind = each["kind"]
    if kind == "argv":
        words = tuple(Word(text, dynamic) for text, dynamic in each["words"])
        readers.command(Call(words, place))
        return
    if kind == "code":
        readers.python(Word(each["text"]), place.behind("python"))
        return
    word = Word(each["text"], each["dynamic"])
    if kind == "shell":
        readers.shell(word, place)
    elif kind == "path":
        readers.found.paths.append(PathUse(word, Access(each["access"])))
    elif kind == "host":
        readers.found.hosts.append(word)
    elif kind == "url" and not word.dynamic:
        host = _url_host(word.text)
        if host:
            readers.found.hosts.append(Word(host))
    elif kind == "url":
        readers.found.hosts.append(word)


def _url_host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _findings(text: str) -> tuple[list[pyread.Finding], str | None]:
    if len(text) > _TEXT_LIMIT_BYTES:
        return [], f"the Python text is longer than the {_TEXT_LIMIT_BYTES >> 20} MiB that are read"
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return [], "the Python text holds characters that no encoding has"
    if not _harmless(text):
        return _in_child(content)
    try:
        return pyread.read_python(content), None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return [], _problem(str(getattr(error, "msg", error)), line)
    except (RecursionError, MemoryError):
        return [], "the Python text is nested too deep to read"


def _problem(message: str, line: object) -> str:
    where = f"line {line} of the" if isinstance(line, int) else "the"
    return f"{where} Python text does not parse: {message}"


def _harmless(text: str) -> bool:
    if len(text) > _HARMLESS_BYTES or _HARMLESS_CHAIN.search(text):
        return False
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]{}]", text):
        depth = depth + 1 if bracket in "([{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest <= _HARMLESS_BRACKETS


def _in_child(content: bytes) -> tuple[list[pyread.Finding], str | None]:
    source = os.memfd_create("python-text", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(source), "wb") as stream:
            stream.write(content)
        os.lseek(source, 0, os.SEEK_SET)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", str(Path(pyread.__file__))],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            timeout=_WALL_LIMIT_S,
            check=False,
        )
        result = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, RecursionError, subprocess.TimeoutExpired):
        result = {}
    finally:
        os.close(source)
    if "findings" in result:
        return result["findings"], None
    if "error" in result:
        return [], _problem(str(result["error"]), result.get("line"))
    return [], "the Python text is too complex to read"
