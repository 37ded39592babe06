"""What rules are asked about: one simple command, or what a text does outside of any."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from enum import StrEnum

from runner.model.action import Exec
from runner.model.intent import Access, Intent, PathUse, SimpleCommand, Word
from runner.policy import touched
from runner.policy.folders import Folders, NamedPath, base_name
from runner.policy.links import NOT_FOLLOWED
from runner.policy.notation import joined

ADVICE = frozenset({"python", "perl", "ruby", "node", "php", "lua", "awk"})
"""Readers in `via` whose findings are advice (`runner.analysis`)."""
SHELL_LANGUAGES = frozenset({"argv", "bash", "sh", "ksh", "zsh"})
"""Languages in which what is dynamic or unreadable counts against the request."""
_SEARCHED = re.compile(r"PATH|LD_\w+|BASH_ENV|ENV|BASH_FUNC_.*|DYLD_\w+|GCONV_PATH|HASHCMDS")
"""Variables by which another program answers to a name."""
_SHOWN_LIMIT = 160


class Kind(StrEnum):
    """What a subject is."""

    COMMAND = "command"
    """A simple command, or redirections without one."""
    FINDING = "finding"
    """A path or a host that a text names outside of commands."""
    CONSTRUCT = "construct"
    NETWORK = "network"
    """A connection, a request or a tool."""


class Subject:
    """One thing that rules may match. What its words name is worked out when a rule asks."""

    __slots__ = (
        "_folders",
        "_hosts",
        "_joined",
        "_paths",
        "_reads",
        "_shown",
        "_source",
        "_split",
        "_writes",
        "advice",
        "arguments",
        "construct",
        "defaulted",
        "doubtful",
        "environment",
        "kind",
        "line",
        "name",
        "trusted_name",
        "via",
        "workspace",
    )

    def __init__(
        self,
        kind: Kind,
        name: Word | None = None,
        *,
        arguments: tuple[Word, ...] = (),
        paths: tuple[NamedPath, ...] | None = (),
        writes: tuple[NamedPath, ...] = (),
        hosts: tuple[Word, ...] | None = (),
        environment: frozenset[str] = frozenset(),
        via: tuple[str, ...] = (),
        construct: str | None = None,
        shown: str | None = None,
        line: int = 1,
        advice: bool = False,
        defaulted: bool = True,
        trusted_name: bool = True,
        doubtful: bool = False,
        source: tuple[SimpleCommand, Folders] | None = None,
        workspace: str | None = None,
    ) -> None:
        """`paths`, `hosts` and `shown` None: worked out from `source`.

        `workspace`: what patterns on paths that begin with `./` start from; None: nothing does.
        """
        self.workspace = workspace
        self.kind = kind
        self.name = name
        """None: it is no command of a name."""
        self.arguments = arguments
        self.environment = environment
        self.via = via
        self.construct = construct
        self.line = line
        self.advice = advice
        """Found by a reader whose findings are advice: only what is sure counts."""
        self.defaulted = defaulted
        """Whether a layer's default speaks about it when no rule does."""
        self.trusted_name = trusted_name
        """Whether a bare name is surely the system's program of that name."""
        self.doubtful = doubtful
        """Whether it runs like this, or at all, only running would tell."""
        self._source = source
        self._paths = paths
        self._writes = writes
        self._reads = () if paths == writes else paths
        self._hosts = hosts
        self._shown = shown
        self._split: tuple[tuple[str, ...], tuple[Word, ...]] | None = None
        self._joined: tuple[Word | None, ...] | None = None

    @property
    def source(self) -> SimpleCommand | None:
        """The command as it was read."""
        return self._source[0] if self._source is not None else None

    @property
    def name_unknown(self) -> bool:
        """Whether only running would tell what it runs."""
        return self.name is not None and self.name.dynamic

    @property
    def literals(self) -> tuple[str, ...]:
        """The arguments whose value is known."""
        return (self._split or self._split_arguments())[0]

    @property
    def unsure(self) -> tuple[Word, ...]:
        """The arguments that only running would tell."""
        return (self._split or self._split_arguments())[1]

    def _split_arguments(self) -> tuple[tuple[str, ...], tuple[Word, ...]]:
        words = self.arguments
        known = tuple([word.text for word in words if not word.dynamic])
        unsure = tuple([w for w in words if w.dynamic]) if len(known) < len(words) else ()
        self._split = known, unsure
        return self._split

    @property
    def joined(self) -> tuple[Word | None, ...]:
        """Of each argument what it is with the next one as its value, if it can be an option."""
        if self._joined is None:
            words = self.arguments
            pairs = [joined(one, other) for one, other in itertools.pairwise(words)]
            self._joined = (*pairs, None) if words else ()
        return self._joined

    @property
    def paths(self) -> tuple[NamedPath, ...]:
        """Every path that it names."""
        if self._paths is None:
            self._find_paths()
        return self._paths or ()

    @property
    def reads(self) -> tuple[NamedPath, ...]:
        """Those that it is not known only to write."""
        if self._paths is None:
            self._find_paths()
        return self._reads or ()

    @property
    def writes(self) -> tuple[NamedPath, ...]:
        """Those that it is known to write."""
        if self._paths is None:
            self._find_paths()
        return self._writes

    @property
    def hosts(self) -> tuple[Word, ...]:
        """Every host that it names."""
        if self._hosts is None:
            command = self.source
            self._hosts = tuple(touched.hosts(command)) if command is not None else ()
        return self._hosts

    @property
    def shown(self) -> str:
        """It, for a person."""
        if self._shown is None:
            command = self.source
            self._shown = _shown(command) if command is not None else ""
        return self._shown

    def _find_paths(self) -> None:
        if self._source is None:
            self._paths = self._reads = ()
            return
        command, folders = self._source
        written = touched.written(command)
        follow = not folders.links or base_name(command) not in NOT_FOLLOWED
        if not written.words and not command.redirects:
            self._paths = self._reads = tuple(folders.operands(self.arguments, follow=follow))
            self._writes = ()
            return
        by_word: dict[int, list[NamedPath]] = {}
        for index, word in written.words:
            by_word.setdefault(index, []).extend(folders.operand(word, sure=True, follow=follow))
        writes = [path for paths in by_word.values() for path in paths]
        paths: list[NamedPath] = []
        reads: list[NamedPath] = []
        for index, word in enumerate(self.arguments):
            operands = folders.operand(word, follow=follow)
            paths += operands
            only_written = by_word.get(index, ()) if written.only else ()
            reads += [path for path in operands if path not in only_written]
        for use in command.redirects:
            named = folders.every(use.path, redirect=True)
            paths += named
            (writes if use.access is Access.WRITE else reads).extend(named)
        self._paths, self._reads, self._writes = tuple(paths), tuple(reads), tuple(writes)


