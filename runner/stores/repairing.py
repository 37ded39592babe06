"""Repairing a damaged log: it goes on behind the last event that can be proved.

Nothing is thrown away. The damaged files are moved aside; events that were found behind the last
one that can be proved go to a file for people to look at; the log's next event, `log.repaired`,
says what is missing. The new database is built beside the old one and then put in its place.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from runner import __version__, records
from runner.audit.beginning import beginning_data
from runner.audit.event import rfc3339
from runner.audit.keychain import log_name
from runner.errors import RecordError, RequestError, StateError
from runner.model.event import EventDraft, EventKind
from runner.ports import Clock
from runner.stores import carrying, placing, search_index
from runner.stores.against import NOTHING, Against, keys_named
from runner.stores.building import NewLog, new_log
from runner.stores.damage import ERRORS, is_damage, sentence
from runner.stores.database import FILE_NAME, PENDING_NAME, connect, has_own_schema, remove
from runner.stores.home import fsync_folder
from runner.stores.keys import KeyFolder
from runner.stores.liveness import living
from runner.stores.queue import WriterQueue
from runner.stores.reader import LogReader, open_log
from runner.stores.salvage import Found, Told, has_pages, rows_by_sqlite, told
from runner.stores.sqlite import QUEUE_NAME

_WAIT_S = 2.0  # for a writer, each of which takes milliseconds
_SPARE_BYTES = 16 * 1024 * 1024  # beside what is built: the WAL of the building, and small files


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair came to."""

    recovered: int
    """The log goes on behind so many events (archived ones are among them)."""
    missing_to: int | None
    """Events from `recovered` up to, not including, this one are known to be missing."""
    known_from: str | None
    """What says so: `checkpoint`, `tree` or `events`."""
    unlinked: int
    """So many events were found behind, which nothing links to those that are proved."""
    unlinked_file: Path | None
    """Where they are; None: there is none, or it was only tried."""
    ledger_left_out: int
    """Events whose part in the ledger could not be read."""
    damaged: Path | None
    """Where the damaged database is now; None: it was only tried."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What somebody kept of the log: its size, and the tree's root, 32 bytes."""

    size: int
    root: bytes


def repair(
    home: Path, clock: Clock, *, dry_run: bool = False, against: Sequence[Checkpoint] = ()
) -> Repaired | str:
    """Repair the log of the state folder `home`.

    `against`: what was kept of the log elsewhere; it tells how many events there were, and events
    that contradict it are not recovered.
    Returns the name of the damaged database instead where a repair only had to be finished.

    RequestError: there is no log, or nothing is wrong with it. StateError: another runner holds
    it, there is no room, or the disk fails; then the log is as it was.
    """
    path = home / FILE_NAME
    with _alone(home):
        if dry_run and (home / PENDING_NAME).exists():
            raise RequestError("a repair was interrupted: finish it, without --dry-run")
        if (aside := placing.finish(home)) is not None:
            _forget_derived(home)
            return aside
        _check_damaged(path, against)
        _check_room(path)
        built = home / placing.BUILT_NAME
        try:
            with _scratch(home) as scratch:
                return _repair(path, built, Found(scratch), clock, dry_run, against)
        except (*ERRORS, OSError) as error:
            raise StateError(f"the log could not be repaired: {sentence(path, error)}") from error


def _repair(  # noqa: PLR0917
    path: Path,
    built: Path,
    found: Found,
    clock: Clock,
    dry_run: bool,
    against: Sequence[Checkpoint],
) -> Repaired:
    says = told(path)
    found.read(path)
    beginning = found.beginning(says.beginning)
    now_s = clock.now()
    aside = f"{FILE_NAME}.damaged-{rfc3339(now_s)[:19].replace(':', '')}Z"
    with new_log(built) as new:
        carrying.pruned(new.connection, says, found, beginning)
        new.begin(beginning)
        new.take(rows_by_sqlite(path, new.end.size))
        # Behind what SQLite could not read, and in what it did not find at all: of a damaged WAL
        # it gives the beginning, which is whole and yet not all that was committed.
        new.take(found.rows_from(lambda: new.end))
        _check_against(new, against)
        if beginning.size:
            carrying.runs(path, new.connection)
            carrying.keys(path, new.connection, beginning.size)
            carrying.kills(path, new.connection)
        recovered = new.end.size
        missing_to, known_from = _missing(recovered, says, found, against)
        unlinked, digest, file = _set_aside(path.with_name(f"{aside}.unlinked.jsonl"), found, new)
        data = {
            "recovered": recovered,
            "missing": None if missing_to is None else {"from": recovered, "to": missing_to},
            "known_from": known_from,
            "unlinked": {"count": unlinked, "sha256": digest} if unlinked else None,
            "damaged": aside,
            "archived": beginning_data(beginning) if beginning.size else None,
        }
        drafts = [EventDraft(EventKind.LOG_REPAIRED, data), *_revoked(new)]
        if recovered == 0:
            drafts.insert(0, _created(None if dry_run else KeyFolder(path.parent)))
        new.finish(drafts, now_s)
        left_out = new.replay.left_out
    if dry_run:
        remove(built)
        if file is not None:
            file.unlink()
    else:
        placing.place(path.parent, aside)
        _forget_derived(path.parent)
    return Repaired(
        recovered=recovered,
        missing_to=missing_to,
        known_from=known_from,
        unlinked=unlinked,
        unlinked_file=None if dry_run else file,
        ledger_left_out=left_out,
        damaged=None if dry_run else path.with_name(aside),
    )


