"""Forecasts of budgets for people: a table, a plot in plain text, and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.charging import amount, data
from runner.granting import moment
from runner.metering.forecast import DAY_HOURS, Forecast, Range
from runner.surfaces.cli.event_lines import shown

PAST_DAYS, NEXT_DAYS = 21, 10
_HEIGHT = 6
_BLOCKS, _PLAIN = ("\u2588", "\u2591"), ("#", ".")


def as_data(found: Forecast) -> dict[str, Any]:
    """For JSON; amounts in the resource's unit, times in RFC 3339."""
    return {
        **data(found.spent),
        "per_day": None if found.per_day is None else round(found.per_day),
        "used_up": _range(found.used_up_s, lambda at_s: None if at_s == math.inf else moment(at_s)),
        "month": _range(found.month, round),
    }


def table(found: Sequence[Forecast]) -> Iterator[str]:
    """A heading, then two lines for each counter."""
    for each in found:
        spent = each.spent
        used = (
            f"{amount(spent.resource, spent.used or 0)} of {amount(spent.resource, spent.amount)}"
        )
        yield f"{spent.budget_id} of {shown(spent.scope)}: {used}"
        if each.per_day is None or each.used_up_s is None or each.month is None:
            yield "    too little history: some hours of use have to be there"
            continue
        yield f"    a day: {_amount(each, each.per_day)}"
        over = (spent.used or 0) >= spent.amount
        yield f"    used up: {'now' if over else _when(each.used_up_s)}"
        month = each.month
        between = f"{_amount(each, month.low)} to {_amount(each, month.high)}"
        yield f"    this month: {_amount(each, month.likely)} ({between})"


def plotted(found: Forecast, *, plain: bool) -> Iterator[str]:
    """What each of the last days used and each of the next ones is expected to, as bars.

    `plain`: of ASCII. Days are those of UTC. Nothing where there is too little history.
    """
    if found.per_day is None:
        return
    full, light = _PLAIN if plain else _BLOCKS
    today = min(found.expected) // DAY_HOURS
    days = range(today - PAST_DAYS + 1, today + NEXT_DAYS + 1)
    was = [_sum(found.history, day) for day in days]
    comes = [_sum(found.expected, day) for day in days]
    most = max((a + b for a, b in zip(was, comes, strict=True)), default=0.0)
    if most <= 0:
        return
    spent = found.spent
    top = _amount(found, most)
    yield ""
    yield f"{spent.budget_id} of {shown(spent.scope)}, {spent.resource.value} a day (UTC)"
    for row in range(_HEIGHT, 0, -1):
        level = most * (row - 0.5) / _HEIGHT
        cells = [
            full if past >= level else light if past + next_ >= level else " "
            for past, next_ in zip(was, comes, strict=True)
        ]
        label = top if row == _HEIGHT else ""
        yield f"{label:>16} |{''.join(f'{cell} ' for cell in cells)}".rstrip()
    yield f"{'0':>16} +{'-' * 2 * len(days)}"
    here = 2 * (PAST_DAYS - 1)
    yield f"{'':18}{'^':>{here + 1}} today; {full} used, {light} expected"


def _sum(hours: Mapping[int, float] | Mapping[int, int], day: int) -> float:
    return math.fsum(hours.get(day * DAY_HOURS + hour, 0) for hour in range(DAY_HOURS))


def _amount(found: Forecast, of_it: float) -> str:
    resource = found.spent.resource
    # Time and money to a second and a cent, which is more than is known.
    step = {"wall": 1_000_000, "cpu": 1_000_000, "money": 10_000}.get(resource.value, 1)
    return amount(resource, round(of_it / step) * step)


def _when(at: Range) -> str:
    if at.likely == math.inf and at.low == math.inf:
        return "not in sight"
    early, late = _moment(at.low), _moment(at.high)
    return f"{_moment(at.likely)} (between {early} and {late})"


def _moment(at_s: float) -> str:
    return "never" if at_s == math.inf else moment(at_s) or "never"


def _range(found: Range | None, told: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"likely": told(found.likely), "low": told(found.low), "high": told(found.high)}
