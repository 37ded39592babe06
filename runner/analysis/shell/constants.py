"""Variables of a shell text whose value is sure.

One that is assigned exactly once, by a plain literal, in a statement of its own at the top level,
in a text where nothing else could set it, is read as that literal further down. All else stays
dynamic: the checks are textual and refuse whatever they can't exclude.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.analysis.shell.shfmt import Node
from runner.analysis.shell.words import Constants

_VALUE = re.compile(r"[A-Za-z0-9_./:@%+=,-]+")
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
_RUN_TEXT = frozenset(
    {"eval", "source", ".", "alias", "trap", "command", "builtin", "enable", "let"}
)
_SET_BY_NAME = frozenset(
    {"read", "mapfile", "readarray", "getopts", "wait", "unset", "printf", "declare", "local",
     "export", "readonly", "typeset"}
)  # fmt: skip
_HOMES = {"HOME": "~", "PWD": "."}


def find(tree: Node, source: bytes, *, outermost: bool) -> Constants:
    """What is sure in this text; `outermost`: its `HOME` and `PWD` are the run's own."""
    if b"$" not in source or _COMPUTED.search(source) or not _harmless(tree):
        return _nothing
    sure: dict[str, tuple[int, str]] = {}
    if outermost:
        for name, stands_for in _HOMES.items():
            if _mentions(source, name) == 0:
                sure[name] = (-1, stands_for)
    for name, end, value in _assigned(tree):
        if not _SPECIAL.fullmatch(name) and _mentions(source, name) == 1:
            sure[name] = (end, value)
    if not sure:
        return _nothing

    def constant(name: str, offset: int) -> str | None:
        known = sure.get(name)
        return known[1] if known is not None and offset >= known[0] else None

    return constant


def _nothing(name: str, offset: int) -> None:  # noqa: ARG001
    return None


def nodes(tree: object) -> Iterator[Node]:
    """Every node of a syntax tree, in no particular order, without recursion."""
    stack = [tree]
    while stack:
        top = stack.pop()
        if isinstance(top, dict):
            yield top
            stack.extend(v for v in top.values() if isinstance(v, dict | list))
        elif isinstance(top, list):
            stack.extend(top)


def _mentions(source: bytes, name: str) -> int:
    """How often a name stands in the text other than as `$name` and `${name}`."""
    key = re.escape(name.encode())
    every = len(re.findall(rb"(?<!\w)" + key + rb"(?!\w)", source))
    read = len(re.findall(rb"\$" + key + rb"(?!\w)|\$\{" + key + rb"\}", source))
    return every - read


def _assigned(tree: Node) -> Iterator[tuple[str, int, str]]:
    for statement in tree.get("Stmts") or []:
        command = statement.get("Cmd") or {}
        if (
            command.get("Type") != "CallExpr"
            or command.get("Args")
            or any(statement.get(key) for key in ("Background", "Redirs", "Coprocess", "Disown"))
        ):
            continue
        for assign in command.get("Assigns") or []:
            value = _plain_value(assign)
            if value is not None:
                yield assign["Name"]["Value"], statement["End"]["Offset"], value


def _plain_value(assign: Node) -> str | None:
    if set(assign) & {"Append", "Index", "Array", "Naked"} or "Name" not in assign:
        return None
    parts = (assign.get("Value") or {}).get("Parts") or []
    if len(parts) == 1 and parts[0].get("Type") == "DblQuoted":
        parts = parts[0].get("Parts") or []
    if len(parts) != 1 or parts[0].get("Type") not in {"Lit", "SglQuoted"}:
        return None
    value = str(parts[0].get("Value", ""))
    return value if _VALUE.fullmatch(value) and not parts[0].get("Dollar") else None


def _harmless(tree: Node) -> bool:
    """Whether no command of the text can set a variable whose name it computes."""
    for node in nodes(tree):
        if "Slice" in node or node.get("Excl"):
            return False
        if node.get("Type") == "LetClause":
            return False
        if node.get("Type") == "DeclClause":
            if not all(_plain_declaration(argument) for argument in node.get("Args") or []):
                return False
        elif node.get("Type") == "CallExpr" and node.get("Args"):
            words = [_plain_word(word) for word in node["Args"]]
            if words[0] is None or words[0] in _RUN_TEXT:
                return False
            if words[0] in _SET_BY_NAME and not _sets_plainly(words):
                return False
    return True


def _sets_plainly(words: list[str | None]) -> bool:
    if words[0] == "printf":
        # Only `-v` sets, and only in front of the format.
        return len(words) < 2 or (words[1] is not None and not words[1].startswith("-"))
    return None not in words


def _plain_word(word: Node) -> str | None:
    parts = word.get("Parts") or []
    if len(parts) == 1 and parts[0].get("Type") in {"SglQuoted", "DblQuoted"}:
        inner = parts[0].get("Parts") or []
        if parts[0].get("Type") == "SglQuoted" and not parts[0].get("Dollar"):
            return str(parts[0].get("Value", ""))
        parts = inner
    if len(parts) != 1 or parts[0].get("Type") != "Lit":
        return None
    value = str(parts[0].get("Value", ""))
    return value if "\\" not in value and "{" not in value and "*" not in value else None


def _plain_declaration(argument: Node) -> bool:
    if argument.get("Name"):
        return True
    word = _plain_word(argument.get("Value") or {})
    # A name reference (`declare -n`) sets a variable through another name.
    return (
        word is not None
        and _PLAIN.fullmatch(word) is not None
        and not (word.startswith("-") and "n" in word)
    )
