"""The program on a command line, and who asks: what `run`, `check` and `explain` take alike."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from runner.errors import RequestError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.model.request import ExecRequest


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
Folder = Annotated[
    str | None,
    typer.Option("-C", "--directory", metavar="DIR", help="Run as if started in DIR."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """The program as it stands on the command line, who asks for it, and under what."""

    words: tuple[str, ...]
    argv: bool
    """Whether the words stood behind `--`: a program and its arguments, no script."""
    command: str | None
    profile: str | None
    agent: str | None
    parent: str | None
    session: str | None
    tenant: str | None
    label: tuple[str, ...]
    limit: tuple[str, ...]
    env: tuple[str, ...]
    language: str | None
    directory: str | None

    @property
    def stdin(self) -> int | None:
        """The descriptor that the program reads from; None where its own text came from there."""
        return None if self._from_stdin else 0

    def request(self, runner: Runner, *, terminal: bool = False) -> ExecRequest:
        """As a request; RequestError says what is wrong. A script's bytes are read here."""
        from runner.intake import build_request  # noqa: PLC0415
        from runner.model.principal import Principal  # noqa: PLC0415
        from runner.schema.limits import parse_limit_options  # noqa: PLC0415

        who = Principal(uid=os.getuid(), agent=self.agent or "default", tenant=self.tenant)
        with runner.refusals_recorded(who, self.profile):
            return build_request(
                **self._program(),
                cwd=self.directory,
                profile=profile_place(self.profile) or runner.settings.profile.value,
                limits=parse_limit_options(self.limit),
                labels=pairs(self.label, "--label"),
                env=pairs(self.env, "--env"),
                terminal=terminal,
                agent=self.agent,
                parent=self.parent,
                session=self.session,
                tenant=self.tenant,
            )

    @property
    def _from_stdin(self) -> bool:
        return self.command is None and not self.argv and self.words[:1] == ("-",)

    def _program(self) -> dict[str, Any]:
        from runner.intake import SCRIPT_BYTES  # noqa: PLC0415

        if self.command is not None:
            if self.words:
                raise RequestError("give either -c TEXT or a script, not both")
            return {"shell": self.command, "language": self.language}
        if not self.words:
            raise RequestError(
                "nothing to run: name a script, or give -c TEXT, or -- PROGRAM [ARG]..."
            )
        if self.argv:
            return {"argv": self.words}
        first, *args = self.words
        if self._from_stdin:
            content = sys.stdin.buffer.read(SCRIPT_BYTES + 1)
            return {"content": content, "language": self.language, "args": args}
        return {"script": first, "language": self.language, "args": args}


def takes_a_program(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above, as its first argument `asked`; its own follow them."""
    shared, own = _parameters(_asked), _parameters(function)
    del own[next(iter(own))]
    everything = {**shared, **own}

    @functools.wraps(function)
    def command(**options: Any) -> None:
        asked = _asked(**{name: options.pop(name) for name in shared})
        function(asked, **options)

    # What typer looks at.
    command.__signature__ = inspect.Signature([*everything.values()])  # type: ignore[attr-defined]
    command.__annotations__ = {name: each.annotation for name, each in everything.items()}
    return command


def profile_place(name: str | None) -> str | None:
    """A profile's file is looked for from where the command was typed, whatever -C says."""
    if name is not None and ("/" in name or name.endswith((".yaml", ".yml"))):
        return os.fspath(Path(name).absolute())
    return name


def pairs(options: Sequence[str], flag: str) -> dict[str, str]:
    """`NAME=VALUE` options by name; RequestError: one is not of this form, or is given twice."""
    found: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise RequestError(f"{flag} {option!r} is not NAME=VALUE")
        if key in found:
            raise RequestError(f"{flag} {key} is given twice; give it once")
        found[key] = value
    return found


def _asked(  # noqa: PLR0917  (options are keywords to whoever types them)
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
) -> Asked:
    return Asked(
        words=tuple(words or ()),
        argv=bool(ctx.meta.get("runner.argv")),
        command=command,
        profile=profile,
        agent=agent,
        parent=parent,
        session=session,
        tenant=tenant,
        label=tuple(label or ()),
        limit=tuple(limit or ()),
        env=tuple(env or ()),
        language=language,
        directory=directory,
    )


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """As keywords, with annotations that are types and no longer text."""
    signature = inspect.signature(function, eval_str=True)
    return {
        name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
    }
