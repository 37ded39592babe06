"""How far something holds, and the two ways to read what is stated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Hold(IntEnum):
    """How far a condition or a rule holds."""

    NO = 0
    POSSIBLY = 1
    """Only running would tell."""
    SURELY = 2


class Reading(Enum):
    """What counts in doubt, and of what there are several.

    What a rule that denies, asks or rewrites states is read widely, what an `allow` states
    narrowly; each `not` turns the reading around.
    """

    WIDE = "wide"
    """Some path or host suffices; what can't be evaluated holds."""
    NARROW = "narrow"
    """Every path and host must match; a name must surely be that program; what can't be evaluated
    does not hold."""

    @property
    def other(self) -> Reading:
        """The reading inside a `not`."""
        return Reading.NARROW if self is Reading.WIDE else Reading.WIDE

    @property
    def unknown(self) -> Hold:
        """What a condition comes to that can't be evaluated."""
        return Hold.SURELY if self is Reading.WIDE else Hold.NO


@dataclass(frozen=True, slots=True)
class Condition:
    """One stated condition and how far it holds."""

    name: str
    """The key of `match:` as files spell it: `command`, `args_in_order`, `any`, `not`, …"""
    stated: str
    """Its patterns or parameter as text; empty for `any`, `all` and `not`, which have parts."""
    hold: Hold
    parts: tuple[tuple[Condition, ...], ...] = ()
    """The conditions of each match in it, under the reading that applies there."""
