"""`budgets:` of a policy file or a profile: how much may be used within which time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from runner.metering import microseconds
from runner.model.budget import (
    Budget,
    BudgetOf,
    Calendar,
    Period,
    PerRun,
    Resource,
    Sliding,
    Window,
)
from runner.model.limits import Unlimited
from runner.policy.hours import UTC
from runner.schema.base import Identifier, Strict, Words
from runner.schema.grants import Uid
from runner.schema.matches import Zone
from runner.schema.problems import Path, Problem
from runner.schema.quantities import parse_bounded_duration, parse_size
from runner.schema.yaml import Document

MICRODOLLARS = 1_000_000
MAX_DOLLARS = 1_000_000_000
"""Below it a number that YAML read as binary floating point still is the decimal that was meant."""
_MONEY_FORMS = "dollars with at most six decimals, from 0.000001 (5, 12.50)"
_MONEY = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_OF = re.compile(r"agent|session|profile|tenant|uid|all|label:(?P<label>.{1,128})", re.DOTALL)
_OF_FORMS = "agent, session, profile, tenant, uid, all, or label:NAME"
_PER_FORMS = (
    "a time of at least 1s, for a window that moves on (10m, 1h, 1d); 'calendar hour', "
    "'calendar day', 'calendar week' or 'calendar month'; or 'run'"
)
_PERCENT = re.compile(r"([1-9][0-9]?|100)%")


def parse_money(value: object) -> int:
    """Millionths of a dollar; ValueError with the accepted forms."""
    # The shortest decimal that reads as this number is the one that was written (see MAX_DOLLARS).
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _MONEY.fullmatch(text):
        if isinstance(text, str) and re.fullmatch(r"[0-9.]+e-0?[456]", text):
            return parse_money(f"{Decimal(text):f}")
        raise ValueError(f"{value!r} is no amount of money; give {_MONEY_FORMS}")
    amount = int(Decimal(text) * MICRODOLLARS)
    if amount < 1:
        raise ValueError(f"{value!r} is nothing; give {_MONEY_FORMS}")
    return amount


def parse_window(value: object) -> Window:
    """ValueError with the accepted forms; a calendar's zone is stated beside it."""
    if value == PerRun.RUN.value:
        return PerRun.RUN
    if isinstance(value, str) and value.startswith("calendar"):
        name = value.removeprefix("calendar").strip()
        if name not in set(Period):
            raise ValueError(f"{value!r} is no part of the calendar; give {_PER_FORMS}")
        return Calendar(Period(name))
    try:
        seconds = parse_bounded_duration(value)
    except ValueError as error:
        raise ValueError(f"{error}; or {_PER_FORMS.partition('; ')[2]}") from None
    if seconds < 1:
        raise ValueError(f"{value!r} is less than a second; give {_PER_FORMS}")
    return Sliding(seconds)


def _of(value: object) -> object:
    if not isinstance(value, str) or not _OF.fullmatch(value):
        raise ValueError(f"{value!r} is nobody that a budget can be of; give {_OF_FORMS}")
    return value


def _amount_of_time(value: object) -> int:
    return microseconds(parse_bounded_duration(value))


def _amount_of_bytes(value: object) -> int:
    size = parse_size(value)
    if isinstance(size, Unlimited):
        raise ValueError("must have an end; leave the key out for none")
    return size


def _percents(value: object) -> object:
    items = value if isinstance(value, list) else [value]
    found = []
    for item in items:
        match = _PERCENT.fullmatch(item) if isinstance(item, str) else None
        if match is None:
            raise ValueError(f"{item!r} is no share; give percents, such as [50%, 80%]")
        found.append(int(match[1]))
    if not found:
        raise ValueError("is an empty list; name at least one, or leave the key out")
    return tuple(sorted(set(found)))


def _form(pattern: str, number: str | None = None) -> WithJsonSchema:
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    if number is None:
        return WithJsonSchema(text)
    return WithJsonSchema({"anyOf": [{"type": number, "exclusiveMinimum": 0}, text]})


_TIME_FORM = r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?$"
_SIZE_FORM = r"^[0-9]+(\.[0-9]+)? ?(B|[KMGT]iB|[KMGT]B?|kB?)?$"
_PER_FORM = r"^(run|calendar (hour|day|week|month)|[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?)$"
_PERCENT_FORM = {"type": "string", "pattern": f"^(?:{_PERCENT.pattern})$"}
Count = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]
Time = Annotated[int, PlainValidator(_amount_of_time), _form(_TIME_FORM, "number")]
Bytes = Annotated[int, PlainValidator(_amount_of_bytes), _form(_SIZE_FORM, "integer")]
Money = Annotated[int, PlainValidator(parse_money), _form(f"^(?:{_MONEY.pattern})$", "number")]
Per = Annotated[Window, PlainValidator(parse_window), _form(_PER_FORM, "number")]
Of = Annotated[
    str,
    BeforeValidator(_of),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(agent|session|profile|tenant|uid|all|label:.+)$"}
    ),
]
Percents = Annotated[
    tuple[int, ...],
    PlainValidator(_percents),
    WithJsonSchema(
        {"anyOf": [_PERCENT_FORM, {"type": "array", "minItems": 1, "items": _PERCENT_FORM}]}
    ),
]


