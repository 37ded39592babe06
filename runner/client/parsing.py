"""Reading what a server answers: what is not as it has to be is an error; nothing is guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from enum import Enum
from typing import Any, NoReturn, TypeVar

from runner import __version__
from runner.errors import AnswerError

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

_WHAT = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}


def decoded(data: bytes | str, what: str) -> object:
    """JSON as RFC 8259 has it. AnswerError: it is none; `what`: says where it came from."""
    try:
        return json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise AnswerError(f"the server's answer is no JSON ({what})") from None


class Fields:
    """An object of an answer. Each field is taken once; `done` says that there are no others."""

    def __init__(self, value: object, where: str) -> None:
        """`where`: for errors. AnswerError: it is no object."""
        self._where = where
        self._left: dict[str, Any] = dict(_typed(value, dict, where))

    def done(self) -> None:
        """AnswerError: there is a field that nobody took."""
        if self._left:
            refuse(
                self._where,
                f"has a field {min(self._left)!r}, which the runner {__version__} here does not "
                "know: use the server's version",
            )

    def raw(self, name: str) -> object:
        """The field as it is."""
        if name not in self._left:
            refuse(self._where, f"lacks {name!r}")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Whether a field that may be left out is there."""
        return name in self._left

    def text(self, name: str) -> str:
        """A text."""
        text: str = _typed(self.raw(name), str, self._at(name))
        return text

    def flag(self, name: str) -> bool:
        """True or false."""
        flag: bool = _typed(self.raw(name), bool, self._at(name))
        return flag

    def integer(self, name: str) -> int:
        """A whole number."""
        return integer(self.raw(name), self._at(name))

    def number(self, name: str) -> float:
        """A number, finite; JSON does not tell 1 from 1.0."""
        value = self.raw(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            refuse(self._at(name), "is no number")
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            refuse(self._at(name), "is too large")
        return found

    def member(self, name: str, kind: type[E]) -> E:
        """One of a closed list."""
        return member(self.raw(name), kind, self._at(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return self.each(name, text)

    def each(self, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """A list; `read` is given each and where it stands."""
        values: list[object] = _typed(self.raw(name), list, self._at(name))
        return tuple(read(value, f"{self._at(name)}[{i}]") for i, value in enumerate(values))

    def inner(self, name: str, read: Callable[[object, str], T]) -> T:
        """Something else."""
        return read(self.raw(name), self._at(name))

    def maybe(self, name: str, read: Callable[[str], T]) -> T | None:
        """Null, or what a method of this reads: `f.maybe("x", f.text)`."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return read(name)

    def maybe_inner(self, name: str, read: Callable[[object, str], T]) -> T | None:
        """Null, or something else."""
        return self.maybe(name, lambda each: self.inner(each, read))

    def _at(self, name: str) -> str:
        return f"{self._where}.{name}"


def text(value: object, where: str) -> str:
    """A text."""
    found: str = _typed(value, str, where)
    return found


def integer(value: object, where: str) -> int:
    """A whole number; for Python, true is one."""
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(where, "is no whole number")
    return value


def member(value: object, kind: type[E], where: str) -> E:
    """One of a closed list."""
    try:
        return kind(value)
    except ValueError:
        refuse(where, f"is {str(value)[:40]!r}, which is none of {[e.value for e in kind]}")


def refuse(where: str, what: str) -> NoReturn:
    """AnswerError, with what is wrong and where."""
    raise AnswerError(f"the server's answer can't be used: {where} {what}")


def _typed(value: object, kind: type, where: str) -> Any:
    if type(value) is not kind:
        refuse(where, f"is not {_WHAT[kind]}")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
