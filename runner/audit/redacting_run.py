"""What everything that is written of one run passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from runner.audit.redacting_stream import StreamRedactor
from runner.audit.redaction import Redactor
from runner.model.event import EventDraft
from runner.model.outcome import Output


class RunRedaction:
    """The redactor of a run, with its streams; None: everything passes as it is."""

    def __init__(self, redactor: Redactor | None, streams: tuple[str, ...]) -> None:
        self.redactor = redactor
        self._streams = {} if redactor is None else {s: StreamRedactor(redactor) for s in streams}

    def draft(self, draft: EventDraft) -> EventDraft:
        """An event without secrets, those that only this run's profile knows among them."""
        return draft if self.redactor is None else self.redactor.draft(draft)

    def feed(self, stream: str, data: bytes) -> bytes:
        """What may be kept of a stream by now."""
        return self._streams[stream].feed(data) if self._streams else data

    def rest(self) -> Iterator[tuple[str, bytes]]:
        """What waited because a secret might have gone on in the next piece."""
        for stream, redacting in self._streams.items():
            if rest := redacting.end():
                yield stream, rest

    def output(self, stream: str, output: Output) -> Output:
        """As the log has it: a plain digest over a secret would let it be guessed."""
        if output.sha256 is None or self.redactor is None or not self._streams[stream].redacted:
            return output
        return replace(output, sha256=self.redactor.digest_of(output.sha256))