_AMOUNTS: dict[Resource, Callable[[object], int]] = {
    Resource.WALL: _amount_of_time,
    Resource.CPU: _amount_of_time,
    Resource.BYTES: _amount_of_bytes,
    Resource.MONEY: parse_money,
}


def parse_amount(resource: Resource, value: str) -> int:
    """An amount as a budget states it, from a command line; ValueError with the accepted forms."""
    if resource in _AMOUNTS:
        return _AMOUNTS[resource](value)
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise ValueError(f"{value!r} is no number of them; give a whole one")
    return int(value)


class BudgetFile(Strict):
    """One budget; each amount that is stated holds by itself."""

    id: Identifier = Field(description="Its name, once in a file; what was used is kept under it.")
    of: Of = Field(description=f"Who has one of their own: {_OF_FORMS}.")
    per: Per | None = Field(default=None, description=f"Its window: {_PER_FORMS}.")
    zone: Zone | None = Field(
        default=None, description="Of a calendar window: a name of the IANA time zone database."
    )
    calls: Count | None = Field(default=None, description="Runs that begin.")
    wall: Time | None = Field(default=None, description="Time from a run's start to its end.")
    cpu: Time | None = Field(default=None, description="CPU time of all processes.")
    execs: Count | None = Field(default=None, description="Programs that are executed.")
    connections: Count | None = Field(default=None, description="Connections that are opened.")
    requests: Count | None = Field(default=None, description="HTTP requests that leave.")
    bytes: Bytes | None = Field(default=None, description="Over the network, in and out.")
    tokens: Count | None = Field(default=None, description="Tokens of model providers.")
    money: Money | None = Field(default=None, description="US dollars.")
    at_once: Count | None = Field(default=None, description="Runs that are open; needs no window.")
    agents: Words | None = Field(default=None, description="Globs: only runs of these agents.")
    tenants: Words | None = Field(default=None, description="Globs over tenants.")
    uids: Annotated[tuple[Uid, ...], Field(min_length=1)] | None = Field(
        default=None, description="Users, by number."
    )
    labels: dict[str, str] = Field(default={}, description="Labels, each with a glob.")
    profiles: Words | None = Field(
        default=None, description="Globs over names of profiles, or paths of their files."
    )
    warn_at: Percents | None = Field(
        default=None, description="An event when so much is used: [50%, 80%]."
    )
    soft: bool = Field(
        default=False, strict=True, description="true: it warns, and refuses nothing."
    )
    fixed: bool = Field(
        default=False,
        strict=True,
        description="true: `runner budget set` and `reset` can't change it.",
    )

    def to_model(self) -> Budget:
        """As the supervisor takes it."""
        of = _OF.fullmatch(self.of)
        label = of["label"] if of is not None else None
        window = self.per
        if isinstance(window, Calendar):
            window = Calendar(window.period, self.zone or UTC)
        return Budget(
            id=self.id,
            of=BudgetOf.LABEL if label is not None else BudgetOf(self.of),
            amounts=tuple(
                (resource, amount)
                for resource in Resource
                if (amount := getattr(self, resource.value)) is not None
            ),
            window=window,
            label=label,
            agents=self.agents or (),
            tenants=self.tenants or (),
            uids=self.uids or (),
            labels=tuple(sorted(self.labels.items())),
            profiles=self.profiles or (),
            warn_at=self.warn_at or (),
            soft=self.soft,
            fixed=self.fixed,
        )


def check_budgets(document: Document) -> Iterator[Problem]:
    """What budgets must hold beyond their fields' types; reads the plain data."""
    data = document.data.get("budgets") if isinstance(document.data, dict) else None
    seen: set[object] = set()
    for index, entry in enumerate(data if isinstance(data, list) else []):
        if isinstance(entry, dict):
            at = ("budgets", index)
            yield from _check_entry(document, at, entry)
            name = entry.get("id")
            if isinstance(name, str) and name in seen:
                yield document.problem((*at, "id"), f"{name!r} is there already; give it another")
            seen.add(name if isinstance(name, str) else None)


def _check_entry(document: Document, at: Path, entry: dict[Any, Any]) -> Iterator[Problem]:
    stated = [resource for resource in Resource if resource.value in entry]
    per = entry.get("per")
    if not stated:
        yield document.problem(at, f"bounds nothing; state one of {', '.join(Resource)}")
    timed = [each.value for each in stated if each is not Resource.AT_ONCE]
    if "per" not in entry and timed:
        yield document.problem(at, f"bounds {', '.join(timed)} and has no 'per'; give {_PER_FORMS}")
    if "per" in entry and stated and not timed:
        message = "means nothing for 'at_once', which holds at every moment; leave it out"
        yield document.problem((*at, "per"), message)
    if per == PerRun.RUN.value:
        for each in stated:
            if each in {Resource.CALLS, Resource.AT_ONCE}:
                message = "means nothing for one run; give another 'per', or leave it out"
                yield document.problem((*at, each.value), message)
    if "zone" in entry and not (isinstance(per, str) and per.startswith("calendar")):
        message = "is for a calendar window; leave it out, or say per: calendar day"
        yield document.problem((*at, "zone"), message)
