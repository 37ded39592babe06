"""Variables of a shell text whose value is sure, or one of a few.

One that is set to constants alone (`runner.analysis.shell.setters`), in a text where nothing else
could set it, is read as these wherever one of the setters surely came first. All else stays
dynamic: the checks are textual and refuse whatever they can't exclude.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from runner.analysis.shell.setters import Setter, plain_word, setters
from runner.analysis.shell.shfmt import Node
from runner.analysis.shell.words import Constants, WordReader

_PLAIN = re.compile(r"[\w./:%+,=-]*")
_SPECIAL = re.compile(
    r"BASH\w*|_|IFS|PATH|HOME|PWD|OLDPWD|UID|EUID|PPID|GROUPS|RANDOM|SRANDOM|SECONDS|LINENO|EPOCH\w+"
    r"|HIST\w+|DIRSTACK|FUNCNAME|OPT\w+|REPLY|SHLVL|SHELLOPTS|PIPESTATUS|COPROC|MAPFILE|PS[0-4]"
    r"|COMP\w*|ENV|LANG|LC_\w+|TIMEFORMAT|POSIXLY_CORRECT|GLOBIGNORE"
)
# Words that set variables by names that they compute: arithmetic, subscripts, indirection.
_COMPUTED = re.compile(
    rb"\(\(|\$\[|\w\[|\$\{!|\bIFS\b"
    rb"|(?m:^)(?>[^\n]*?\[\[)[^\n]*?-(?:eq|ne|lt|le|gt|ge)\b"
)
_UNREMARKABLE = re.compile(
    rb"\bIFS=[^\s;&|()`$]{0,16}[ \t]{1,8}read\b|\$\(\([0-9+*/% -]*\)\)"
    rb"|(?<=\$\{)\w+\[(?:[@*]|\d+)\](?=\})"
)
"""What looks as if it could set a variable and can't: `IFS= read`, `$((1 + 2))`, `${a[0]}`."""
_NAMES = re.compile(rb"\w+")
_READS = re.compile(rb"\$(\w+)|\$\{#?(\w+)(?=\}|:?[-+?]|[#%/,^]|:\s*\d)")
VALUES_LIMIT = 8
"""A variable of more values stays dynamic: each is a command of its own."""
_SETTERS_LIMIT = 64
"""As does one that is set in more places: each read is held against all of them."""
VARIABLES, VARIABLES_WITHIN = "$", "$ in a nested text"
_RUN_TEXT = frozenset(
    {"eval", "source", ".", "alias", "trap", "command", "builtin", "enable", "let"}
)
_SET_BY_NAME = frozenset(
    {"read", "mapfile", "readarray", "getopts", "wait", "unset", "printf", "declare", "local",
     "export", "readonly", "typeset"}
)  # fmt: skip
_HOMES = {"HOME": "~", "PWD": "."}


def find(
    tree: Node, source: bytes, *, outermost: bool, language: str, dialect: str, relied: set[str]
) -> Constants:
    """What is sure in this text; `outermost`: its `HOME` and `PWD` are the run's own.

    `relied` gets what must not be redefined elsewhere for that to hold (`runner.analysis.written`).
    """
    unnamed = _unnamed(tree) if b"$" in source else None
    if unnamed is None:
        return _nothing
    whole = source
    size = len(source) + 1
    source = _UNREMARKABLE.sub(b" ", source)
    if _COMPUTED.search(source):
        return _nothing
    known: dict[str, list[Setter]] = {}
    for each in setters(tree, size, language, relied):
        known.setdefault(each.name, []).append(each)
    mentions = _mentioned(source)
    sure: dict[str, _Known] = {}
    if outermost:
        for name, stands_for in _HOMES.items():
            if mentions[name.encode()] == 0:
                sure[name] = _Known((stands_for,), ((-1, size),))
    for name, every in known.items():
        if not _SPECIAL.fullmatch(name) and mentions[name.encode()] == len(every):
            values = tuple(dict.fromkeys(value for each in every for value in each.values))
            if len(values) <= VALUES_LIMIT and len(every) <= _SETTERS_LIMIT:
                sure[name] = _Known(values, tuple(s for each in every for s in each.spans))
    if not sure:
        return _nothing

    def constant(name: str, offset: int) -> tuple[str, ...]:
        found = sure.get(name)
        if found is None or not any(start <= offset < end for start, end in found.spans):
            return ()
        relied.add(VARIABLES if outermost else VARIABLES_WITHIN)
        return found.values

    # Commands whose name is a variable must be harmless as well. The first one to run reads it when
    # nothing was set but by the setters, so that what is known of it may be used here.
    words = WordReader(whole, language=language, dialect=dialect, constants=constant, relied=relied)
    return constant if all(_names_harmless(words, each) for each in unnamed) else _nothing


