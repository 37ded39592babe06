"""Begins sessions, and finds those that there are."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import runner
from runner.client.outcomes import outcome_of
from runner.errors import BackendError, RequestError, UnreachableError, error_of
from runner.model.limits import LimitOverrides
from runner.ports import Store
from runner.schema.limits import parse_limit_mapping
from runner.sessions import wire
from runner.sessions.client import Session
from runner.settings import Settings

# Isolated: neither the folder it is started in nor a variable says where modules come from. What
# this process imports from goes behind what the interpreter brings, without the empty entry.
_BOOT = (
    "import json, os, sys; sys.path[:] = json.loads(sys.argv[1])\n"
    "if os.fork(): os._exit(0)\n"
    "from runner.surfaces.keeping import process; process.main(int(sys.argv[2]))"
)
BEGIN_WITHIN_S = 60.0


class Sessions:
    """The sessions of one state folder."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Nothing is begun."""
        self._store = store
        self._settings = settings

    def start(
        self,
        *,
        profile: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, object] | LimitOverrides | None = None,
        labels: Mapping[str, str] | None = None,
        lifetime: str | float | None = None,
        idle: str | float | None = None,
        backend: str | None = None,
        identity: str | None = None,
    ) -> Session:
        """Begin one: an empty sandbox with the workspace in it, kept by a process of its own.

        Args:
            session: the name that its budgets are counted under; its id else.
            env: what each command in it gets.
            limits: those of the profile, tightened; what is not of a single command (`memory`,
                `processes`, `workspace`, …) holds for all that goes on in it together.
            lifetime: when it ends at the latest, `1h` or seconds; the setting `session_lifetime`
                else, which is the most there is.
            idle: how long it stays with no command; `session_idle` likewise.
            identity: who calls a server that begins it, for the record.

        Raises:
            RunnerError: it did not begin; a denial too, whose `outcome` tells why.
        """
        session_id = new_session_id()
        bounds = limits if isinstance(limits, LimitOverrides) else parse_limit_mapping(limits or {})
        flags = {name: setting.value for name in ("home", "backend", "profile")
                 if (setting := getattr(self._settings, name)).origin == "flag"}  # fmt: skip
        document: wire.Document = {
            "id": session_id,
            "identity": identity,
            "settings": {
                **{name: os.fspath(value) for name, value in flags.items()},
                "home": os.fspath(self._settings.home.value),
                **({} if backend is None else {"backend": backend}),
            },
            "asked": {
                "profile": profile, "agent": agent, "parent": parent, "session": session,
                "tenant": tenant, "cwd": os.fspath(os.path.abspath(cwd or "")),  # noqa: PTH100
                "env": dict(env or {}), "limits": wire.limits_document(bounds),
                "labels": dict(labels or {}),
            },
            "lifetime": lifetime,
            "idle": idle,
        }  # fmt: skip
        answer = _begun(document)
        if (told := answer.get("error")) is not None:
            error = error_of(told["code"], told["message"])
            if answer.get("outcome") is not None:
                error.outcome = outcome_of(answer["outcome"])
            raise error
        if (told := answer.get("outcome")) is not None:
            outcome = outcome_of(told)
            refused = RequestError(
                f"the session did not begin: {outcome.termination.value}: {outcome.decision.reason}"
            )
            refused.outcome = outcome
            raise refused
        return Session(Path(self._settings.home.value), session_id)

    def get(self, session_id: str) -> Session:
        """One that goes on. UnreachableError: there is none of that id."""
        return Session(Path(self._settings.home.value), session_id)

    def all(self) -> tuple[Session, ...]:
        """Those that go on, the oldest first."""
        home = Path(self._settings.home.value)
        found = []
        for run in self._store.open_runs():
            if run.run_id.startswith(PREFIX) and wire.place(home, run.run_id).exists():
                with contextlib.suppress(UnreachableError):  # its keeper has just ended
                    found.append(Session(home, run.run_id))
        return tuple(found)


PREFIX = "ses-"


def new_session_id() -> str:
    """An id that no run has: 80 bits of chance."""
    return f"{PREFIX}{secrets.token_hex(10)}"


def _begun(document: wire.Document) -> wire.Document:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = str(Path(runner.__file__).resolve().parent.parent)
    path = [*(each for each in sys.path if each), parent]
    with contextlib.closing(ours):
        try:
            with theirs:
                started = subprocess.run(
                    [sys.executable, "-I", "-c", _BOOT, json.dumps(path), str(theirs.fileno())],
                    check=False,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except OSError as error:
            raise BackendError(f"the session's keeper can't be started: {error}") from error
        if started.returncode != 0:
            raise BackendError(
                f"the session's keeper ended at once (exit status {started.returncode})"
            )
        ours.settimeout(BEGIN_WITHIN_S)
        wire.say(ours, "begin", document)
        try:
            _, answer, _ = wire.hear(ours)
        except UnreachableError as error:
            raise BackendError("the session's keeper ended before the session began") from error
        return answer
