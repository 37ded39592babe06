"""`runner session`: sandboxes whose files and processes live on between commands."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from runner.errors import EXIT_DENIED, RequestError, RunnerError
from runner.surfaces.cli.program import (
    Agent,
    AsJson,
    Command,
    Env,
    Folder,
    Label,
    Language,
    Limit,
    Parent,
    ProfileName,
    ProgramCommand,
    Tenant,
    pairs,
    profile_place,
)
from runner.surfaces.cli.reporting import SayAsked, check_result, report, report_failure, teller

if TYPE_CHECKING:
    from runner.model.session import FileTask, SessionState
    from runner.sessions.client import Session

app = typer.Typer(
    help="Sandboxes whose files and processes live on between commands.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
Where = Annotated[str, typer.Argument(metavar="PATH", show_default=False)]

EXEC_HELP = """Run a command in a session: decided, metered and recorded by itself.

\b
  runner session exec ID fix.py --verbose     a script
  runner session exec ID -c 'make && make test'
  runner session exec ID -- pytest -q         a program and its arguments

It starts in the workspace, with files and processes as the commands before left them. What it
leaves running goes on.
"""


@app.command()
def start(  # noqa: PLR0917  (options are keywords to whoever types them)
    profile: ProfileName = None,
    agent: Agent = None,
    parent: Parent = None,
    session: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What its budgets are counted under. [default: its id]"),
    ] = None,
    tenant: Tenant = None,
    label: Label = None,
    limit: Limit = None,
    env: Env = None,
    directory: Folder = None,
    lifetime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When it ends at the latest.")
    ] = None,
    idle: Annotated[
        str | None, typer.Option(metavar="DURATION", help="It ends after so long with no command.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session, and print its id.

    A process of its own keeps it, until it is stopped, its time is over, a budget is used up, or
    somebody kills it. Its profile, its limits and its workspace hold for every command in it.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        begun = runner.sessions.start(
            profile=profile_place(profile),
            agent=agent,
            parent=parent,
            session=session,
            tenant=tenant,
            cwd=directory,
            env=pairs(env or (), "--env"),
            limits=pairs(limit or (), "--limit"),
            labels=pairs(label or (), "--label"),
            lifetime=lifetime,
            idle=idle,
        )
    print(json.dumps(_document(begun.state()), indent=2) if as_json else begun.id)


class SessionCommand(ProgramCommand):
    """Takes options behind the id too; whatever stands behind the program is the program's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the id behind them."""
        valued = {
            name
            for parameter in self.params
            if not getattr(parameter, "is_flag", False)
            for name in parameter.opts
        }

        def behind_options(at: int) -> int:
            while at < len(args) and args[at].startswith("-") and args[at] not in {"-", "--"}:
                at += 2 if args[at] in valued else 1
            return at

        identity = behind_options(0)
        end = behind_options(identity + 1)
        if identity < end <= len(args) and args[identity] != "--":
            moved = [*args[:identity], *args[identity + 1 : end], *args[identity : identity + 1]]
            args = [*moved, *args[end:]]
        return super().parse_args(ctx, args)


@app.command(
    "exec",
    cls=SessionCommand,
    context_settings={"allow_interspersed_args": False},
    help=EXEC_HELP,
)
def execute(  # noqa: PLR0917
    session: Id,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCRIPT [ARG]... | -- PROGRAM [ARG]...", show_default=False),
    ] = None,
    command: Command = None,
    label: Label = None,
    limit: Limit = None,
    env: Env = None,
    language: Language = None,
    terminal: Annotated[
        bool, typer.Option("-t", "--terminal", help="Give the program a terminal.")
    ] = False,
    result: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the outcome there as JSON.")
    ] = None,
    as_json: AsJson = False,
    ask_wait: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Wait so long for an answer where a rule asks."),
    ] = None,
) -> None:
    """Run a command in a session; see EXEC_HELP."""
    from runner.caller import Caller  # noqa: PLC0415
    from runner.intake import ask_wait_s, build_request  # noqa: PLC0415
    from runner.schema.limits import parse_limit_options  # noqa: PLC0415
    from runner.streams import FdSink, NullSink  # noqa: PLC0415
    from runner.surfaces.cli.terminal import cancelled_by_signals, raw_terminal  # noqa: PLC0415

    check_result(result)
    request = build_request(
        **_program(words or [], command, language),
        env=pairs(env or (), "--env"),
        limits=parse_limit_options(limit or ()),
        labels=pairs(label or (), "--label"),
        terminal=terminal,
    )
    caller = Caller(
        stdin=0,
        stdout=NullSink() if as_json else FdSink(1),
        stderr=NullSink() if as_json else FdSink(2),
        terminal=0 if terminal and os.isatty(0) else None,
        ask_wait_s=-1.0 if ask_wait is None else ask_wait_s(ask_wait),
        observer=SayAsked(),
    )
    try:
        with cancelled_by_signals() as cancel, raw_terminal(caller.terminal):
            outcome = _session(session).execute(request, caller, cancel)
    except RunnerError as error:
        report_failure(error, result, as_json=as_json)
        raise
    report(outcome, result, teller(outcome), as_json=as_json)
    raise typer.Exit(outcome.status)


