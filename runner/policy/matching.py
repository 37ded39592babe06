"""Does a rule match a subject: surely, possibly, or not (`runner.model.rule.Match` says when)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from runner.analysis.context import is_glob
from runner.errors import PolicyError
from runner.model.decision import Effect
from runner.model.intent import Word
from runner.model.rule import Rule
from runner.policy.globs import Glob, globs, is_literal
from runner.policy.subject import NamedPath, Subject

_SYSTEM_FOLDERS = frozenset(
    {"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}
)
"""Where a name given as a path is the program that an `allow` rule means by the bare name."""
_FLAG_PIECE = re.compile(r"[A-Za-z0-9-]*")
_FLAG = re.compile(r"-[A-Za-z0-9]")


_NOT_YET = ("ordered_args", "reads", "constructs", "agents", "sessions", "tenants", "uids",
            "labels", "hours", "any_of", "all_of", "none_of")  # fmt: skip


class Hold(IntEnum):
    """How far a rule matches."""

    NO = 0
    POSSIBLY = 1
    SURELY = 2


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with its patterns compiled once."""

    rule: Rule
    names: tuple[Glob, ...]
    path_names: tuple[Glob, ...]
    """The patterns of `commands` that hold a `/`."""
    args: tuple[Glob, ...]
    any_args: tuple[Glob, ...]
    paths: tuple[Glob, ...]
    writes: tuple[Glob, ...]
    hosts: tuple[Glob, ...]
    environment: tuple[Glob, ...]
    via: tuple[Glob, ...]

    @classmethod
    def of(cls, rule: Rule) -> CompiledRule:
        """Compile one."""
        match = rule.match
        if match != replace(match, **dict.fromkeys(_NOT_YET, ()), frequency=None, when=None):
            raise PolicyError(f"rule '{rule.id}' states what can't be evaluated yet")
        return cls(
            rule=rule,
            names=globs(name for name in match.commands if "/" not in name),
            path_names=globs((name for name in match.commands if "/" in name), path=True),
            args=globs(match.args),
            any_args=globs(match.any_args),
            paths=globs(map(_home, match.paths), path=True),
            writes=globs(map(_home, match.writes), path=True),
            hosts=globs(host.lower().rstrip(".") for host in match.hosts),
            environment=globs(match.environment),
            via=globs(match.via),
        )

    def holds(self, subject: Subject) -> Hold:
        """How far this rule matches the subject."""
        if not self._plainly(subject):
            return Hold.NO
        if self.rule.effect is Effect.ALLOW:
            return self._all_allowed(subject)
        hold = self._some_match(subject)
        return min(hold, Hold.POSSIBLY) if subject.doubtful else hold

    def _plainly(self, subject: Subject) -> bool:
        """The conditions that nothing dynamic touches: name, environment, via."""
        match = self.rule.match
        if match.commands and not self._named(subject):
            return False
        if self.via and not any(glob.matches(name) for glob in self.via for name in subject.via):
            return False
        return not self.environment or any(
            glob.matches(name) for glob in self.environment for name in subject.environment
        )

    def _named(self, subject: Subject) -> bool:
        name = subject.name
        if name is None or (name.dynamic and self.rule.effect is Effect.ALLOW):
            return False
        if name.dynamic:
            # What a dynamic name gets is `on_dynamic`; only a rule for all commands speaks here.
            return any(glob.pattern == "*" for glob in self.names)
        folder, base = posixpath.split(name.text)
        if folder:
            full = posixpath.normpath(name.text)
            if any(glob.matches(full) for glob in self.path_names):
                return True
        if self.rule.effect is Effect.ALLOW:
            if folder and posixpath.normpath(folder) not in _SYSTEM_FOLDERS:
                return False
            if not folder and not subject.trusted_name:
                return False
        return any(glob.matches(base) for glob in self.names)

    def _all_allowed(self, subject: Subject) -> Hold:
        """An `allow`: on literal words only, and for every path and host there is."""
        literal = [word.text for word in subject.arguments if not word.dynamic]
        holds = (
            all(any(_argument(glob, text) for text in literal) for glob in self.args)
            and (not self.any_args or any(_argument(g, t) for g in self.any_args for t in literal))
            and (not self.paths or _every_path(self.paths, subject.paths))
            and (not self.writes or _every_path(self.writes, subject.writes))
            and (not self.hosts or _every_host(self.hosts, subject.hosts))
        )
        return Hold.SURELY if holds else Hold.NO

    def _some_match(self, subject: Subject) -> Hold:
        """Any other effect: what is dynamic counts for what it could be."""
        witnesses = [_on_arguments((glob,), subject) for glob in self.args]
        if self.any_args:
            witnesses.append(_on_arguments(self.any_args, subject))
        if self.paths:
            witnesses.append(_on_paths(self.paths, subject.paths))
        if self.writes:
            witnesses.append(_on_paths(self.writes, subject.writes))
        if self.hosts:
            witnesses.append(_on_hosts(self.hosts, subject.hosts))
        pending = [witness for witness in witnesses if not witness.sure]
        if not pending:
            return Hold.SURELY
        if subject.advice or any(not witness.possible for witness in pending):
            return Hold.NO
        return Hold.POSSIBLY if _together(pending, subject) else Hold.NO


