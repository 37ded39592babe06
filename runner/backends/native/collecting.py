"""What the builder tells of the workspace, taken in: the list, and contents by descriptor.

A descriptor leads to a file that the program made. It is only read, up to the size that it has;
no process that could change it is alive.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from runner.backends.contents import UNREAD, change_of, kept
from runner.model.outcome import Change
from runner.ports import ContentSink

CHUNK_BYTES = 1 << 20


def collected(
    records: Sequence[Mapping[str, Any]], fds: Sequence[int], sink: ContentSink | None
) -> list[Change]:
    """The records of one message as changes; contents go to `sink`, every descriptor is closed."""
    try:
        return [_collected(record, fds, sink) for record in records]
    finally:
        for fd in fds:
            os.close(fd)


def _collected(record: Mapping[str, Any], fds: Sequence[int], sink: ContentSink | None) -> Change:
    if sink is None or record["kind"] == "deleted" or record["type"] not in ("file", "symlink"):
        return change_of(record)
    if "target" in record:
        target = os.fsencode(record["target"])
        digest, withheld = kept(sink, len(target), [target])
        return change_of(record, digest or hashlib.sha256(target).hexdigest(), withheld)
    number = record.get("content")
    if number is None:
        return change_of(record, record["sha256"], UNREAD)
    if number >= len(fds):  # recvmsg(2), MSG_CTRUNC: this process has no descriptor left
        return change_of(record, record["sha256"], "descriptors ran out while it was read")
    found = os.fstat(fds[number])
    if not stat.S_ISREG(found.st_mode):
        return change_of(record, record["sha256"], "it is no regular file any more")
    digest, withheld = kept(sink, found.st_size, _chunks(fds[number], found.st_size))
    return change_of(record, digest or record["sha256"], withheld)


def _chunks(fd: int, size_bytes: int) -> Any:
    position = 0
    while position < size_bytes:
        chunk = os.pread(fd, min(CHUNK_BYTES, size_bytes - position), position)
        if not chunk:
            return
        position += len(chunk)
        yield chunk