def _missing(
    recovered: int, says: Told, found: Found, against: Sequence[Checkpoint]
) -> tuple[int | None, str | None]:
    """Behind the last event that is known to have been there, and what tells of it."""
    known = [
        (max((each.size for each in against), default=0), "checkpoint"),
        (says.tree.size, "tree"),
        (found.size(), "events"),
    ]
    size, source = max(known, key=lambda each: each[0])
    return (size, source) if size > recovered else (None, None)


def _check_against(new: NewLog, against: Sequence[Checkpoint]) -> None:
    for each in against:
        root = new.root_at(each.size)
        if root is not None and root != each.root:
            raise StateError(
                f"the first {each.size} events that can be recovered are not those of the "
                "checkpoint that was kept: the log was rewritten, which a repair must not cover "
                "up; keep the folder for whoever looks into it"
            )


def _set_aside(path: Path, found: Found, new: NewLog) -> tuple[int, str, Path | None]:
    """Write what was found behind the last proved event; how many, the file's digest, its path."""
    count, digest = 0, sha256()
    lines = found.lines_from(new.end.size)
    first = next(lines, None)
    if first is None:
        return 0, "", None
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        line: bytes | None = first
        while line is not None:
            file.write(line)
            digest.update(line)
            count += 1
            line = next(lines, None)
        file.flush()
        os.fsync(file.fileno())
    fsync_folder(path.parent)
    return count, digest.hexdigest(), path


def _revoked(new: NewLog) -> Iterator[EventDraft]:
    """Keys of the API are not carried over: among what is missing one may have been revoked."""
    for key_id in new.replay.api_keys:
        yield records.apikey_revoked(key_id, None, "the log was repaired", None)


def _created(keys: KeyFolder | None) -> EventDraft:
    """Not even the first event is left: another log begins, with a key of its own."""
    log_id = secrets.token_hex(16)
    data = {"log_id": log_id, "runner": __version__, "uid": os.geteuid()}
    if keys is not None:
        data["key"] = keys.make(log_name(log_id))
    return EventDraft(EventKind.LOG_CREATED, data)


def _check_damaged(path: Path, against: Sequence[Checkpoint]) -> None:
    """RequestError: there is nothing to repair. StateError: a newer runner's log."""
    wal = path.with_name(f"{path.name}-wal")
    if not path.exists() and not (wal.exists() and wal.stat().st_size):
        raise RequestError(f"there is no log at {path}, and nothing to make one of")
    if not has_pages(path):
        return
    try:
        with closing(open_log(path)) as log:
            found = log.verify(against=_own_key(log))
            if not found.ok or found.size < max((each.size for each in against), default=0):
                return
        with closing(connect(path, "ro")) as connection:
            if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return
            if not has_own_schema(connection):
                return
    except StateError as error:
        cause = error.__cause__
        if (isinstance(cause, ERRORS) and not is_damage(cause)) or "newer runner" in str(error):
            raise
        return
    except ERRORS as error:
        if is_damage(error):
            return
        raise
    raise RequestError(f"nothing is wrong with the log {path}: every event holds")


def _own_key(log: LogReader) -> Against:
    """Whether the log's key is the right one is for whoever verifies: one that took the place of a
    lost one is no damage.
    """
    with log.reading() as connection:
        named = keys_named(connection)
    return Against(trusted=named[-1].vkey) if named else NOTHING


def _check_room(path: Path) -> None:
    """What is built and the scratch are together at most twice what is there."""
    needed = _SPARE_BYTES
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            needed += 2 * each.stat().st_size
    disk = os.statvfs(path.parent)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise StateError(
            f"there is no room to repair the log: {path.parent} has {free >> 20} MiB free and "
            f"{needed >> 20} MiB are needed; free some space, nothing was changed"
        )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Nobody else runs or writes. StateError: somebody does."""
    if not home.is_dir():
        raise RequestError(f"there is no state folder {home}")
    queue = WriterQueue(home / QUEUE_NAME, _WAIT_S)
    try:
        queue.enter(in_line=False)  # a dry run changes no file
        if alive := living(home / "live"):
            raise StateError(
                f"{len(alive)} other runner(s) hold the log of {home}: end them, then repair it"
            )
        yield
    except RecordError as error:
        raise StateError(str(error)) from error
    finally:
        queue.leave()
        queue.close()


@contextmanager
def _scratch(home: Path) -> Iterator[sqlite3.Connection]:
    path = home / f"{FILE_NAME}.scratch"
    remove(path)
    try:
        with closing(connect(path, "rwc")) as connection:
            yield connection
    finally:
        remove(path)


def _forget_derived(home: Path) -> None:
    """What was made of the damaged log would tell of events that are not in it any more."""
    remove(home / search_index.FILE_NAME)
