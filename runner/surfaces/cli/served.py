"""Commands that a server of the same user carries out, where that comes to the same.

It starts a run faster than a new process can: this one then loads nothing that runs anything. The
program gets this process's own standard streams and environment; what a server can't do, and what
it would do by other settings, is done here as ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import (
    BusyError,
    RequestError,
    RunnerError,
    SettingsError,
    StoppingError,
    UnreachableError,
)
from runner.places import (
    ALWAYS,
    AUTO,
    NEVER,
    SERVER,
    SOCKET,
    environment,
    folders_of,
    is_configured,
    read_choice,
    settings_digest,
)

if TYPE_CHECKING:
    import http.client

    from runner.client.channel import Channel
    from runner.model.decision import Decision
    from runner.model.outcome import Outcome
    from runner.surfaces.cli.program import Asked

_NAME_CHARACTERS = 256
_PATH_BYTES = 4096
_OUTPUT = ("stdout", "stdout_encoding", "stderr", "stderr_encoding")
# What the embedded runner would refuse with the same words.
_SAME_REFUSALS = ("bad_request", "bad_profile", "bad_policy", "bad_settings")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server may be, and whether it has to be it."""

    path: str
    choice: str

    @property
    def required(self) -> bool:
        """Whether nothing is done here in its place."""
        return self.choice != AUTO

    @contextlib.contextmanager
    def or_here(self) -> Iterator[None]:
        """Why a server can't be used is an error only where it has to be; `_HereError` else."""
        try:
            yield
        except _HereError as why:
            if self.required:
                raise RequestError(
                    f"--server {self.choice}: a server can't do this: {why}"
                ) from why
            raise
        except UnreachableError as error:
            if error.sent or self.required:
                raise
            raise _HereError(str(error)) from error
        except RunnerError as error:
            # What had begun is never begun here once more.
            if self.required or error.run_id is not None or _is_the_same_here(error):
                raise
            raise _HereError(str(error)) from error


def _is_the_same_here(error: RunnerError) -> bool:
    """Whether this process would be refused as well; not so what is the server's own trouble."""
    if isinstance(error, StoppingError | BusyError):
        return False
    return error.code in _SAME_REFUSALS or error.http_status >= 500


class _HereError(Exception):
    """It is to be done here: why."""


