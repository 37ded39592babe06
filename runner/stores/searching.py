"""Searching the log: a search index says where to look, the log says what is there.

Each event that is given was read from the log and looked at; without an index all of them are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from runner.audit.query import Query
from runner.model.event import AuditEvent
from runner.stores.damage import ERRORS
from runner.stores.indexing import Tell
from runner.stores.reader import LogReader
from runner.stores.search_index import IndexDamagedError, SearchIndex

_PAGE = 256  # events fetched at once

_COLUMNS = "seq, time, kind, run_id, body, leaf_hash, previous"  # as AuditEvent has them


def search(
    log: LogReader,
    query: Query,
    index: SearchIndex | None,
    tell: Tell,
    *,
    newest_first: bool = False,
    start: int = 0,
    end: int | None = None,
) -> Iterator[AuditEvent]:
    """The events that match, from number `start` on, in order; those appended later are not.

    `end`: only those before that number.

    `index`: None: every event is looked at. `tell`: is told of what was left out, and why. A
    damaged index is not trusted to the end: the rest of the log is read. StateError: the log can't
    be read.
    """
    low, high = max(start, log.beginning().size), log.head().size
    high = high if end is None else min(high, end)
    if query.run_id is not None:
        events: Iterable[AuditEvent] = (e for e in log.events(query.run_id, low) if e.seq < high)
        yield from _matching(reversed([*events]) if newest_first else events, query, tell)
        return
    if index is not None:
        try:
            for numbers in index.positions(query, newest_first=newest_first):
                chosen = [number for number in numbers if low <= number < high]
                yield from _matching(_at(log, chosen), query, tell)
                if chosen:
                    low, high = _left(low, high, chosen[-1], newest_first=newest_first)
            return
        except (*ERRORS, IndexDamagedError) as error:
            tell(f"the search index is damaged, so the rest of the log is read ({error})")
    yield from _matching(_all(log, low, high, newest_first=newest_first), query, tell)


def parsed(event: AuditEvent) -> object:
    """What an event's bytes say; None: they are damaged."""
    try:
        return orjson.loads(event.body)
    except ValueError:
        return None


def _matching(events: Iterable[AuditEvent], query: Query, tell: Tell) -> Iterator[AuditEvent]:
    for event in events:
        said = parsed(event)
        if not isinstance(said, dict):
            tell(f"event {event.seq} is damaged and was left out; `runner audit verify` tells more")
        elif query.matches(said):
            yield event


def _at(log: LogReader, numbers: Sequence[int]) -> Iterator[AuditEvent]:
    """These events, as far as they are there."""
    for at in range(0, len(numbers), _PAGE):
        some = numbers[at : at + _PAGE]
        marks = ", ".join("?" * len(some))
        with log.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM events WHERE seq IN ({marks})",  # noqa: S608
                some,
            ).fetchall()
        found = {row[0]: row for row in rows}
        yield from (AuditEvent(*found[number]) for number in some if number in found)


def _all(log: LogReader, low: int, high: int, *, newest_first: bool) -> Iterator[AuditEvent]:
    """Every event from `low` up to, not including, `high`."""
    order = "DESC" if newest_first else "ASC"
    query = (
        f"SELECT {_COLUMNS} FROM events WHERE seq >= ? AND seq < ? "  # noqa: S608
        f"ORDER BY seq {order} LIMIT {_PAGE}"
    )
    while low < high:
        with log.reading() as connection:
            page = connection.execute(query, (low, high)).fetchall()
        yield from (AuditEvent(*row) for row in page)
        if len(page) < _PAGE:
            return
        low, high = _left(low, high, page[-1][0], newest_first=newest_first)


def _left(low: int, high: int, last: int, *, newest_first: bool) -> tuple[int, int]:
    """What is left to look at behind the event `last`."""
    return (low, last) if newest_first else (last + 1, high)
