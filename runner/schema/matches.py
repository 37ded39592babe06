"""`match:` of a rule, as profiles and policy files spell it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from runner.model.rule import CountOf, Frequency, Hours, Match
from runner.policy.cel import compile_condition
from runner.policy.hours import UTC, zone_of
from runner.schema.base import NonEmpty, Strict, Words
from runner.schema.quantities import BOUNDED_DURATION_FORMS, parse_bounded_duration

MODEL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "command": "commands",
        "args_in_order": "ordered_args",
        "calls": "frequency",
        "any": "any_of",
        "all": "all_of",
        "not": "none_of",
    }
)
"""Keys of `match` whose field of `model.rule.Match` has another name."""
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order in which `model.rule.Hours` counts them."""

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_LARGEST_UID = 2**32 - 2
"""(uid_t) -1 is no user (chown(2))."""


BoundedDuration = Annotated[
    float,
    PlainValidator(parse_bounded_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?$"},
            ],
            "description": BOUNDED_DURATION_FORMS,
        }
    ),
]


def _listed(value: object) -> object:
    if value == []:
        raise ValueError("is an empty list; name at least one, or leave the key out")
    return value if isinstance(value, list | tuple) or value is None else [value]


def _listed_schema(item: Mapping[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]})


def _time(value: object) -> object:
    if isinstance(value, str) and not _TIME.fullmatch(value):
        raise ValueError(f"{value!r} is not a time of day; write it as 09:30")
    return value


def _end_time(value: object) -> object:
    return value if value == "24:00" else _time(value)


def _zone(value: object) -> object:
    if isinstance(value, str):
        zone_of(value)
    return value


def _condition(value: object) -> object:
    if isinstance(value, str) and value.strip():
        compile_condition(value)
    return value


_TIME_SCHEMA = {"type": "string", "pattern": f"^(?:{_TIME.pattern})$"}
_END_SCHEMA = {"type": "string", "pattern": f"^(?:{_TIME.pattern}|24:00)$"}
_UID_SCHEMA = {"type": "integer", "minimum": 0, "maximum": _LARGEST_UID}
Time = Annotated[str, BeforeValidator(_time), WithJsonSchema(_TIME_SCHEMA)]
EndTime = Annotated[str, BeforeValidator(_end_time), WithJsonSchema(_END_SCHEMA)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Uid = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_UID)]
Uids = Annotated[tuple[Uid, ...], BeforeValidator(_listed), _listed_schema(_UID_SCHEMA)]
Zone = Annotated[str, BeforeValidator(_zone)]
CelText = Annotated[NonEmpty, BeforeValidator(_condition)]


class HoursFile(Strict):
    """A part of the day; `to` at or before `from` is on the next day."""

    start: Time = Field(alias="from", description="Its first minute, such as 09:00.")
    end: EndTime = Field(alias="to", description="The minute after its last, up to 24:00.")
    days: Annotated[
        tuple[Weekday, ...],
        BeforeValidator(_listed),
        _listed_schema({"type": "string", "enum": list(WEEKDAYS)}),
    ] = Field(default=(), description="The days that it begins on; every day.")
    zone: Zone = Field(default=UTC, description="A name of the IANA time zone database.")

    def to_model(self) -> Hours:
        """As the policy engine takes it."""
        days = tuple(sorted({WEEKDAYS.index(day) for day in self.days}))
        return Hours(_minutes(self.start), _minutes(self.end), days, self.zone)


class CallsFile(Strict):
    """How often was run before."""

    of: CountOf = Field(default=CountOf.AGENT, description="Whose runs are counted.")
    window: BoundedDuration = Field(description="How far back they are counted.")
    at_least: Annotated[int, Field(strict=True, ge=1)] = Field(
        description="So many runs began within the window; the one that is decided is not counted."
    )

    def to_model(self) -> Frequency:
        """As the policy engine takes it."""
        return Frequency(self.of, self.window, self.at_least)


HoursList = Annotated[tuple[HoursFile, ...], BeforeValidator(_listed)]
Matches = Annotated[tuple["MatchFile", ...], BeforeValidator(_listed)]


class MatchFile(Strict):
    """Conditions, each a pattern or a list; all that are stated must hold."""

    command: Words | None = Field(default=None, description="The command's name is one of these.")
    args: Words | None = Field(
        default=None, description="Each pattern matches some argument; --a=b the words --a b too."
    )
    any_args: Words | None = Field(default=None, description="At least one matches some argument.")
    args_in_order: Words | None = Field(
        default=None,
        description="The patterns match arguments in this order; others may stand between.",
    )
    exact_args: Words | None = Field(
        default=None,
        description="The patterns match all arguments, one by one; ** stands for any number.",
    )
    paths: Words | None = Field(
        default=None,
        description="Some path that it names matches. ./ in front: relative to the workspace.",
    )
    reads: Words | None = Field(
        default=None, description="Some path that it names, and does not only write, matches."
    )
    writes: Words | None = Field(default=None, description="Some path that it writes matches.")
    hosts: Words | None = Field(default=None, description="Some host that it names matches.")
    environment: Words | None = Field(
        default=None, description="Some variable that is set matches."
    )
    via: Words | None = Field(default=None, description="It stands behind one of these wrappers.")
    constructs: Words | None = Field(
        default=None, description="The text holds one of these constructs (LANGUAGE:WHAT)."
    )
    agents: Words | None = Field(default=None, description="The agent or its parent is one.")
    sessions: Words | None = Field(default=None, description="The session is one of these.")
    tenants: Words | None = Field(default=None, description="The tenant is one of these.")
    uids: Uids | None = Field(default=None, description="The user is one of these, by number.")
    labels: Annotated[dict[NonEmpty, NonEmpty], Field(min_length=1)] | None = Field(
        default=None, description="Each label is there, with a value that its pattern matches."
    )
    hours: HoursList | None = Field(default=None, description="It is within one of these.")
    calls: CallsFile | None = Field(default=None, description="So much was run before.")
    when: CelText | None = Field(default=None, description="A condition in CEL.")
    any: Matches | None = Field(default=None, description="At least one of these matches.")
    all: Matches | None = Field(default=None, description="Each of these matches.")
    not_: Matches | None = Field(default=None, alias="not", description="None of these matches.")

    def to_model(self) -> Match:
        """As the policy engine takes it."""
        stated = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None:
                key = field.alias or name
                stated[MODEL_NAMES.get(key, key)] = _model_value(value)
        return Match(**stated)


def _model_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_model_value(each) for each in value)
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return value.to_model() if isinstance(value, MatchFile | HoursFile | CallsFile) else value


def _minutes(time: str) -> int:
    hours, _, minutes = time.partition(":")
    return int(hours) * 60 + int(minutes)
