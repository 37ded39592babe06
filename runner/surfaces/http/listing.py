"""Runs in pages: those of the log, of any surface, and those of this server that wait."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runner.errors import RequestError
from runner.model.identity import Identity
from runner.schema.api_answers import RunStatus
from runner.schema.outcome import printable
from runner.stores.listing import ListedRun, runs_before, terminations
from runner.surfaces.http.jobs import Job
from runner.surfaces.http.service import Service

MOST = 200
"""Runs of a page."""
_LOOKED_AT = 2000
"""Rows that a page is looked for in: where little is in reach, pages are short."""
_STEP = 200
_NONCE_BYTES = 12
"""Of AES-GCM (NIST SP 800-38D, 8.2)."""


def page(
    service: Service,
    identity: Identity,
    *,
    agent: str | None,
    status: RunStatus | None,
    most: int,
    cursor: str | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of `RunList`, and the cursor of the next page. RequestError: the cursor is none."""
    before = None if cursor is None else place_of(service, identity, cursor)
    if status is RunStatus.QUEUED:
        return [*map(_waiting, _queued(service, identity, agent))], None
    if status is RunStatus.REFUSED:
        return [], None  # they are no runs: the log has them as refused requests
    agent = agent or identity.agent
    found: list[ListedRun] = []
    looked = 0
    while looked < _LOOKED_AT:
        rows = runs_before(service.log, before, _STEP, agent=agent)
        for run in rows:
            before = (run.opened, run.run_id)
            looked += 1
            if _is_meant(run, identity, status):
                found.append(run)
                if len(found) == most:
                    return _rows(service, found), cursor_of(service, identity, before)
        if len(rows) < _STEP:
            return _rows(service, found), None
    after = None if before is None else cursor_of(service, identity, before)
    return _rows(service, found), after


def _seal(service: Service) -> AESGCM:
    """By the state folder's own secret, so that cursors outlive a server."""
    return AESGCM(sha256(service.runner.store.fingerprint(b"cursors of runs").encode()).digest())


def _is_meant(run: ListedRun, identity: Identity, status: RunStatus | None) -> bool:
    now = RunStatus.RUNNING if run.open else RunStatus.ENDED
    return identity.reaches(run.agent, run.tenant) and status in (None, now)


def _queued(service: Service, identity: Identity, agent: str | None) -> Sequence[Job]:
    return [
        job
        for job in service.jobs.queued()
        if identity.reaches(job.principal.agent, job.principal.tenant)
        and agent in (None, job.principal.agent)
    ]


def _waiting(job: Job) -> dict[str, Any]:
    who = job.principal
    return {
        "id": job.id, "status": RunStatus.QUEUED, "termination": None, "agent": who.agent,
        "parent": who.parent, "session": who.session, "tenant": who.tenant,
        "profile": job.profile, "began": None, "ended": None,
    }  # fmt: skip


def _rows(service: Service, runs: list[ListedRun]) -> list[dict[str, Any]]:
    ends = terminations(service.log, [run.run_id for run in runs])
    return [
        {
            "id": run.run_id,
            "status": RunStatus.RUNNING if run.open else RunStatus.ENDED,
            "termination": ends.get(run.run_id),
            "agent": printable(run.agent),
            **{
                name: None if text is None else printable(text)
                for name, text in (
                    ("parent", run.parent), ("session", run.session), ("tenant", run.tenant)
                )
            },
            "profile": printable(run.profile),
            "began": run.opened,
            "ended": run.closed,
        }
        for run in runs
    ]  # fmt: skip


def cursor_of(service: Service, identity: Identity, place: tuple[str, str]) -> str:
    """Sealed: the last run that was looked at may be none of the caller's business."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = _seal(service).encrypt(nonce, orjson.dumps(place), identity.name.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode()


def place_of(service: Service, identity: Identity, cursor: str) -> tuple[str, str]:
    """When what it names began, and its id. RequestError: the cursor is none."""
    try:
        data = base64.urlsafe_b64decode(cursor.encode())
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        opened, run_id = orjson.loads(_seal(service).decrypt(nonce, sealed, identity.name.encode()))
        return opened, run_id
    except (ValueError, InvalidTag):
        pass
    raise RequestError("the cursor is none that this server gave; begin without one")
