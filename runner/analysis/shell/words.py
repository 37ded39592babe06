"""A word of the shell's syntax tree -> the words that it becomes.

Follows bash(1), QUOTING and EXPANSION: quotes, escapes, ANSI-C quoting and braces are resolved;
parameters, substitutions, arithmetic and globs make a word dynamic.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from runner.analysis.shell import operations, setters
from runner.analysis.shell.shfmt import Node
from runner.model.intent import Word

BRACE_WORDS_LIMIT = 1024
"""More words than this out of one brace expansion make it one dynamic word."""
_BRACES_LIMIT = 64
"""More opening braces than this in one word, likewise: matching them is quadratic."""


class _Kind(Enum):
    QUOTED = 1
    BARE = 2
    """Literal and unquoted: braces, globs and a tilde still mean something in it."""
    ONE = 3
    """Dynamic, but always one word's part: it stands in double quotes."""
    MANY = 4
    """Dynamic, and may split."""


@dataclass(frozen=True, slots=True)
class Atom:
    """A piece of a word; of `BARE` ones each special character is a piece of its own."""

    text: str
    kind: _Kind


Constants = Callable[[str, int], tuple[str, ...]]
"""What a variable read at an offset of the text can be, when that is sure; else nothing."""
CHOICES_LIMIT = 16
"""More ways than this to read the variables of one command leave it dynamic."""

_BARE_PIECES = re.compile(r"\\[\s\S]?|[{},*?\[\]]|[^\\{},*?\[\]]+")
_QUOTED_ESCAPE = re.compile(r'\\([$`"\\\n])')
_HEREDOC_ESCAPE = re.compile(r"\\([$`\\\n])")
_SIMPLE = re.compile(r"[^\\{}*?\[\]]*")
_SEQUENCE = re.compile(r"(-?\d+|[A-Za-z])\.\.(-?\d+|[A-Za-z])(?:\.\.(-?\d+))?")
_ANSI_C = re.compile(
    r"\\(?:x\{([0-9A-Fa-f]+)\}?|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})"
    r"|([0-7]{1,3})|c([\s\S])|([\s\S]))"
)
_ANSI_C_LETTERS = {
    "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
    "v": "\v", "\\": "\\", "'": "'", '"': '"', "?": "?",
}  # fmt: skip


