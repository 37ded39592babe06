"""Putting a repaired log in place of the damaged one: either the old stands there or the new.

A database is two files, itself and its WAL, and a WAL must never meet a database that it is not of.
Two files can't be exchanged at once; so a note, `repair.pending`, is on the disk before the first
is moved and until the last is, and while it is there nobody opens the log (`check_whole`). Whoever
repairs next finishes what it says. Nothing of the damaged log is deleted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from runner.errors import StateError
from runner.stores.damage import sentence
from runner.stores.database import FILE_NAME, PENDING_NAME
from runner.stores.home import fsync_folder

BUILT_NAME = f"{FILE_NAME}.repaired"
"""The repaired log, whole and on the disk, before it is put in place."""

_ASIDE = re.compile(rf"{re.escape(FILE_NAME)}\.damaged-[0-9TZ-]{{1,32}}")
_ENDS = ("", "-wal", "-shm")


def place(home: Path, aside: str) -> None:
    """Move the damaged log to the name `aside` and the built one to its place.

    StateError: it could not be finished; calling `finish` again goes on.
    """
    pending = home / PENDING_NAME
    part = home / f".{PENDING_NAME}"
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, json.dumps({"aside": aside}).encode("ascii"))
            os.fsync(fd)
        finally:
            os.close(fd)
        part.replace(pending)
        fsync_folder(home)
    except OSError as error:
        raise _unfinished(home, error) from error
    finish(home)


def finish(home: Path) -> str | None:
    """Finish what was begun; the name that the damaged log has, or None: nothing was begun.

    StateError: it can't be finished.
    """
    pending = home / PENDING_NAME
    try:
        told = json.loads(pending.read_bytes())
        aside = str(told["aside"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{pending} can't be read: {error}; move it away") from error
    if not _ASIDE.fullmatch(aside):
        raise StateError(f"{pending} names no damaged log: {aside!r}; move it away")
    try:
        built = home / BUILT_NAME
        if built.exists():
            for end in _ENDS:
                old, kept = home / f"{FILE_NAME}{end}", home / f"{aside}{end}"
                if old.exists() and not kept.exists():
                    old.rename(kept)
            fsync_folder(home)
            built.rename(home / FILE_NAME)
            fsync_folder(home)
        pending.unlink()
        fsync_folder(home)
    except OSError as error:
        raise _unfinished(home, error) from error
    return aside


def _unfinished(home: Path, error: OSError) -> StateError:
    return StateError(
        f"the repaired log could not be put in place: {sentence(home, error)}; "
        "`runner audit repair` goes on"
    )
