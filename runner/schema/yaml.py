"""A strict reader of YAML that keeps the place of every value.

Built on PyYAML's events (libyaml's parser where it was compiled in), with a stricter reading
of scalars than YAML 1.1: only `true` and `false` are booleans, `1:30`, `yes` and `2024-01-01`
stay text, and numbers are decimal. Duplicate keys, tags, merge keys, several documents and
aliases that multiply are refused. It is iterative and counts what it builds, so that no file
can exhaust the stack or the memory.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from runner.errors import BadInputError
from runner.schema.problems import Mark, Path, Problem, raise_problems

# Shipped profiles have under 200 lines, 10 KiB, and nest 6 deep; hundredfold is plenty.
MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 50_000
"""Values in a file after aliases were followed."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.?[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NULLS = frozenset({"", "~", "null"})
_STRING_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content as plain data (dict, list, str, int, float, bool, None), with places."""

    source: str
    """The file's path, as messages name it."""
    data: object
    marks: dict[Path, Mark]
    """Of a mapping's entry the key's place; of a list's item the item's; `()` is the top."""

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at `path`, or at its nearest parent that stands in the file."""
        known = path
        while known and known not in self.marks:
            known = known[:-1]
        return Problem(self.source, self.marks.get(known, Mark(1, 1)), path, message)


def read_file(path: str | FilePath, error: type[BadInputError], source: str | None = None) -> str:
    """The text of a regular file of at most 1 MiB of UTF-8; `error` tells why it can't be read.

    `source`: what it is called then; None: its path.
    """
    source = str(path) if source is None else source
    try:
        # O_NONBLOCK: a FIFO must not hold us up before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as problem:
        raise error(f"{source} can't be read: {_why(problem)}") from None
    return read_descriptor(descriptor, source, error)


def read_descriptor(descriptor: int, source: str, error: type[BadInputError]) -> str:
    """As `read_file`, from an open descriptor, which is closed."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{source} is not a regular file; give a YAML file")
    with os.fdopen(descriptor, "rb") as file:
        try:
            content = file.read(MAX_FILE_BYTES + 1)
        except OSError as problem:
            raise error(f"{source} can't be read: {_why(problem)}") from None
    if len(content) > MAX_FILE_BYTES:
        raise error(f"{source} is larger than {MAX_FILE_BYTES} bytes, which is the most")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{source}:{line}: not UTF-8; save the file as UTF-8") from None


def parse(text: str, source: str, error: type[BadInputError]) -> Document:
    """Read one YAML document; `error` with every problem found, one a line."""
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except _StopReadingError:
        pass
    except yaml.YAMLError as problem:
        builder.problems.append(_syntax_problem(source, problem))
    raise_problems(builder.problems, error)
    marks: dict[Path, Mark] = {(): Mark(1, 1)}
    data = None if builder.root is None else _plain(builder.root, (), marks)
    return Document(source, data, marks)


class _StopReadingError(Exception):
    """What follows can't be read sensibly; the problem is noted."""


@dataclass(slots=True)
class _Node:
    mark: Mark
    size: int = 1
    height: int = 1
    scalar: object = None
    items: list[_Node] | None = None
    entries: dict[str, tuple[Mark, _Node]] | None = None
    key: tuple[str, Mark] | None = None
    """In a mapping that is being read: the key whose value comes next."""
    path: Path = ()


