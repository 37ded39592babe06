"""What routes share: the library, this server's runs, the log, and how a run is looked up."""

from __future__ import annotations

import os
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
from runner.errors import OtherServerError, RequestError
from runner.intake import ask_wait_s, build_request
from runner.model.identity import Identity
from runner.model.principal import Principal
from runner.model.request import ExecRequest
from runner.pacing import Pace
from runner.schema.api_answers import RunStatus
from runner.schema.api_bodies import AskedBody, ProgramBody, RunBody
from runner.schema.outcome import printable
from runner.stores.listing import ListedRun, listed_run
from runner.stores.reader import LogReader
from runner.surfaces.http import history
from runner.surfaces.http.access import (
    acting_agent,
    check_own,
    check_profile,
    check_reach,
    is_own_user,
    not_there,
    own_principal,
)
from runner.surfaces.http.attached import Attached
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.idempotency import IdempotencyKeys
from runner.surfaces.http.jobs import How, Job, Jobs
from runner.surfaces.http.metrics import Metrics
from runner.surfaces.http.peers import Peer
from runner.surfaces.http.sessions import ServedSessions


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
    idempotency: IdempotencyKeys
    sessions: ServedSessions

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
        with self.runner.refusals_recorded(own_principal(identity), profile):
            agent = acting_agent(identity, body.agent, body.parent, body.tenant)
        who = Principal(uid=os.getuid(), agent=agent, tenant=body.tenant)
        with self.runner.refusals_recorded(who, profile):
            check_profile(identity, profile, stated=body.profile is not None)
            cwd = directory if body.cwd is None else self.folder(identity, body.cwd)
            if body.script is not None:
                check_own(identity, "script")
                if body.cwd is None:
                    raise RequestError("a script is looked up from cwd: give that, or send code")
            return build_request(
                argv=body.argv, shell=body.shell, code=body.code, script=body.script,
                language=body.language, args=body.args, cwd=cwd, env=body.env, profile=profile,
                agent=agent, parent=body.parent, session=body.session, tenant=body.tenant,
                limits=body.limits, labels=body.labels,
            )  # fmt: skip

    def folder(self, identity: Identity, cwd: str) -> Path:
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

    def check_folder(self, identity: Identity, cwd: str | None) -> None:
        """OtherServerError: this server would not run anything there."""
        try:
            if cwd is not None:
                self.folder(identity, cwd)
        except RequestError as error:
            raise OtherServerError(f"this server is not used: {error}") from None

    def how(self, body: RunBody, identity: Identity, peer: Peer | None, *, paced: bool) -> How:
        """What else is said of a run; `paced`: its output waits for who began it.

        ForbiddenError: only the server's own user may say it. RequestError, OtherServerError.
        """
        if body.environment is not None:
            check_own(identity, "environment")
        wait_s = self.ask_wait_s(body, identity)
        attached = None
        if body.attach is not None:
            check_own(identity, "attach")
            if peer is None or body.cwd is None or body.stdin is not None:
                raise RequestError(
                    "attach goes with cwd, over the server's unix socket, and without stdin"
                )
            attached = Attached(peer, body.attach)
        return How(
            Pace() if paced else None,
            attached,
            environment=body.environment,
            ask_wait_s=wait_s,
        )

    def ask_wait_s(self, body: AskedBody, identity: Identity) -> float | None:
        """How long it waits where a rule asks; None: nothing is said of that. RequestError."""
        if body.ask_wait is None:
            return None
        wait_s = ask_wait_s(body.ask_wait)
        return wait_s if is_own_user(identity) else min(wait_s, self.runner.settings.ask_wait.value)

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
