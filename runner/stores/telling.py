"""Telling people of new questions: a file, a command or a URL gets each as it is asked.

Beside what the process does: no run waits for it. A URL gets a signed webhook in the form of
https://www.standardwebhooks.com. What could not be told is an event; the question stands all the
same, and `runner approvals list` has it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from runner import operator_records
from runner.audit.canonical import escape
from runner.audit.event import rfc3339
from runner.errors import RunnerError
from runner.model.approval import Approval
from runner.model.checkpoints import Destination, DestinationKind
from runner.ports import Clock, Transaction
from runner.stores.delivery import NotDeliveredError, deliver

CLOSE_WAIT_S = 5.0
"""Longest that the end of a process waits for destinations."""
_ENDING_S = 1.0
"""For a command that is ended then."""
PAUSES_S = (1.0, 4.0)
"""Between tries."""
_MOST_SECRET_BYTES = 4096
_PREFIX = "whsec_"
_SHORTEST_SECRET_BYTES = 24
"""As Standard Webhooks has it."""


class Teller:
    """Tells of one state folder's questions; safe to use from several threads."""

    def __init__(
        self,
        to: Sequence[Destination],
        secret: Path | None,
        look_up: Callable[[str], Approval | None],
        writing: Callable[[], AbstractContextManager[Transaction]],
        clock: Clock,
    ) -> None:
        """`secret`: the file with what webhooks are signed by; None: they are not signed.

        `look_up`: a question as the store has it, without secrets.
        """
        self._to = to
        self._secret = secret
        self._look_up = look_up
        self._writing = writing
        self._clock = clock
        self._guard = threading.Lock()
        self._waiting: deque[str] = deque()
        self._current: str | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    def tell(self, identity: str) -> None:
        """It is asked; returns at once."""
        if not self._to:
            return
        with self._guard:
            self._waiting.append(identity)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, daemon=True, name="runner-questions"
                )
                self._thread.start()

    def finish(self) -> None:
        """Wait until all is told, at most `CLOSE_WAIT_S`; then tell no more."""
        with self._guard:
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_WAIT_S)
        self._over.set()  # ends a command too
        if thread is not None:
            thread.join(_ENDING_S)
        with self._guard:
            left, self._waiting = list(self._waiting), deque()
            if self._current is not None:
                left.insert(0, self._current)
        for identity in left:
            self._note(identity, "all destinations", "the process ended before they were told")

    def _work(self) -> None:
        while True:
            with self._guard:
                if not self._waiting or self._over.is_set():
                    self._thread = None
                    return
                identity = self._current = self._waiting.popleft()
            with suppress(RunnerError):  # the log can't be read or written: others find that out
                self._tell(identity)
            with self._guard:
                self._current = None

    def _tell(self, identity: str) -> None:
        approval = self._look_up(identity)
        if approval is None:
            return
        text = json.dumps(message(approval))
        for destination in self._to:
            why = self._delivered(destination, identity, text)
            if why is not None:
                self._note(identity, str(destination), why)

    def _delivered(self, destination: Destination, identity: str, text: str) -> str | None:
        """None, or why it was not, after all tries."""
        why = ""
        for pause_s in (0.0, *PAUSES_S):
            if self._over.wait(pause_s):
                return why or "the process ended before it was told"
            try:
                headers: Mapping[str, str] = {}
                if destination.kind is DestinationKind.URL:
                    headers = self._headers(identity, text)
                deliver(destination, text, over=self._over, headers=headers)
            except (NotDeliveredError, ValueError) as error:
                why = str(error)
            else:
                return None
        return why

    def _headers(self, identity: str, text: str) -> Mapping[str, str]:
        """NotDeliveredError, ValueError: the secret can't be read, so nothing is sent unsigned."""
        at_s = int(self._clock.now())
        found = {
            "Content-Type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": str(at_s),
        }
        if self._secret is not None:
            found["webhook-signature"] = signature(read_secret(self._secret), identity, at_s, text)
        return found

    def _note(self, identity: str, to: str, why: str) -> None:
        with suppress(RunnerError), self._writing() as tx:
            tx.append(operator_records.approval_untold(identity, to, why))


def message(approval: Approval) -> dict[str, object]:
    """What is sent: the question, spelled as in its event (`canonical.escape`), with who asks."""
    who = approval.principal
    names = {"agent": who.agent, "parent": who.parent, "session": who.session, "tenant": who.tenant}
    told = {**operator_records.approval_asked(approval).data, **names, "uid": who.uid}
    return {
        "type": "approval.asked",
        "timestamp": rfc3339(approval.asked_s),
        "data": {key: _plain(value) for key, value in told.items()},
    }


def signature(secret: bytes, identity: str, at_s: int, text: str) -> str:
    """`v1,` and HMAC-SHA256 in base64 over id, time and body, as Standard Webhooks has it."""
    signed = f"{identity}.{at_s}.{text}".encode()
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def read_secret(path: Path) -> bytes:
    """`whsec_` and base64 of 24 bytes or more. ValueError: it is not that, or can't be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_mode & 0o077:
                raise ValueError(f"the secret {path} can be read by others; chmod 600 it")
            text = file.read(_MOST_SECRET_BYTES).decode("ascii").strip()
        if not text.startswith(_PREFIX):
            raise ValueError(f"the secret {path} does not begin with {_PREFIX}")
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise ValueError(f"the secret {path} can't be read: {error}") from None
    if len(secret) < _SHORTEST_SECRET_BYTES:
        raise ValueError(f"the secret {path} has fewer than {_SHORTEST_SECRET_BYTES} bytes")
    return secret


def _plain(value: object) -> object:
    if isinstance(value, str):
        return escape(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
