"""Durations, sizes and counts as people write them.

- A duration is a number of seconds (`5`, `0.5`) or a number with a unit: `500ms`, `5s`, `2m`,
  `1h`, `1d`.
- A size is a number of bytes (`4096`) or a number with a unit. Units with an `i` are binary
  (`KiB` = 1024, `MiB`, `GiB`, `TiB`), those without are decimal (`K` or `KB` = 1000, `M`, `G`,
  `T`), as IEC 80000-13 and the SI have it.
- A count is a whole number.

Each may be `unlimited`. Zero, negative numbers, infinity and NaN are refused.
"""

from __future__ import annotations

import math
import re

from runner.model.limits import UNLIMITED, Unlimited

LONGEST_WAIT_S = 7 * 86_400.0
"""Nobody waits longer for an answer."""
DURATION_FORMS = "a number of seconds or one with a unit (500ms, 5s, 2m, 1h, 1d), or 'unlimited'"
BOUNDED_DURATION_FORMS = DURATION_FORMS.rpartition(",")[0]
SIZE_FORMS = (
    "a number of bytes or one with a unit (64MiB and 1GiB are binary, 10M and 10MB decimal), "
    "or 'unlimited'"
)
COUNT_FORMS = "a whole number from 1, or 'unlimited'"
NUMBER_FORMS = "a number above 0 (2, 0.5), or 'unlimited'"

MAX_WHOLE = 2**53 - 1
"""The largest whole number that JSON carries exactly (RFC 8785, 3.2.2.3)."""
MAX_SECONDS = 366 * 86_400
"""Above that, `unlimited` is meant; and timers in milliseconds still fit 36 bits."""
MAX_CPUS = 65_536
"""More than the kernel can be built for (CONFIG_NR_CPUS)."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE_UNITS = {"B": 1} | {
    name: base**power
    for power, letter in enumerate("KMGT", start=1)
    for base, names in ((1024, (f"{letter}iB",)), (1000, (letter, f"{letter}B")))
    for name in names
}
_SIZE_UNITS |= {"k": 1000, "kB": 1000}
_AMOUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([A-Za-z]*)")


def parse_duration(value: object) -> float | Unlimited:
    """Seconds; ValueError with the accepted forms."""
    if _unlimited(value):
        return UNLIMITED
    seconds = _amount(value, "duration", DURATION_FORMS, _DURATION_UNITS)
    if seconds > MAX_SECONDS:
        raise ValueError(f"{value!r} is more than 366 days; say 'unlimited' if that is meant")
    return float(seconds)


def parse_bounded_duration(value: object) -> float:
    """Seconds; ValueError with the accepted forms, `unlimited` not being one."""
    if _unlimited(value):
        raise ValueError("must have an end; give it as 15m, 1h or 1d")
    seconds = _amount(value, "duration", BOUNDED_DURATION_FORMS, _DURATION_UNITS)
    if seconds > MAX_SECONDS:
        raise ValueError(f"{value!r} is more than 366 days, the longest there is")
    return float(seconds)


def parse_size(value: object) -> int | Unlimited:
    """Bytes, rounded down; ValueError with the accepted forms."""
    if _unlimited(value):
        return UNLIMITED
    size = math.floor(_amount(value, "size", SIZE_FORMS, _SIZE_UNITS))
    if size < 1:
        raise ValueError(f"{value!r} is less than one byte; give {SIZE_FORMS}")
    return _bounded(size, value)


def parse_count(value: object) -> int | Unlimited:
    """A whole number; ValueError with the accepted forms."""
    if _unlimited(value):
        return UNLIMITED
    count = _amount(value, "count", COUNT_FORMS, {})
    if count != int(count):
        raise ValueError(f"{value!r} is not a whole number; give {COUNT_FORMS}")
    return _bounded(int(count), value)


def parse_number(value: object) -> float | Unlimited:
    """A number that may be a fraction, such as of CPUs; ValueError with the accepted forms."""
    if _unlimited(value):
        return UNLIMITED
    number = _amount(value, "number", NUMBER_FORMS, {})
    if number > MAX_CPUS:
        raise ValueError(f"{value!r} is more than {MAX_CPUS}; say 'unlimited' if that is meant")
    return float(number)


def _unlimited(value: object) -> bool:
    return value is UNLIMITED or value == UNLIMITED.value


def _amount(
    value: object, what: str, forms: str, units: dict[str, float] | dict[str, int]
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is no {what}; give {forms}")
    amount = _read(value, what, forms, units) if isinstance(value, str) else value
    if isinstance(amount, float) and not math.isfinite(amount):
        raise ValueError(f"{_shown(value)} is not finite; give {forms}")
    if amount <= 0:
        raise ValueError(f"{_shown(value)} is not above zero; give {forms}")
    return amount


def _read(text: str, what: str, forms: str, units: dict[str, float] | dict[str, int]) -> float:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{_shown(text)} is no {what}; give {forms}")
    number, unit = match.groups()
    if unit and unit not in units:
        near = next((u for u in units if u.lower() == unit.lower()), None)
        hint = f"did you mean {number}{near}?" if near else f"give {forms}"
        raise ValueError(f"{_shown(text)} has the unknown unit {unit!r}; {hint}")
    # int() keeps large byte counts exact, which float() would not.
    amount: float = float(number) if "." in number else int(number)
    return amount * units[unit] if unit else amount


def _bounded(whole: int, value: object) -> int:
    if whole > MAX_WHOLE:
        raise ValueError(f"{_shown(value)} is more than {MAX_WHOLE}; say 'unlimited' if meant")
    return whole


def _shown(value: object) -> str:
    """The value, short, as YAML would have it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_wait(value: object) -> float:
    """Seconds to wait for somebody: a duration, or a number of seconds; ValueError: it is none."""
    seconds: object = value
    if isinstance(value, str):
        seconds = 0.0 if value == "0" else parse_duration(value)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError("must be a duration such as 15m, and have an end")
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError("must be from 0 to 7d")
    return float(seconds)
