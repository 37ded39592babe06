"""Passes the list of changes on in parts that fit a message, with descriptors of the contents."""

from __future__ import annotations

import os
from collections.abc import Callable

from runner.backends.native.launcher.copying import OPEN_FILE
from runner.backends.native.launcher.trees import Finding, Found, Record

MOST_CHANGES = 20_000
"""More are counted as truncated: the list is for people and goes into a record."""
MOST_LISTED_BYTES = 8 << 20
"""Of paths, over all changes: long ones cost a program nothing, and each is held and recorded."""
MOST_PATH_BYTES = 4096
"""PATH_MAX (limits.h): a longer one names nothing in any call."""
MOST_FDS = 16
"""Descriptors of changed files that travel with one message; the kernel's bound is 253."""

Send = Callable[[list[Record], tuple[int, ...]], None]
"""Passes a part of the list on, with descriptors that its records' `content` counts from 0."""


def send_all(changes: Found, send: Send, *, keep: bool) -> bool:
    """Pass the changes on in parts that fit a message; True if that was not all of them.

    With `keep` a file that has a digest goes with a descriptor to read it by (its record's
    `content`), a link with its target.
    """
    outbox = _Outbox(send)
    listed_bytes = 0
    whole = True
    try:
        for count, finding in enumerate(changes):
            if count >= MOST_CHANGES or listed_bytes > MOST_LISTED_BYTES:
                whole = False
                break
            path_bytes = len(os.fsencode(finding.record["path"])) if finding is not None else 0
            if finding is None or path_bytes > MOST_PATH_BYTES:
                whole = False
                continue
            listed_bytes += path_bytes
            outbox.put(finding, path_bytes, keep=keep)
    except OSError:
        whole = False  # a tree made to be unreadable: what was read of it stands, and says so
    outbox.flush()
    return not whole


class _Outbox:
    """Gathers records and descriptors until a message is full."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._part: list[Record] = []
        self._fds: list[int] = []
        self._part_bytes = 0

    def put(self, finding: Finding, path_bytes: int, *, keep: bool) -> None:
        record = finding.record
        if keep and finding.folder_fd >= 0 and record["sha256"] is not None:
            if record["type"] == "file":
                self._fds.append(os.open(finding.name, OPEN_FILE, dir_fd=finding.folder_fd))
                record["content"] = len(self._fds) - 1
            else:
                target = os.readlink(finding.name, dir_fd=finding.folder_fd)
                record["target"] = os.fsdecode(target)
                path_bytes += len(target)
        self._part.append(record)
        self._part_bytes += 6 * path_bytes + 400  # JSON may write a byte as \uXXXX
        if self._part_bytes > 64 * 1024 or len(self._fds) >= MOST_FDS:
            self.flush()

    def flush(self) -> None:
        if not self._part:
            return
        try:
            self._send(self._part, tuple(self._fds))
        finally:
            for fd in self._fds:
                os.close(fd)
            self._part, self._fds, self._part_bytes = [], [], 0
