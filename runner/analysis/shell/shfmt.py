"""The shell's grammar, by mvdan/sh: text in, syntax tree out.

The tree is what `shfmt --to-json` prints (https://github.com/mvdan/sh, `syntax/typedjson`). The
binary is started as a parser and nothing else: text on its stdin, no file, no environment, bounded
memory, processor time, output and wall time. Whatever goes wrong is a `ShellSyntaxError` whose
message is one clause.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

Node = dict[str, Any]

TEXT_LIMIT_BYTES = 256 * 1024
"""Longer shell texts are not read: the tree of a dense one is some 600 times its size."""
_TREE_LIMIT_BYTES = 48 * 1024 * 1024
_DATA_LIMIT_BYTES = 512 * 1024 * 1024
_CPU_LIMIT_S = 8
_WALL_LIMIT_S = 20.0
_MESSAGE_LIMIT_BYTES = 4096
_SUBSCRIPT_RETRIES = 16

# shfmt refuses `A[0]=1 cmd`, which bash runs. A plain subscript in front of a command is read as
# a name of the same length; only such ones, so that nothing that runs is hidden.
_SUBSCRIPT_ERROR = re.compile(rb"^(\d+):(\d+): inline variables cannot be arrays")
_SUBSCRIPT = re.compile(rb"(?:[A-Za-z_]\w*\+?=[\w./:@%+,-]*[ \t]+)*[A-Za-z_]\w*(\[\w*\])\+?=(?!\()")
_DIALECT_NAMES = {"bash": "bash", "posix": "posix", "mksh": "mksh", "zsh": "zsh"}


class ShellSyntaxError(Exception):
    """The text could not be read; the message says why, in one clause."""


def parse(text: bytes, dialect: str) -> Node:
    """Syntax tree of `text`; `dialect` is `bash`, `posix`, `mksh` or `zsh`.

    ShellSyntaxError: it does not parse, is too large, or the parser is missing.
    """
    if len(text) > TEXT_LIMIT_BYTES:
        raise ShellSyntaxError(
            f"the shell text is longer than the {TEXT_LIMIT_BYTES // 1024} KiB that are read"
        )
    if b"\0" in text:
        raise ShellSyntaxError("the shell text holds a NUL byte")
    if b"\r" in text:
        # To bash a carriage return is part of a word (and of a heredoc's end), to shfmt it is not.
        line = text[: text.index(b"\r")].count(b"\n") + 1
        raise ShellSyntaxError(f"line {line} of the shell text holds a carriage return")
    for _ in range(_SUBSCRIPT_RETRIES):
        output, message = _run(text, dialect)
        if output is not None:
            return _tree(output)
        replaced = _without_subscript(text, message)
        if replaced is None:
            raise ShellSyntaxError(_clause(message))
        text = replaced
    raise ShellSyntaxError("it sets too many array elements in front of commands")


@functools.cache
def binary() -> str | None:
    """Where shfmt is: beside this interpreter, in its scripts folder, or on the PATH."""
    candidates = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    for folder in candidates:
        path = folder / "shfmt"
        if os.access(path, os.X_OK):
            return str(path)
    return shutil.which("shfmt")


def _run(text: bytes, dialect: str) -> tuple[bytes | None, bytes]:
    path = binary()
    if path is None:
        raise ShellSyntaxError("the parser shfmt is not installed (install the package shfmt-py)")
    source = os.memfd_create("shell-text", os.MFD_CLOEXEC)
    try:
        os.write(source, text)
        os.lseek(source, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [path, "-ln", _DIALECT_NAMES[dialect], "--to-json"],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={},
        )
    except OSError as error:
        raise ShellSyntaxError(f"the parser shfmt can't be started: {error.strerror}") from error
    finally:
        os.close(source)
    with process:
        try:
            _limit(process.pid)
            output, message = _collect(process)
        finally:
            process.kill()
    return (output if process.returncode == 0 else None), message


def _limit(pid: int) -> None:
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (_DATA_LIMIT_BYTES, _DATA_LIMIT_BYTES))
        resource.prlimit(pid, resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
    except (OSError, ValueError):
        return  # it is over already, or a lower limit holds


def _collect(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    if process.stdout is None or process.stderr is None:
        raise ShellSyntaxError("the parser shfmt has no output")
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    bounds = {process.stdout.fileno(): _TREE_LIMIT_BYTES, process.stderr.fileno(): 1 << 20}
    out, err = kept.values()
    deadline = time.monotonic() + _WALL_LIMIT_S
    poll = select.poll()
    for descriptor in kept:
        poll.register(descriptor, select.POLLIN)
    open_count = len(kept)
    while open_count:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise ShellSyntaxError("reading the shell text takes too long")
        for descriptor, _ in poll.poll(remaining_s * 1000):
            chunk = os.read(descriptor, 1 << 18)
            kept[descriptor] += chunk
            if len(kept[descriptor]) > bounds[descriptor]:
                raise ShellSyntaxError("the shell text is too complex to read")
            if not chunk:
                poll.unregister(descriptor)
                open_count -= 1
    process.wait()
    return bytes(out), bytes(err[:_MESSAGE_LIMIT_BYTES])


def _tree(output: bytes) -> Node:
    try:
        tree = json.loads(output)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ShellSyntaxError("the shell text is nested too deep to read") from error
    if not isinstance(tree, dict):
        raise ShellSyntaxError("the parser shfmt gave no syntax tree")
    return tree


def _without_subscript(text: bytes, message: bytes) -> bytes | None:
    found = _SUBSCRIPT_ERROR.match(message)
    if found is None:
        return None
    lines = text.split(b"\n")
    line, column = int(found[1]), int(found[2])
    if line > len(lines):
        return None
    start = sum(len(text_line) + 1 for text_line in lines[: line - 1])
    # The position is the subscript's or the command's; the assignments lie in front of either.
    before = text[start : start + column - 1]
    head = re.search(rb"(?:[A-Za-z_]\w*\+?=[\w./:@%+,-]*[ \t]+)*[A-Za-z_]\w*\Z", before)
    origin = start + (head.start() if head else column - 1)
    subscript = _SUBSCRIPT.match(text, origin)
    if subscript is None:
        return None
    index = subscript[1]
    left, right = subscript.span(1)
    return text[:left] + b"_" * len(index) + text[right:]


def _clause(message: bytes) -> str:
    first = message.decode("utf-8", "replace").strip().split("\n", 1)[0]
    first = re.sub(r"^<standard input>:", "", first)
    found = re.match(r"(\d+):[\d?]+: (.*)", first)
    if found:
        return f"line {found[1]} of the shell text does not parse: {found[2]}"
    if "fatal error" in first or "runtime:" in first or not first:
        return "the shell text is too complex to read"
    return f"the shell text does not parse: {first}"
