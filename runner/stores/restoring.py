"""Putting archived segments back: into the log that they come from, or into a new one to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.audit.beginning import WHOLE
from runner.audit.stored_event import Row, unreadable
from runner.errors import RequestError, StateError
from runner.stores import building, segments
from runner.stores.database import FILE_NAME
from runner.stores.home import fsync_folder, prepare_home
from runner.stores.reader import LogReader
from runner.stores.removing import last_removed, put_back
from runner.stores.segments import SegmentFile
from runner.stores.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there again: the events from `start` up to, not including, `end`."""

    start: int
    end: int


def restore(store: SqliteStore, place: Path) -> Restored:
    """Put back what `place`, an archive's folder or one segment, has; the last removed first.

    Each segment in a transaction of its own, verified against what was noted when it was removed.
    RequestError: it does not have the events that were removed last. StateError, RecordError: a
    segment is damaged; those before it in this order are back.
    """
    log_id, at = store.reader.log_id(), store.reader.beginning().size
    if at == 0:
        raise RequestError("nothing is missing: the log has all its events")
    end = at
    while True:
        with store.reader.reading() as connection:
            removed = last_removed(connection)
        if removed is None:
            return Restored(0, end)
        path = _found(place, log_id, removed[0].size, removed[1].size, removed[2])
        if path is None:
            if at == end:
                raise RequestError(
                    f"{place} does not have events {removed[0].size} to {removed[1].size - 1}, "
                    f"which were removed last; they went to {removed[2]}"
                )
            return Restored(at, end)
        with segments.opened(path) as (segment, digest):
            if segment.header.log_id != log_id:
                raise StateError(f"segment {path} belongs to another log")
            with store.transaction() as tx:
                put_back(tx, segment, digest)
        at = removed[0].size


def restore_into(home: Path, place: Path) -> Restored:
    """Make a new state folder of an archive, which must begin with event 0, to be read.

    RequestError: something is there already, or event 0 is not in the archive. StateError: a
    segment does not hold, or the folder can't be written; then there is no log in it.
    """
    if (home / FILE_NAME).exists():
        raise RequestError(f"there is a log in {home} already: name a new folder")
    files = chain_of(place)
    if not files:
        raise RequestError(f"{place} does not have event 0 of a log: a log can't be made of it")
    home = prepare_home(home)
    built = home / f"{FILE_NAME}.restored"
    with building.new_log(built) as new:
        log_id = None
        for each in files:
            with segments.opened(each.path) as (segment, _):
                if log_id not in (None, segment.header.log_id):
                    raise StateError(f"segment {each.path} belongs to another log")
                log_id = segment.header.log_id
                if segment.header.before != new.end:
                    raise StateError(f"segment {each.path} does not follow the one before it")
                found = new.take(segment.rows())
            if found.failure is not None:
                raise StateError(
                    f"segment {each.path} does not hold: event {found.failure.seq}: "
                    f"{found.failure.why}"
                )
        new.finish()
    built.rename(home / FILE_NAME)
    fsync_folder(home)
    return Restored(0, new.end.size)


def archived_rows(log: LogReader, place: Path) -> Iterator[Row]:
    """The events of an archive that stand before the log's own, for `LogReader.verify`.

    StateError: a segment can't be read. What does not hold fails in `verify`.
    """
    at = WHOLE
    for each in chain_of(place, log.log_id(), log.beginning().size):
        with segments.opened(each.path) as (segment, _):
            if segment.header.before != at or segment.header.log_id != log.log_id():
                unreadable(f"segment {each.path} does not follow the one before it")
            yield from segment.rows()
            if segment.seal is not None:
                at = segment.seal.after
    if at.size < log.beginning().size:
        unreadable(f"it is missing: neither {place} nor the log has it")


def chain_of(place: Path, log_id: str | None = None, end: int | None = None) -> list[SegmentFile]:
    """Segments of a folder (or one file) laid end to end from event 0 on, up to `end` at most.

    RequestError: the folder holds those of several logs.
    """
    files = [_of_file(place)] if place.is_file() else segments.listed(place, log_id)
    logs = {each.path.name.partition("-")[0] for each in files}
    if len(logs) > 1 and place.is_dir():
        raise RequestError(
            f"{place} holds segments of {len(logs)} logs: give each a folder of its own"
        )
    chain: list[SegmentFile] = []
    at = WHOLE.size
    for each in files:  # of one start the longest comes first
        if each.start == at and (end is None or each.end <= end):
            chain.append(each)
            at = each.end
    return chain


def _found(place: Path, log_id: str, start: int, end: int, file: str) -> Path | None:
    if place.is_file():
        each = _of_file(place)
        return place if (each.start, each.end) == (start, end) else None
    if (place / Path(file).name).is_file():
        return place / Path(file).name
    for each in segments.listed(place, log_id):
        if (each.start, each.end) == (start, end):
            return each.path
    return None


def _of_file(path: Path) -> SegmentFile:
    """By its header, whatever its name is."""
    with segments.opened(path) as (segment, _):
        return SegmentFile(path, segment.header.start, segment.header.end)
