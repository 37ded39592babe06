"""Counters of a server, for Prometheus. No name of an agent, tenant or run is in them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.model.outcome import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """All of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._runs = Counter(
            "runner_runs",
            "Runs that ended, by effect of the decision and termination; 'refused' began not.",
            ("effect", "termination"),
            registry=self._registry,
        )
        self._run_s = Histogram(
            "runner_run_seconds",
            "From a run's turn to its recorded end.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._requests = Counter(
            "runner_requests",
            "Requests that were answered, by route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._request_s = Histogram(
            "runner_request_seconds",
            "Until an answer begins, waiting for runs included.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )

        blocks = Gauge(
            "runner_memory_blocks",
            "Blocks of memory that the server's Python has in use.",
            registry=self._registry,
        )
        blocks.set_function(sys.getallocatedblocks)

    def watch(self, counts: Callable[[], tuple[int, int]]) -> None:
        """`counts`: how many runs there are now, and how many wait."""
        for index, (name, what) in enumerate(
            (("runner_runs_running", "Runs now."), ("runner_runs_queued", "Runs that wait."))
        ):
            gauge = Gauge(name, what, registry=self._registry)
            gauge.set_function(lambda index=index: counts()[index])  # type: ignore[misc]

    def run_ended(self, outcome: Outcome | None, took_s: float) -> None:
        """A run is over; None: it could not begin, or its end could not be recorded."""
        if outcome is None:
            self._runs.labels("none", "refused").inc()
            return
        self._runs.labels(outcome.decision.effect.value, outcome.termination.value).inc()
        self._run_s.observe(took_s)

    def told(self) -> bytes:
        """In the text format."""
        return generate_latest(self._registry)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The app, its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began_s = time.monotonic()

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = scope.get("route")
                    path = getattr(route, "path", "none")
                    method = scope["method"] if route is not None else "none"
                    self._requests.labels(method, path, str(message["status"])).inc()
                    self._request_s.labels(method, path).observe(time.monotonic() - began_s)
                await send(message)

            await app(scope, receive, sent)

        return counted