class WordReader:
    """Resolves the words of one text."""

    def __init__(
        self, source: bytes, *, language: str, dialect: str, constants: Constants, relied: set[str]
    ) -> None:
        """`relied` gets the names of commands whose output was worked out."""
        self._source = source
        self._language = language
        self._braces = dialect != "posix"
        self._splits = dialect != "zsh"
        self._equals = dialect == "zsh"
        self._constants = constants
        self._relied = relied
        self._chosen: dict[str, str] = {}

    def choices(self, nodes: Sequence[Node]) -> list[dict[str, str]]:
        """Each way to choose among the values of the variables in these words; at least one."""
        names: dict[str, tuple[str, ...]] = {}
        for part in _parts(nodes):
            name = (part.get("Param") or {}).get("Value", "")
            offset = (part.get("Pos") or {}).get("Offset", 0)
            if part.get("Type") == "ParamExp" and len(values := self._constants(name, offset)) > 1:
                names[name] = values
        if math.prod(map(len, names.values())) > CHOICES_LIMIT:
            return [{}]
        return [dict(zip(names, each, strict=True)) for each in itertools.product(*names.values())]

    def choose(self, chosen: dict[str, str]) -> None:
        """Read variables of several values as these from now on."""
        self._chosen = chosen

    def words(self, node: Node) -> list[Word]:
        """The words that an argument becomes before parameters and globs; at least one."""
        parts = node.get("Parts") or []
        if len(parts) == 1 and parts[0].get("Type") == "Lit":
            value = parts[0].get("Value", "")
            if _SIMPLE.fullmatch(value) and not (self._equals and value[:1] == "="):
                return [Word(value)]
            if self._equals and value[:1] == "=" and _SIMPLE.fullmatch(value[1:] or "="):
                return [Word(value[1:])]  # the program's path (zshexpn(1), "=" expansion)
        if len(parts) == 1 and self._splits and (value := self._known(parts[0])) is not None:
            # Unquoted, it is split at blanks; what splits otherwise is not known (IFS).
            return [Word(each) for each in value.split(" ") if each]
        atoms = self._atoms(parts)
        expanded = _expanded(atoms) if self._braces else [atoms]
        if expanded is None:
            return [Word(self._text(node), dynamic=True)]
        return [self._finish(one, node) for one in expanded]

    def value(self, node: Node | None) -> Word:
        """The word that an assignment's value or a redirection's target becomes."""
        if node is None:
            return Word("")
        return self._finish(self._atoms(node.get("Parts") or []), node)

    def heredoc(self, redirect: Node) -> Word:
        """The text that a heredoc or here-string feeds; dynamic when something expands in it."""
        if redirect.get("Op") == "<<<":
            word = self.value(redirect.get("Word"))
            return word if word.dynamic else Word(word.text + "\n")
        body = redirect.get("Hdoc") or {}
        parts = body.get("Parts") or []
        delimiter = (redirect.get("Word") or {}).get("Parts") or []
        raw = any(p.get("Type") != "Lit" or "\\" in p.get("Value", "") for p in delimiter)
        text = ""
        for part in parts:
            if part.get("Type") != "Lit":
                return Word(self._text(body), dynamic=True)
            value = part.get("Value", "")
            text += value if raw else _HEREDOC_ESCAPE.sub(_unescaped, value)
        if redirect.get("Op") == "<<-":
            text = re.sub(r"(?m)^\t+", "", text)
        return Word(text)

    def _text(self, node: Node) -> str:
        start = (node.get("Pos") or {}).get("Offset", 0)
        end = (node.get("End") or {}).get("Offset", 0)
        return self._source[start:end].decode("utf-8", "surrogateescape")

    def _atoms(self, parts: Sequence[Node], *, quoted: bool = False) -> list[Atom]:
        atoms: list[Atom] = []
        for part in parts:
            kind = part.get("Type")
            if kind == "Lit":
                atoms += _literal(part.get("Value", ""), quoted=quoted)
            elif kind == "SglQuoted":
                value = part.get("Value", "")
                text = ansi_c(value) if part.get("Dollar") else value
                atoms.append(Atom(text, _Kind.QUOTED))
            elif kind == "DblQuoted":
                inner = self._atoms(part.get("Parts") or [], quoted=True)
                # An empty pair of quotes still makes a word.
                atoms += inner or [Atom("", _Kind.QUOTED)]
            else:
                atoms.append(self._expansion(part, quoted=quoted, first=not atoms))
        return atoms

    def _expansion(self, part: Node, *, quoted: bool, first: bool) -> Atom:
        value = self._known(part)
        if value is not None and (first or not value.startswith(("~", "."))):
            if quoted or " " not in value:
                return Atom(value, _Kind.QUOTED)
            return Atom(self._text(part), _Kind.MANY)
        one = part.get("Type") in {"ArithmExp", "ProcSubst"} or (quoted and not _splits(part))
        return Atom(self._text(part), _Kind.ONE if one else _Kind.MANY)

    def _known(self, part: Node) -> str | None:
        """What a piece becomes, blanks and all, where that is sure."""
        if part.get("Type") == "CmdSubst":
            return setters.substituted(part, self._language, self._relied)
        if part.get("Type") != "ParamExp":
            return None
        name = (part.get("Param") or {}).get("Value", "")
        values = self._constants(name, (part.get("Pos") or {}).get("Offset", 0))
        if len(values) != 1 and name not in self._chosen:
            return None
        value = values[0] if len(values) == 1 else self._chosen[name]
        if _plain_parameter(part):
            return value
        return None if value in ("~", ".") else operations.applied(part, value)

    def _finish(self, atoms: Sequence[Atom], node: Node) -> Word:
        unknown = _unknown_pieces(atoms)
        if not unknown:
            return Word("".join(atom.text for atom in atoms))
        if any(atom.kind is _Kind.MANY for atom in atoms):
            return Word(self._text(node), dynamic=True)
        return Word(
            self._text(node),
            dynamic=True,
            prefix="".join(atom.text for atom in atoms[: unknown[0]]),
            suffix="".join(atom.text for atom in atoms[unknown[-1] + 1 :]),
            many=any(atoms[index].kind is _Kind.BARE for index in unknown),
        )


def ansi_c(value: str) -> str:
    """What `$'value'` stands for; it ends at a NUL, as in bash."""
    pieces: list[bytes] = []
    end = 0
    for found in _ANSI_C.finditer(value):
        pieces.append(value[end : found.start()].encode("utf-8", "surrogateescape"))
        end = found.end()
        decoded = _ansi_c_escape(found)
        if decoded == b"\0":
            return b"".join(pieces).decode("utf-8", "surrogateescape")
        pieces.append(decoded)
    pieces.append(value[end:].encode("utf-8", "surrogateescape"))
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _ansi_c_escape(found: re.Match[str]) -> bytes:
    long_hex, short_hex, short_unicode, long_unicode, octal, control, letter = found.groups()
    if long_hex or short_hex:
        return bytes([int(long_hex or short_hex, 16) & 0xFF])
    if short_unicode or long_unicode:
        point = int(short_unicode or long_unicode, 16)
        return chr(point).encode("utf-8", "surrogatepass") if point < 0x110000 else b"?"
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if control:
        return bytes([ord(control) & 0x1F])
    plain = _ANSI_C_LETTERS.get(letter, found[0])
    return plain.encode("utf-8", "surrogateescape")


def _unescaped(found: re.Match[str]) -> str:
    return "" if found[1] == "\n" else found[1]


