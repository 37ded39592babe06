"""What rules state of a command: its name, its arguments, what it names and stands behind."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from runner.analysis.context import is_glob
from runner.model.intent import Word
from runner.policy.circumstances import Circumstances
from runner.policy.folders import NamedPath
from runner.policy.globs import Glob, globs, is_literal
from runner.policy.hold import Hold, Reading
from runner.policy.notation import from_home, in_workspace, is_local, option_name
from runner.policy.subject import Subject

_SYSTEM_FOLDERS = frozenset(
    {"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}
)
"""Where a name given as a path is the program that a narrow reading means by the bare name."""
_FLAG_PIECE = re.compile(r"[A-Za-z0-9-]*")
_FLAG = re.compile(r"-[A-Za-z0-9]")
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Witness:
    """What satisfies one condition on words, read widely."""

    sure: bool
    singles: bool = False
    """Some dynamic word that stays one word could."""
    many: bool = False
    """Some dynamic word that can become several could."""
    flag: bool = False
    """It asks for a flag, which a path or an operand is not."""

    @property
    def possible(self) -> bool:
        """Whether dynamic words could."""
        return self.singles or self.many


SURE = Witness(sure=True)
NEVER = Witness(sure=False)


def together(pending: Sequence[Witness], subject: Subject) -> bool:
    """Whether the dynamic words suffice for all conditions at once.

    One word that stays one word can be a flag or an operand, not both.
    """
    by_single = [witness for witness in pending if not witness.many]
    flags = any(witness.flag for witness in by_single)
    operands = any(not witness.flag for witness in by_single)
    if not (flags and operands):
        return True
    singles = sum(not word.many for word in subject.unsure)
    return singles > 1 or any(path.redirect and path.dynamic for path in subject.paths)


class Names:
    """`command`: the command's name is one of these."""

    __slots__ = ("_all", "_bases", "_full", "_in_doubt", "key", "stated")

    def __init__(self, patterns: tuple[str, ...], *, in_doubt: Hold) -> None:
        """`in_doubt`: what a wide reading makes of a name that only running would tell.

        NO where `on_dynamic` speaks about it: there only a rule for all commands speaks too.
        """
        self.key, self.stated = "command", ", ".join(patterns)
        self._bases = globs(name for name in patterns if "/" not in name)
        self._full = globs((name for name in patterns if "/" in name), path=True)
        self._all = any(each.pattern == _ANY for each in self._bases)
        self._in_doubt = in_doubt

    def hold(self, subject: Subject, _circumstances: Circumstances, reading: Reading) -> Hold:
        """Surely or not; a dynamic name possibly, where doubt counts."""
        name = subject.name
        if name is None:
            return Hold.NO
        narrow = reading is Reading.NARROW
        if name.dynamic:
            wide = Hold.SURELY if self._all else self._in_doubt
            return Hold.POSSIBLY if narrow else wide
        if "/" in name.text:
            return self._of_path(name.text, narrow=narrow)
        return Hold.NO if narrow and not subject.trusted_name else _some(self._bases, name.text)

    def _of_path(self, name: str, *, narrow: bool) -> Hold:
        full = posixpath.normpath(name)
        if _some(self._full, full):
            return Hold.SURELY
        folder, base = posixpath.split(name)
        if narrow and posixpath.normpath(folder) not in _SYSTEM_FOLDERS:
            return Hold.NO
        return max(_some(self._bases, base), _some(self._bases, posixpath.basename(full)))


class OfAny:
    """`environment`, `via`, `constructs`: one of the subject's own texts, never in doubt."""

    __slots__ = ("_patterns", "_texts", "key", "stated")

    def __init__(
        self, key: str, patterns: tuple[str, ...], texts: Callable[[Subject], Iterable[str]]
    ) -> None:
        self.key, self.stated = key, ", ".join(patterns)
        self._patterns = globs(patterns)
        self._texts = texts

    def hold(self, subject: Subject, _circumstances: Circumstances, _reading: Reading) -> Hold:
        """Surely or not."""
        texts = self._texts(subject)
        holds = any(each.matches(text) for each in self._patterns for text in texts)
        return Hold.SURELY if holds else Hold.NO


