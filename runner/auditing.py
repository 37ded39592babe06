"""The log, for people and programs: searched, checkpointed, and runs proved to be in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from runner.audit.facets import Field
from runner.audit.query import query
from runner.errors import RequestError
from runner.model.event import AuditEvent
from runner.ports import Clock, Store
from runner.stores import proving
from runner.stores.indexing import caught_up
from runner.stores.reader import open_log
from runner.stores.searching import search

FIELDS: dict[str, int] = {
    "agent": Field.AGENT,
    "session": Field.SESSION,
    "profile": Field.PROFILE,
    "effect": Field.EFFECT,
    "rule": Field.RULE,
    "command": Field.PROGRAM,
    "host": Field.HOST,
    "label": Field.LABEL,
    "termination": Field.TERMINATION,
    "kind": Field.KIND,
}
"""What events are searched by, in the words of `runner audit search` and of the API."""


class Audit:
    """The log of one state folder."""

    def __init__(self, store: Store, clock: Clock, home: Path) -> None:
        self._store = store
        self._clock = clock
        self._home = home

    def events(
        self,
        *,
        run: str | None = None,
        since: str | None = None,
        until: str | None = None,
        newest_first: bool = False,
        **texts: str | Sequence[str],
    ) -> Iterator[AuditEvent]:
        """Events that match all that is given, as `runner audit search` finds them.

        `texts`: by the words of `FIELDS`, of several one has to fit: `kind="run.ended"`,
        `agent=["a", "b"]`; `since`, `until`: a time, or an age like `2h`. RequestError: one of
        them is wrong; StateError: the log can't be read.
        """
        asked = query(
            {field_of(name): [t] if isinstance(t, str) else t for name, t in texts.items()},
            run_id=run, since=since, until=until, now_s=self._clock.now(),
        )  # fmt: skip
        with (
            closing(open_log(self._home)) as log,
            caught_up(self._home, log, lambda _: None) as index,
        ):
            yield from search(log, asked, index, lambda _: None, newest_first=newest_first)

    def checkpoint(self) -> tuple[str, str]:
        """The newest one, a C2SP signed note over all events, and the vkey that signed it."""
        return self._store.checkpoint(), self._store.key()

    def proof(self, run_id: str) -> bytes:
        """The proof that a run that has ended is in the log, for `runner audit verify-proof`."""
        with closing(open_log(self._home)) as log:
            of_run = proving.run_events(log, run_id)
            note = proving.covering_note(log, of_run[-1].seq)
            if note is None:
                note = self._store.checkpoint()
            return proving.prove_run(log, of_run, note, kept=False)


def field_of(name: str) -> int:
    """RequestError: events are not searched by that."""
    if name not in FIELDS:
        raise RequestError(f"events are not searched by {name!r}, but by {', '.join(FIELDS)}")
    return FIELDS[name]
