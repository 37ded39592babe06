"""A child that reads what could crash, stall or bloat a parser in this process.

CPython's parser can be crashed by a text that is nested or chained deep enough (documentation of
`ast.parse`), and a tree takes hundreds of times the room of its text. So what is large or deep is
read by a process that knows nothing and may do nothing but say what it found: no environment, no
file but the text, bounded memory, processor time, wall time and output. It ends after one text,
so that no text can change how another is read. Whatever goes wrong is one clause.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Findings = list[dict[str, Any]]

_CPU_LIMIT_S = 10
_DATA_LIMIT_BYTES = 1 << 30
"""The tree of 1 MiB of the densest Python takes some 600 MiB."""
_OUTPUT_LIMIT_BYTES = 8 << 20
_OPTIONS = ("-I", "-S", "-B", "-c")
_HERE = Path(__file__).parent
# The packages are there for their paths only: running their __init__ would load all of runner.
_START = """
import sys, types
language, here, *more = sys.argv[1:]
sys.path.extend(more)
for name, path in (("runner", here.rpartition("/")[0]), ("runner.analysis", here)):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from runner.analysis.child import main
main(language)
"""


def read(language: str, text: str, seconds: float) -> tuple[Findings, str | None, float]:
    """What a reader of `runner.analysis.child` finds, why it could not, and the seconds it took.

    Never raises; `seconds` bounds the wall time.
    """
    begun = time.monotonic()
    problem = f"the {NAMES[language]} text is too complex to read"
    if seconds <= 0:
        return [], problem, 0.0
    found: Findings = []
    try:
        output = _run(language, text.encode("utf-8", "surrogatepass"), begun + seconds)
        if output is not None:
            found, said = json.loads(output)
            problem = str(said) if said is not None else ""
    except (OSError, ValueError, RecursionError, MemoryError):
        found = []  # `problem` says it
    return found, problem or None, time.monotonic() - begun


NAMES = {"python": "Python", "javascript": "JavaScript"}


def _run(language: str, text: bytes, deadline: float) -> bytes | None:
    source = os.memfd_create("text", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(source), "wb") as stream:
            stream.write(text)
        os.lseek(source, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [sys.executable, *_OPTIONS, _START, language, str(_HERE), *_more(language)],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
        )
    finally:
        os.close(source)
    with process:
        try:
            _limit(process.pid)
            output = _collect(process, deadline)
        finally:
            process.kill()
    return output if process.returncode == 0 else None


def _more(language: str) -> list[str]:
    """Where the parser is installed, which `-S` leaves out."""
    if language != "javascript":
        return []
    spec = importlib.util.find_spec("tree_sitter")
    return [str(Path(spec.origin).parent.parent)] if spec is not None and spec.origin else []


def _limit(pid: int) -> None:
    """Bound a child from outside; it has read nothing yet."""
    for limit, bound in (
        (resource.RLIMIT_DATA, _DATA_LIMIT_BYTES),
        (resource.RLIMIT_CPU, _CPU_LIMIT_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.prlimit(pid, limit, (bound, bound))
        except ProcessLookupError:
            return  # it is over already
        except ValueError:
            continue  # a lower limit holds


def _collect(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    if process.stdout is None:
        return None
    output = bytearray()
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            return None
        chunk = os.read(process.stdout.fileno(), 1 << 18)
        if not chunk:
            break
        output += chunk
        if len(output) > _OUTPUT_LIMIT_BYTES:
            return None
    process.wait()
    return bytes(output)
