"""Idempotency keys: the same caller, key and request get the same run, however often they come.

As the header of draft-ietf-httpapi-idempotency-key-header. They hold while this server lives, for a
day, the latest ten thousand.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from runner.errors import ConflictError, RequestError

HELD = 10_000
HELD_S = 86_400.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_HOW_TO_ANSWER = frozenset({"wait", "cancel_on_disconnect"})
"""Says how one request is answered and not what is run."""


@dataclass(frozen=True, slots=True)
class _Held:
    digest: bytes
    run_id: asyncio.Future[str]
    since_s: float


class IdempotencyKeys:
    """All of one server; used in the loop's thread alone."""

    def __init__(self, never_began: Callable[[str], bool]) -> None:
        """`never_began`: whether a run was refused before the log had it."""
        self._never_began = never_began
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    async def once(
        self,
        caller: str,
        key: str,
        body: BaseModel,
        begin: Callable[[], Awaitable[str]],
        where: str = "",
    ) -> str:
        """The id of the run that this key stands for; `begin` makes it if it is the first.

        `where`: in which session, or what else it is that begins. It is part of the request.

        ConflictError: the key stands for another request. Who comes while the first one begins
        waits for that, and gets its error too. The key of what never began is free again.
        """
        if not _KEY.fullmatch(key):
            raise RequestError("Idempotency-Key is not 1 to 255 printable ASCII characters")
        self._forget()
        digest = digest_of(body, where)
        held = self._held.get((caller, key))
        if held is not None and not self._is_void(held):
            if held.digest != digest:
                raise ConflictError(
                    "this Idempotency-Key was used for another request; give each its own"
                )
            return await asyncio.shield(held.run_id)
        held = _Held(digest, asyncio.get_running_loop().create_future(), time.monotonic())
        self._held[caller, key] = held
        try:
            made = await begin()
        except BaseException as error:
            if self._held.get((caller, key)) is held:
                del self._held[caller, key]
            if isinstance(error, Exception):
                held.run_id.set_exception(error)
                held.run_id.exception()  # nobody may be waiting
            else:
                held.run_id.cancel()
            raise
        held.run_id.set_result(made)
        return made

    def _is_void(self, held: _Held) -> bool:
        done = held.run_id.done() and not held.run_id.cancelled() and not held.run_id.exception()
        return done and self._never_began(held.run_id.result())

    def _forget(self) -> None:
        now_s = time.monotonic()
        while self._held:
            first = next(iter(self._held.values()))
            if len(self._held) < HELD and now_s - first.since_s < HELD_S:
                return
            self._held.popitem(last=False)


def digest_of(body: BaseModel, where: str = "") -> bytes:
    """Equal for bodies that ask for the same run, whatever their spelling."""
    told = where + body.model_dump_json(exclude=set(_HOW_TO_ANSWER))
    return hashlib.sha256(told.encode()).digest()