@dataclass(slots=True)
class _Builder:
    source: str
    problems: list[Problem] = field(default_factory=list)
    root: _Node | None = None
    stack: list[_Node] = field(default_factory=list)
    anchors: dict[str, _Node] = field(default_factory=dict)
    values: int = 0
    documents: int = 0

    def take(self, event: Event) -> None:
        mark = _mark(event.start_mark)
        match event:
            case DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self._stop(mark, "a second document ('---'); a file holds one")
            case ScalarEvent():
                self._scalar(event, mark)
            case AliasEvent():
                self._alias(event, mark)
            case CollectionStartEvent():
                self._open(event, mark)
            case MappingEndEvent() | SequenceEndEvent():
                self._close()
            case _:
                pass

    def _path(self) -> Path:
        if not self.stack:
            return ()
        top = self.stack[-1]
        if top.entries is not None:
            return (*top.path, top.key[0]) if top.key else top.path
        return (*top.path, len(top.items or ()))

    def _note(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(self.source, mark, self._path(), message))

    def _stop(self, mark: Mark, message: str) -> None:
        self._note(mark, message)
        raise _StopReadingError

    def _expects_key(self) -> bool:
        return bool(self.stack) and self.stack[-1].entries is not None and not self.stack[-1].key

    def _scalar(self, event: ScalarEvent, mark: Mark) -> None:
        text: str = event.value
        plain = event.implicit[0] and not event.style
        if event.tag not in {None, "!", _STRING_TAG}:
            self._note(mark, f"the tag {event.tag!r} is not supported; leave it out")
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            self._note(mark, "holds a NUL or half a surrogate pair, which no path or word can")
            text = text.encode("utf-8", "replace").decode().replace("\0", "?")
        if self._expects_key():
            if plain and text == "<<":
                self._stop(mark, "merge keys ('<<') are not supported; use 'extends' or repeat it")
            self._begin_entry(text, mark)
            return
        self._add(_Node(mark, scalar=_resolve(text) if plain else text), event.anchor)

    def _begin_entry(self, key: str, mark: Mark) -> None:
        top = self.stack[-1]
        if top.entries is not None and key in top.entries:
            first = top.entries[key][0].line
            self._note(mark, f"the key {key!r} is given twice, first on line {first}; keep one")
        top.key = (key, mark)

    def _alias(self, event: AliasEvent, mark: Mark) -> None:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            self._stop(mark, f"the alias '*{event.anchor}' names nothing that is complete above it")
        elif self._expects_key():
            self._stop(mark, "an alias can't be a key; write the key out")
        else:
            if len(self.stack) + node.height > MAX_DEPTH:
                self._stop(
                    mark, f"nested more than {MAX_DEPTH} deep by the alias '*{event.anchor}'"
                )
            self._add(node, None)

    def _open(self, event: CollectionStartEvent, mark: Mark) -> None:
        if self._expects_key():
            self._stop(mark, "a key must be a word, not a list or a mapping")
        if len(self.stack) >= MAX_DEPTH:
            self._stop(mark, f"nested more than {MAX_DEPTH} deep")
        if event.tag not in {None, "!"}:
            self._note(mark, f"the tag {event.tag!r} is not supported; leave it out")
        node = _Node(mark, path=self._path())
        if isinstance(event, MappingStartEvent):
            node.entries = {}
        elif isinstance(event, SequenceStartEvent):
            node.items = []
        node.scalar = event.anchor
        self.stack.append(node)

    def _close(self) -> None:
        node = self.stack.pop()
        anchor, node.scalar = node.scalar, None
        self._add(node, anchor if isinstance(anchor, str) else None)

    def _add(self, node: _Node, anchor: str | None) -> None:
        # A collection was counted value by value while it was read; an alias counts in full.
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        parent = self.stack[-1]
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if self._total() > MAX_VALUES:
            self._stop(node.mark, f"more than {MAX_VALUES} values after aliases were followed")
        if parent.entries is not None and parent.key is not None:
            name, mark = parent.key
            parent.entries.setdefault(name, (mark, node))
            parent.key = None
        elif parent.items is not None:
            parent.items.append(node)

    def _total(self) -> int:
        return sum(node.size for node in self.stack)


def _plain(node: _Node, path: Path, marks: dict[Path, Mark]) -> object:
    """Plain data; recursion is bounded by MAX_DEPTH and the work by MAX_VALUES."""
    marks.setdefault(path, node.mark)
    if node.items is not None:
        return [_plain(item, (*path, i), marks) for i, item in enumerate(node.items)]
    if node.entries is not None:
        data = {}
        for name, (mark, value) in node.entries.items():
            marks[(*path, name)] = mark
            data[name] = _plain(value, (*path, name), marks)
        return data
    return node.scalar


def _resolve(text: str) -> object:
    """The value of a plain scalar: null, true, false, a decimal number, or the text itself."""
    if text in _NULLS:
        return None
    if text in {"true", "false"}:
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return float(text)
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _syntax_problem(source: str, error: yaml.YAMLError) -> Problem:
    place = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be read"
    context = getattr(error, "context", None)
    if "nesting depth" in str(what):  # libyaml reads ahead of us, and has a bound of its own
        return Problem(source, _mark(place), (), f"nested more than {MAX_DEPTH} deep")
    detail = f"{context}: {what}" if context else str(what)
    return Problem(source, _mark(place), (), f"not valid YAML: {detail}")


def _mark(place: Any) -> Mark:
    """PyYAML counts from 0; some of its errors have no place."""
    return Mark(1, 1) if place is None else Mark(place.line + 1, place.column + 1)


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