@app.command("list")
def list_sessions(as_json: AsJson = False) -> None:
    """Sessions that go on, the oldest first."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        found = [each.state() for each in runner.sessions.all()]
    if as_json:
        print(json.dumps([_document(state) for state in found], indent=2))
        return
    if not found:
        print("no session goes on")
        return
    print(f"{'session':24}  {'agent':16} {'profile':10} {'ends in':>8} {'idle':>7} {'procs':>5}")
    now_s = time.time()
    for state in found:
        left_s = max(0.0, state.ends_s - now_s)
        print(
            f"{state.id:24}  {_shown(state.principal.agent):16} {_shown(state.profile):10} "
            f"{left_s:>7.0f}s {state.idle_s:>6.0f}s {state.processes:>5}"
        )


@app.command()
def ps(session: Id, as_json: AsJson = False) -> None:
    """What runs in a session, those included that commands left behind."""
    found = _session(session).processes()
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return
    print(f"{'process':>7} {'cpu':>8} {'MiB':>6}  program")
    for each in found:
        words = _shown(" ".join(each.argv) or each.name)
        print(
            f"{each.number:>7} {each.cpu_s:>7.1f}s {each.memory_bytes / (1 << 20):>6.0f}  {words}"
        )


@app.command()
def kill(
    session: Id,
    process: Annotated[int, typer.Argument(metavar="PROCESS", help="As `ps` numbers it.")],
    signal: Annotated[int, typer.Option(help="Which signal.")] = 15,
) -> None:
    """Send a signal to a process of a session; recorded."""
    if not _session(session).end_process(process, signal):
        raise RequestError(
            f"there is no process {process}; `runner session ps {session}` lists all"
        )


@app.command()
def put(
    session: Id,
    source: Annotated[str, typer.Argument(metavar="FILE|-", show_default=False)],
    path: Where,
) -> None:
    """Write a file of a session: FILE, or what comes from stdin.

    PATH is relative to the workspace; folders on the way are made. Decided by the rules on what may
    be written, and recorded.
    """
    from runner.model.session import FileDeed, FileTask  # noqa: PLC0415

    if source == "-":
        _do(session, FileTask(FileDeed.WRITE, path), source=sys.stdin.buffer)
        return
    try:
        with Path(source).open("rb") as file:
            size, executable = os.fstat(file.fileno()).st_size, os.access(source, os.X_OK)
            task = FileTask(FileDeed.WRITE, path, size_bytes=size, executable=executable)
            _do(session, task, source=file)
    except OSError as error:
        raise RequestError(f"{source!r} can't be read: {error.strerror}") from error


@app.command()
def get(
    session: Id,
    path: Where,
    target: Annotated[str, typer.Argument(metavar="FILE|-", show_default=False)] = "-",
) -> None:
    """Read a file of a session, to FILE or stdout.

    A link leads where it would lead a program in the sandbox, and never out of it.
    """
    from runner.model.session import FileDeed, FileTask  # noqa: PLC0415

    task = FileTask(FileDeed.READ, path)
    if target == "-":
        _do(session, task, target=sys.stdout.buffer)
        return
    fresh = Path(target).with_name(f".{Path(target).name}.{os.getpid()}")
    try:
        with fresh.open("xb") as file:
            _do(session, task, target=file)
        fresh.replace(target)
    except OSError as error:
        raise RequestError(f"{target!r} can't be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


@app.command("ls")
def list_files(session: Id, path: Annotated[str, typer.Argument(metavar="PATH")] = ".") -> None:
    """List a folder of a session, one JSON object a line."""
    from runner.model.session import FileDeed, FileTask  # noqa: PLC0415

    _do(session, FileTask(FileDeed.LIST, path), target=sys.stdout.buffer)


@app.command()
def stop(session: Id, as_json: AsJson = False) -> None:
    """End a session and all that runs in it.

    What it changed in the workspace is kept like a run's: `runner changes ID`.
    """
    outcome = _session(session).stop()
    if as_json:
        print(json.dumps(teller(outcome)(with_output=False), indent=2))
        return
    changed = len(outcome.changes)
    what = f"; it changed {changed} paths: runner changes {outcome.run_id}" if changed else ""
    print(f"{outcome.run_id} has ended{what}")


def _session(session_id: str) -> Session:
    from runner.sessions.client import Session  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415

    return Session(load_settings().home.value, session_id)


def _do(
    session_id: str,
    task: FileTask,
    source: BinaryIO | None = None,
    target: BinaryIO | None = None,
) -> None:
    done = _session(session_id).do(task, source, target)
    if not done.decision.permits:
        told = f"{done.decision.effect.value}: {done.decision.reason}"
        print(f"runner: {told}", file=sys.stderr)
        raise typer.Exit(EXIT_DENIED)
    if done.problem is not None:
        raise RequestError(f"{task.path!r}: {done.problem}")
    if done.told.get("truncated"):
        print(f"runner: only the first {done.told['entries']} are listed", file=sys.stderr)


def _program(words: list[str], command: str | None, language: str | None) -> dict[str, Any]:
    if command is not None:
        if words:
            raise RequestError("give either -c TEXT or a script or program")
        return {"shell": command, "language": language}
    if words and words[0] == "--":
        return {"argv": words[1:]}
    if not words:
        raise RequestError("name what to run: a script, -c TEXT, or -- PROGRAM")
    return {"script": words[0], "args": words[1:], "language": language}


def _document(state: SessionState) -> dict[str, Any]:
    from runner.audit.event import rfc3339  # noqa: PLC0415

    who = state.principal
    return {
        "id": state.id,
        "agent": who.agent,
        "parent": who.parent,
        "session": who.session,
        "tenant": who.tenant,
        "uid": who.uid,
        "profile": state.profile,
        "backend": state.backend,
        "directory": state.directory,
        "began": rfc3339(state.began_s),
        "ends": rfc3339(state.ends_s),
        "idle_limit_s": state.idle_limit_s,
        "idle_s": state.idle_s,
        "runs": list(state.runs),
        "processes": state.processes,
    }


def _shown(text: str) -> str:
    from runner.surfaces.cli.event_lines import shown  # noqa: PLC0415

    return shown(text)
