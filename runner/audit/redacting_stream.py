"""Takes secrets out of a stream that comes in pieces: what may go on in the next piece waits.

Lines pass as soon as they are whole; no shape spans two, but a private key, and secrets known by
value that hold a line's end. Of a line without an end the last `LONGEST` bytes wait. What waits is
never more than `MOST_HELD`.
"""

from __future__ import annotations

from runner.audit.redaction import Redactor
from runner.audit.secret_shapes import KEY_BEGINS, LONGEST

MOST_HELD = 64 * 1024
"""Bytes; a private key takes 3 or 4 KiB, the largest that are used 13."""
_OPENING, _CLOSING = "-----BEGIN ", "-----END "


class StreamRedactor:
    """One stream of one run; used by one thread at a time."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._margin = max(LONGEST, redactor.longest_known)
        self.redacted = False
        """Whether something was."""

    def feed(self, data: bytes) -> bytes:
        """What can be told of the stream by now, without secrets."""
        self._held += data.decode("latin-1")
        return self._take(self._safe())

    def end(self) -> bytes:
        """The rest."""
        return self._take(len(self._held))

    def _safe(self) -> int:
        """How much of what is held can't be part of something that goes on."""
        held = self._held
        cut = held.rfind("\n") + 1
        if self._redactor.longest_known:
            cut = min(cut, max(0, len(held) - self._redactor.longest_known))
            cut = held.rfind("\n", 0, cut) + 1
        opened = held.rfind(_OPENING, 0, cut)
        if opened >= 0 and KEY_BEGINS.match(held, opened) and held.find(_CLOSING, opened, cut) < 0:
            cut = opened  # its last line is not whole yet
        if len(held) > MOST_HELD:
            cut = max(cut, len(held) - self._margin)
        return cut

    def _take(self, cut: int) -> bytes:
        if not cut:
            return b""
        found = self._redactor.find(self._held)
        for each in found:
            if each.begins < cut < each.end:
                # All of it at once, unless it fills all that may be held.
                cut = each.begins if each.begins else each.end
        before = [each for each in found if each.end <= cut]
        told = self._redactor.replaced(self._held[:cut], before)
        self.redacted = self.redacted or bool(before)
        self._held = self._held[cut:]
        return told.encode("latin-1")