@dataclass(frozen=True, slots=True)
class _Witness:
    """What satisfies one condition."""

    sure: bool
    singles: bool = False
    """Some dynamic word that stays one word could."""
    many: bool = False
    """Some dynamic word that can become several could."""
    flag: bool = False
    """It asks for a flag, which a path or an operand is not."""

    @property
    def possible(self) -> bool:
        return self.singles or self.many


def _together(pending: Sequence[_Witness], subject: Subject) -> bool:
    """Whether the dynamic words suffice for all conditions at once.

    One word that stays one word can be a flag or an operand, not both.
    """
    by_single = [witness for witness in pending if not witness.many]
    flags = any(witness.flag for witness in by_single)
    operands = any(not witness.flag for witness in by_single)
    if not (flags and operands):
        return True
    singles = sum(word.dynamic and not word.many for word in subject.arguments)
    redirected = any(path.redirect and path.dynamic for path in subject.paths)
    return singles > 1 or redirected


def _argument(glob: Glob, text: str) -> bool:
    if glob.matches(text):
        return True
    flag = _FLAG.fullmatch(glob.pattern)
    return (
        flag is not None
        and len(text) > 2
        and text[0] == "-"
        and text[1] != "-"
        and glob.pattern[1] in text.partition("=")[0]
    )


def _on_arguments(patterns: Sequence[Glob], subject: Subject) -> _Witness:
    if any(
        _argument(glob, word.text)
        for glob in patterns
        for word in subject.arguments
        if not word.dynamic
    ):
        return _Witness(sure=True)
    singles = many = False
    for word in subject.arguments:
        if word.dynamic and any(_argument_could(glob, word) for glob in patterns):
            singles, many = singles or not word.many, many or word.many
    flag = all(glob.pattern.startswith("-") and glob.pattern[1:2] != "-" for glob in patterns)
    return _Witness(False, singles, many, flag)


def _argument_could(glob: Glob, word: Word) -> bool:
    short_flag = glob.pattern.startswith("-") and not glob.pattern.startswith("--")
    # A file could be named like a flag, but not like one and end in `.txt`.
    if short_flag and is_glob(word) and not _FLAG_PIECE.fullmatch(word.prefix + word.suffix):
        return False
    if glob.could_match(word.prefix, word.suffix):
        return True
    bundle = _FLAG.fullmatch(glob.pattern) is not None
    return bundle and re.fullmatch(r"(?:-[A-Za-z0-9]*)?", word.prefix) is not None


def _on_paths(patterns: Sequence[Glob], paths: Iterable[NamedPath]) -> _Witness:
    singles = many = False
    for path in paths:
        if not path.dynamic:
            if any(glob.matches(place) for glob in patterns for place in path.places):
                return _Witness(sure=True)
        elif path.inside is not None and any(_stands_in(path.inside, glob) for glob in patterns):
            return _Witness(sure=True)
        elif any(_path_could(glob, path) for glob in patterns):
            singles, many = singles or not path.many, many or path.many
    return _Witness(False, singles, many)


def _stands_in(folder: str, glob: Glob) -> bool:
    """Whether a pattern is the literal path of something in a folder."""
    head, base = posixpath.split(glob.pattern)
    return head == folder and bool(base) and base[0] != "." and is_literal(glob.pattern)


def _path_could(glob: Glob, path: NamedPath) -> bool:
    return glob.could_match(path.prefix, path.suffix)


def _on_hosts(patterns: Sequence[Glob], hosts: Iterable[Word]) -> _Witness:
    dynamic = False
    for host in hosts:
        if host.dynamic:
            dynamic = True
        elif any(glob.matches(host.text) for glob in patterns):
            return _Witness(sure=True)
    return _Witness(False, dynamic, dynamic)


def _every_path(patterns: Sequence[Glob], paths: Sequence[NamedPath]) -> bool:
    return bool(paths) and all(
        not path.dynamic
        and all(any(glob.matches(place) for glob in patterns) for place in path.places)
        for path in paths
    )


def _every_host(patterns: Sequence[Glob], hosts: Sequence[Word]) -> bool:
    return bool(hosts) and all(
        not host.dynamic and any(glob.matches(host.text) for glob in patterns) for host in hosts
    )


def _home(pattern: str) -> str:
    from_home = pattern == "~" or pattern.startswith("~/")
    return "/home/agent" + pattern[1:] if from_home else pattern
