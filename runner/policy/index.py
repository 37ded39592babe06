"""Which rules could match a subject at all, without asking each of them.

Every rule needs something of what it is asked about: a name, an argument, a place below some
folder. Rules are filed under that; a rule that needs several things is filed again by another,
where the first does not tell enough of them apart. What a rule is filed under never excludes a
subject that it could match.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.model.rule import Match
from runner.policy.circumstances import Circumstances, agent_names
from runner.policy.folders import NamedPath
from runner.policy.globs import is_literal
from runner.policy.matching import CompiledRule
from runner.policy.notation import from_home, is_local, local
from runner.policy.subject import Subject

_ENOUGH = 4
"""So few rules are asked as quickly as they are told apart."""
_DEPTH_LIMIT = 4
_ALTERNATIVES_LIMIT = 64
"""A rule that may be filed under more is asked always."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a subject must have: in `field`, a text that is, starts or ends with `text`."""

    field: str
    form: str
    """`is`, `starts`, `ends`."""
    text: str


Need = tuple[Key, ...]
"""At least one of these."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule to be filed."""

    rule: CompiledRule
    needs: tuple[Need, ...]
    """Each must be met by literal words, or could be by dynamic ones."""
    sure_only: bool
    """Whether a match by dynamic words counts for nothing."""

    @classmethod
    def of(cls, rule: CompiledRule, *, sure_only: bool) -> Entry:
        """What a rule needs."""
        return cls(rule, tuple(_needs(rule.rule.match)), sure_only)


_Texts = tuple[Sequence[str], bool]
"""What a field offers: the literal texts, and whether dynamic words could be any other."""
_NOTHING: _Texts = (), False


class View:
    """What a subject has to offer, field by field, worked out once."""

    __slots__ = ("circumstances", "known", "subject")

    def __init__(self, subject: Subject, circumstances: Circumstances) -> None:
        self.subject = subject
        self.circumstances = circumstances
        self.known: dict[str, _Texts] = {}
        """By field, as far as it was asked for."""


class Index:
    """Rules, filed."""

    __slots__ = ("_always", "_fields")

    def __init__(self, entries: Iterable[Entry], depth: int = 0, *, indexed: bool = True) -> None:
        """`indexed` False: every rule is a candidate always."""
        filed, always = _file([*entries], depth if indexed else _DEPTH_LIMIT)
        self._always = dict.fromkeys(always)
        self._fields = tuple(_Field(name, keys, depth) for name, keys in filed.items())

    def candidates(self, view: View) -> Collection[CompiledRule]:
        """Every rule that could match, and few others; in any order, each once."""
        if not self._fields:
            return self._always
        found = dict(self._always)
        for field in self._fields:
            field.gather(view, found)
        return found

    def gather(self, view: View, found: dict[CompiledRule, None]) -> None:
        """Put the candidates into `found`."""
        if self._always:
            found.update(self._always)
        for field in self._fields:
            field.gather(view, found)


class _Field:
    """The rules that are filed under one field of a subject."""

    __slots__ = ("_ends", "_in_doubt", "_is", "_name", "_offered", "_starts")

    def __init__(self, name: str, keys: Mapping[Key, list[Entry]], depth: int) -> None:
        self._name = name
        self._offered = _FIELDS[name]
        filed: dict[str, dict[str, Index]] = {"is": {}, "starts": {}, "ends": {}}
        for key, entries in keys.items():
            text = key.text[::-1] if key.form == "ends" else key.text
            filed[key.form][text] = Index(entries, depth + 1)
        self._is = filed["is"]
        self._starts = _Heads(filed["starts"]) if filed["starts"] else None
        self._ends = _Heads(filed["ends"]) if filed["ends"] else None
        doubted = {
            id(entry): entry for each in keys.values() for entry in each if not entry.sure_only
        }
        self._in_doubt = Index(doubted.values(), depth + 1) if doubted else None

    def gather(self, view: View, found: dict[CompiledRule, None]) -> None:
        """Put the candidates into `found`."""
        offered = view.known.get(self._name)
        if offered is None:
            offered = self._offered(view.subject, view.circumstances)
            view.known[self._name] = offered
        texts, doubt = offered
        if doubt and self._in_doubt is not None:
            self._in_doubt.gather(view, found)
        if not self._is.keys().isdisjoint(texts):
            for text in texts:
                if text in self._is:
                    self._is[text].gather(view, found)
        if self._starts is not None:
            self._starts.gather(texts, view, found)
        if self._ends is not None:
            self._ends.gather([text[::-1] for text in texts], view, found)


