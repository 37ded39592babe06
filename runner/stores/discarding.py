"""Keeps what is kept of the runs' output within its bounds: recorded first, then removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from runner import records
from runner.errors import StateError
from runner.metering.keeping import to_drop
from runner.model.keeping import KeepBounds
from runner.model.swept import Swept
from runner.ports import Transaction
from runner.stores.kept import KeptOutput

MARKER_NAME = "runs.looked-at"
"""When it was last looked for too much: the time of this empty file. Locked meanwhile."""
RUNS_AN_EVENT = 200
"""Runs that one event names: their ids take some 5 KiB."""


def discard(
    kept: KeptOutput,
    bounds: KeepBounds,
    now_s: float,
    *,
    open_runs: Callable[[], Collection[str]],
    transaction: Callable[[], AbstractContextManager[Transaction]],
    most: int | None,
) -> Swept:
    """Drop the oldest, at most so many runs'; `None`: as many as have to go.

    `open_runs`: ids of runs that have not ended, whose output stays whatever its age and size.
    """
    found = list(kept.listing())
    # Asked after the listing: whatever is listed belongs to a run that was opened before it.
    held = open_runs()
    dropped = to_drop(
        (each for each in found if each.run_id not in held), now_s, bounds.days, bounds.total_bytes
    )
    swept = Swept()
    for start in range(0, len(dropped[:most]), RUNS_AN_EVENT):
        batch = dropped[:most][start : start + RUNS_AN_EVENT]
        with transaction() as tx:
            tx.append(records.discarded(batch, bounds))
        for each in batch:
            why = kept.discard(each.run_id)
            swept += (
                Swept((f"kept output of {each.run_id} ({each.size_bytes} bytes)",))
                if why is None
                else Swept(left=(why,))
            )
    return swept


@contextmanager
def looking(home: Path, now_s: float, not_within_s: float) -> Iterator[bool]:
    """Whether it is time to look, and nobody else does; the next `not_within_s` it is not.

    With 0 it always is, and whoever else does is waited for. StateError: it can't be noted.
    """
    path = home / MARKER_NAME
    try:
        if not_within_s:
            try:
                age_s = now_s - path.stat().st_mtime
            except FileNotFoundError:
                age_s = not_within_s
            if 0 <= age_s < not_within_s:
                yield False
                return
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"{path} can't be used: {error.strerror}; mend or remove it") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (fcntl.LOCK_NB if not_within_s else 0))
        except BlockingIOError:
            yield False
            return
        os.utime(fd, (now_s, now_s))
        yield True
    finally:
        os.close(fd)