class AnyArgument:
    """One of `args`, or `any_args`: some argument matches one of the patterns."""

    __slots__ = ("_flag", "_options", "_patterns", "_texts", "key", "stated")

    def __init__(self, key: str, patterns: tuple[str, ...]) -> None:
        self.key, self.stated = key, ", ".join(patterns)
        self._patterns = globs(patterns)
        self._options = tuple(each for each in self._patterns if option_name(each.pattern))
        self._texts = frozenset(filter(is_literal, patterns))
        self._flag = all(
            each.pattern.startswith("-") and each.pattern[1:2] != "-" for each in self._patterns
        )

    def witness(self, subject: Subject) -> Witness:
        """Read widely."""
        if not self._texts.isdisjoint(subject.literals):
            return SURE
        for text in subject.literals:
            for each in self._patterns:
                if argument(each, text):
                    return SURE
        singles = many = False
        for word in subject.unsure:
            if any(argument_could(each, word) for each in self._patterns):
                singles, many = singles or not word.many, many or word.many
        if self._options:
            for word in filter(None, subject.joined):
                hold = _with_value(self._options, word)
                if hold is Hold.SURELY:
                    return SURE
                if hold is Hold.POSSIBLY:
                    singles, many = singles or not word.many, many or word.many
        return Witness(False, singles, many, self._flag) if singles or many else NEVER

    def narrow(self, subject: Subject) -> Hold:
        """Read narrowly: the same."""
        witness = self.witness(subject)
        return Hold.SURELY if witness.sure else Hold(int(witness.possible))


class InOrder:
    """`args_in_order`: the patterns match arguments in this order."""

    __slots__ = ("_patterns", "key", "stated")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.key, self.stated = "args_in_order", ", ".join(patterns)
        self._patterns = globs(patterns)

    def witness(self, subject: Subject) -> Witness:
        """Read widely."""
        hold = self.narrow(subject)
        # Whether they are flags or operands, one word or several: not told apart here.
        return (NEVER, Witness(False, True, True), SURE)[hold]

    def narrow(self, subject: Subject) -> Hold:
        """Read narrowly: the same."""
        if self._reached(subject, dynamic=False) == len(self._patterns):
            return Hold.SURELY
        could = bool(subject.unsure) and self._reached(subject, dynamic=True) == len(self._patterns)
        return Hold.POSSIBLY if could else Hold.NO

    def _reached(self, subject: Subject, *, dynamic: bool) -> int:
        """How many patterns find their words; each takes the first word that it can."""
        patterns, reached = self._patterns, 0
        for word, pair in zip(subject.arguments, subject.joined, strict=True):
            if word.dynamic and not dynamic:
                continue
            first = True
            while reached < len(patterns):
                each = patterns[reached]
                matches = argument_could(each, word) if word.dynamic else argument(each, word.text)
                if not matches and pair is not None and option_name(each.pattern):
                    least = Hold.POSSIBLY if dynamic else Hold.SURELY
                    matches = _with_value((each,), pair) >= least
                # Several flags may stand in one word, and a word may become several.
                flags = reached > 0 and _is_flag(each) and _is_flag(patterns[reached - 1])
                again = first or (word.many if word.dynamic else flags)
                if not (matches and again):
                    break
                reached, first = reached + 1, False
        return reached


class Paths:
    """`paths`, `reads`, `writes`: some path matches; read narrowly, every one."""

    __slots__ = ("_local", "_of", "_patterns", "key", "stated")

    def __init__(
        self,
        key: str,
        patterns: tuple[str, ...],
        of: Callable[[Subject], tuple[NamedPath, ...]],
    ) -> None:
        self.key, self.stated = key, ", ".join(patterns)
        self._patterns = path_globs(patterns, None)
        self._local = tuple(filter(is_local, patterns))
        self._of = of

    def _of_workspace(self, subject: Subject) -> tuple[Glob, ...]:
        """All patterns, those that say where in the workspace as absolute ones."""
        if not self._local:
            return self._patterns
        return (*self._patterns, *path_globs(self._local, subject.workspace))

    def witness(self, subject: Subject) -> Witness:
        """Read widely."""
        patterns = self._of_workspace(subject)
        singles = many = False
        for path in self._of(subject):
            if not path.dynamic:
                if any(each.matches(place) for place in path.places for each in patterns):
                    return SURE
            elif _any_stands_in(path.inside, patterns):
                return SURE
            elif any(each.could_match(path.prefix, path.suffix) for each in patterns):
                singles, many = singles or not path.many, many or path.many
        return Witness(False, singles, many) if singles or many else NEVER

    def narrow(self, subject: Subject) -> Hold:
        """Read narrowly: there are some, and each matches wherever it may be."""
        patterns, paths = self._of_workspace(subject), self._of(subject)
        hold = Hold.SURELY if paths else Hold.NO
        for path in paths:
            if not path.dynamic:
                if not all(any(g.matches(place) for g in patterns) for place in path.places):
                    return Hold.NO
            elif any(each.could_match(path.prefix, path.suffix) for each in patterns):
                hold = Hold.POSSIBLY
            else:
                return Hold.NO
        return hold