def subjects(action: Exec) -> list[Subject]:
    """Everything in the action's intent that rules are asked about; at least one."""
    intent = action.intent
    folders = Folders.of(action)
    requested = frozenset(action.environment)
    shell = intent.language in SHELL_LANGUAGES
    trusted = not (requested and _any_searched(requested))
    for command in intent.commands:
        if command.assignments and _any_searched([each.name for each in command.assignments]):
            trusted = False
    found: list[Subject] = []
    defaulted = False
    for command in intent.commands:
        subject = _of_command(command, folders, requested, trusted=trusted, shell=shell)
        defaulted = defaulted or subject.defaulted
        found.append(subject)
    if intent.paths or intent.hosts or intent.constructs:
        found += _outside(intent, folders, requested, shell=shell)
    if not defaulted:
        shown = "a text without commands"
        found.append(Subject(Kind.COMMAND, shown=shown, environment=requested))
    return found


def _any_searched(names: Iterable[str]) -> bool:
    return any(_SEARCHED.fullmatch(name) for name in names)


def _of_command(
    command: SimpleCommand,
    folders: Folders,
    requested: frozenset[str],
    *,
    trusted: bool,
    shell: bool,
) -> Subject:
    via = command.via
    advice = not shell or (bool(via) and not ADVICE.isdisjoint(via))
    return Subject(
        Kind.COMMAND,
        command.words[0] if command.words else None,
        arguments=command.words[1:],
        paths=None,
        hosts=None,
        environment=(
            requested | {a.name for a in command.assignments} if command.assignments else requested
        ),
        via=via,
        line=command.line,
        # The command that stands for a script in another language is no finding in it.
        advice=advice and (shell or bool(via)),
        defaulted=bool(command.words)
        or any(use.access is Access.WRITE for use in command.redirects),
        trusted_name=trusted,
        doubtful=command.doubtful,
        source=(command, folders),
        workspace=folders.workspace,
    )


def _outside(
    intent: Intent, folders: Folders, requested: frozenset[str], *, shell: bool
) -> list[Subject]:
    """What a text does outside of commands; only rules that speak of such things match it."""
    found = [_path_finding(use, folders, requested) for use in intent.paths]
    found += [
        Subject(
            Kind.FINDING,
            hosts=(host,),
            environment=requested,
            shown=f"host {host.text}"[:_SHOWN_LIMIT],
            advice=not shell,
            defaulted=False,
        )
        for host in intent.hosts
    ]
    found += [
        Subject(
            Kind.CONSTRUCT,
            construct=construct.name,
            environment=requested,
            shown=construct.name[:_SHOWN_LIMIT],
            line=construct.line,
            advice=construct.advice,
            defaulted=False,
        )
        for construct in intent.constructs
    ]
    return found


def _path_finding(use: PathUse, folders: Folders, requested: frozenset[str]) -> Subject:
    path = tuple(folders.every(use.path))
    return Subject(
        Kind.FINDING,
        paths=path,
        writes=path if use.access is Access.WRITE else (),
        environment=requested,
        shown=f"{use.access.value} {use.path.text}"[:_SHOWN_LIMIT],
        advice=True,
        defaulted=False,
        workspace=folders.workspace,
    )


def _shown(command: SimpleCommand) -> str:
    words = [word.text for word in command.words] or [a.name + "=…" for a in command.assignments]
    words = words or [f"{use.access.value} {use.path.text}" for use in command.redirects]
    text = " ".join(words)
    return text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…"
