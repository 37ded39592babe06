"""Signals and the terminal of the command line."""

from __future__ import annotations

import contextlib
import signal
import termios
import tty
from collections.abc import Iterator

from runner.streams import Cancellation

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[Cancellation]:
    """A cancellation that Ctrl-C, SIGTERM and SIGHUP set, so that the run's end is recorded."""
    with Cancellation() as cancel:
        before = {number: signal.getsignal(number) for number in ENDING}
        for number in ENDING:
            # Who was started with a signal ignored (nohup) wants it ignored.
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, lambda *_: cancel.set())
        try:
            yield cancel
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def raw_terminal(fd: int | None) -> Iterator[None]:
    """Hand every key to the program's own terminal; `fd` None: nothing to do."""
    if fd is None:
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
