"""What somebody searches the log for, and whether an event is that."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from runner.audit.canonical import escape
from runner.audit.event import rfc3339
from runner.audit.facets import MOST_CHARACTERS, Field, facets
from runner.errors import RecordError, RequestError

_AGE = re.compile(r"([0-9]{1,9})\s?(s|m|h|d|w)(?: ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_GLOB = re.compile(r"[*?\[]")


class Wanted:
    """Texts of one field: any of these, each a text as it is, or a pattern with `*`, `?`, `[…]`."""

    def __init__(self, texts: Iterable[str]) -> None:
        every = [escape(text) for text in texts]
        self.exact = frozenset(t[:MOST_CHARACTERS] for t in every if not _GLOB.search(t))
        globs = sorted({text for text in every if _GLOB.search(text)})
        self._patterns = [re.compile(fnmatch.translate(glob)) for glob in globs]

    @property
    def has_patterns(self) -> bool:
        """Whether only looking at a text tells that it is wanted."""
        return bool(self._patterns)

    def __contains__(self, text: str) -> bool:
        return text in self.exact or any(each.match(text) for each in self._patterns)


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for; nothing given: every event."""

    wanted: Mapping[int, Wanted] = field(default_factory=dict)
    """Of each of these fields an event must have one of the texts."""
    run_id: str | None = None
    since: str | None = None
    """Events at this time (as events have it) or later."""
    until: str | None = None
    """Events before this time."""

    def matches(self, event: object) -> bool:
        """Whether an event is it; `event`: what its bytes say. Never raises."""
        if not isinstance(event, dict):
            return False
        if self.run_id is not None and event.get("run") != self.run_id:
            return False
        if self.since is not None or self.until is not None:
            time = event.get("time")
            if not isinstance(time, str) or not self.in_time(time):
                return False
        missing = set(self.wanted)
        if missing:
            for name, text in facets(event):
                if name in missing and text in self.wanted[name]:
                    missing.discard(name)
        return not missing

    def in_time(self, time: str) -> bool:
        """Whether a time, as events have it, is within what is asked for."""
        return (self.since is None or time >= self.since) and (
            self.until is None or time < self.until
        )


def query(
    given: Mapping[int, Iterable[str]],
    *,
    run_id: str | None = None,
    since: str | None = None,
    until: str | None = None,
    now_s: float,
) -> Query:
    """What is asked for in words. `now_s`: seconds since the epoch, which ages count from.

    RequestError: a time that is none, or a label without its value.
    """
    wanted = {}
    for name, texts in given.items():
        spelled = [_SPELLED.get(name, str)(text) for text in texts]
        if spelled:
            wanted[name] = Wanted(spelled)
    times = [None if text is None else moment(text, now_s) for text in (since, until)]
    return Query(wanted, None if run_id is None else escape(run_id), *times)


def moment(text: str, now_s: float) -> str:
    """A time as events have it, of ISO 8601 (UTC where it names no offset) or an age like `2h`.

    RequestError: it is neither.
    """
    try:
        age = _AGE.fullmatch(text.strip())
        if age is not None:
            return rfc3339(now_s - timedelta(**{_UNITS[age[2]]: int(age[1])}).total_seconds())
        told = datetime.fromisoformat(text.strip())
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told
        return rfc3339(told.timestamp())
    except (ValueError, OverflowError, RecordError):
        raise RequestError(
            f"{text!r} is no time: give 2026-01-31, 2026-01-31T14:00, with Z or an offset if you "
            "like, or an age: 45s, 30m, 2h, 7d, 2w"
        ) from None


def _label(text: str) -> str:
    if "=" not in text:
        raise RequestError(f"--label {text!r} has no '=': give name=value, or name=*")
    return text


_SPELLED: Mapping[int, Callable[[str], str]] = {
    Field.HOST: lambda text: text.rstrip(".").lower(),
    Field.PROGRAM: lambda text: text.rpartition("/")[2] or text,
    Field.LABEL: _label,
}
"""How events have what people may write otherwise."""
