"""What was worked out last, kept for when it is asked for again."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, those used last, up to a bound. Any thread may use it; none waits to read.

    Two generations: when the young one is full it becomes the old one, and the old one is
    forgotten. What is found in the old one is young again. So a look-up is one step of a
    dictionary, which needs no lock.
    """

    __slots__ = ("_limit", "_lock", "_old", "_weight", "_young")

    def __init__(self, limit: int) -> None:
        """`limit`: the weight of a generation; the whole is at most twice that."""
        self._limit = limit
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The value, if it is still known."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep a value, unless it alone weighs more than a tenth of a generation."""
        if weight * 10 > self._limit:
            return
        with self._lock:
            if self._weight + weight > self._limit:
                self._old, self._young, self._weight = self._young, {}, 0
            self._young[key] = value, weight
            self._weight += weight
