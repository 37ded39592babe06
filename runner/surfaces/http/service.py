"""What routes share: the library, this server's runs, the log, and how a run is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response

from runner.app import Runner
from runner.audit.event import rfc3339
from runner.errors import RequestError
from runner.intake import build_request
from runner.model.identity import Identity
from runner.model.request import ExecRequest
from runner.schema.api_answers import RunStatus
from runner.schema.api_bodies import ProgramBody
from runner.schema.outcome import printable
from runner.stores.listing import ListedRun, listed_run
from runner.stores.reader import LogReader
from runner.surfaces.http import history
from runner.surfaces.http.access import (
    acting_agent,
    check_profile,
    check_reach,
    is_own_user,
    not_there,
)
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.idempotency import Keys
from runner.surfaces.http.jobs import Job, Jobs
from runner.surfaces.http.metrics import Metrics


@dataclass(slots=True)
class Service:
    """One server's parts; `app.state.service`."""

    runner: Runner
    jobs: Jobs
    fresh: FreshWorkspaces
    metrics: Metrics
    folders: tuple[Path, ...]
    """Where a request's `cwd` may be."""
    log: LogReader
    keys: Keys

    @property
    def home(self) -> Path:
        """The state folder."""
        return Path(self.runner.settings.home.value)

    def request(
        self, body: ProgramBody, identity: Identity, directory: Path | None = None
    ) -> ExecRequest:
        """What a body asks for. RequestError, ForbiddenError; both are recorded as refused.

        `directory`: the fresh workspace of a body that names no folder.
        """
        profile = body.profile or self.runner.settings.profile.value
        named = body.agent or identity.agent
        with self.runner.refusals_recorded(named, profile):
            agent = acting_agent(identity, body.agent, body.parent, body.tenant)
            check_profile(identity, profile, stated=body.profile is not None)
            cwd = directory if body.cwd is None else self._folder(identity, body.cwd)
            return build_request(
                argv=body.argv, shell=body.shell, code=body.code, language=body.language,
                args=body.args, cwd=cwd, env=body.env, profile=profile, agent=agent,
                parent=body.parent, session=body.session, tenant=body.tenant,
                limits=body.limits, labels=body.labels,
            )  # fmt: skip

    def _folder(self, identity: Identity, cwd: str) -> Path:
        """RequestError: it is not there, or not one that requests may name."""
        if not cwd.startswith("/") or "\0" in cwd:
            raise RequestError(f"cwd {cwd[:80]!r} is no absolute path on the server's machine")
        try:
            resolved = Path(cwd).resolve(strict=True)
        except (OSError, RuntimeError):
            resolved = None
        folders = self.folders or ((Path("/"),) if is_own_user(identity) else ())
        if resolved is None or not any(map(resolved.is_relative_to, folders)):
            # One sentence for both, or anybody could ask what there is on this machine.
            raise RequestError(
                f"cwd {cwd[:80]!r} is no folder that this server runs anything in; leave it out, "
                "or see `runner serve --folder`"
            )
        return resolved

    def found(self, identity: Identity, run_id: str) -> Job | ListedRun:
        """A run in the caller's reach. NotFoundError: there is none."""
        job = self.jobs.get(run_id)
        if job is not None and not job.is_lost:
            check_reach(identity, f"run {run_id!r}", job.principal.agent, job.principal.tenant)
            return job
        listed = listed_run(self.log, run_id)
        if listed is None:
            raise not_there(f"run {run_id!r}")
        check_reach(identity, f"run {run_id!r}", listed.agent, listed.tenant)
        return listed

    def run_document(self, found: Job | ListedRun) -> dict[str, Any]:
        """As `RunAnswer` has it."""
        if isinstance(found, Job):
            return job_document(found)
        return history.run_document(self.runner.store, found)


def service_of(connection: HTTPConnection) -> Service:
    """The service of the app that a request came to."""
    service: Service = connection.app.state.service
    return service


def job_document(job: Job) -> dict[str, Any]:
    """A run that is remembered, as `RunAnswer` has it."""
    who, error = job.principal, job.error
    return {
        "id": job.id,
        "status": job.status,
        "agent": who.agent,
        "parent": who.parent,
        "session": who.session,
        "tenant": who.tenant,
        "profile": job.profile,
        "began": None if job.began_s is None else rfc3339(job.began_s),
        "usage": None if job.usage is None else asdict(job.usage),
        "outcome": job.outcome if job.status is RunStatus.ENDED else None,
        "error": None if error is None else {"code": error.code, "message": printable(str(error))},
    }


class Json(Response):
    """JSON; of text that is no UTF-8 an escaped spelling."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        with suppress(TypeError):
            return orjson.dumps(content)
        return orjson.dumps(_printable(content))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(each) for each in value]
    return value


async def gone(connection: Any) -> None:
    """Returns when the caller has gone away; its body has been read."""
    while True:
        message = await connection.receive()
        if message["type"] == "http.disconnect":
            return
