"""How fast a large log is verified and searched, and how much room it takes."""

from __future__ import annotations

import itertools
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import audit_log_maker

from runner.audit.facets import Field
from runner.audit.query import query
from runner.stores.indexing import caught_up
from runner.stores.reader import open_log
from runner.stores.searching import search

_SEARCHES = 200
_FOUND = 50  # a page of results
_SPAN = timedelta(days=7)


def measured(events: int) -> dict[str, object]:
    """A log of so many events is made, verified, indexed and searched."""
    # On a disk: /tmp may be memory.
    with tempfile.TemporaryDirectory(prefix="runner-bench-", dir="/var/tmp") as folder:
        home = Path(folder) / "home"
        print(f"making a log of {events} events", flush=True)
        audit_log_maker.make(home, events)
        log = open_log(home)
        began_s = time.perf_counter()
        found = log.verify()
        verified_s = time.perf_counter() - began_s
        if found.failure is not None or found.size != events:
            raise SystemExit(f"bench: the log does not hold: {found.failure}")
        began_s = time.perf_counter()
        with caught_up(home, log, _refused):
            indexed_s = time.perf_counter() - began_s
        took_s = [_searched(home, number) for number in range(_SEARCHES)]
        return {
            "events": events,
            "verified_per_s": round(events / verified_s),
            "bytes_per_event": round(_bytes(home, "runner.db") / events),
            "indexed_per_s": round(events / indexed_s),
            "index_bytes_per_event": round(_bytes(home, "search.db") / events, 1),
            "search_median_ms": round(statistics.median(took_s) * 1e3, 2),
            "search_longest_ms": round(max(took_s) * 1e3, 2),
        }


def _searched(home: Path, number: int) -> float:
    """Seconds of one search of an agent's events in some week, the log opened anew."""
    chance = random.Random(number)
    end = datetime.now(UTC) - timedelta(days=chance.uniform(0, 80))
    wanted = query(
        {Field.AGENT: [f"agent-{chance.randrange(200)}"]},
        since=(end - _SPAN).isoformat(),
        until=end.isoformat(),
        now_s=time.time(),
    )
    began_s = time.perf_counter()
    log = open_log(home)
    with caught_up(home, log, _refused) as index:
        found = [*itertools.islice(search(log, wanted, index, _refused, newest_first=True), _FOUND)]
    took_s = time.perf_counter() - began_s
    log.close()
    if any(not wanted.in_time(event.time) for event in found):
        raise SystemExit("bench: what was found is not what was searched for")
    return took_s


def _refused(sentence: str) -> None:
    raise SystemExit(f"bench: {sentence}")


def _bytes(home: Path, name: str) -> int:
    return sum(path.stat().st_size for path in home.glob(f"{name}*"))
