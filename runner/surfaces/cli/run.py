"""`runner run` and `runner check`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from runner.errors import EXIT_DENIED, RequestError, RunnerError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.model.outcome import Outcome
    from runner.model.request import ExecRequest

RUN_HELP = """Run what an agent wrote: decided, contained, metered and recorded.

\b
  runner run fix.py --verbose          a script; its interpreter from its name or `#!`
  runner run - < script.sh             a script from stdin
  runner run -c 'make && make test'    a command line for a shell
  runner run -- pytest -q              a program and its arguments
"""


class ProgramCommand(TyperCommand):
    """Keeps what click drops: whether the words stand behind `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note it and go on as usual."""
        ctx.meta["runner.argv"] = self._ends_with_dashes(list(args))
        return super().parse_args(ctx, args)

    def _ends_with_dashes(self, args: Sequence[str]) -> bool:
        flags = {
            name
            for parameter in self.params
            if getattr(parameter, "is_flag", False)
            for name in parameter.opts
        }
        words = iter(args)
        for word in words:
            if word == "--":
                return True
            if not word.startswith("-") or word == "-":
                return False
            takes_next = (
                "=" not in word if word.startswith("--") else len(word) == 2  # -C DIR, not -CDIR
            )
            if takes_next and word not in flags:
                next(words, None)
        return False


Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="SCRIPT [ARG]... | -- PROGRAM [ARG]...", show_default=False),
]
Command = Annotated[
    str | None, typer.Option("-c", "--command", metavar="TEXT", help="A command line for a shell.")
]
ProfileName = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME|FILE", help="What the run may do. [default: agent]"),
]
Agent = Annotated[str | None, typer.Option(metavar="ID", help="The agent that asks.")]
Parent = Annotated[
    str | None, typer.Option(metavar="ID", help="The agent that started it; it is charged too.")
]
Session = Annotated[str | None, typer.Option(metavar="ID", help="The session it belongs to.")]
Tenant = Annotated[str | None, typer.Option(metavar="ID", help="On whose account.")]
Label = Annotated[
    list[str] | None, typer.Option("--label", metavar="K=V", help="Recorded with the run.")
]
Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="K=V", help="Tighten a limit: wall=5s, memory=256MiB, ..."),
]
Env = Annotated[
    list[str] | None, typer.Option("--env", metavar="K=V", help="Set a variable for the program.")
]
Language = Annotated[
    str | None, typer.Option(metavar="NAME", help="What a script without `#!` is written in.")
]
BackendName = Annotated[
    str | None, typer.Option("--backend", metavar="native|docker", help="Where it runs.")
]
Folder = Annotated[
    str | None,
    typer.Option("-C", "--directory", metavar="DIR", help="Run as if started in DIR."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    settings = {"allow_interspersed_args": False}
    app.command("run", cls=ProgramCommand, context_settings=settings, help=RUN_HELP)(run)
    app.command("check", cls=ProgramCommand, context_settings=settings)(check)


def run(  # noqa: PLR0917  (options are keywords to whoever types them)
    ctx: typer.Context,
    words: Words = None,
    command: Command = None,
    profile: ProfileName = None,
    agent: Agent = None,
    parent: Parent = None,
    session: Session = None,
    tenant: Tenant = None,
    label: Label = None,
    limit: Limit = None,
    env: Env = None,
    language: Language = None,
    backend: BackendName = None,
    directory: Folder = None,
    terminal: Annotated[
        bool, typer.Option("-t", "--terminal", help="Give the program a terminal.")
    ] = False,
    result: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the outcome there as JSON.")
    ] = None,
    as_json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show decision and compiled sandbox; run nothing.")
    ] = False,
) -> None:
    """Run what an agent wrote; see RUN_HELP."""
    from runner.app import Runner  # noqa: PLC0415

    _check_result(result)
    try:
        with Runner() as runner:
            asked = _Asked(ctx, words, command, language, directory)
            request = asked.request(
                runner, profile=profile, agent=agent, parent=parent, session=session,
                tenant=tenant, label=label, limit=limit, env=env, terminal=terminal,
            )  # fmt: skip
            if dry_run:
                _show_plan(runner, request, backend)
            outcome = _execute(runner, request, backend, asked.stdin, quiet=as_json)
    except RunnerError as error:
        _report_failure(error, result, as_json=as_json)
        raise
    _report(outcome, result, as_json=as_json)
    raise typer.Exit(outcome.status)