def _names_harmless(words: WordReader, name: Node) -> bool:
    for chosen in words.choices([name]):
        words.choose(chosen)
        became = words.words(name)
        if not became or became[0].dynamic or became[0].text in _RUN_TEXT | _SET_BY_NAME:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Known:
    values: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


def _nothing(name: str, offset: int) -> tuple[str, ...]:  # noqa: ARG001
    return ()


def nodes(tree: object) -> Iterator[Node]:
    """Every node of a syntax tree, in no particular order, without recursion."""
    stack = [tree]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            if "Offset" in top and "Col" in top:
                continue  # a position
            yield top
            stack.extend(v for v in top.values() if isinstance(v, dict | list))
        elif isinstance(top, list):
            stack.extend(top)


def _mentioned(source: bytes) -> Counter[bytes]:
    """How often each name stands in the text other than where it is read: `$name`, `${name%x}`."""
    every = Counter(_NAMES.findall(source))
    every.subtract(Counter(one or other for one, other in _READS.findall(source)))
    return every


def _unnamed(tree: Node) -> list[Node] | None:
    """The names of commands that are no plain words, where no other can set what it computes.

    None: a command of the text can set a variable whose name it computes.
    """
    unnamed = []
    for node in nodes(tree):
        if node.get("Excl") or ("Slice" in node and not _plain_slice(node["Slice"])):
            return None
        if node.get("Type") == "LetClause":
            return None
        if node.get("Type") == "DeclClause":
            if not all(_plain_declaration(argument) for argument in node.get("Args") or []):
                return None
        elif node.get("Type") == "CallExpr" and node.get("Args"):
            words = [plain_word(word) for word in node["Args"]]
            if words[0] is None:
                unnamed.append(node["Args"][0])
                continue
            if words[0] in _RUN_TEXT and not _looks_up(words):
                return None
            if words[0] in _SET_BY_NAME and not _sets_plainly(words):
                return None
    return unnamed


def _looks_up(words: list[str | None]) -> bool:
    """`command -v NAME`: nothing is run."""
    return words[0] == "command" and len(words) > 1 and words[1] in ("-v", "-V")


def _plain_slice(node: Node) -> bool:
    """`${x:1:2}`: numbers alone, since what stands there is arithmetic."""
    ends = [node[key] for key in ("Offset", "Length") if node.get(key)]
    return all(re.fullmatch(r"\d{1,4}", plain_word(each) or "") for each in ends)


def _sets_plainly(words: list[str | None]) -> bool:
    if words[0] == "printf":
        # Only `-v` sets, and only in front of the format; by a plain name it is a setter.
        if words[1:2] == ["-v"] and len(words) > 2 and words[2] is not None:
            return re.fullmatch(r"\w+", words[2]) is not None
        return len(words) < 2 or (words[1] is not None and not words[1].startswith("-"))
    return None not in words


def _plain_declaration(argument: Node) -> bool:
    if argument.get("Name"):
        return True
    word = plain_word(argument.get("Value") or {})
    # A name reference (`declare -n`) sets a variable through another name.
    return (
        word is not None
        and _PLAIN.fullmatch(word) is not None
        and not (word.startswith("-") and "n" in word)
    )
