"""What sets a variable of a shell text to constants, and where in the text it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.analysis.shell import output
from runner.analysis.shell.shfmt import Node
from runner.model.intent import Word

VALUE = re.compile(r"(?! *\Z)[A-Za-z0-9_./:@%+,= -]+")
"""Values that hold nothing that is special unquoted, but for blanks, and are not blank."""
_PLAIN_OPTION = re.compile(r"-[rxg]+")
"""Options of `declare` that change nothing of the value."""
_NOT_WAITED_FOR = ("Background", "Coprocess", "Disown")


@dataclass(frozen=True, slots=True)
class Setter:
    """One place that sets a variable, or mentions it and leaves it as it is."""

    name: str
    values: tuple[str, ...]
    spans: tuple[tuple[int, int], ...] = ()
    """Offsets of the text between which nothing runs before it was set here."""


def setters(tree: Node, size: int, language: str, relied: set[str]) -> Iterator[Setter]:
    """All that are understood; `relied` gets the names of the commands that were worked out."""
    stack: list[tuple[object, int]] = [(tree, size)]
    while stack:
        node, _ = stack.pop()
        if isinstance(node, list):
            end = size if node is tree.get("Stmts") else _end(node[-1]) if node else 0
            stack += [(each, end) for each in node]
            for each in node:
                if isinstance(each, dict) and ("Cmd" in each or "Redirs" in each):
                    yield from _of_statement(each, end, language, relied)
        elif isinstance(node, dict) and "Col" not in node:  # no position
            if node.get("Type") == "BinaryCmd":
                # `c=x && $c`: what is on the right runs when the left is done, in the same shell.
                end = _end(node.get("Y")) if node.get("Op") == "&&" else -1
                yield from _of_statement(node.get("X") or {}, end, language, relied)
                yield from _of_statement(node.get("Y") or {}, -1, language, relied)
            elif node.get("Type") in ("TimeClause", "CoprocClause") and node.get("Stmt"):
                yield from _of_statement(node["Stmt"], -1, language, relied)
            elif node.get("Type") == "FuncDecl":
                yield from _of_statement(node.get("Body") or {}, -1, language, relied)
            stack += [(value, 0) for value in node.values() if isinstance(value, dict | list)]


def _of_statement(node: Node, end: int, language: str, relied: set[str]) -> Iterator[Setter]:
    command = node.get("Cmd") or {}
    kind = command.get("Type")
    redirects = node.get("Redirs") or []
    if any(node.get(key) for key in _NOT_WAITED_FOR):
        end = -1
    start = _end(node)
    if kind == "CallExpr" and not command.get("Args"):
        end = -1 if redirects else end
        yield from _assigned(command.get("Assigns") or [], start, end, language, relied)
    elif kind == "CallExpr" and command.get("Assigns"):
        yield from _assigned(command["Assigns"], start, -1, language, relied)
    elif kind == "CallExpr":
        words = [plain_word(word) for word in command["Args"]]
        found = _read(words, redirects) or _printed(words, redirects)
        if found is not None:
            yield Setter(found[0], (found[1],), ((start, end),))
    elif kind == "DeclClause":
        yield from _declared(command, start, -1 if redirects else end, language, relied)
    elif kind == "ForClause":
        yield from _looped(command, start, end)


def _assigned(
    assigns: Sequence[Node], start: int, end: int, language: str, relied: set[str]
) -> Iterator[Setter]:
    for assign in assigns:
        value = _value(assign, language, relied)
        if value is not None:
            yield Setter(assign["Name"]["Value"], (value,), ((start, end),))


def _declared(
    command: Node, start: int, end: int, language: str, relied: set[str]
) -> Iterator[Setter]:
    arguments = command.get("Args") or []
    for each in arguments:
        option = plain_word(each.get("Value") or {}) if "Name" not in each else ""
        if option is None or (option and not _PLAIN_OPTION.fullmatch(option)):
            return
    variant = (command.get("Variant") or {}).get("Value")
    for each in arguments:
        if each.get("Naked") and "Name" in each and variant in ("export", "readonly"):
            yield Setter(each["Name"]["Value"], ())
    # Of several, one may read what another set: each holds behind the whole.
    named = [each for each in arguments if "Name" in each and not each.get("Naked")]
    yield from _assigned(named, start, end, language, relied)


def _looped(command: Node, start: int, end: int) -> Iterator[Setter]:
    loop, body = command.get("Loop") or {}, command.get("Do") or []
    items = [plain_word(each) for each in loop.get("Items") or []]
    values = [each for each in items if each is not None and VALUE.fullmatch(each)]
    if loop.get("Type") != "WordIter" or not items or len(values) != len(items) or not body:
        return
    first = (body[0].get("Pos") or {}).get("Offset", 0)
    spans = ((first, _end(body[-1])), (start, end))
    yield Setter(loop["Name"]["Value"], tuple(values), spans)


def _value(assign: Node, language: str, relied: set[str]) -> str | None:
    if set(assign) & {"Append", "Index", "Array", "Naked"} or "Name" not in assign:
        return None
    parts = (assign.get("Value") or {}).get("Parts") or []
    if len(parts) == 1 and parts[0].get("Type") == "DblQuoted":
        parts = parts[0].get("Parts") or []
    if len(parts) == 1 and parts[0].get("Type") == "CmdSubst":
        return substituted(parts[0], language, relied)
    value = plain_word(assign.get("Value") or {})
    return value if value is not None and VALUE.fullmatch(value) else None


def _read(words: Sequence[str | None], redirects: Sequence[Node]) -> tuple[str, str] | None:
    """`read NAME <<< WORD` (bash(1)): the line without blanks around it."""
    if words[:1] != ["read"] or len(redirects) != 1 or redirects[0].get("Op") != "<<<":
        return None
    names = words[2:] if words[1:2] == ["-r"] else words[1:]
    value = (plain_word(redirects[0].get("Word") or {}) or "").strip(" ")
    if len(names) != 1 or not _is_name(names[0]) or redirects[0].get("N"):
        return None
    return (str(names[0]), value) if VALUE.fullmatch(value) else None


def _printed(words: Sequence[str | None], redirects: Sequence[Node]) -> tuple[str, str] | None:
    """`printf -v NAME FORMAT …`."""
    if words[:2] != ["printf", "-v"] or len(words) < 4 or redirects or not _is_name(words[2]):
        return None
    if any(word is None for word in words):
        return None
    value = output.exact([Word("printf"), *(Word(str(word)) for word in words[3:])], None, "bash")
    return (str(words[2]), value) if value is not None and VALUE.fullmatch(value) else None


def _is_name(word: str | None) -> bool:
    return word is not None and re.fullmatch(r"[A-Za-z_]\w*", word) is not None


def substituted(part: Node, language: str, relied: set[str]) -> str | None:
    """What `$(echo CONSTANT)` and `$(printf CONSTANT)` become."""
    statements = part.get("Stmts") or []
    if len(statements) != 1 or set(part) & {"TempFile", "ReplyVar"}:
        return None
    statement = statements[0]
    command = statement.get("Cmd") or {}
    if set(statement) - {"Pos", "End", "Cmd", "Semicolon", "Position"}:
        return None
    if command.get("Type") != "CallExpr" or command.get("Assigns"):
        return None
    words = [plain_word(word) for word in command.get("Args") or []]
    if words[:1] not in (["echo"], ["printf"]) or None in words:
        return None
    value = output.exact([Word(str(word)) for word in words], None, language)
    if value is None or not VALUE.fullmatch(value := value.rstrip("\n")):
        return None
    relied.add(str(words[0]))
    return value


def plain_word(word: Node) -> str | None:
    """The value of a word of one piece, in quotes or not, in which nothing is special."""
    parts = word.get("Parts") or []
    if len(parts) == 1 and parts[0].get("Type") in {"SglQuoted", "DblQuoted"}:
        inner = parts[0].get("Parts") or []
        if parts[0].get("Dollar"):
            return None
        if parts[0].get("Type") == "SglQuoted":
            return str(parts[0].get("Value", ""))
        parts = inner
    if len(parts) != 1 or parts[0].get("Type") != "Lit":
        return None
    value = str(parts[0].get("Value", ""))
    return None if set(value) & set("\\{*") else value


def _end(node: object) -> int:
    found = node.get("End") if isinstance(node, dict) else None
    return int((found or {}).get("Offset", 0))