class Hosts:
    """`hosts`: some host matches; read narrowly, every one."""

    __slots__ = ("_patterns", "key", "stated")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.key, self.stated = "hosts", ", ".join(patterns)
        self._patterns = globs(host.lower().rstrip(".") for host in patterns)

    def witness(self, subject: Subject) -> Witness:
        """Read widely."""
        dynamic = False
        for host in subject.hosts:
            if host.dynamic:
                dynamic = True
            elif _some(self._patterns, host.text):
                return SURE
        return Witness(False, dynamic, dynamic) if dynamic else NEVER

    def narrow(self, subject: Subject) -> Hold:
        """Read narrowly: there are some, and each matches."""
        hold = Hold.SURELY if subject.hosts else Hold.NO
        for host in subject.hosts:
            if host.dynamic:
                hold = Hold.POSSIBLY
            elif not _some(self._patterns, host.text):
                return Hold.NO
        return hold


def argument(glob: Glob, text: str) -> bool:
    """Whether an argument matches; `-r` also matches inside a bundle."""
    if glob.matches(text):
        return True
    pattern = glob.pattern
    return (
        len(pattern) == 2
        and pattern[0] == "-"
        and len(text) > 2
        and text[0] == "-"
        and text[1] != "-"
        and pattern[1] in text.partition("=")[0]
        and _FLAG.fullmatch(pattern) is not None
    )


def argument_could(glob: Glob, word: Word) -> bool:
    """Whether a dynamic word could become an argument that matches."""
    short_flag = glob.pattern.startswith("-") and not glob.pattern.startswith("--")
    # A file could be named like a flag, but not like one and end in `.txt`.
    if short_flag and is_glob(word) and not _FLAG_PIECE.fullmatch(word.prefix + word.suffix):
        return False
    if glob.could_match(word.prefix, word.suffix):
        return True
    return _is_flag(glob) and _could_bundle(glob.pattern[1], word.prefix)


def _could_bundle(letter: str, prefix: str) -> bool:
    """Whether what starts like this could be a bundle with the letter in it."""
    if not prefix or prefix == "-":
        return True
    flags, equals, _ = prefix.partition("=")
    return flags[:1] == "-" and flags[1:2] != "-" and (not equals or letter in flags)


def path_globs(patterns: Iterable[str], workspace: str | None) -> tuple[Glob, ...]:
    """Patterns on paths, compiled; where there is no workspace, without those that are in it."""
    absolute = [from_home(each) for each in patterns if not is_local(each)]
    if workspace is not None:
        absolute += [in_workspace(each, workspace) for each in patterns if is_local(each)]
    return globs(absolute, path=True)


def _with_value(options: Iterable[Glob], word: Word) -> Hold:
    """How far an option and its value in the next word, joined, match one of these patterns."""
    if not word.dynamic:
        return _some(tuple(options), word.text)
    could = any(each.could_match(word.prefix, word.suffix) for each in options)
    return Hold.POSSIBLY if could else Hold.NO


def _is_flag(glob: Glob) -> bool:
    return _FLAG.fullmatch(glob.pattern) is not None


def _some(patterns: Sequence[Glob], text: str) -> Hold:
    for each in patterns:
        if each.matches(text):
            return Hold.SURELY
    return Hold.NO


def _any_stands_in(folder: str | None, patterns: Iterable[Glob]) -> bool:
    """Whether a pattern is the literal path of something in a folder, and no dot hides it."""
    if folder is None:
        return False
    ends = [posixpath.split(each.pattern) for each in patterns if is_literal(each.pattern)]
    return any(head == folder and base and base[0] != "." for head, base in ends)