class _Heads:
    """Rules filed under what a text starts with, whatever the lengths of that."""

    __slots__ = ("_by_length", "_shortest")

    def __init__(self, keyed: Mapping[str, Index]) -> None:
        self._by_length: dict[int, dict[str, Index]] = {}
        for head, index in keyed.items():
            self._by_length.setdefault(len(head), {})[head] = index
        length = min(self._by_length, default=0)
        self._shortest = length, frozenset([head[:length] for head in keyed])

    def gather(self, texts: Sequence[str], view: View, found: dict[CompiledRule, None]) -> None:
        """Put the candidates into `found`."""
        length, heads = self._shortest
        for text in texts:
            if text[:length] not in heads:
                continue
            for longer, keyed in self._by_length.items():
                index = keyed.get(text[:longer])
                if index is not None:
                    index.gather(view, found)


def _file(
    entries: list[Entry], depth: int
) -> tuple[dict[str, dict[Key, list[Entry]]], tuple[CompiledRule, ...]]:
    """By field and key, each under the need that tells it best from the others; and the rest."""
    if len(entries) <= _ENOUGH or depth >= _DEPTH_LIMIT:
        return {}, tuple(entry.rule for entry in entries)
    common = Counter(key for entry in entries for need in entry.needs for key in {*need})
    filed: dict[str, dict[Key, list[Entry]]] = {}
    always = []
    for entry in entries:
        need = min(entry.needs, key=lambda need: _spread(need, common), default=())
        if not need or _spread(need, common) >= len(entries):
            always.append(entry.rule)
            continue
        left = Entry(entry.rule, tuple(n for n in entry.needs if n is not need), entry.sure_only)
        for key in {*need}:
            filed.setdefault(key.field, {}).setdefault(key, []).append(left)
    return filed, tuple(always)


def _spread(need: Need, common: Mapping[Key, int]) -> int:
    """Among how many rules one would still have to look."""
    return sum(common[key] for key in {*need})


def _needs(match: Match) -> Iterator[Need]:
    """Everything without which it can't hold, not even possibly."""
    for field, patterns in _stated(match):
        keys = [_key(field, pattern) for pattern in patterns]
        if field in _PATHS:
            # All that stands in a folder (`/usr/*`) is known as well.
            keys += [_folder_key(field, each) for each in filter(is_literal, patterns)]
        if len(keys) <= _ALTERNATIVES_LIMIT and all(key is not None for key in keys):
            yield tuple(key for key in keys if key is not None)
    for part in match.all_of:
        yield from _needs(part)
    if match.any_of:
        # Each of them has a need; one of these must be met. The first that each states will do.
        firsts = [next(_needs(part), None) for part in match.any_of]
        together = tuple(key for need in firsts if need is not None for key in need)
        if all(need is not None for need in firsts) and len(together) <= _ALTERNATIVES_LIMIT:
            yield together


