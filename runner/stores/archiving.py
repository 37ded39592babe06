"""Archiving: events go to sealed segments, and then, if that is wanted, out of the log.

A segment is on the disk and was read back and verified before a transaction removes its events;
that transaction also notes what stands for them (`pruned`) and writes `log.archived`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.audit.beginning import Beginning
from runner.audit.event import rfc3339
from runner.audit.segment import Seal, verify_segment, written
from runner.errors import RequestError, StateError
from runner.stores import segments
from runner.stores.reader import LogReader
from runner.stores.removing import first_held, prune
from runner.stores.sqlite import SqliteStore

SEGMENT_EVENTS = 20_000
"""Events in a segment: some 25 MB of text, 3 MB as a file. Each is removed by a transaction of its
own, for which other writers wait, so it is not more."""

CheckpointFor = Callable[[Beginning], str | None]


@dataclass(frozen=True, slots=True)
class Archived:
    """What was done."""

    files: tuple[Path, ...]
    """Segments that hold the events, in order; those that were there already among them."""
    start: int
    end: int
    """They hold events from `start` up to, not including, `end`."""
    held: str | None
    """Why it is not more, when a run holds the rest; None: it is what was asked for."""
    pruned: int
    """So many events were removed from the log."""


def before_time(log: LogReader, before_s: float) -> int:
    """Number of the first event that is not older than `before_s` (seconds since the epoch)."""
    return log.first_since(rfc3339(before_s))


def archive(
    store: SqliteStore,
    folder: Path,
    before: int,
    *,
    prune_too: bool,
    checkpoint: CheckpointFor = lambda _: None,
    segment_events: int = SEGMENT_EVENTS,
) -> Archived:
    """Write the events up to, not including, number `before` to segments in `folder`.

    Events from the first one on that belongs to a run which is open, or whose changes are still
    kept, stay. RequestError: there are not so many events. StateError, RecordError: it could not
    be done; what was done until then holds, and can be gone on with.
    """
    log = store.reader
    size = log.head().size
    if before > size:
        raise RequestError(f"there is no event {before} to stop before: the log has {size}")
    held = first_held(log, _with_changes(store.home))
    end, why = before, None
    if held is not None and held[0] < before:
        end, why = held
    at = start = log.beginning()
    files: list[Path] = []
    while at.size < end:
        found = _existing(log, folder, at, end)
        if found is None:
            count = min(segment_events, end - at.size)
            found = _write(log, folder, at, count, checkpoint)
        path, seal, digest = found
        if prune_too:
            with store.transaction() as tx:
                prune(tx, at, seal.after, log_id=log.log_id(), file=path.name, sha256=digest)
        at = seal.after
        files.append(path)
    done = at.size - start.size if prune_too else 0
    return Archived(tuple(files), start.size, at.size, why, done)


def _with_changes(home: Path) -> list[str]:
    """Ids of the runs whose changes are kept: what is said of them is looked up in the log."""
    try:
        return [entry.name for entry in os.scandir(home / "changes") if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError(f"{home / 'changes'} can't be read: {error.strerror}") from error


_Found = tuple[Path, Seal, str]


def _existing(log: LogReader, folder: Path, at: Beginning, end: int) -> _Found | None:
    """A segment that an earlier call wrote, if it holds exactly what the log does."""
    if not folder.is_dir():
        return None
    for each in segments.listed(folder, log.log_id()):
        if each.start == at.size and each.end <= end:
            found = _read_back(log, each.path, at)
            if isinstance(found, tuple):
                return found
            raise StateError(
                f"segment {each.path} was there already and is not what the log holds: {found}; "
                "move it away and try again"
            )
    return None


def _write(
    log: LogReader, folder: Path, at: Beginning, count: int, checkpoint: CheckpointFor
) -> _Found:
    lines = written(log.log_id(), at, count, _events(log, at.size, count), checkpoint)
    name = segments.name_of(log.log_id(), at.size, at.size + count)
    try:
        path = segments.write(folder, name, lines)
    except ValueError as error:
        raise StateError(f"the log can't be archived: {error}; `runner audit verify`") from None
    found = _read_back(log, path, at)
    if isinstance(found, tuple):
        return found
    raise StateError(
        f"segment {path} was written but does not hold: {found}; nothing was removed: "
        "`runner audit verify` tells whether it is the log or the disk"
    )


def _events(log: LogReader, start: int, count: int) -> Iterator[tuple[int, bytes, bytes]]:
    for event in log.events(start=start):
        if event.seq >= start + count:
            return
        yield event.seq, event.leaf_hash, event.body


def _read_back(log: LogReader, path: Path, at: Beginning) -> _Found | str:
    """The segment's path, seal and digest, or why it is not the log's, in a clause."""
    with segments.opened(path) as (segment, digest):
        header = segment.header
        if header.log_id != log.log_id() or header.before != at:
            return "it does not follow what is archived"
        found = verify_segment(segment)
        if found.failure is not None:
            return f"event {found.failure.seq}: {found.failure.why}"
        seal = segment.seal
        if seal is None or log.leaf_hash(seal.after.size - 1) != seal.after.last_hash:
            return "the log has other events"
        return path, seal, digest
