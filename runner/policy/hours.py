"""Times of the day in a zone: is a moment within one of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from runner.model.rule import Hours

UTC = "UTC"


@dataclass(frozen=True, slots=True)
class CompiledHours:
    """Some parts of days, with their zones loaded."""

    parts: tuple[tuple[Hours, datetime.tzinfo], ...]

    @classmethod
    def of(cls, hours: tuple[Hours, ...]) -> CompiledHours:
        """Load the zones; ValueError for one that is unknown."""
        return cls(tuple((each, zone_of(each.zone)) for each in hours))

    def contain(self, now_s: float) -> bool | None:
        """Whether a moment (seconds since the epoch) is within one; None: it is no time at all."""
        try:
            return any(
                _contains(each, datetime.datetime.fromtimestamp(now_s, zone))
                for each, zone in self.parts
            )
        except (ValueError, OverflowError, OSError):
            return None


def _contains(hours: Hours, local: datetime.datetime) -> bool:
    minute, day = local.hour * 60 + local.minute, local.weekday()
    days = hours.days or range(7)
    if hours.start_minute < hours.end_minute:
        return hours.start_minute <= minute < hours.end_minute and day in days
    # It ends on the day after the one that it began on.
    begun_today = minute >= hours.start_minute and day in days
    return begun_today or (minute < hours.end_minute and (day - 1) % 7 in days)


def zone_of(name: str) -> datetime.tzinfo:
    """A zone of the IANA database; ValueError tells what would be right."""
    if name == UTC:
        return datetime.UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        known = sorted(available_timezones())
    if not known:
        raise ValueError(
            f"the time zone {name!r} can't be looked up: this machine has no time zone database; "
            f"install tzdata, or use {UTC}"
        )
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    raise ValueError(
        f"unknown time zone {name!r}{guess} give a name of the IANA time zone database, such as "
        f"Europe/Berlin or {UTC}"
    )