def _stated(match: Match) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Fields with patterns of which one must match."""
    if match.commands:
        yield "name", tuple(map(_base, match.commands))
    for pattern in (*match.args, *match.ordered_args):
        yield "args", (pattern,)
    if match.any_args:
        yield "args", match.any_args
    for field in ("paths", "reads", "writes"):
        patterns = getattr(match, field)
        if patterns:
            yield field, tuple(map(from_home, patterns))
    if match.hosts:
        yield "hosts", tuple(host.lower().rstrip(".") for host in match.hosts)
    for field in ("environment", "via", "constructs", "agents", "sessions", "tenants"):
        patterns = getattr(match, field)
        if patterns:
            yield field, patterns
    if match.uids:
        yield "uids", tuple(map(str, match.uids))


def _base(pattern: str) -> str:
    """The part of a pattern on names that the last part of a name must match."""
    if "/" not in pattern:
        return pattern
    return "*" if "[" in pattern or "\\" in pattern else posixpath.basename(pattern)


def _folder_key(field: str, pattern: str) -> Key | None:
    """What is known of the folder in which the literal path stands."""
    if not is_local(pattern):
        return Key(f"{field}@", "is", posixpath.dirname(pattern))
    return Key(f"{field}@.", "is", posixpath.dirname(pattern)) if pattern != "." else None


def _key(field: str, pattern: str) -> Key | None:
    """What a text that matches the pattern surely has; None: nothing that can be filed."""
    if field in _PATHS and is_local(pattern):
        return _local_key(field, pattern)
    below = field in _PATHS and pattern.endswith("/**") and len(pattern) > 3
    if below:
        pattern = pattern[:-3]  # It matches the folder itself, and all below.
    elif is_literal(pattern):
        return Key(field, "is", pattern)
    head = pattern[: min((i for i, c in enumerate(pattern) if c in "*?[\\"), default=len(pattern))]
    # In a class, or behind a backslash, characters mean something else.
    tail = "" if "[" in pattern or "\\" in pattern else re.split(r"[*?]", pattern)[-1]
    if field in _PATHS:
        return _path_key(field, pattern, head, tail, below=below)
    if head and head not in {"-", "--"}:
        return Key(field, "starts", head)
    return Key(field, "ends", tail) if tail else None


def _local_key(field: str, pattern: str) -> Key:
    """Of a pattern that says where in the workspace."""
    if is_literal(pattern):
        return Key(f"{field}.", "is", pattern)
    head = re.split(r"[*?\[\\]", pattern)[0]
    # `./out/**` matches the folder itself too, which has no slash behind it.
    return Key(f"{field}.", "starts", head.rstrip("/") if pattern.endswith("/**") else head)


def _path_key(field: str, pattern: str, head: str, tail: str, *, below: bool) -> Key | None:
    if len(head) > 1:
        return Key(field, "starts", head)
    plain = "[" not in pattern and "\\" not in pattern
    whole = [part for part in pattern.split("/")[1:] if part and is_literal(part)] if plain else []
    if whole:
        return Key(f"{field}#", "is", max(whole, key=len))
    return Key(field, "ends", tail) if tail and not below else None


_PATHS = frozenset({"paths", "reads", "writes"})


def _name(subject: Subject, _: Circumstances) -> _Texts:
    name = subject.name
    if name is None or name.dynamic:
        # What a dynamic name gets is `on_dynamic`; only a rule for all commands speaks here.
        return _NOTHING
    if "/" not in name.text:
        return (name.text,), False
    return (
        posixpath.basename(name.text),
        posixpath.basename(posixpath.normpath(name.text)),
    ), False


def _arguments(subject: Subject, _: Circumstances) -> _Texts:
    texts = subject.literals
    if any(text[:2] == "--" and "=" not in text for text in texts):
        pairs = [pair.text for pair in subject.joined if pair is not None and not pair.dynamic]
        texts = (*texts, *pairs)
    bundled = [
        f"-{letter}"
        for text in texts
        if len(text) > 2 and text[0] == "-" and text[1] != "-"
        for letter in text.partition("=")[0][1:]
    ]
    return (*texts, *bundled) if bundled else texts, bool(subject.unsure)


def _places(paths: tuple[NamedPath, ...]) -> _Texts:
    if not paths:
        return _NOTHING
    places: list[str] = []
    dynamic = False
    for path in paths:
        places += path.places
        dynamic = dynamic or path.dynamic
    return places, dynamic


def _components(paths: tuple[NamedPath, ...]) -> _Texts:
    places, dynamic = _places(paths)
    return [*{part for place in places for part in place.split("/")}], dynamic


def _folders(paths: tuple[NamedPath, ...]) -> _Texts:
    return [path.inside for path in paths if path.inside is not None], False


def _local_places(paths: tuple[NamedPath, ...], workspace: str | None) -> _Texts:
    places, dynamic = _places(paths)
    if workspace is None:
        return (), dynamic
    return [found for each in places if (found := local(each, workspace)) is not None], dynamic


def _local_folders(paths: tuple[NamedPath, ...], workspace: str | None) -> _Texts:
    folders, _ = _folders(paths)
    if workspace is None:
        return _NOTHING
    return [found for each in folders if (found := local(each, workspace)) is not None], False


def _hosts(subject: Subject, _: Circumstances) -> _Texts:
    hosts = subject.hosts
    if not hosts:
        return _NOTHING
    literal = [host.text for host in hosts if not host.dynamic]
    return literal, len(literal) < len(hosts)


def _own(value: str | None) -> _Texts:
    return ((value,) if value is not None else ()), False


_FIELDS: dict[str, Callable[[Subject, Circumstances], _Texts]] = {
    "name": _name,
    "args": _arguments,
    "paths": lambda subject, _: _places(subject.paths),
    "reads": lambda subject, _: _places(subject.reads),
    "writes": lambda subject, _: _places(subject.writes),
    "paths#": lambda subject, _: _components(subject.paths),
    "reads#": lambda subject, _: _components(subject.reads),
    "writes#": lambda subject, _: _components(subject.writes),
    "paths.": lambda subject, _: _local_places(subject.paths, subject.workspace),
    "reads.": lambda subject, _: _local_places(subject.reads, subject.workspace),
    "writes.": lambda subject, _: _local_places(subject.writes, subject.workspace),
    "paths@.": lambda subject, _: _local_folders(subject.paths, subject.workspace),
    "reads@.": lambda subject, _: _local_folders(subject.reads, subject.workspace),
    "writes@.": lambda subject, _: _local_folders(subject.writes, subject.workspace),
    "paths@": lambda subject, _: _folders(subject.paths),
    "reads@": lambda subject, _: _folders(subject.reads),
    "writes@": lambda subject, _: _folders(subject.writes),
    "hosts": _hosts,
    "environment": lambda subject, _: ([*subject.environment], False),
    "via": lambda subject, _: (subject.via, False),
    "constructs": lambda subject, _: _own(subject.construct),
    "agents": lambda _, circumstances: (agent_names(circumstances.principal), False),
    "sessions": lambda _, circumstances: _own(circumstances.principal.session),
    "tenants": lambda _, circumstances: _own(circumstances.principal.tenant),
    "uids": lambda _, circumstances: _own(str(circumstances.principal.uid)),
}
