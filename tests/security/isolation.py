"""What the exec API's routes are held to, and callers of every kind, for `test_tenant_isolation`.

`ROUTES` says of each address what it does with things of a tenant. An address that is not here
fails the test, and so does a parameter of a query that has no value in `VALUES`.
"""

from __future__ import annotations

import array
import http.client
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from runner.model.identity import AGENT_VERBS, Identity, Verb

AGENT, TENANT, SESSION = "alpha-of-a", "tenant-a", "session-of-a"
LABEL, OUTPUT, FILE, KEPT = "label-of-a", "output-of-a", "file-of-a", "kept-of-a"
OTHER, ELSEWHERE = "beta-of-b", "tenant-b"
MARKS = (AGENT, TENANT, SESSION, LABEL, OUTPUT, FILE, KEPT)
"""Texts that stand in A's things and nowhere else."""
ALL = frozenset(Verb)


class Kind(Enum):
    """What an address is about."""

    THING = "one run or question, named in its path"
    LIST = "things in the caller's reach"
    BEGINS = "a program, in somebody's name"
    KILLS = "a run named in its body, or who is stopped"
    WHOLE = "the whole server: nobody but who reaches everything"
    TOLD = "nothing of anybody's"


@dataclass(frozen=True)
class Route:
    """How an address is called, and what is to come of it."""

    verb: Verb | None
    """None: nobody is asked who they are."""
    kind: Kind
    bodies: tuple[dict[str, object], ...] = ({},)
    """Each is sent to one of A's things; `RUN` stands for its run."""
    refusal: int = 403
    """Of WHOLE: what who reaches less is told."""
    writes: bool = False


