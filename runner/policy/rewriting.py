"""The command that a rewriting rule puts in the place of the one that matched."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runner.model.rule import Rewrite
from runner.policy.globs import Glob, globs

ARGUMENTS = "{args}"
"""The word of `rewrite.to` that stands for the arguments that are left over."""
_BUNDLE = re.compile(r"-[A-Za-z0-9]{2,}")
_FLAG = re.compile(r"-[A-Za-z0-9]")


class CompiledRewrite:
    """A rewrite with its patterns compiled."""

    __slots__ = ("_to", "_without")

    def __init__(self, rewrite: Rewrite) -> None:
        self._to = rewrite.to
        self._without = globs(rewrite.without)

    def words(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """The words to use, given what the command was given."""
        left = [kept for each in arguments if (kept := self._kept(each)) is not None]
        return tuple(word for part in self._to for word in (left if part == ARGUMENTS else (part,)))

    def _kept(self, argument: str) -> str | None:
        if any(glob.matches(argument) for glob in self._without):
            return None
        if not _BUNDLE.fullmatch(argument):
            return argument
        letters = "".join(c for c in argument[1:] if not self._leaves_out(c))
        return f"-{letters}" if letters else None

    def _leaves_out(self, letter: str) -> bool:
        """`-r` in `without` leaves the `r` of `-rf` out."""
        return any(_is_flag(glob) and glob.pattern[1] == letter for glob in self._without)


def _is_flag(glob: Glob) -> bool:
    return _FLAG.fullmatch(glob.pattern) is not None
