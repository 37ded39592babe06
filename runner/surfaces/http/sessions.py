"""The sessions that a server is asked about: found, begun, and how many threads they may hold.

A server keeps none of them: it talks to the process that does (`runner.sessions`). So what a call
waits for is another process, and a thread of its own kind, so that other addresses go on answering.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from runner.app import Runner
from runner.audit.event import rfc3339
from runner.errors import BusyError, RecordError, UnreachableError
from runner.model.identity import Identity
from runner.model.session import SessionProcess, SessionState
from runner.schema.outcome import printable
from runner.sessions.client import Session
from runner.sessions.starting import PREFIX
from runner.stores.listing import listed_run
from runner.stores.reader import LogReader
from runner.surfaces.http.access import check_profile, check_reach, not_there
from runner.surfaces.http.session_folders import KEPT, SessionFolders

CALLS = 16
"""At once; more wait."""
TRANSFERS = 16
"""Of files, at once; more are refused, for a slow client could hold one for minutes."""
_ID = re.compile(rf"{PREFIX}[0-9a-f]{{20}}")

P = ParamSpec("P")
T = TypeVar("T")


class ServedSessions:
    """What a server has for sessions."""

    def __init__(self, runner: Runner, log: LogReader, most: int) -> None:
        """`most`: how many there may be when another begins."""
        self._runner = runner
        self._log = log
        self._most = most
        self._lock = threading.Lock()
        self._beginning = 0
        self._transfers = 0
        self._calls: CapacityLimiter | None = None
        self._carriers: CapacityLimiter | None = None
        self.folders = SessionFolders(Path(runner.settings.home.value), self._goes_on)
        self.folders.sweep(KEPT)

    def close(self) -> None:
        """The server ends: the folders of what has ended go with it."""
        self.folders.sweep(0)

    def find(self, identity: Identity, session_id: str) -> Session:
        """A session in the caller's reach. NotFoundError: there is none."""
        what = f"session {session_id!r}"
        if not _ID.fullmatch(session_id):
            raise not_there(what)
        with there(session_id):
            session = self._runner.sessions.get(session_id)
        check_reach(identity, what, session.principal.agent, session.principal.tenant)
        return session

    def find_to_use(self, identity: Identity, session_id: str) -> Session:
        """The same, for who would change something in it.

        ForbiddenError: the caller can't use the profile that it is under.
        """
        session = self.find(identity, session_id)
        check_profile(identity, session.profile, stated=False)
        return session

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """For one that begins. BusyError: there are as many as the server takes."""
        opened = self._runner.store.open_runs()
        with self._lock:
            there_are = sum(run.run_id.startswith(PREFIX) for run in opened)
            if there_are + self._beginning >= self._most:
                raise BusyError(
                    f"{self._most} sessions are all that this server lets begin; stop one, or try "
                    "again later"
                )
            self._beginning += 1
        try:
            yield
        finally:
            with self._lock:
                self._beginning -= 1

    async def call(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """In a thread, of those for sessions."""
        if self._calls is None:
            self._calls = CapacityLimiter(CALLS)
        return await to_thread.run_sync(partial(function, *args, **options), limiter=self._calls)

    @contextlib.contextmanager
    def transfer(self) -> Iterator[CapacityLimiter]:
        """For a file on its way: where its thread comes from. In the loop's thread. BusyError."""
        if self._carriers is None:
            self._carriers = CapacityLimiter(TRANSFERS)
        if self._transfers >= TRANSFERS:
            raise BusyError(f"{TRANSFERS} files are on their way; try again in a moment")
        self._transfers += 1
        try:
            yield self._carriers
        finally:
            self._transfers -= 1

    def _goes_on(self, session_id: str) -> bool:
        found = listed_run(self._log, session_id)
        return found is not None and found.open


@contextlib.contextmanager
def there(session_id: str) -> Iterator[None]:
    """Of a session that ends meanwhile: NotFoundError, as of one that there never was."""
    try:
        yield
    except UnreachableError:
        raise not_there(f"session {session_id!r}") from None


def session_document(state: SessionState) -> dict[str, Any]:
    """As `SessionAnswer` has it."""
    who = state.principal
    names = {"parent": who.parent, "session": who.session, "tenant": who.tenant}
    return {
        "id": state.id,
        "agent": printable(who.agent),
        **{key: None if name is None else printable(name) for key, name in names.items()},
        "uid": who.uid,
        "profile": printable(state.profile),
        "backend": state.backend,
        "directory": printable(state.directory),
        "began": rfc3339(state.began_s),
        "ends": rfc3339(state.ends_s),
        "idle_limit_s": state.idle_limit_s,
        "idle_s": state.idle_s,
        "runs": list(state.runs),
        "processes": state.processes,
    }


def process_document(process: SessionProcess) -> dict[str, Any]:
    """As `ProcessRow` has it."""
    return {
        "number": process.number,
        "name": printable(process.name),
        "argv": [printable(word) for word in process.argv],
        "cpu_s": process.cpu_s,
        "memory_bytes": process.memory_bytes,
        "started": rfc3339(process.started_s),
    }


def file_document(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """As `FileRow` has it."""
    target = told.get("target")
    return {
        "name": printable(name),
        "type": told["type"],
        "size_bytes": told["size_bytes"],
        "mode": told["mode"],
        "modified": _moment(told["modified_s"]),
        "target": None if target is None else printable(target),
    }


def _moment(modified_s: float) -> str | None:
    """Whoever owns a file says when it was changed, and may say what is no time."""
    with contextlib.suppress(RecordError):
        return rfc3339(modified_s)
    return None