RUN, QUESTION = "{run_id}", "{approval_id}"
_REASON = {"reason": "for a test"}
_STOPS: tuple[dict[str, object], ...] = (
    {"scope": "agent", "name": AGENT, **_REASON},
    {"scope": "session", "name": SESSION, **_REASON},
    {"scope": "tenant", "name": TENANT, **_REASON},
    {"scope": "all", **_REASON},
)
_NAMES: tuple[dict[str, object], ...] = (
    {"agent": AGENT, "tenant": TENANT},
    {"agent": OTHER, "tenant": TENANT},
    {"tenant": "Tenant-a"},
    {"agent": AGENT.upper(), "tenant": TENANT},
)
_PROGRAMS = tuple({"argv": ["true"], **names} for names in _NAMES)

ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/v1/runs"): Route(Verb.RUN, Kind.BEGINS, _PROGRAMS, writes=True),
    ("GET", "/v1/runs"): Route(Verb.READ, Kind.LIST),
    ("GET", "/v1/runs/{run_id}"): Route(Verb.READ, Kind.THING),
    ("DELETE", "/v1/runs/{run_id}"): Route(Verb.RUN, Kind.THING, writes=True),
    ("GET", "/v1/runs/{run_id}/events"): Route(Verb.READ, Kind.THING),
    ("GET", "/v1/runs/{run_id}/output/{stream}"): Route(Verb.READ, Kind.THING),
    ("GET", "/v1/runs/{run_id}/changes"): Route(Verb.READ, Kind.THING),
    ("GET", "/v1/runs/{run_id}/diff"): Route(Verb.READ, Kind.THING),
    ("POST", "/v1/runs/{run_id}/apply"): Route(Verb.APPLY, Kind.THING, writes=True),
    ("DELETE", "/v1/runs/{run_id}/changes"): Route(Verb.APPLY, Kind.THING, writes=True),
    ("POST", "/v1/sessions"): Route(Verb.RUN, Kind.BEGINS, _NAMES, writes=True),
    ("GET", "/v1/sessions"): Route(Verb.READ, Kind.LIST),
    ("GET", "/v1/sessions/{session_id}"): Route(Verb.READ, Kind.THING),
    ("DELETE", "/v1/sessions/{session_id}"): Route(Verb.RUN, Kind.THING, writes=True),
    ("POST", "/v1/sessions/{session_id}/runs"): Route(
        Verb.RUN, Kind.THING, ({"argv": ["true"]},), writes=True
    ),
    ("GET", "/v1/sessions/{session_id}/files"): Route(Verb.READ, Kind.THING),
    ("PUT", "/v1/sessions/{session_id}/files"): Route(Verb.RUN, Kind.THING, writes=True),
    ("DELETE", "/v1/sessions/{session_id}/files"): Route(Verb.RUN, Kind.THING, writes=True),
    ("GET", "/v1/sessions/{session_id}/files/list"): Route(Verb.READ, Kind.THING),
    ("GET", "/v1/sessions/{session_id}/files/stat"): Route(Verb.READ, Kind.THING),
    ("GET", "/v1/sessions/{session_id}/processes"): Route(Verb.READ, Kind.THING),
    ("DELETE", "/v1/sessions/{session_id}/processes/{number}"): Route(
        Verb.RUN, Kind.THING, writes=True
    ),
    ("POST", "/v1/decisions"): Route(Verb.RUN, Kind.BEGINS, _PROGRAMS, writes=True),
    ("GET", "/v1/profiles"): Route(Verb.READ, Kind.LIST),
    ("GET", "/v1/budgets"): Route(Verb.READ, Kind.LIST),
    ("POST", "/v1/budgets/set"): Route(
        Verb.BUDGET, Kind.KILLS,
        (
            {"budget": "own", "scope": f"agent:{AGENT}", "amounts": {"calls": "1"},
             "lasting": "1h", **_REASON},
            {"budget": "of-t", "scope": f"tenant:{TENANT}", **_REASON},
            {"budget": "own", "scope": "all", **_REASON},
        ),
        writes=True,
    ),
    ("POST", "/v1/budgets/reset"): Route(
        Verb.BUDGET, Kind.KILLS,
        (
            {"budget": "own", "scope": f"agent:{AGENT}", **_REASON},
            {"budget": "of-s", "scope": f"session:{SESSION}", **_REASON},
            {"budget": "of-t", "scope": "all", **_REASON},
        ),
        writes=True,
    ),
    ("GET", "/v1/approvals"): Route(Verb.READ, Kind.LIST),
    ("GET", "/v1/approvals/{approval_id}"): Route(Verb.READ, Kind.THING),
    ("POST", "/v1/approvals/{approval_id}"): Route(
        Verb.APPROVE, Kind.THING, ({"answer": "approve", **_REASON}, {"answer": "deny", **_REASON}),
        writes=True,
    ),
    ("GET", "/v1/kills"): Route(Verb.KILL, Kind.LIST),
    ("POST", "/v1/kills"): Route(
        Verb.KILL, Kind.KILLS, ({"scope": "run", "name": RUN, **_REASON}, *_STOPS), writes=True
    ),
    ("POST", "/v1/kills/lift"): Route(Verb.KILL, Kind.KILLS, _STOPS, writes=True),
    ("GET", "/v1/audit/events"): Route(Verb.READ, Kind.LIST),
    ("GET", "/v1/audit/checkpoint"): Route(Verb.READ, Kind.TOLD),
    ("GET", "/v1/audit/proofs/{run_id}"): Route(Verb.READ, Kind.THING),
    ("GET", "/openapi.json"): Route(Verb.READ, Kind.TOLD),
    ("GET", "/metrics"): Route(Verb.READ, Kind.WHOLE, refusal=404),
    ("GET", "/readyz"): Route(Verb.READ, Kind.TOLD),
    ("GET", "/healthz"): Route(None, Kind.TOLD),
}  # fmt: skip

VALUES: dict[str, tuple[str, str]] = {
    "agent": (AGENT, "nobody"), "session": (SESSION, "no-session"), "label": (
        f"team={LABEL}", "team=no-label"
    ), "command": ("touch", "no-such-program"), "host": ("host-of-a.example", "host.example"),
    "run": (RUN, "run-x"), "rule": ("asks", "no-rule"), "path": (FILE, "no-file"),
    "profile": ("asks", "ci"), "effect": ("ask", "rewrite"), "termination": ("denied", "signaled"),
    "kind": ("approval.asked", "guard.reset"), "since": ("1h", "2h"), "until": ("0s", "1s"),
    "status": ("running", "refused"), "newest_first": ("true", "false"), "limit": ("1", "50"),
    "cursor": ("1", "2"), "all": ("true", "false"),
    "offset": ("0", "1"), "length": ("1", "2"), "executable": ("true", "false"),
    "signal": ("15", "9"),
}  # fmt: skip
"""Of each parameter of a query: one that picks A's things, and one that picks nothing of theirs."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    text: str

    def without(self, *texts: str) -> tuple[int, tuple[tuple[str, str], ...], str]:
        """All of it that may be compared; `texts` are what the caller said itself."""
        told, headers = self.text, self.headers
        for text in texts:
            told = told.replace(text, "*")
        moving = ("date", "content-length")
        return self.status, tuple(each for each in headers if each[0] not in moving), told

    @property
    def code(self) -> str:
        """Of an error."""
        return str(json.loads(self.text)["error"]["code"])


class Wire(http.client.HTTPConnection):
    """A connection that is made by a function."""

    def __init__(self, dial: Callable[[], socket.socket]) -> None:
        super().__init__("runner", timeout=120)
        self.dialled = dial

    def connect(self) -> None:
        """As the caller connects."""
        self.sock = self.dialled()

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request and its answer."""
        data = None if body is None else json.dumps(body)
        more = {} if body is None else {"Content-Type": "application/json"}
        self.request(method, path, data, {**more, **(headers or {})})
        got = self.getresponse()
        told = tuple(sorted((name.lower(), value) for name, value in got.getheaders()))
        return Answer(got.status, told, got.read().decode())