def check(  # noqa: PLR0917
    ctx: typer.Context,
    words: Words = None,
    command: Command = None,
    profile: ProfileName = None,
    agent: Agent = None,
    parent: Parent = None,
    session: Session = None,
    tenant: Tenant = None,
    label: Label = None,
    limit: Limit = None,
    env: Env = None,
    language: Language = None,
    directory: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Say what the policy decides, without running. Exit code 0: allowed; 126: not."""
    from runner.app import Runner  # noqa: PLC0415
    from runner.schema.outcome import decision_document  # noqa: PLC0415

    with Runner() as runner:
        asked = _Asked(ctx, words, command, language, directory)
        request = asked.request(
            runner, profile=profile, agent=agent, parent=parent, session=session, tenant=tenant,
            label=label, limit=limit, env=env, terminal=False,
        )  # fmt: skip
        decision = runner.check(request)
    document = decision_document(decision)
    if as_json:
        print(json.dumps({"decision": document}, indent=2))
    else:
        print(f"{document['effect']}: {document['reason']}")
        for rule in decision.rules:
            print(f"  {rule.effect.value:7} {rule.layer} / {rule.id}: {rule.matched}")
    raise typer.Exit(0 if decision.permits else EXIT_DENIED)


class _Asked:
    """The program as it stands on the command line."""

    def __init__(
        self,
        ctx: typer.Context,
        words: list[str] | None,
        command: str | None,
        language: str | None,
        directory: str | None,
    ) -> None:
        self._words = words or []
        self._command = command
        self._argv = bool(ctx.meta.get("runner.argv"))
        self._language = language
        self._directory = directory
        self.stdin: int | None = 0

    def request(
        self,
        runner: Runner,
        *,
        profile: str | None,
        label: list[str] | None,
        limit: list[str] | None,
        env: list[str] | None,
        terminal: bool,
        agent: str | None,
        parent: str | None,
        session: str | None,
        tenant: str | None,
    ) -> ExecRequest:
        """As a request; RequestError says what is wrong."""
        from runner.intake import build_request  # noqa: PLC0415
        from runner.schema.limits import parse_limit_options  # noqa: PLC0415

        with runner.refusals_recorded(agent, profile):
            return build_request(
                **self._program(),
                cwd=self._directory,
                profile=_profile(profile) or runner.settings.profile.value,
                limits=parse_limit_options(limit or ()),
                labels=_pairs(label, "--label"),
                env=_pairs(env, "--env"),
                terminal=terminal,
                agent=agent,
                parent=parent,
                session=session,
                tenant=tenant,
            )

    def _program(self) -> dict[str, Any]:
        from runner.intake import SCRIPT_BYTES  # noqa: PLC0415

        if self._command is not None:
            if self._words:
                raise RequestError("give either -c TEXT or a script, not both")
            return {"shell": self._command, "language": self._language}
        if not self._words:
            raise RequestError(
                "nothing to run: name a script, or give -c TEXT, or -- PROGRAM [ARG]..."
            )
        if self._argv:
            return {"argv": self._words}
        first, *args = self._words
        if first == "-":
            content = sys.stdin.buffer.read(SCRIPT_BYTES + 1)
            self.stdin = None
            return {"content": content, "language": self._language, "args": args}
        return {"script": first, "language": self._language, "args": args}


def _profile(name: str | None) -> str | None:
    """A profile's file is looked for from where the command was typed, whatever -C says."""
    if name is not None and ("/" in name or name.endswith((".yaml", ".yml"))):
        return os.fspath(Path(name).absolute())
    return name


def _pairs(options: list[str] | None, flag: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for option in options or ():
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise RequestError(f"{flag} {option!r} is not NAME=VALUE")
        if key in pairs:
            raise RequestError(f"{flag} {key} is given twice; give it once")
        pairs[key] = value
    return pairs


def _execute(
    runner: Runner, request: ExecRequest, backend: str | None, stdin: int | None, *, quiet: bool
) -> Outcome:
    from runner.streams import FdSink, NullSink  # noqa: PLC0415
    from runner.supervisor import Caller  # noqa: PLC0415
    from runner.surfaces.cli.terminal import cancelled_by_signals, raw_terminal  # noqa: PLC0415

    caller = Caller(
        stdin=stdin,
        stdout=NullSink() if quiet else FdSink(1),
        stderr=NullSink() if quiet else FdSink(2),
        terminal=0 if request.terminal and os.isatty(0) else None,
    )
    with cancelled_by_signals() as cancel, raw_terminal(caller.terminal):
        return runner.execute(request, caller, cancel, backend=backend)


def _show_plan(runner: Runner, request: ExecRequest, backend: str | None) -> None:
    from runner.compile import spec_document  # noqa: PLC0415
    from runner.schema.outcome import decision_document  # noqa: PLC0415

    plan = runner.plan(request, backend=backend)
    shown = {
        "decision": decision_document(plan.decision),
        "spec": spec_document(plan.spec) if plan.spec is not None else None,
    }
    print(json.dumps(shown, indent=2))
    raise typer.Exit(0 if plan.spec is not None else EXIT_DENIED)


def _check_result(result: str | None) -> None:
    """Found out before the run: afterwards it would be too late to choose another place."""
    if result is None:
        return
    folder = Path(result).absolute().parent
    writable = os.access(folder, os.W_OK | os.X_OK) or _is_device(Path(result))
    if not result or Path(result).is_dir() or not writable:
        raise RequestError(
            f"--result {result!r} can't be written: choose a file in a folder of yours"
        )


def _report(outcome: Outcome, result: str | None, *, as_json: bool) -> None:
    from runner.schema.outcome import outcome_document  # noqa: PLC0415

    if result is not None:
        _write_result(result, outcome_document(outcome, with_output=False))
    if as_json:
        print(json.dumps(outcome_document(outcome, with_output=True), indent=2))
        return
    if outcome.decision.rewrite is not None:
        print(f"runner: rewrite: {outcome.decision.reason}", file=sys.stderr)
    if line := _closing_line(outcome):
        print(f"runner: {line}", file=sys.stderr)


def _closing_line(outcome: Outcome) -> str | None:
    """What the program could not say by itself; nothing for a run that ended by itself."""
    match outcome.termination.value:
        case "denied":
            return f"{outcome.decision.effect.value}: {outcome.decision.reason}"
        case "limit":
            return f"limit: {outcome.limit} ended the run {outcome.run_id}"
        case "cancelled":
            return f"cancelled: the run {outcome.run_id} was ended"
        case _:
            return outcome.failure.message if outcome.failure is not None else None


def _report_failure(error: RunnerError, result: str | None, *, as_json: bool) -> None:
    from runner.model.outcome import Outcome  # noqa: PLC0415
    from runner.schema.outcome import outcome_document  # noqa: PLC0415

    document: dict[str, Any]
    if isinstance(error.outcome, Outcome):
        document = outcome_document(error.outcome, with_output=as_json)
    else:
        document = {"run_id": None, "error": {"code": error.code, "message": str(error)}}
    if result is not None:
        _write_result(result, document)
    if as_json:
        print(json.dumps(document, indent=2))


def _write_result(result: str, document: dict[str, Any]) -> None:
    """Whole or not at all, for somebody may be waiting for the file; a device is never replaced."""
    text = json.dumps(document, indent=2) + "\n"
    target = Path(os.path.realpath(result))
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if _is_device(Path(result)):
            Path(result).write_text(text)
            return
        fresh.write_text(text)
        fresh.replace(target)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise RunnerError(f"the result can't be written to {result!r}: {error.strerror}") from error


def _is_device(path: Path) -> bool:
    """Whether something other than a file or folder is there: /dev/stdout, /dev/null, a FIFO."""
    return path.exists() and not path.is_file() and not path.is_dir()
