"""Runs in pages: those of the log, of any surface, and those of this server that wait."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

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
    before = None if cursor is None else _place(cursor)
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
                    return _rows(service, found), _cursor(before)
        if len(rows) < _STEP:
            return _rows(service, found), None
    return _rows(service, found), None if before is None else _cursor(before)


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


def _cursor(place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


def _place(cursor: str) -> tuple[str, str]:
    try:
        opened, run_id = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
        if isinstance(opened, str) and isinstance(run_id, str):
            return opened, run_id
    except (ValueError, TypeError, binascii.Error):
        pass
    raise RequestError("the cursor is none that this server gave; begin without one")
