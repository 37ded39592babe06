"""Limits as a profile's `limits:` and `--limit NAME=VALUE` spell them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from runner.errors import RequestError
from runner.model.limits import LIMIT_KEYS, LimitOverrides, Limits, Unlimited, spelled
from runner.schema.problems import unknown
from runner.schema.quantities import parse_count, parse_duration, parse_number, parse_size

Bound = float | int | Unlimited

PARSERS: dict[str, Callable[[object], Bound]] = {
    "wall": parse_duration,
    "cpu_time": parse_duration,
    "cpus": parse_number,
    "memory": parse_size,
    "processes": parse_count,
    "output": parse_size,
    "workspace": parse_size,
    "inodes": parse_count,
    "open_files": parse_count,
}
"""How each bound of `model.limits.LIMIT_KEYS` is read."""


def parse_limit_options(options: Iterable[str]) -> LimitOverrides:
    """`["wall=5s", "memory=64MiB"]` as bounds.

    RequestError with a line for each option that has no `=`, an unknown or repeated name, or a
    value that can't be read.
    """
    stated: dict[str, object] = {}
    problems: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            problems.append(f"limit {option!r} has no '='; write it like wall=5s")
        elif name in stated:
            problems.append(f"limit '{name}' is given twice; give it once")
        else:
            stated[name] = value
    return _overrides(stated, problems)


def parse_limit_mapping(limits: Mapping[str, object]) -> LimitOverrides:
    """`{"wall": "5s", "memory": 67108864}` as bounds; RequestError as `parse_limit_options`."""
    return _overrides(limits, [])


def spell_limits(limits: Limits | LimitOverrides) -> dict[str, str]:
    """Bounds by their profile keys, in words that can be read again; unstated ones left out."""
    values = {key: getattr(limits, field) for key, field in LIMIT_KEYS.items()}
    return {k: spelled(LIMIT_KEYS[k], v) for k, v in values.items() if v is not None}


def _overrides(stated: Mapping[str, object], problems: list[str]) -> LimitOverrides:
    bounds: dict[str, Bound] = {}
    for name, value in stated.items():
        if name not in PARSERS:
            problems.append(unknown("limit", name, tuple(PARSERS)))
            continue
        try:
            bounds[LIMIT_KEYS[name]] = PARSERS[name](value)
        except ValueError as problem:
            problems.append(f"limit '{name}': {problem}")
    if problems:
        raise RequestError("\n".join(problems))
    return LimitOverrides(**bounds)  # type: ignore[arg-type]  # each parser gives its field's type
