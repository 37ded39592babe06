"""The options that say which events are meant: the same for every command that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

Texts = list[str] | None


def _texts(option: str, metavar: str, help_text: str) -> Any:
    return typer.Option(option, metavar=metavar, help=help_text)


@dataclass(frozen=True, slots=True)
class Filters:
    """What was given, as it was given."""

    texts: dict[int, Sequence[str]] = field(default_factory=dict)
    """By `audit.facets.Field`."""
    run: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def narrow(self) -> bool:
        """Whether an index helps: something but a run is asked for."""
        return self.run is None and bool(self.texts or self.since or self.until)

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return self.narrow or self.run is not None


def filters(  # noqa: PLR0917  (never called by position)
    agent: Annotated[Texts, _texts("--agent", "ID", "Of this agent.")] = None,
    session: Annotated[Texts, _texts("--session", "ID", "Of this session.")] = None,
    profile: Annotated[Texts, _texts("--profile", "NAME", "Decided under this profile.")] = None,
    effect: Annotated[
        Texts, _texts("--effect", "EFFECT", "Decided so: allow, deny, ask, rewrite.")
    ] = None,
    rule: Annotated[Texts, _texts("--rule", "ID", "Decided by this rule, among others.")] = None,
    command: Annotated[
        Texts, _texts("--command", "PROGRAM", "Decisions on a text that names this program.")
    ] = None,
    host: Annotated[
        Texts, _texts("--host", "NAME", "Decisions on a text that names this host.")
    ] = None,
    label: Annotated[Texts, _texts("--label", "K=V", "Decisions on runs with this label.")] = None,
    termination: Annotated[
        Texts, _texts("--termination", "WORD", "Ended so: exited, limit, denied, …")
    ] = None,
    kind: Annotated[Texts, _texts("--kind", "KIND", "Of this kind: run.ended, …")] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only this run's events.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="At this time or later: 2h, 7d, 2026-01-31."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Before this time.")
    ] = None,
) -> Filters:
    """The options and what becomes of them."""
    from runner.audit.facets import Field  # noqa: PLC0415

    given = {
        Field.AGENT: agent, Field.SESSION: session, Field.PROFILE: profile, Field.EFFECT: effect,
        Field.RULE: rule, Field.PROGRAM: command, Field.HOST: host, Field.LABEL: label,
        Field.TERMINATION: termination, Field.KIND: kind,
    }  # fmt: skip
    return Filters({name: texts for name, texts in given.items() if texts}, run, since, until)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a `Filters` the options that make one."""
    own = inspect.signature(command)
    (_, *rest) = own.parameters.values()
    more = inspect.signature(filters).parameters

    @wraps(command)
    def called(**options: Any) -> None:
        chosen = {name: options.pop(name) for name in more}
        command(filters(**chosen), **options)

    hints = get_type_hints(filters, include_extras=True)
    hints |= get_type_hints(command, include_extras=True)
    every = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name])
        for each in (*more.values(), *rest)
    ]
    called.__annotations__ = {each.name: each.annotation for each in every}
    called.__signature__ = own.replace(parameters=every)  # type: ignore[attr-defined]
    return called