def at_port(port: int) -> Callable[[], socket.socket]:
    """Connects to a port of this machine."""

    def dial() -> socket.socket:
        made = socket.create_connection(("127.0.0.1", port), 120)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    return dial


def at_socket(path: Path, uid: int | None = None) -> Callable[[], socket.socket]:
    """Connects to a unix socket, as another user if one is given: a child connects, and stays."""

    def dial() -> socket.socket:
        if uid is None:
            made = socket.socket(socket.AF_UNIX)
            made.connect(str(path))
            made.settimeout(120)
            return made
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:  # pragma: no cover  (another process)
            try:
                # Else it would hold the connections of others open.
                os.closerange(3, theirs.fileno())
                os.closerange(theirs.fileno() + 1, 1 << 16)
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                made = socket.socket(socket.AF_UNIX)
                made.connect(str(path))
                socket.send_fds(theirs, [b"x"], [made.fileno()])
                made.close()
                theirs.recv(1)  # until the other end is closed
            finally:
                os._exit(0)
        theirs.close()
        _, (fd,), _, _ = socket.recv_fds(ours, 1, array.array("i").itemsize)
        found = _Kept(fileno=fd)
        found.child, found.ours = child, ours
        found.settimeout(120)
        return found

    return dial


class _Kept(socket.socket):
    """Lets go of the process that connected when it is closed."""

    child: int
    ours: socket.socket

    def _real_close(self) -> None:
        super()._real_close()  # type: ignore[misc]
        self.ours.close()
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


@dataclass
class Caller:
    """Somebody, and what they may do by what they were given."""

    name: str
    identity: Identity | None
    """None: nobody."""
    wire: Wire
    headers: dict[str, str] = field(default_factory=dict)
    granted: bool = True
    """Whether anything was granted at all."""

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """One request."""
        return self.wire.ask(method, path, body, self.headers)

    @property
    def reaches(self) -> bool:
        """Whether A's things are its business."""
        return self.identity is not None and self.identity.reaches(AGENT, TENANT)

    @property
    def reaches_all(self) -> bool:
        who = self.identity
        return who is not None and who.agent is None and "*" in who.agents and "*" in who.tenants


IDENTITIES: dict[str, Identity] = {
    "agent of b": Identity("", AGENT_VERBS, OTHER, (), (ELSEWHERE,), ("*",)),
    "agent of b by the same name": Identity("", AGENT_VERBS, AGENT, (), (ELSEWHERE,), ("*",)),
    "other agent of a": Identity("", AGENT_VERBS, OTHER, (), (TENANT,), ("agent",)),
    "reading agent of a": Identity("", frozenset({Verb.READ}), AGENT, (), (TENANT,), ()),
    "agent of a": Identity("", AGENT_VERBS, AGENT, (), (TENANT,), ("*",)),
    "approver of a": Identity(
        "", frozenset({Verb.READ, Verb.APPROVE}), None, ("alpha-*",), (TENANT,), ()
    ),
    "approver of b": Identity(
        "", frozenset({Verb.READ, Verb.APPROVE}), None, ("*",), (ELSEWHERE,), ()
    ),
    "all verbs of b": Identity("", ALL, None, ("*",), (ELSEWHERE,), ("*",)),
    "all verbs of a": Identity("", ALL, None, ("*",), (TENANT,), ("*",)),
    "all verbs of no tenant": Identity("", ALL, None, ("*",), ("",), ("*",)),
    "all verbs of names like a": Identity(
        "", ALL, None, ("ALPHA-of-a", "[b-z]*"), ("tenant-[!a]", "Tenant-a", "tenant-\u0430"),
        ("*",),
    ),
    "operator": Identity("", ALL, None, ("*",), ("*",), ("*",)),
}  # fmt: skip
"""Keys that are made."""

SOCKETS = ("/v1/runs", "/v1/sessions/{session_id}/runs")
"""WebSockets, which an OpenAPI document has no words for; their first message is as the body of a
POST to the same address."""
