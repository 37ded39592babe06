"""Checking the events of a long log on several processors.

Making an event's bytes anew is most of a verification, and needs nothing but the event. So children
do that for one part after the other (`check_worker.py`), and `verify` links the parts. What a child
says is taken only where everything holds: from the first part on that does not, or that a child
could not read, who verifies reads by itself, in the snapshot that it looks at. So a log is judged
as if there were no children, and events that are archived meanwhile are not missed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runner.audit.stored_event import Checked
from runner.stores.check_worker import LENGTH, decode

PART = 4096
"""Events of a part: 128 KiB of leaf hashes."""
WORTH_IT = 5 * PART
"""Fewer are checked sooner than two children have started, in about 0.2 s."""
_MOST_CHILDREN = 8
_AHEAD = 2  # parts that each child has been asked for, so that none waits for its next one
_START = """
import sys
path, mode, *sys.path = sys.argv[1:]
from runner.stores.check_worker import main
main(path, mode, sys.stdin.buffer, sys.stdout.buffer)
"""


def checked_parts(path: Path, mode: str, start: int, end: int) -> Iterator[Checked]:
    """The events from `start` up to, not including, `end`, in order, as far as they hold.

    It ends where one does not hold, where a child fails, and at once where it would not pay.
    `mode`: see `database.connect`.
    """
    count = min(len(os.sched_getaffinity(0)), _MOST_CHILDREN)
    if end - start < WORTH_IT or count < 2:
        return
    starts = range(start, end, PART)
    with contextlib.ExitStack() as stack:
        children = [_Child(path, mode.replace("rw", "ro")) for _ in range(count)]
        for each in children:
            stack.callback(each.end)
        for number, at in enumerate(starts[: count * _AHEAD]):
            children[number % count].ask(at, min(PART, end - at))
        for number in range(len(starts)):
            child = children[number % count]
            part = child.answer()
            if part is None:
                return
            if number + count * _AHEAD < len(starts):
                at = starts[number + count * _AHEAD]
                child.ask(at, min(PART, end - at))
            yield part


class _Child:
    """A process; when it can't be used any more, all its answers are None."""

    def __init__(self, path: Path, mode: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _START, str(path), mode, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
            )

    def ask(self, start: int, count: int) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            try:
                process.stdin.write(b"%d %d\n" % (start, count))
                process.stdin.flush()
            except OSError:
                self.end()

    def answer(self) -> Checked | None:
        process = self._process
        if process is None or process.stdout is None:
            return None
        length = process.stdout.read(LENGTH.size)
        if len(length) == LENGTH.size:
            (expected,) = LENGTH.unpack(length)
            data = process.stdout.read(expected)
            if len(data) == expected:
                return decode(data)
        self.end()
        return None

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError):  # what it was asked for meanwhile
                process.communicate()
