"""Where bash reads a text otherwise than the tree has it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from runner.analysis.shell.constants import nodes
from runner.analysis.shell.shfmt import Node

_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z_]\w*)(?P<index>\[.*\])?(?P<more>\+)?=", re.ASCII | re.DOTALL
)
_SCANNED = "scanned"


def in_front(command: Node) -> None:
    """Put right what the tree makes of the words behind `coproc` and `time`."""
    if command.get("Type") == "CoprocClause":
        _without_name(command)
    elif command.get("Type") == "TimeClause":
        _without_dashes(command)


def _without_name(command: Node) -> None:
    """Before a plain command no word names a coprocess (bash(1)).

    The tree takes the word behind `coproc` for its name, in front of what may be assignments.
    """
    first = command.get("Stmt") or {}
    while (first.get("Cmd") or {}).get("Type") == "BinaryCmd":
        first = first["Cmd"].get("X") or {}
    plain_command = first.get("Cmd") or {}
    if command.get("Name") and not plain_command:  # one word, and redirections behind it
        name = command["Name"]
        plain_command = {"Type": "CallExpr", "Pos": name.get("Pos"), "End": name.get("End")}
        first["Cmd"] = plain_command
    if plain_command.get("Type") != "CallExpr":
        return
    words, assigns = plain_command.get("Args") or [], plain_command.get("Assigns") or []
    if command.get("Name"):
        taken = command.pop("Name")
    elif words and not (assigns and _offset(assigns[0]) < _offset(words[0])):
        taken = words.pop(0)
    else:
        return
    assign = _as_assign(taken)
    if assign is not None:
        plain_command["Assigns"] = [assign, *assigns]
    else:
        _put_in_front(plain_command, [taken])


def _offset(node: Node) -> int:
    return int((node.get("Pos") or {}).get("Offset", 0))


def _as_assign(word: Node) -> Node | None:
    """The assignment that a word is in front of a command, if it is one."""
    parts = word.get("Parts") or []
    literal = list(itertools.takewhile(lambda part: part.get("Type") == "Lit", parts))
    found = _ASSIGNED.match("".join(part.get("Value", "") for part in literal))
    if found is None:
        return None
    place = {"Pos": word.get("Pos"), "End": word.get("End")}
    if found["index"] or len(literal) > 1:  # an element, or a name over two lines
        value = [{**place, "Type": "Unknown"}]
    else:
        value = [{**literal[0], "Value": literal[0]["Value"][found.end() :]}, *parts[1:]]
    name = {**place, "Value": found["name"]}
    return {
        **place, "Name": name, "Append": bool(found["more"]), "Value": {**place, "Parts": value},
    }  # fmt: skip


def _without_dashes(command: Node) -> None:
    """Behind `time`, `--` ends its options (bash(1), Pipelines); the tree has it for a command."""
    inner = (command.get("Stmt") or {}).get("Cmd") or {}
    words = inner.get("Args") or []
    parts = words[0].get("Parts") or [] if words else []
    if inner.get("Assigns") or [part.get("Value") for part in parts] != ["--"]:
        return
    if parts[0].get("Type") == "Lit":
        del words[0]
        assigns = []
        while words and (assign := _as_assign(words[0])) is not None:
            assigns.append(assign)
            del words[0]
        if assigns:
            inner["Assigns"] = assigns


def timed(statement: Node) -> Node:
    """Behind a pipe `time` is no reserved word (bash(1)) but a program, with options of its own."""
    timing = statement.get("Cmd") or {}
    inner = timing.get("Stmt") or {}
    if timing.get("Type") != "TimeClause" or (inner.get("Cmd") or {}).get("Type") != "CallExpr":
        return statement
    words = ["time", "-p"] if timing.get("PosixFormat") else ["time"]
    _put_in_front(inner["Cmd"], [{"Parts": [{"Type": "Lit", "Value": word}]} for word in words])
    return inner


def _put_in_front(command: Node, words: Sequence[Node]) -> None:
    """Give a command these words in front of its own; its assignments are words as well then."""
    assigned = [_as_word(each) for each in command.pop("Assigns", None) or []]
    command["Args"] = [*words, *assigned, *(command.get("Args") or [])]


def _as_word(assign: Node) -> Node:
    value = assign.get("Value") or {}
    word: Node = {"Pos": assign.get("Pos"), "End": assign.get("End")}
    if "Name" not in assign or assign.get("Array") or assign.get("Index"):
        return {**word, "Parts": [{**word, "Type": "Unknown"}]}
    name = assign["Name"]["Value"] + ("+=" if assign.get("Append") else "=")
    parts = [{**word, "Type": "Lit", "Value": name}, *(value.get("Parts") or [])]
    return {**word, "Parts": parts}


def is_subshell(node: Node, text: str) -> bool:
    """Whether bash may take `$((…))` for a substitution with a subshell inside: `$( (…))`.

    It counts parentheses, those of `case` in an inner substitution too, and where they don't pair
    what looks like arithmetic is run. `text`: the source of `node`.
    """
    if "$(" not in text[1:] and "`" not in text:
        return False
    unquoted = _QUOTED.sub("", text)
    pairs = all(each.count("(") == each.count(")") for each in (text, unquoted))
    return not pairs or any(each.get("Type") == "CaseClause" for each in nodes(node))


def loses_separator(substitution: Node) -> bool:
    """Whether bash may join two commands inside: `$(cat <<E … E` and on the next line `a; b)`.

    bash 5.2 writes a substitution anew after parsing it, and loses a `;` behind a heredoc: `a b`
    is what runs. Substitutions inside this one are looked at with it.
    """
    if substitution.get(_SCANNED):
        return False
    heredoc = separated = False
    for each in nodes(substitution):
        if each.get("Type") in ("CmdSubst", "ProcSubst"):
            each[_SCANNED] = True
        heredoc = heredoc or each.get("Op") in ("<<", "<<-")
        separated = separated or bool((each.get("Semicolon") or {}).get("Line"))
    return heredoc and separated
