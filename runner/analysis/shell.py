"""Shell text -> every simple command in it.

The syntax tree is walked as a whole: what is known is handled by its kind, and everything else is
searched for commands inside, so that a construct this module never heard of hides nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace

from runner.analysis import constants, plain, shfmt
from runner.analysis.context import TEXTS_LIMIT, Call, Place, Readers
from runner.analysis.shfmt import Node, ShellSyntaxError
from runner.analysis.unwrap import SUBSCRIPT
from runner.analysis.words import WordReader
from runner.model.intent import Access, Assignment, PathUse, Word

_DIALECTS = {
    # `sh` may be dash or bash, so what either makes of it counts.
    "sh": ("posix", "bash"),
    "bash": ("bash",),
    "ksh": ("mksh", "bash"),
    "zsh": ("zsh", "bash"),
}
_BASH_DIFFERS = re.compile(
    rb"\(\(|\[\[|\$['\"]|[{]|=\(|&>|\|&|<\(|>\(|<<<"
    rb"|\b(?:time|let|declare|typeset|local|export|readonly|nameref|coproc|select|function)\b"
)
"""Where bash and a POSIX shell may read the same text as different commands."""
_READS = frozenset({"<", "<>"})
_WRITES = frozenset({">", ">>", ">|", "&>", "&>>", "<>", ">!", ">>|", "&>|"})
_FEEDS = frozenset({"<<", "<<-", "<<<"})
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_MARK_LIMIT = 64
"""Characters of what `xargs -I` replaces; a longer one is not looked for."""
_DESCRIPTOR = re.compile(r"\d+-?|-")


def read_shell(readers: Readers, text: Word, place: Place) -> None:
    """Note every command of `text`; its failure to parse is noted as unreadable."""
    found = readers.found
    if text.dynamic:
        _read_partly(readers, text, place)
        return
    words = plain.words(text.text)
    if words is not None:
        readers.command(Call(words, place))
        return
    found.texts += 1
    if found.texts > TEXTS_LIMIT:
        found.fail(f"it holds more than the {TEXTS_LIMIT} nested texts that are read")
        return
    try:
        source = text.text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        found.fail("the shell text holds characters that no encoding has")
        return
    dialects = _DIALECTS[place.language]
    if place.language == "sh" and not _BASH_DIFFERS.search(source):
        dialects = ("posix",)
    try:
        _read_all(readers, source, place, dialects)
    except ShellSyntaxError as error:
        if place.language == "sh" and _read_as_bash(readers, source, place):
            readers.unknown(text.text, place.in_doubt)
        elif not place.advice:
            found.fail(str(error))


def _read_as_bash(readers: Readers, source: bytes, place: Place) -> bool:
    """Read a text for `sh` that only bash takes (`&>`): where `sh` is bash, it means just that."""
    try:
        _read_all(readers, source, place, ("bash",))
    except ShellSyntaxError:
        return False
    return True


def _read_partly(readers: Readers, text: Word, place: Place) -> None:
    """A text with something dynamic in it: anything could run.

    Where it starts with something literal that is no more than a doubt, if what is known of it can
    be read with a variable in the place of what is not.
    """
    noted = len(readers.found.commands)
    if text.prefix.strip():
        read_shell(readers, Word(_with_variable(text)), replace(place, advice=True))
    understood = len(readers.found.commands) > noted
    readers.unknown(text.text, place.in_doubt if understood else place)


def _with_variable(text: Word) -> str:
    """What is known of a dynamic text, and `$unknown` for the rest."""
    if not text.text.startswith(text.prefix):
        return f"{text.prefix}$unknown{text.suffix}"
    # `find -exec` and `xargs -I` give what the words become, a mark (`{}`) in it, perhaps often.
    middle = text.text[len(text.prefix) : len(text.text) - len(text.suffix)]
    sizes = range(1, min(len(middle), _MARK_LIMIT) + 1)
    size = next((n for n in sizes if middle.endswith(middle[:n])), 0)
    return text.text.replace(middle[:size], "$unknown") if size else ""


def _read_all(readers: Readers, source: bytes, place: Place, dialects: tuple[str, ...]) -> None:
    """Read by each dialect; the first must parse, commands that only another sees are added."""
    commands = readers.found.commands
    start = len(commands)
    for dialect in dialects:
        before = len(commands)
        try:
            tree = shfmt.parse(source, dialect)
        except ShellSyntaxError:
            if dialect == dialects[0]:
                raise
            continue
        _Walk(readers, tree, source, place, dialect).run()
        if before > start:
            seen = set(commands[start:before])
            commands[before:] = [each for each in commands[before:] if each not in seen]


class _Walk:
    """One text in one dialect."""

    def __init__(
        self, readers: Readers, tree: Node, source: bytes, place: Place, dialect: str
    ) -> None:
        self._readers = readers
        self._tree = tree
        self._place = place
        sure = constants.find(tree, source, outermost=place.depth == 0)
        self._words = WordReader(source, braces=dialect != "posix", constants=sure)
        self._source = source

    def run(self) -> None:
        """Search the tree for statements, in order, without recursion."""
        stack: list[tuple[object, Place]] = [(self._tree, self._place)]
        while stack:
            node, place = stack.pop()
            if isinstance(node, dict):
                if "Type" not in node and ("Cmd" in node or "Redirs" in node):
                    place = self._statement(node, place)
                elif node.get("Type") == "ParamExp":
                    self._parameter(node, place)
                elif node.get("Type") == "Word":
                    self._operand(node, place)
                inside: list[object] = [v for k, v in node.items() if k not in ("Pos", "End")]
            elif isinstance(node, list):
                inside = node
            else:
                continue
            stack.extend((each, place) for each in reversed(inside))

    def _statement(self, node: Node, place: Place) -> Place:
        """Note a statement's command and files; the place of what stands inside it."""
        redirects = node.get("Redirs") or []
        uses = tuple(use for each in redirects for use in self._redirect(each))
        fed = [each for each in redirects if each.get("Op") in _FEEDS]
        stdin = self._words.heredoc(fed[-1]) if fed else None
        command = node.get("Cmd") or {}
        kind = command.get("Type")
        if place.depth == 0:
            # Lines of a text inside a command would mean nothing to who wrote the request.
            place = replace(place, line=(node.get("Pos") or {}).get("Line", 1))
        if kind == "CallExpr":
            self._call(command, place, uses, stdin)
        elif kind == "DeclClause":
            self._declaration(command, place, uses)
        elif uses:
            self._readers.command(Call((), place, redirects=uses))
        if kind == "TimeClause":
            return replace(place, via=(*place.via, "time"))
        return place

    def _call(
        self, node: Node, place: Place, uses: tuple[PathUse, ...], stdin: Word | None
    ) -> None:
        words = [word for each in node.get("Args") or [] for word in self._words.words(each)]
        assignments = tuple(self._assignment(each) for each in node.get("Assigns") or [])
        self._readers.command(Call(tuple(words), place, assignments, uses, stdin))

    def _declaration(self, node: Node, place: Place, uses: tuple[PathUse, ...]) -> None:
        """`export A=1`: a command of its words, and the assignments that it makes."""
        words = [Word((node.get("Variant") or {}).get("Value", "declare"))]
        assignments = []
        for each in node.get("Args") or []:
            if "Name" not in each:
                words += self._words.words(each.get("Value") or {})
                continue
            assignment = self._assignment(each)
            if each.get("Naked"):
                words.append(Word(assignment.name))
                continue
            assignments.append(assignment)
            value = assignment.value
            words.append(Word(f"{assignment.name}={value.text}", value.dynamic,
                              prefix=f"{assignment.name}=", many=False))  # fmt: skip
        words = [word if word.dynamic else Word(word.text) for word in words]
        self._readers.command(Call(tuple(words), place, tuple(assignments), uses))

    def _assignment(self, node: Node) -> Assignment:
        # Not the tree's name: a subscript may have been read as a part of it.
        found = _NAME.match(
            self._source, ((node.get("Name") or {}).get("Pos") or {}).get("Offset", 0)
        )
        name = found[0].decode() if found else ""
        if "Array" in node:
            return Assignment(name, Word(self._span(node["Array"]), dynamic=True))
        return Assignment(name, self._words.value(node.get("Value")))

    def _redirect(self, node: Node) -> list[PathUse]:
        operator = node.get("Op")
        if operator in _FEEDS:
            return []
        path = self._words.value(node.get("Word"))
        if operator in ("<&", ">&"):
            # `2>&1` copies a descriptor; `>&file` writes.
            if operator == "<&" or (not path.dynamic and _DESCRIPTOR.fullmatch(path.text)):
                return []
            return [PathUse(path, Access.WRITE)]
        uses = []
        if operator in _READS:
            uses.append(PathUse(path, Access.READ))
        if operator in _WRITES or operator not in _READS:
            uses.append(PathUse(path, Access.WRITE))
        return uses

    def _parameter(self, node: Node, place: Place) -> None:
        operation = node.get("Exp") or {}
        transform = ((operation.get("Word") or {}).get("Parts") or [{}])[0].get("Value")
        if operation.get("Op") == "@" and transform == "P":
            # `${x@P}` expands the value like a prompt, substitutions included.
            self._readers.unknown(self._span(node), place.behind("@P"))

    def _operand(self, node: Node, place: Place) -> None:
        """A word of a test or of arithmetic: a quoted subscript is run all the same."""
        word = self._words.value(node)
        if not word.dynamic and SUBSCRIPT.search(word.text):
            self._readers.unknown(word.text, place.behind("arithmetic"))

    def _span(self, node: Node) -> str:
        start = (node.get("Pos") or {}).get("Offset", 0)
        end = (node.get("End") or {}).get("Offset", 0)
        return self._source[start:end].decode("utf-8", "surrogateescape")