def place(flag: str | None) -> Place | None:
    """The server that may be asked; None: none is. SettingsError: the choice is none.

    The socket of the state folder, unless the setting `server` says otherwise. Where a
    configuration file may say something of either, all settings are read.
    """
    env = environment()
    stated = flag or env.get(SERVER) or None
    home = env.get("RUNNER_HOME") or None
    if (stated is None or home is None) and is_configured(env, (b"server", b"home")):
        from runner.settings import load_settings  # noqa: PLC0415  (imports a lot)

        settings = load_settings({"server": flag})
        stated, home = settings.server.value, str(settings.home.value)
    try:
        choice = read_choice(stated or AUTO)
    except ValueError as error:
        raise SettingsError(f"{'--server' if flag else SERVER}: {error}") from None
    if choice == NEVER:
        return None
    if choice not in (AUTO, ALWAYS):
        return Place(choice.removeprefix("unix:"), choice)
    if home is None:
        state = folders_of(env).state
        if state is None:
            return None
        home = str(state / "runner")
    found = Place(os.path.join(os.path.expanduser(home), SOCKET), choice)  # noqa: PTH111, PTH118
    return found if found.required or os.path.exists(found.path) else None  # noqa: PTH110


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that a server carried out."""

    outcome: Outcome
    document: dict[str, Any]

    def told(self, *, with_output: bool) -> dict[str, Any]:
        """As `outcome_document` has it."""
        left = () if with_output else _OUTPUT
        return {name: value for name, value in self.document.items() if name not in left}


def run(
    flag: str | None, asked: Asked, why_not: str | None, ask_wait: str | None, *, quiet: bool
) -> Ran | None:
    """Have it run by a server; None: it is to be run here.

    `why_not`: why no server can, as far as the options tell; `quiet`: its output is only kept.
    """
    found = place(flag)
    if found is None:
        return None
    try:
        with found.or_here():
            if why_not is not None:
                raise _HereError(why_not)
            body = {**_program(asked), "environment": _own_environment(), "attach": _streams(quiet)}
            if ask_wait is not None:
                body["ask_wait"] = ask_wait
            return _ran(found, {**body, "cancel_on_disconnect": True})
    except _HereError:
        return None


def check(flag: str | None, asked: Asked) -> tuple[Decision, dict[str, Any]] | None:
    """Have it decided by a server; None: it is to be decided here."""
    found = place(flag)
    if found is None:
        return None
    try:
        with found.or_here():
            from runner.client.outcomes import decision_of  # noqa: PLC0415

            headers = _headers()
            answer = _channel(found).call("POST", "/v1/decisions", _program(asked), headers=headers)
            document: Any = answer.document()
            return decision_of(document["decision"]), document["decision"]
    except _HereError:
        return None


def _ran(found: Place, body: dict[str, Any]) -> Ran:
    from runner.client.channel import run_id_of  # noqa: PLC0415
    from runner.client.following import ended_by  # noqa: PLC0415
    from runner.surfaces.cli.terminal import cancelled_by_signals  # noqa: PLC0415

    channel = _channel(found)
    with cancelled_by_signals() as cancel, contextlib.ExitStack() as stack:
        response, goes_on = stack.enter_context(
            channel.events("POST", "/v1/runs", body, _headers())
        )
        run_id = run_id_of(response.headers) if goes_on else None
        if run_id is None:
            raise RunnerError("the server does not say which run it began")

        def end() -> None:
            channel.call("DELETE", f"/v1/runs/{run_id}", again=True)

        stack.enter_context(ended_by(cancel, end))
        try:
            return _followed(response, run_id)
        except RunnerError as error:
            error.run_id = run_id
            raise


def _followed(response: http.client.HTTPResponse, run_id: str) -> Ran:
    from http.client import HTTPException  # noqa: PLC0415  (not for who asks for help)

    from runner.client.events import parsed, read_events  # noqa: PLC0415
    from runner.client.outcomes import check_failed, outcome_of  # noqa: PLC0415
    from runner.client.parsing import decoded  # noqa: PLC0415
    from runner.model.following import WaitsForAnswer  # noqa: PLC0415

    why = "it said nothing more"
    try:
        for event in read_events(response):
            if event[1] == "outcome":
                document: Any = decoded(event[2], "the outcome")
                outcome = outcome_of(document)
                check_failed(outcome)
                return Ran(outcome, document)
            told = parsed(event)
            if isinstance(told, WaitsForAnswer):
                say_asked(told.reason, told.approval_id)
    except (OSError, HTTPException) as error:
        why = str(error)
    failure = UnreachableError(
        f"the server that ran {run_id} is gone: {why}; `runner audit show {run_id}` tells what "
        "became of it once a runner has started again"
    )
    failure.sent = True
    raise failure


def say_asked(reason: str, approval_id: str) -> None:
    """On stderr: what is waited for, and what to type."""
    print(
        f"runner: ask: {reason}; waiting for `runner approvals approve {approval_id}`",
        file=sys.stderr,
        flush=True,
    )


def _channel(found: Place) -> Channel:
    from runner.client.channel import Channel  # noqa: PLC0415
    from runner.client.place import place_of  # noqa: PLC0415

    return Channel(place_of(f"unix:{found.path}", own=True))


def _headers() -> dict[str, str]:
    digest = settings_digest(environment())
    if digest is None:
        raise _HereError("a configuration file can't be read")
    return {"Runner-Settings": digest}


def _program(asked: Asked) -> dict[str, Any]:
    """A `ProgramBody`; `_HereError` where the API's words could not say the very same."""
    folder = os.path.abspath(asked.directory or ".")  # noqa: PTH100  (the server follows links)
    if not os.path.isdir(folder) or len(os.fsencode(folder)) > _PATH_BYTES:  # noqa: PTH112
        raise _HereError("the folder can't be named")
    if asked.profile is not None and (
        "/" in asked.profile or asked.profile.endswith((".yaml", ".yml"))
    ):
        raise _HereError("the profile is a file")
    body: dict[str, Any] = {"cwd": folder}
    if asked.command is not None and not asked.words:
        body["shell"] = asked.command
    elif asked.argv and asked.words:
        body["argv"] = list(asked.words)
    elif asked.words and asked.words[0] != "-" and asked.command is None:
        body["script"], *body["args"] = asked.words
    else:
        raise _HereError("the program comes from stdin, or there is none")
    if not asked.argv and asked.language is not None:
        body["language"] = asked.language
    for name in ("profile", "agent", "parent", "session", "tenant"):
        if (value := getattr(asked, name)) is not None:
            body[name] = value
    body["limits"] = _pairs(asked.limit)
    body["labels"] = _pairs(asked.label)
    body["env"] = _pairs(asked.env, long_values=True)
    names = [body.get(n) for n in ("profile", "agent", "parent", "session", "tenant", "language")]
    if any(name is not None and not 0 < len(name) <= _NAME_CHARACTERS for name in names):
        raise _HereError("a name is too long")
    if len(os.fsencode(body.get("script", ""))) > _PATH_BYTES:
        raise _HereError("the script's path is too long")
    _check_text([folder, body.get("shell", ""), body.get("script", "")])
    _check_text([*body.get("argv", ()), *body.get("args", ()), *(n for n in names if n)])
    return body


def _pairs(options: Sequence[str], *, long_values: bool = False) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        too_long = len(name) > _NAME_CHARACTERS or (
            len(value) > _NAME_CHARACTERS and not long_values
        )
        if not equals or not name or name in found or too_long:
            raise _HereError(f"{option!r} is not taken")
        found[name] = value
    _check_text([*found, *found.values()])
    return found


def _check_text(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _HereError("something is not UTF-8") from None


def _own_environment() -> dict[str, str]:
    own = environment()
    _check_text([*own, *own.values()])
    return own


def _streams(quiet: bool) -> dict[str, Any]:
    """This process's, as an `AttachBody`.

    A terminal to read from stays here: whoever is not of its session is stopped by no job control,
    and would take what is typed for others.
    """
    if os.isatty(0):
        raise _HereError("it reads from a terminal")
    names = ("stdin",) if quiet else ("stdin", "stdout", "stderr")
    found: dict[str, Any] = {}
    for number, name in enumerate(names):
        status = os.fstat(number)
        found[name] = {"descriptor": number, "device": status.st_dev, "inode": status.st_ino}
    return found
