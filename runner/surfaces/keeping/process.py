"""How such a process begins, listens and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runner.app import Runner
from runner.errors import RequestError, RunnerError
from runner.intake import build_request
from runner.model.principal import Principal
from runner.model.request import ExecRequest, Hold
from runner.schema.quantities import parse_wait
from runner.sessions import wire
from runner.settings import load_settings
from runner.surfaces.keeping.keeper import Keeper, told

OLD_S = 60.0
"""Of a socket that nobody listens at."""


def main(channel_fd: int) -> None:
    """Begin the session that is described on that socket, and keep it to its end."""
    starter = socket.socket(fileno=channel_fd)
    try:
        _, document, _ = wire.hear(starter)
        settings = load_settings(document["settings"])
        with Runner(settings=settings) as runner:
            request = _request(document, runner)
            keeper = Keeper(runner, request, document["id"], document["identity"])
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda *_: keeper.end())
            with _listening(settings.home.value, document["id"]) as listener:
                thread = keeper.begin()
                wire.say(starter, "begun", keeper.await_begun())
                starter.close()
                keeper.serve(listener)
            thread.join()
            keeper.finish()
    except RunnerError as error:
        with contextlib.suppress(RunnerError, OSError):
            wire.say(starter, "refused", told(error))
        raise SystemExit(error.exit_code) from error


def _request(document: wire.Document, runner: Runner) -> ExecRequest:
    asked = document["asked"]
    settings = runner.settings
    profile = asked["profile"] or settings.profile.value
    agent, tenant = asked["agent"] or "default", asked["tenant"]
    with runner.refusals_recorded(Principal(os.getuid(), agent, tenant=tenant), profile):
        request = build_request(
            argv=["session"],
            **{
                **asked,
                "profile": profile,
                "session": asked["session"] or document["id"],
                "limits": wire.limits_of(asked["limits"]),
            },
        )
        hold = Hold(
            _bound(document["lifetime"], settings.session_lifetime.value, "lifetime"),
            _bound(document["idle"], settings.session_idle.value, "idle"),
        )
    return replace(request, program=hold)


def _bound(asked: str | float | None, most_s: float, name: str) -> float:
    if asked is None:
        return most_s
    try:
        wanted_s = parse_wait(asked)
    except ValueError as error:
        raise RequestError(f"{name} {asked!r}: {error}") from None
    if not 0 < wanted_s <= most_s:
        raise RequestError(
            f"{name} {asked!r} is not above 0 and at most {most_s:.0f} s, which the setting "
            f"session_{name} allows"
        )
    return wanted_s


@contextlib.contextmanager
def _listening(home: Path, session_id: str) -> Iterator[socket.socket]:
    fd = wire.opened_folder(home)
    _sweep(fd)
    path = f"/proc/self/fd/{fd}/{session_id}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        try:
            before = os.umask(0o177)
            try:
                made.bind(path)
            finally:
                os.umask(before)
            made.listen(16)
            made.setblocking(False)
            yield made
        except OSError as error:
            raise RequestError(f"can't listen for the session: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(session_id, dir_fd=fd)
            os.close(fd)


def _sweep(folder: int) -> None:
    """Remove sockets that nobody listens at: of keepers that were killed.

    Not the newest: one that is bound is listened at a moment later.
    """
    for name in [each.name for each in Path(f"/proc/self/fd/{folder}").iterdir()]:
        with contextlib.suppress(OSError):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISSOCK(found.st_mode) and abs(time.time() - found.st_ctime) > OLD_S:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tried:
                    try:
                        tried.connect(f"/proc/self/fd/{folder}/{name}")
                    except ConnectionRefusedError:
                        os.unlink(name, dir_fd=folder)
