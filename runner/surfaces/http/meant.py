"""Whether a request is for this very server: its process, and the settings that it runs by.

A client that sends a request again says to which process it first sent it: another one does not
know its idempotency keys. The command line says by which settings it would run, and gets an answer
only where that comes to the same; else it does it itself.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.concurrency import run_in_threadpool

from runner.errors import OtherServerError
from runner.places import environment, settings_digest
from runner.schema.library import SYSTEM_RULES
from runner.settings import Settings

INSTANCE = "Runner-Server"
"""The header that names a server's process, in answers and in requests."""

_Stamp = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Basis:
    """What a server's runs are decided by, as it stood when the server read it."""

    settings: Settings
    digest: str | None
    stamps: frozenset[_Stamp]

    @classmethod
    def of(cls, settings: Settings) -> Basis:
        """As it stands now: to be asked before any of it is read."""
        return cls(settings, settings_digest(environment()), _stamps(settings))

    def differs(self, digest: str) -> str | None:
        """Why a process whose settings have this digest would decide otherwise; None: it would not.

        As far as files tell: who gives a file of rules another content and its old times deceives
        only themselves.
        """
        if self.digest is None or digest != self.digest:
            return "it runs by other settings"
        if settings_digest(environment()) != self.digest:
            return "its settings have changed since it began"
        if _stamps(self.settings) != self.stamps:
            return "policies have changed since it began"
        return None


@dataclass(frozen=True, slots=True)
class Itself:
    """One server."""

    basis: Basis | None = None
    """None: it compares itself with nobody."""
    instance: str = field(default_factory=lambda: secrets.token_hex(8))


async def meant(
    request: Request,
    runner_server: Annotated[str | None, Header(max_length=64)] = None,
    runner_settings: Annotated[str | None, Header(max_length=64)] = None,
) -> None:
    """A dependency, behind `needs`. OtherServerError: the request is not for this server."""
    itself: Itself = request.app.state.itself
    if runner_server is not None and runner_server != itself.instance:
        raise OtherServerError(
            "this is not the server process that the request was sent to first: it can't know "
            "whether that one carried it out; look for the run (GET /v1/runs)"
        )
    if runner_settings is not None:
        if itself.basis is None:
            why: str | None = "it does not tell by which settings it runs"
        else:
            why = await run_in_threadpool(itself.basis.differs, runner_settings)
        if why is not None:
            raise OtherServerError(f"this server is not used: {why}")


Meant = Depends(meant)


def _stamps(settings: Settings) -> frozenset[_Stamp]:
    folders = [each.path for each in settings.policy_dirs.value]
    folders += [each.path for each in settings.wrapper_dirs.value]
    found: set[_Stamp] = set()
    for folder in (*folders, SYSTEM_RULES):
        for stamp in _below(folder):
            found.add(stamp)
    return frozenset(found)


def _below(folder: Path) -> Iterator[_Stamp]:
    """Of each file and folder there: a link's target counts, for that is what is read."""
    for where, _, names in os.walk(folder):
        for path in (where, *(os.path.join(where, name) for name in names)):  # noqa: PTH118
            try:
                status = os.stat(path)  # noqa: PTH116  (a link to nothing is told as such)
            except OSError:
                yield path, 0, 0, 0, 0
                continue
            yield path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