def _literal(value: str, *, quoted: bool) -> list[Atom]:
    if quoted:
        return [Atom(_QUOTED_ESCAPE.sub(_unescaped, value), _Kind.QUOTED)]
    atoms = []
    for piece in _BARE_PIECES.findall(value):
        if not piece.startswith("\\"):
            atoms.append(Atom(piece, _Kind.BARE))
        elif piece != "\\\n":
            atoms.append(Atom(piece[1:] or "\\", _Kind.QUOTED))
    return atoms


def _parts(nodes: Sequence[Node]) -> Iterator[Node]:
    """The pieces of words, those inside double quotes too."""
    for node in nodes:
        for part in node.get("Parts") or []:
            yield part
            yield from part.get("Parts") or []


def _plain_parameter(part: Node) -> bool:
    return set(part) <= {"Type", "Pos", "End", "Dollar", "Rbrace", "Short", "Param"}


def _splits(part: Node) -> bool:
    """Whether it can become several words in double quotes: `$@`, `${a[@]}`, `${!a@}`."""
    if part.get("Type") != "ParamExp":
        return False
    name = (part.get("Param") or {}).get("Value")
    return name == "@" or "'@'" in repr(part) or bool(part.get("Names"))


def _unknown_pieces(atoms: Sequence[Atom]) -> list[int]:
    """Indices of the atoms that only running would tell."""
    unknown = []
    closing = [i for i, a in enumerate(atoms) if a.text == "]" and a.kind is _Kind.BARE]
    last_closing = closing[-1] if closing else -1
    for index, atom in enumerate(atoms):
        if atom.kind in (_Kind.ONE, _Kind.MANY):
            unknown.append(index)
        elif atom.kind is _Kind.BARE and (
            atom.text in ("*", "?") or (atom.text == "[" and index < last_closing - 1)
        ):
            unknown.append(index)
            if atom.text == "[":
                unknown.append(last_closing)
    return sorted(set(unknown))


def _is_bare(atom: Atom, text: str) -> bool:
    return atom.kind is _Kind.BARE and atom.text == text


def _expanded(atoms: list[Atom]) -> list[list[Atom]] | None:
    if sum(_is_bare(atom, "{") for atom in atoms) > _BRACES_LIMIT:
        return None
    return _expand_braces(atoms)


def _expand_braces(atoms: list[Atom]) -> list[list[Atom]] | None:
    """The words that braces make of one, in order; None: too many."""
    for start, atom in enumerate(atoms):
        if not _is_bare(atom, "{"):
            continue
        group = _brace_group(atoms, start)
        if group is None:
            continue
        alternatives, end = group
        tails = _expand_braces(atoms[end:])
        if tails is None:
            return None
        middles: list[list[Atom]] = []
        for alternative in alternatives:
            inner = _expand_braces(alternative)
            if inner is None:
                return None
            middles += inner
        if len(middles) * len(tails) > BRACE_WORDS_LIMIT:
            return None
        return [atoms[:start] + middle + tail for middle in middles for tail in tails]
    return [atoms]


def _brace_group(atoms: list[Atom], start: int) -> tuple[list[list[Atom]], int] | None:
    """The alternatives of the group that opens at `start` and the index behind it."""
    depth = 0
    alternatives: list[list[Atom]] = [[]]
    for index in range(start, len(atoms)):
        atom = atoms[index]
        if _is_bare(atom, "{"):
            depth += 1
        elif _is_bare(atom, "}"):
            depth -= 1
        if depth == 0:
            if len(alternatives) > 1:
                return alternatives, index + 1
            sequence = _sequence(alternatives[0])
            return (sequence, index + 1) if sequence else None
        if index == start:
            continue
        if depth == 1 and _is_bare(atom, ","):
            alternatives.append([])
        else:
            alternatives[-1].append(atom)
    return None


def _sequence(atoms: list[Atom]) -> list[list[Atom]] | None:
    """`{1..3}`, `{a..e..2}`; too long ones become one dynamic piece."""
    if any(atom.kind is not _Kind.BARE for atom in atoms):
        return None
    text = "".join(atom.text for atom in atoms)
    found = _SEQUENCE.fullmatch(text)
    if found is None or found[1].isalpha() != found[2].isalpha():
        return None
    letters = found[1].isalpha()
    if max(len(piece or "") for piece in found.groups()) > 18:
        return [[Atom(text, _Kind.MANY)]]
    first, last = (ord(found[1]), ord(found[2])) if letters else (int(found[1]), int(found[2]))
    step = abs(int(found[3] or 1)) or 1
    if abs(last - first) // step >= BRACE_WORDS_LIMIT:
        return [[Atom(text, _Kind.MANY)]]
    values = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    width = max(len(found[1]), len(found[2])) if _padded(found[1], found[2]) else 0
    shown = [chr(value) if letters else f"{value:0{width}d}" for value in values]
    return [[Atom(text, _Kind.QUOTED)] for text in shown]


def _padded(*numbers: str) -> bool:
    return any(re.fullmatch(r"-?0\d+", number) for number in numbers)
