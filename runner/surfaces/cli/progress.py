"""How far long work is, on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_SILENT_S = 0.5
_AGAIN_S = 0.1


def progress(what: str) -> Callable[[int, int], None]:
    """Is told how many events are done, of how many; says so on stderr, if that is a terminal.

    Nothing of work that is soon over, and nothing stays of it.
    """
    next_s = time.monotonic() + _SILENT_S
    told = False

    def tell(done: int, every: int) -> None:
        nonlocal next_s, told
        now_s = time.monotonic()
        if done >= every and told:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            told = False
        elif done < every and now_s >= next_s and sys.stderr.isatty():
            next_s, told = now_s + _AGAIN_S, True
            text = f"\rrunner: {what}: {done:,} of {every:,} events"
            print(text, end="", file=sys.stderr, flush=True)

    return tell
