"""A supervisor that decides, contains, meters and records what an AI agent executes.

    from runner import Runner

    with Runner() as r:
        outcome = r.run(["python3", "fix.py"], cwd="project")

`connect` gives the same of a server.

Importing this package is cheap: the library itself is loaded when one of its names is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.app import Runner as Runner
    from runner.asynchronous import AsyncRunner as AsyncRunner
    from runner.client import RemoteRunner as RemoteRunner
    from runner.client import connect as connect
    from runner.errors import RunnerError as RunnerError
    from runner.model.outcome import Outcome as Outcome

__all__ = [
    "AsyncRunner",
    "Outcome",
    "RemoteRunner",
    "Runner",
    "RunnerError",
    "__version__",
    "connect",
]
__version__ = "0.1.0"

_HOMES = {
    "AsyncRunner": "runner.asynchronous",
    "RemoteRunner": "runner.client",
    "connect": "runner.client",
    "Runner": "runner.app",
    "Outcome": "runner.model.outcome",
    "RunnerError": "runner.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    import importlib  # noqa: PLC0415  (lazy by design: see the docstring)

    return getattr(importlib.import_module(_HOMES[name]), name)
