"""Puts the API together: one `Runner`, one way to tell who calls, the routes."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from runner import __version__
from runner.app import Runner
from runner.schema.api_answers import ErrorAnswer
from runner.stores.reader import open_log
from runner.surfaces.http import problems
from runner.surfaces.http.access import Authenticate
from runner.surfaces.http.bodies import Sizes
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.idempotency import IdempotencyKeys
from runner.surfaces.http.jobs import Jobs, Room
from runner.surfaces.http.meant import Itself
from runner.surfaces.http.metrics import Metrics
from runner.surfaces.http.routes import (
    audit,
    changes,
    decisions,
    description,
    events,
    health,
    interactive,
    operators,
    runs,
    session_files,
    sessions,
    standing,
)
from runner.surfaces.http.service import Service
from runner.surfaces.http.sessions import ServedSessions

BODY_BYTES = 16 << 20
"""The largest request that is taken unless somebody says otherwise: the largest script."""

_ROUTERS = (
    runs.router, events.router, changes.router, sessions.router, session_files.router,
    decisions.router, operators.router, standing.router, audit.router, health.router,
    description.router, interactive.router,
)  # fmt: skip


def create_app(
    runner: Runner,
    authenticate: Authenticate,
    fresh: FreshWorkspaces,
    *,
    room: Room,
    folders: tuple[Path, ...] = (),
    body_bytes: int = BODY_BYTES,
    itself: Itself | None = None,
) -> FastAPI:
    """The API over a `Runner`, to be served by one process with one event loop.

    `authenticate`: who calls; `folders`: where a request's `cwd` may be; none: anywhere
    if the caller is the server's own user, who could run it there as well, and else nowhere.
    `itself`: which server it is, for requests that are meant for one.
    `app.state.service` has the parts: `jobs.stop` is to be awaited before the loop ends, and
    `sessions.close` called behind it.
    """
    metrics = Metrics()
    jobs = Jobs(runner, room, forget=fresh.remove, told=metrics.run_ended)
    metrics.watch(lambda: jobs.counts)
    app = FastAPI(
        title="runner",
        version=__version__,
        description="Decides, contains, meters and records what an AI agent executes.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.authenticate = authenticate
    app.state.itself = itself or Itself()
    app.state.sizes = Sizes(body_bytes)
    log = open_log(Path(runner.settings.home.value))
    app.state.service = Service(
        runner,
        jobs,
        fresh,
        metrics,
        folders,
        log,
        IdempotencyKeys(jobs.never_began),
        ServedSessions(runner, log, room.sessions),
    )
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(
            router, responses={"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}}
        )
    app.add_middleware(metrics.counting)
    return app
