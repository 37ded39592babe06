"""Which texts globs match, compared: whether one matches all that another does, or nothing of it.

Exact, as automata are: no text is tried. What would take too long is answered with "not known".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from runner.policy.globs import glob

_PAIRS_LIMIT = 4096
"""States of two automata side by side; patterns that people write have dozens."""
_ASCII = tuple(map(chr, range(128)))
_LAST = 0x10FFFF


@dataclass(frozen=True, slots=True)
class _Automaton:
    """A glob as bits: bit `i` is set where its first `i` tokens may be used up."""

    accepts: tuple[int, ...]
    """Of each kind of character: the tokens that take it."""
    stars: int
    end: int

    def start(self) -> int:
        return self._through(1)

    def step(self, states: int, kind: int) -> int:
        states &= self.accepts[kind]
        return self._through((states & self.stars) | (states & ~self.stars) << 1)

    def ends(self, states: int) -> bool:
        return bool(states & self.end)

    def _through(self, states: int) -> int:
        """A star may stand for nothing."""
        while (more := states | (states & self.stars) << 1) != states:
            states = more
        return states


@functools.lru_cache(maxsize=4096)
def includes(outer: str, inner: str, *, path: bool = False) -> bool:
    """Whether `outer` surely matches every text that `inner` does."""
    if outer == inner:
        return True
    return all(
        any(_within(small, large, path=path) for large in _variants(outer, path=path))
        for small in _variants(inner, path=path)
    )


@functools.lru_cache(maxsize=4096)
def disjoint(one: str, other: str, *, path: bool = False) -> bool:
    """Whether surely no text matches both."""
    return all(
        _apart(a, b, path=path)
        for a in _variants(one, path=path)
        for b in _variants(other, path=path)
    )


def _variants(pattern: str, *, path: bool) -> Iterator[str]:
    """The patterns that one stands for: `/x/**` is `/x` as well."""
    yield pattern
    while path and pattern.endswith("/**") and len(pattern) > 3:
        pattern = pattern[:-3]
        yield pattern


def _within(inner: str, outer: str, *, path: bool) -> bool:
    """A text that `inner` takes and `outer` does not: is there none?"""
    one, other, kinds = _both(inner, outer, path=path)
    seen = {(one.start(), other.start())}
    left = list(seen)
    while left:
        states, others = left.pop()
        if one.ends(states) and not other.ends(others):
            return False
        for kind in range(kinds):
            after = one.step(states, kind), other.step(others, kind)
            if after[0] and after not in seen:
                if len(seen) >= _PAIRS_LIMIT:
                    return False
                seen.add(after)
                left.append(after)
    return True


def _apart(one_pattern: str, other_pattern: str, *, path: bool) -> bool:
    """A text that both take: is there none?"""
    one, other, kinds = _both(one_pattern, other_pattern, path=path)
    seen = {(one.start(), other.start())}
    left = list(seen)
    while left:
        states, others = left.pop()
        if one.ends(states) and other.ends(others):
            return False
        for kind in range(kinds):
            after = one.step(states, kind), other.step(others, kind)
            if all(after) and after not in seen:
                if len(seen) >= _PAIRS_LIMIT:
                    return False
                seen.add(after)
                left.append(after)
    return True


def _both(one: str, other: str, *, path: bool) -> tuple[_Automaton, _Automaton, int]:
    """Two patterns over the same kinds of characters: those that both treat alike are one kind."""
    tokens = [glob(pattern, path=path).tokens for pattern in (one, other)]
    pieces = [[re.compile(token.piece, re.DOTALL) for token in each] for each in tokens]
    kinds = {
        tuple(
            sum(1 << i for i, piece in enumerate(each) if piece.fullmatch(char)) for each in pieces
        )
        for char in _alphabet(one + other)
    }
    rows = sorted(kinds)
    made = [
        _Automaton(
            accepts=tuple(row[index] for row in rows),
            stars=sum(1 << i for i, token in enumerate(each) if token.star),
            end=1 << len(each),
        )
        for index, each in enumerate(tokens)
    ]
    return made[0], made[1], len(rows)


def _alphabet(patterns: str) -> set[str]:
    """One character at least of each range that the patterns could tell apart."""
    beside = {ord(c) + step for c in patterns for step in (-1, 0, 1)}
    return {*_ASCII, chr(_LAST), *(chr(code) for code in beside if 0 <= code <= _LAST)}
